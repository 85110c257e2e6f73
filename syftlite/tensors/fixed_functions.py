"""Functions of FixedPrecisionTensors: exp, log, roots, reciprocals, quotients, and curves that level off.

    exp log sqrt rsqrt reciprocal     one kernel each, with what the gradient needs
    sigmoid tanh silu gelu            and the derivative, from the same opening
    x / y                             as exact as y is, however large

A derivative is found with the value where it costs no message of its own, and else computed from the value on the way back:

    exp' = y      log' = 1 / x      sqrt' = rsqrt / 2      rsqrt' = -y^3 / 2      reciprocal' = -y^2

Ranges and errors: docs/encrypted.md. Functions compute with a power of two as scale; another scale is changed to 2^16 and back.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F

from syftlite._torch import aten, below_functions
from syftlite.errors import Misuse
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.fixed import PRECISION, FixedPrecisionTensor
from syftlite.tensors.fixed_gradients import differentiated_once
from syftlite.tensors.fixed_masks import note_multiple
from syftlite.tensors.fixed_memory import held
from syftlite.tensors.fixed_nn import needs_history
from syftlite.tensors.fixed_ops import Args, Named, encoded, implements, number, same_scale
from syftlite.tensors.waiting import Waiting, widest

Fixed = FixedPrecisionTensor
FACTOR_BITS = 20
DIGITS = 16
"""Binary digits of the inverse of a public divisor in a tensor of them."""
FURTHEST = 2.0**46
"""What has room for so many is 0 to within a unit when divided by more than this."""


class Form(NamedTuple):
    """Bits after the point that a kernel computes with, and the layer's scale."""

    f: int
    scale: int

    @classmethod
    def of(cls, scale: int) -> Form:
        """A power of two as it is; else 2^16."""
        return cls(PRECISION if scale & (scale - 1) else scale.bit_length() - 1, scale)

    def enter(self, child: Any) -> Any:
        """Ring elements as the kernel wants them."""
        return child if self.scale == 1 << self.f else _scaled(child, (1 << self.f) / self.scale)

    def leave(self, child: Any) -> Any:
        """And back."""
        return child if self.scale == 1 << self.f else _scaled(child, self.scale / (1 << self.f))


def _scaled(child: Any, factor: float) -> Any:
    return arithmetic(child).truncate(child * round(factor * (1 << FACTOR_BITS)), FACTOR_BITS)


class Function(NamedTuple):
    """``run(ring, child, f, history)``: the value's ring elements, then what ``slope(y, *rest)`` needs besides to give the derivative."""

    run: Callable[..., tuple[Any, ...]]
    slope: Callable[..., Any]


def _curve(name: str) -> Function:
    return Function(lambda ring, x, f, history: ring.curve(x, f, name, history), lambda y, slope: slope)


def _root(name: str, also: tuple[str, ...], slope: Callable[..., Any], signed: bool = False) -> Function:
    def run(ring: Any, x: Any, f: int, history: bool) -> tuple[Any, ...]:
        names = tuple(sorted((name, *also), key=_ORDER.index)) if history else (name,)
        found = dict(zip(names, ring.roots(x, f, names, signed)))
        return (found.pop(name), *found.values())

    return Function(run, slope)


_ORDER = ("reciprocal", "rsqrt", "sqrt", "log")
FUNCTIONS: dict[str, Function] = {
    "exp": Function(lambda ring, x, f, history: (ring.exp(x, f),), lambda y: y),
    "log": _root("log", ("reciprocal",), lambda y, inverse: inverse),
    "sqrt": _root("sqrt", ("rsqrt",), lambda y, inverse: inverse * 0.5),
    "rsqrt": _root("rsqrt", (), lambda y: y * y * y * -0.5),
    "reciprocal": _root("reciprocal", (), lambda y: -(y * y), signed=True),
    **{name: _curve(name) for name in ("sigmoid", "tanh", "silu", "gelu")},
}


