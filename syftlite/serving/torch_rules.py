"""Rules for ATen operators: what each is in a graph. Arguments are as ATen has them.

    linear addmm mm conv2d batch_norm embedding       with weights
    relu clamp dropout ...                            elementwise; functions and norms: torch_functions.py
    mean sum amax                                     over axes; pools: torch_windows.py
    view permute transpose pad                        moving elements; parts: torch_parts.py
    add sub mul div maximum minimum                   of two: of tensors, which broadcast, or of a tensor and a constant
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from syftlite.serving.operators import LOWEST
from syftlite.serving.sequences import NOT_SEEN
from syftlite.serving.torch_call import Call, Value, known, rule


def pair(value: Any) -> tuple[int, int]:
    """One number, or one for rows and one for columns."""
    parts = [value] if isinstance(value, int) else list(value)
    return int(parts[0]), int(parts[-1])


def sides(padding: Any) -> tuple[int, int, int, int]:
    """Top, bottom, left, right."""
    rows, columns = pair(padding)
    return rows, rows, columns, columns


def same_padding(padding: str, apart: Sequence[int], kernel: Sequence[int]) -> tuple[int, int, int, int]:
    """That of "same", or none."""
    rows, columns = (0, 0) if padding == "valid" else (d * (k - 1) for d, k in zip(apart, kernel, strict=True))
    return rows // 2, rows - rows // 2, columns // 2, columns - columns // 2


# -- with weights


@rule("linear", anywhere=True)
def _linear(at: Call, x: Value, weight: Value, bias: Value | None = None) -> Value:
    at.refuse(dim=x.batch == len(x.shape) - 1)
    return at.add("linear", [x], {"weight": at.weight(weight, "weight"), "bias": at.weight(bias, "bias")})


@rule("addmm")
def _addmm(at: Call, bias: Value, x: Value, weight: Value) -> Value:
    w = at.weight(weight, "weight")
    assert w is not None
    return at.add("linear", [x], {"weight": w.t(), "bias": at.weight(bias, "bias")})


@rule("mm", "matmul")
def _matmul(at: Call, x: Value, weight: Value) -> Value:
    if isinstance(weight, Value) and weight.known is None and x.known is None:
        at.refuse(operands=len(x.shape) < 3 or x.shape[:-2] != weight.shape[:-2])
        return at.add("matmul", [x, weight])
    w = at.weight(weight, "second factor")
    at.refuse(factor=w is None or w.dim() != 2 or x.known is not None, dim=x.batch == len(x.shape) - 1)
    assert w is not None
    return at.add("linear", [x], {"weight": w.t()})


@rule("conv2d")
def conv2d(
    at: Call,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    """A convolution of images."""
    w, step, apart = at.weight(weight, "weight"), pair(stride), pair(dilation)
    assert w is not None
    around = same_padding(padding, apart, w.shape[2:]) if isinstance(padding, str) else sides(padding)
    weights = {"weight": w, "bias": at.weight(bias, "bias")}
    return at.add("conv2d", [x], weights, stride=step, padding=around, dilation=apart, groups=groups)


@rule("batch_norm", "_native_batch_norm_legit_no_training")
def batch_norm(at: Call, x: Value, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Value:
    """A batch norm as it is once trained."""
    eps = rest[2] if len(rest) > 2 else rest[1]
    at.refuse(training=len(rest) > 2 and bool(rest[0]))
    m, v = at.weight(mean, "mean"), at.weight(var, "variance")
    at.refuse(statistics=m is None or v is None)
    assert m is not None and v is not None
    scale = (v.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.known.double()
    shift = -m.double() * scale + (0 if bias is None else bias.known.double())
    return at.add("affine", [x], {"scale": scale, "shift": shift})


@rule("embedding")
def _embedding(at: Call, weight: Value, x: Value, *_: Any) -> Value:
    return at.add("embedding", [x], {"weight": at.weight(weight, "weight")})


# -- elementwise


@rule("relu", "relu_", anywhere=True)
def _relu(at: Call, x: Value) -> Value:
    return at.add("relu", [x])


@rule("leaky_relu", "leaky_relu_", anywhere=True)
def _leaky_relu(at: Call, x: Value, slope: float = 0.01) -> Value:
    return at.add("leaky_relu", [x], slope=float(slope))


@rule("hardtanh", "hardtanh_", "clamp", "clamp_", "relu6", anywhere=True)
def _clamp(at: Call, x: Value, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Value:
    default = DEFAULT_LIMITS.get(at.name.rstrip("_"), (None, None))
    ends = [next((v for v in given if v is not None), None) for given in ((low, min, default[0]), (high, max, default[1]))]
    return at.add("clamp", [x], low=ends[0], high=ends[1])


@rule("clamp_min", "clamp_max", anywhere=True)
def _clamp_one(at: Call, x: Value, end: Any) -> Value:
    at.refuse(end=isinstance(end, Value))
    return at.add("clamp", [x], **{"low" if at.name == "clamp_min" else "high": end})


DEFAULT_LIMITS = {"hardtanh": (-1.0, 1.0), "relu6": (0.0, 6.0)}


@rule("dropout", "dropout_", "feature_dropout", anywhere=True)
def _dropout(at: Call, x: Value, probability: float, train: bool) -> Value:
    at.refuse(train=train)
    return x


@rule("contiguous", "clone", "alias", "detach", "detach_", "_to_copy", "to", "lift_fresh_copy", "lift_fresh", anywhere=True)
def _same(at: Call, x: Value, *_: Any, **__: Any) -> Value:
    return x


# -- of axes


@rule("mean", "sum", anywhere=True)
def _mean(at: Call, x: Value, dims: Any = None, keep: bool = False, **_: Any) -> Value:
    given = [dims] if isinstance(dims, int) else dims or range(len(x.shape))
    gone = [d % len(x.shape) for d in given]
    at.batch -= 0 if keep else sum(d < x.batch for d in gone)
    return at.add(at.name, [x], dims=axes_of(at, x, dims), keep=keep)


@rule("amax")
def _amax(at: Call, x: Value, dims: Any = (), keep: bool = False) -> Value:
    return at.add("amax", [x], dims=axes_of(at, x, dims), keep=keep)


def axes_of(at: Call, x: Value, dims: Any) -> tuple[int, ...]:
    """The axes that ``dims`` names, of which the batch is none."""
    axes = tuple(x.axis(d) for d in ([dims] if isinstance(dims, int) else dims or range(len(x.shape))))
    at.refuse(dim=0 in axes)
    return axes


# -- moving elements


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(at: Call, x: Value, *_: Any) -> Value:
    shape = at.shape
    at.refuse(batch=not shape or shape[0] != x.shape[0] or math.prod(shape) != math.prod(x.shape))
    if len(shape) == 2 and len(x.shape) > 1:
        return at.add("flatten", [x])
    return at.add("reshape", [x], shape=shape[1:])


@rule("permute", anywhere=True)
def _permute(at: Call, x: Value, order: Any) -> Value:
    axes = [o % len(x.shape) for o in order]
    at.batch = axes.index(x.batch)
    moved = (0, *[x.axis(o) for o in axes if o != x.batch])
    return at.result(x.name) if moved == tuple(range(len(moved))) else at.add("permute", [x], order=moved)


@rule("transpose", anywhere=True)
def _transpose(at: Call, x: Value, first: int, second: int) -> Value:
    order = list(range(len(x.shape)))
    order[first], order[second] = order[second], order[first]
    return _permute(at, x, order)


@rule("constant_pad_nd", "pad")
def _pad(at: Call, x: Value, padding: Any, *rest: Any) -> Value:
    given = [r for r in rest if r is not None]
    mode, value = ("constant", (*given, 0)[0]) if at.name == "constant_pad_nd" else ((*given, "constant")[0], (*given[1:], 0)[0])
    at.refuse(mode=mode != "constant", padding=len(padding) not in (2, 4) or min(padding) < 0, dimensions=len(x.shape) != 4)
    left, right, top, bottom = (*padding, 0, 0)[:4]
    return at.add("pad", [x], padding=(top, bottom, left, right), value=max(float(value), LOWEST))


# -- of two


def _two(operator: str) -> Callable[..., Value]:
    def apply(at: Call, x: Any, y: Any, *, alpha: Any = 1, **_: Any) -> Value:
        at.refuse(alpha=alpha != 1)
        if isinstance(x, Value) and isinstance(y, Value) and x.known is None and y.known is None:
            return together(at, operator, x, y)
        return _with_constant(at, operator, x, y)

    return apply


def together(at: Call, operator: str, x: Value, y: Value) -> Value:
    """``operator`` of two that depend on the input, and broadcast row by row."""
    at.refuse(broadcasting=len(x.shape) != len(y.shape) or x.shape[x.batch] != y.shape[y.batch])
    return at.add(operator, [x, y])


def _with_constant(at: Call, operator: str, x: Any, y: Any) -> Value:
    """x op c or c op x: a number, or a tensor along one axis."""
    swapped = not isinstance(x, Value) or x.known is not None
    tensor, constant = (y, x) if swapped else (x, y)
    at.refuse(operands=swapped and operator == "divide", constant=at.shape != tensor.shape)
    value = _of_one_row(at, torch.as_tensor(known(constant)).double(), tensor)
    if value.numel() == 1:
        number = float(value)
        at.refuse(divisor=operator == "divide" and not number)
        if operator in ("multiply", "divide"):
            return at.add("scale", [tensor], factor=number if operator == "multiply" else 1 / number)
        sign = -1.0 if operator == "subtract" else 1.0
        return at.add("scale", [tensor], factor=sign if swapped else 1.0, offset=number if swapped else sign * number)
    wide = [i for i, s in enumerate(value.shape) if s > 1]
    at.refuse(constant=not wide)
    if len(wide) > 1:
        return _with_table(at, operator, tensor, value, swapped)
    line = value.flatten()
    if operator in ("multiply", "divide"):
        return at.add("affine", [tensor], {"scale": line if operator == "multiply" else 1 / line}, axis=wide[0])
    if operator == "subtract" and swapped:
        return at.add("affine", [tensor], {"shift": line, "scale": -torch.ones_like(line)}, axis=wide[0])
    return plus(at, tensor, line if operator == "add" else -line, axis=wide[0])


def _of_one_row(at: Call, value: torch.Tensor, x: Value) -> torch.Tensor:
    """A constant that meets ``x`` as (1, ...), the axis of rows first: all have the same."""
    dims = len(x.shape)
    if value.numel() == 1:
        return value
    at.refuse(constant=value.dim() > dims)
    rows = value.reshape((1,) * (dims - value.dim()) + tuple(value.shape)).movedim(x.batch, 0)
    at.refuse(constant=not bool((rows == rows[:1]).all()))
    return rows[:1]


def plus(at: Call, x: Value, added: torch.Tensor, hides: float = LOWEST, **axis: int) -> Value:
    """x + ``added``: a table of one row's shape, or numbers along an ``axis``. Those of ``hides`` and less leave nothing of x."""
    operator, role = ("affine", "shift") if axis else ("plus", "weight")
    seen = added > hides
    if bool(seen.all()):
        return at.add(operator, [x], {role: added}, **axis)
    shown = at.build.add(operator, at.layer, [x.name], {role: torch.where(seen, added, 0.0)}, **axis)
    shape = (-1, *[1] * (len(x.shape) - 1 - axis["axis"] % len(x.shape))) if axis else tuple(added.shape)
    return at.result(at.build.add("masked_fill", at.layer, [shown], mask=flat(~seen), shape=shape, value=NOT_SEEN))


