"""TensorFlow's functions as torch computes them on pointers, with TensorFlow's dtypes and its names of arguments.

    RULES     public name -> rule: `reduce_sum`, `nn.relu`; each names the arguments that it honours
              (over axes, products and shapes: tensorflow_library.py)

TensorFlow promotes nothing: two tensors of an operation have one dtype, and a Python number takes it. What it refuses is refused here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from syftlite.errors import PointerMisuseError

RULES: dict[str, Callable[..., Any]] = {}


def rule(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make what it decorates the rule of TensorFlow's functions of these public names."""

    def register(given: Callable[..., Any]) -> Callable[..., Any]:
        RULES.update(dict.fromkeys(names, given))
        return given

    return register


# -- dtypes

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8,
        torch.bool, torch.complex64, torch.complex128,
    )
}  # fmt: skip


def real(x: Tensor, name: str) -> Tensor:
    """``x``, which must be of floats."""
    if not (x.is_floating_point() or x.is_complex()):
        raise TypeError(f"tf.{name} takes floats, not {name_of(x.dtype)}: tf.cast it first")
    return x


def truths(x: Tensor, name: str) -> Tensor:
    """``x``, which must be of truths."""
    if x.dtype is not torch.bool:
        raise TypeError(f"tf.{name} takes tf.bool, not {name_of(x.dtype)}")
    return x


def numbers(x: Tensor, name: str) -> Tensor:
    """``x``, which must be of numbers."""
    if x.dtype is torch.bool:
        raise TypeError(f"tf.{name} takes numbers, not tf.bool: tf.cast it first")
    return x


def pair(x: Any, y: Any, name: str) -> tuple[Tensor, Tensor]:
    """Both as tensors of one dtype: a Python number takes that of the other. Raises TypeError where TensorFlow does."""
    (dtype, *others) = {o.dtype for o in (x, y) if isinstance(o, Tensor)}
    if others:
        raise TypeError(f"tf.{name} takes two tensors of one dtype, not {name_of(dtype)} and {name_of(others[0])}: tf.cast one of them")
    first, second = (o if isinstance(o, Tensor) else number(o, dtype) for o in (x, y))
    return first, second


def number(value: Any, dtype: torch.dtype) -> Tensor:
    """A local number of ``dtype``, if it is one of that kind."""
    if not isinstance(value, (bool, int, float, complex)):
        raise PointerMisuseError("local values met a pointer: send() them to the pointer's worker first")
    whole = not dtype.is_floating_point and not dtype.is_complex
    if (dtype is torch.bool and not isinstance(value, bool)) or (whole and isinstance(value, (float, complex))):
        raise TypeError(f"{value!r} is no {name_of(dtype)}: tf.cast the tensor first")
    return torch.tensor(value, dtype=dtype)


def name_of(dtype: torch.dtype) -> str:
    """TensorFlow's name for it."""
    return str(dtype).removeprefix("torch.")


def dtype_of(name: str) -> torch.dtype:
    """torch's name for TensorFlow's dtype ``name``. Raises TypeError for one that torch lacks."""
    found = DTYPES.get(name)
    if found is None:
        raise TypeError(f"tf.{name} has no counterpart at a worker: {', '.join(DTYPES)} have")
    return found


# -- elementwise

REALS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp, "math.expm1": torch.expm1, "math.log": torch.log, "math.log1p": torch.log1p, "sqrt": torch.sqrt,
    "math.rsqrt": torch.rsqrt, "math.reciprocal": torch.reciprocal, "sin": torch.sin, "cos": torch.cos, "tan": torch.tan,
    "asin": torch.asin, "acos": torch.acos, "atan": torch.atan, "sinh": torch.sinh, "cosh": torch.cosh, "tanh": torch.tanh,
    "asinh": torch.asinh, "acosh": torch.acosh, "atanh": torch.atanh, "sigmoid": torch.sigmoid, "math.erf": torch.erf,
    "floor": torch.floor, "math.ceil": torch.ceil, "math.is_nan": torch.isnan, "math.is_inf": torch.isinf,
    "math.is_finite": torch.isfinite, "nn.elu": torch.nn.functional.elu, "nn.selu": torch.selu, "nn.softplus": torch.nn.functional.softplus,
}  # fmt: skip
"""Of floats."""
NUMBERS: dict[str, Callable[[Tensor], Tensor]] = {
    "abs": torch.abs, "negative": torch.neg, "sign": torch.sgn, "square": torch.square, "nn.relu": torch.relu,
    "nn.relu6": lambda x: x.clamp(0, 6), "round": lambda x: x.round() if x.is_floating_point() else x.clone(),
}  # fmt: skip
"""Of numbers of any kind."""
PAIRS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add, "subtract": torch.sub, "multiply": torch.mul, "pow": torch.pow, "maximum": torch.maximum, "minimum": torch.minimum,
    "math.floordiv": torch.floor_divide, "math.floormod": torch.remainder,
    "math.squared_difference": lambda x, y: (x - y).square(), "less": torch.lt, "less_equal": torch.le, "greater": torch.gt,
    "greater_equal": torch.ge,
}  # fmt: skip
"""Of two tensors of numbers."""
ANY_PAIRS = {"equal": torch.eq, "not_equal": torch.ne}
TRUTHS = {"logical_and": torch.logical_and, "logical_or": torch.logical_or, "math.logical_xor": torch.logical_xor}