def computed(name: str, x: Fixed, history: bool = False) -> tuple[Fixed, ...]:
    """Function ``name`` of ``x``, then what its derivative needs besides."""
    child, form = x._child, Form.of(x.scale)
    found = FUNCTIONS[name].run(arithmetic(child), form.enter(child), form.f, history)
    return tuple(Fixed.of(form.leave(y), x.attributes()) for y in found)


@differentiated_once()
class _Applied(torch.autograd.Function):
    """Function ``name`` of ``x``, its derivative found on the way forth."""

    @staticmethod
    def forward(ctx: Any, x: Fixed, name: str) -> Fixed:
        y, *rest = computed(name, x, history=True)
        ctx.name, ctx.rest = name, (held(y), *rest)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] * FUNCTIONS[ctx.name].slope(*ctx.rest), None


def applied(name: str, x: Any) -> Any:
    """Function ``name`` of ``x``; gradients flow through."""
    return _Applied.apply(x, name) if needs_history(x) else computed(name, x)[0]  # type: ignore[no-untyped-call]


def _enter(name: str, *functions: Any) -> None:
    """Register function ``name`` for torch's ``functions`` and for the operator."""

    def function(x: Any, inplace: bool = False, *, approximate: str = "none") -> Any:
        y = applied(name, x) if approximate == "none" else _by_tanh(x)
        return x.copy_(y) if inplace else y

    function.__name__, function.__doc__ = name, f"{name} of each element."
    Fixed.reexpresses(*functions)(function)

    def operator(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
        return computed(name, args[0])[0]

    implements(getattr(aten, name).default)(operator)


def _by_tanh(x: Any) -> Any:
    """gelu(x, approximate="tanh"): x / 2 (1 + tanh(z)) = x sigmoid(2 z)."""
    slope = 2 * math.sqrt(2 / math.pi)
    return x * applied("sigmoid", x * (x * x * (0.044715 * slope) + slope))


for _name in ("exp", "log", "sqrt", "rsqrt", "reciprocal", "sigmoid", "tanh"):
    _enter(_name, getattr(torch, _name), getattr(torch.Tensor, _name))
_enter("silu", F.silu)
_enter("gelu", F.gelu)
Fixed.reexpresses(torch.special.expit)(lambda x: applied("sigmoid", x))


# -- quotients


@differentiated_once("division")
class _Divided(torch.autograd.Function):
    """x / y, both of the layer, of one shape."""

    @staticmethod
    def forward(ctx: Any, x: Fixed, y: Fixed) -> Fixed:
        out = quotient(x, y)
        ctx.y, ctx.out = held(y), held(out)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        to_x = grads[0] * computed("reciprocal", ctx.y)[0]
        return to_x, -(to_x * ctx.out)


def quotient(x: Any, y: Fixed) -> Fixed:
    """x / y without history; x may be public."""
    scheme, form = same_scale(x, y), Form.of(y.scale)
    above = x._child if isinstance(x, Fixed) else encoded(x, y.scale, "aten.div")
    if not isinstance(above, torch.Tensor):
        above = torch.tensor(above)
    ring = arithmetic(above, y._child)
    ring.check(above, y._child)
    return Fixed.of(form.leave(ring.divide(form.enter(above), form.enter(y._child), form.f)), scheme)


def divided(x: Any, y: Any, *, rounding_mode: Any = None) -> Any:
    """x / y where y is of the layer."""
    if rounding_mode is not None:
        raise NotImplementedError("FixedPrecisionTensor divides without rounding_mode")
    if isinstance(x, Fixed) and needs_history(x, y):
        return _Divided.apply(*torch.broadcast_tensors(x, y))  # type: ignore[no-untyped-call]
    if needs_history(y):
        return applied("reciprocal", y) * x
    return quotient(x, y)


@implements(aten.div.Tensor, aten.div.Scalar)
def _div(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, y = args
    if isinstance(y, Fixed):
        return quotient(x, y)
    by = number(y)
    if not (y.all() if isinstance(y, torch.Tensor) else by):
        raise ZeroDivisionError(f"{func}: the divisor is 0, or has a 0, and fixed precision has no infinity: divide where it is not 0")
    if by is None:
        return _by_tensor(x, y, func)
    if by.is_integer() and by > 0:
        raw, divisor = x.linear() if (x.divisor * int(by)).bit_length() <= widest(x.scale) else (x._child, 1)
        itself = divisor * by == 1 and isinstance(raw, torch.Tensor)
        out = cls.of(Waiting(raw.clone() if itself else raw, divisor * int(by)), x.attributes())
        out.reads_later()
        return note_multiple(out, x, 1.0 / by)
    return x * (1.0 / by)


def _by_tensor(x: Fixed, y: torch.Tensor, func: Any) -> Fixed:
    """x / y by public numbers y, each inverse to `DIGITS` binary digits. Where these are of magnitudes too far apart for one division by a
    power of two, the fractions of all come first, of 1/2 to 1, and then what is left of each power."""
    encoded(1.0 / y, x.scale, func)
    room, y = widest(x.scale), y.detach().double()
    seen = y.abs() < FURTHEST
    exponents = torch.where(seen, y.frexp().exponent, y.frexp().exponent.new_tensor(-1100)).long()
    most = int(exponents.max()) if exponents.numel() else 0
    if most <= room - DIGITS + 1:
        return _times(x, torch.where(seen, 2.0**room / y, 0.0), room)
    exponents = torch.where(seen, exponents, most)
    least = int(exponents.min())
    if most - least > room:
        raise Misuse(
            f"{func}: public divisors of {float(y.abs().min()):g} to {float(y[seen].abs().max()):g} are too far apart to divide by all at "
            f"once, by more than 2^{room}: divide by small and by large ones apart"
        )
    x = _times(x, torch.where(seen, 2.0 ** (exponents + DIGITS - 1) / y, 0.0), DIGITS - 1 + least)
    return x if most == least else _times(x, 2.0 ** (most - exponents), most - least)


def _times(x: Fixed, factors: torch.Tensor, bits: int) -> Fixed:
    """x * factors / 2^bits."""
    return Fixed.of(Waiting(x._child * factors.round().long(), 1 << bits), x.attributes())


@implements(aten.pow.Tensor_Scalar)
def _pow(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return power(*args)


def power(x: Any, exponent: Any) -> Any:
    """x to a whole power, or to a half of one."""
    if isinstance(exponent, torch.Tensor) and not isinstance(exponent, Fixed) and exponent.numel() == 1:
        exponent = exponent.item()
    if isinstance(exponent, torch.Tensor) or 2 * exponent != int(2 * exponent):
        raise NotImplementedError(f"FixedPrecisionTensor knows pow of whole powers and halves of them, and not {exponent}")
    if exponent < 0:  # not sqrt(1 / x): the error of 1 / x would count half again, and the second function wait for the first
        half = applied("rsqrt", x) if exponent != int(exponent) else None
        whole = power(applied("reciprocal", x), int(-exponent)) if exponent <= -1 else None
        return whole if half is None else half if whole is None else half * whole
    if exponent != int(exponent):
        root = applied("sqrt", x)
        return root if exponent == 0.5 else root * power(x, int(exponent - 0.5))
    if exponent == 1:
        return x.clone()
    times, result = int(exponent), None
    while times:
        if times & 1:
            result = x if result is None else result * x
        times >>= 1
        x = x * x if times else x
    return x * 0 + 1 if result is None else result


@Fixed.reexpresses(torch.pow, torch.Tensor.pow, torch.Tensor.__pow__)
def _power(x: Any, exponent: Any) -> Any:
    if not isinstance(x, Fixed):
        raise NotImplementedError("FixedPrecisionTensor knows no public base with a secret exponent: use exp() of a multiple")
    return power(x, exponent)


@Fixed.reexpresses(torch.div, torch.true_divide, torch.Tensor.div, torch.Tensor.__truediv__, torch.Tensor.true_divide)
def _divided(x: Any, y: Any, **options: Any) -> Any:
    if isinstance(y, Fixed):
        return divided(x, y, **options)
    with below_functions():
        return torch.div(x, y, **options)


@Fixed.reexpresses(torch.Tensor.__rtruediv__)
def _over(y: Any, x: Any) -> Any:
    return divided(x, y)