def flat(mask: torch.Tensor) -> tuple[int, ...]:
    """A mask as static numbers."""
    return tuple(mask.long().flatten().tolist())


def _with_table(at: Call, operator: str, x: Value, value: torch.Tensor, swapped: bool) -> Value:
    """x op c or c op x, c being one for each of several axes of a row."""
    if operator in ("multiply", "divide"):
        return at.add("times", [x], {"weight": (value if operator == "multiply" else 1 / value)[0]})
    if operator == "subtract" and swapped:
        x = at.add("scale", [x], factor=-1.0)
    return plus(at, x, (-value if operator == "subtract" and not swapped else value)[0])


for _name, _operator in {"add": "add", "sub": "subtract", "mul": "multiply", "div": "divide"}.items():
    rule(_name, f"{_name}_", anywhere=True)(_two(_operator))


@rule("rsub", anywhere=True)
def _rsub(at: Call, x: Value, y: Any, alpha: Any = 1) -> Value:
    at.refuse(alpha=alpha != 1)
    return _with_constant(at, "subtract", y, x)


@rule("neg", anywhere=True)
def _neg(at: Call, x: Value) -> Value:
    return at.add("scale", [x], factor=-1.0)


@rule("maximum", "minimum", anywhere=True)
def _extreme(at: Call, x: Value, y: Value) -> Value:
    return together(at, at.name, x, y)
