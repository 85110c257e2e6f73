"""Division of AdditiveSharingTensors by public whole numbers: exact for secrets below 2^62 in magnitude.

    x << n               x 2^n
    x >> n               y = x / 2^n, truncated, which may be one too many:  y - [x < y 2^n]
    x // d, x % d        a quotient, and quotients of what is left, until that is within 2 d; where it lies among -d, 0, d tells the rest
    div "trunc", fmod    of |x|, with the sign of x

Divisors of different lengths are done apart: a quotient is by a factor of as many digits as there is room for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from syftlite._torch import aten, broadcast
from syftlite.errors import Misuse
from syftlite.remote.shared_ops import whole
from syftlite.remote.sharing import AdditiveSharingTensor, must_be_here, ring

Shared = AdditiveSharingTensor
implements = AdditiveSharingTensor.implements
Args = tuple[Any, ...]
Named = dict[str, Any]
BITS = 62
"""Secrets are below 2^62 in magnitude: what is truncated has to be."""
STEPS = ((BITS, 31, 30), (32, 0, 27), (6, 0, 27))
"""(up to which length of a divisor, bits that the dividend loses, digits of the factor) of each quotient. After the first, what is left is
within 2^33 + 2 d, after the second within 2^7 + 2 d, then within d and the truncation's unit of d."""


def _public(func: Any, value: Any) -> torch.Tensor:
    """A divisor, or a count of bits, as int64."""
    if isinstance(value, Shared):
        raise Misuse(f"{func}: ring elements are divided and shifted by what is public; fix_precision() both for a quotient of secrets")
    must_be_here(value)
    return ring(value) if isinstance(value, torch.Tensor) and value.dim() else torch.tensor(whole(value))


def _operands(func: Any, x: Any, y: Any) -> tuple[Shared, torch.Tensor]:
    if not isinstance(x, Shared):
        raise Misuse(f"{func}: ring elements divide and shift nothing; fix_precision() for a real quotient, or get() the value first")
    return x, _public(func, y)


# -- quotients


def _floor(func: Any, x: Any, divisor: torch.Tensor) -> Any:
    """x / divisor, rounded down."""
    if bool((divisor == 0).any()):
        raise RuntimeError("ZeroDivisionError")
    shape = broadcast(x.shape, divisor.shape)
    if bool((divisor < 0).any()):
        x, divisor = x * divisor.sign(), divisor.abs()
    flat, by = x.expand(shape).reshape(-1), divisor.expand(shape).reshape(-1)
    lengths = _lengths(by)
    kinds = lengths * 2 + ((by & (by - 1)) == 0)
    places = [(kinds == kind).nonzero().squeeze(1) for kind in kinds.unique()]
    if len(places) < 2:
        return (_alike(flat, by, int(lengths[0])) if len(by) else flat.clone()).reshape(shape)
    parts = [_alike(flat[place], by[place], int(lengths[place[0]])) for place in places]
    return torch.cat(parts)[torch.cat(places).argsort()].reshape(shape)


def _lengths(divisor: torch.Tensor) -> torch.Tensor:
    """floor(log2 d), and `BITS` from 2^62 on, where -2^63 is too."""
    powers = 1 << torch.arange(1, BITS + 1)
    return torch.where(divisor < 0, BITS, torch.searchsorted(powers, divisor.contiguous(), right=True))


def _alike(x: Any, divisor: torch.Tensor, length: int) -> Any:
    """Quotients by positive divisors of one length, which are powers of two, or none is."""
    if length >= BITS:
        return -_below(x)
    if bool((divisor & (divisor - 1) == 0).all()):
        y = x.arithmetic.truncate(x, length)
        return y - _below(x - y * (1 << length)) if length else x.clone()
    quotient, left = _nearly(x, divisor, length)
    after = _below(torch.stack([left + divisor, left, left - divisor])).sum(0)
    return quotient + 1 - after


def _nearly(x: Any, divisor: torch.Tensor, length: int) -> tuple[Any, Any]:
    """(a quotient, what it leaves): within two divisors of 0."""
    quotient, left = x * 0, x
    if length == BITS - 1:
        return quotient, left
    for most, lost, digits in STEPS:
        if length <= most:
            factor = (2.0 ** (length + digits) / divisor.double()).round().long()
            part = x.arithmetic.truncate(x.arithmetic.truncate(left, lost) * factor, length + digits - lost)
            quotient, left = quotient + part, left - part * divisor
    return quotient, left


def _below(x: Any) -> Any:
    """1 where x < 0, else 0, whatever the bound of the block that this is in: it is none on what is left."""
    return x.arithmetic.less(x, 0)


def _toward_zero(func: Any, x: Any, divisor: torch.Tensor) -> Any:
    magnitude, positive = x.arithmetic.relu_and_mask(x, 0)
    sign = positive * 2 - 1
    return _floor(func, magnitude * 2 - x, divisor.clamp(min=1 - (1 << 63)).abs()) * sign * divisor.sign()


# -- operators


@implements(aten.div.Tensor_mode, aten.div.Scalar_mode)
def _divide(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    mode = kwargs.get("rounding_mode")
    if mode is None:
        return cls.fallback(aten.div.Tensor, args, {})
    return (_floor if mode == "floor" else _toward_zero)(func, *_operands(func, *args))


@implements(aten.floor_divide.default, aten.floor_divide.Scalar)
def _floor_divide(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    return _floor(func, *_operands(func, *args))


def _remainder(quotient: Callable[..., Any]) -> Callable[..., Any]:
    def remainder(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
        x, divisor = _operands(func, *args)
        return x - quotient(func, x, divisor) * divisor

    return remainder


implements(aten.remainder.Scalar, aten.remainder.Tensor)(_remainder(_floor))
implements(aten.fmod.Scalar, aten.fmod.Tensor)(_remainder(_toward_zero))


def _enter(way: str, shifted: Callable[[Shared, torch.Tensor], Any]) -> None:
    """Register a shift, for all that writes it."""
    name = f"bitwise_{way}_shift"

    def shift(x: Any, count: Any) -> Any:
        secret, by = _operands(name, x, count)
        if bool(((by < 0) | (by > 63)).any()):
            raise ValueError(f"{name}: elements have 64 bits, and are shifted by 0 to 63 of them, not {by.tolist()}")
        return shifted(secret, by)

    def in_place(x: Any, count: Any) -> Any:
        made = shift(x, count)
        return x.copy_(made)

    letter = way[0]
    for there, plain in ((torch, name), (torch.Tensor, name), (torch.Tensor, f"__{letter}shift__")):
        Shared.functions[getattr(there, plain)] = shift
    for plain in (f"{name}_", f"__i{letter}shift__"):
        Shared.functions[getattr(torch.Tensor, plain)] = in_place


_enter("left", lambda x, by: x * (torch.ones_like(by) << by))
_enter("right", lambda x, by: _floor("bitwise_right_shift", x, torch.ones_like(by) << by.clamp(max=BITS)))