def _unary(check: Callable[[Tensor, str], Tensor], name: str, function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def call(x: Any = None, *, features: Any = None, input: Any = None) -> Tensor:
        return function(check(next(o for o in (x, features, input) if o is not None), name))

    return call


def _binary(check: Callable[[Tensor, str], Tensor] | None, name: str, function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    def call(x: Any, y: Any) -> Tensor:
        first, second = pair(x, y, name)
        return function(check(first, name) if check else first, second)

    return call


for _name, _function in REALS.items():
    RULES[_name] = _unary(real, _name, _function)
for _name, _function in NUMBERS.items():
    RULES[_name] = _unary(numbers, _name, _function)
for _name, _two in PAIRS.items():
    RULES[_name] = _binary(numbers, _name, _two)
for _name, _two in ANY_PAIRS.items():
    RULES[_name] = _binary(None, _name, _two)
for _name, _two in TRUTHS.items():
    RULES[_name] = _binary(truths, _name, _two)
RULES["logical_not"] = _unary(truths, "logical_not", torch.logical_not)


@rule("math.atan2")
def _atan2(y: Any, x: Any) -> Tensor:
    first, second = pair(y, x, "math.atan2")
    return torch.atan2(real(first, "math.atan2"), second)


def _as_reals(x: Any, y: Any, name: str) -> tuple[Tensor, Tensor]:
    """Both as what TensorFlow divides them as."""
    first, second = pair(x, y, name)
    if first.is_floating_point() or first.is_complex():
        return first, second
    wide = torch.float32 if numbers(first, name).dtype in (torch.int8, torch.uint8, torch.int16) else torch.float64
    return first.to(wide), second.to(wide)


@rule("divide", "math.truediv")
def _divide(x: Any, y: Any) -> Tensor:
    return torch.true_divide(*_as_reals(x, y, "divide"))


@rule("math.divide_no_nan")
def _divide_no_nan(x: Any, y: Any) -> Tensor:
    first, second = _as_reals(x, y, "math.divide_no_nan")
    return torch.where(second == 0, torch.zeros_like(first / second), first / second)


@rule("nn.leaky_relu")
def _leaky_relu(features: Tensor, alpha: float = 0.2) -> Tensor:
    x = numbers(features, "nn.leaky_relu")
    return torch.nn.functional.leaky_relu(x if x.is_floating_point() else x.float(), alpha)


@rule("nn.gelu")
def _gelu(features: Tensor, approximate: bool = False) -> Tensor:
    return torch.nn.functional.gelu(real(features, "nn.gelu"), approximate="tanh" if approximate else "none")


@rule("nn.softmax")
def _softmax(logits: Tensor, axis: int | None = -1) -> Tensor:
    return torch.softmax(real(logits, "nn.softmax"), -1 if axis is None else axis)


@rule("nn.log_softmax")
def _log_softmax(logits: Tensor, axis: int | None = -1) -> Tensor:
    return torch.log_softmax(real(logits, "nn.log_softmax"), -1 if axis is None else axis)


@rule("clip_by_value")
def _clip(t: Tensor, clip_value_min: Any, clip_value_max: Any) -> Tensor:
    low, high = (pair(t, bound, "clip_by_value")[1] for bound in (clip_value_min, clip_value_max))
    return torch.minimum(torch.maximum(numbers(t, "clip_by_value"), low), high)


@rule("where")
def _where(condition: Any, x: Any = None, y: Any = None) -> Tensor:
    if x is None or y is None:
        raise TypeError("tf.where without x and y makes a tensor whose size is known by its values alone: give both")
    return torch.where(truths(condition, "where"), *pair(x, y, "where"))


@rule("identity", "stop_gradient")
def _identity(input: Tensor) -> Tensor:
    return input.clone()


@rule("zeros_like")
def _zeros_like(input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.zeros_like(input, dtype=dtype)


@rule("ones_like")
def _ones_like(input: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return torch.ones_like(input, dtype=dtype)


@rule("cast")
def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x.to(dtype)
