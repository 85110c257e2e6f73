"""What a FixedPrecisionTensor understands: arithmetic on ring elements whose scale, and what waits to be done, are kept with them.

    add, sub    over a common divisor
    products    mul, mm, bmm, ...: wait, with the scale as divisor

Views, sums over axes and what writes: fixed_linear.py; comparisons and maxima: fixed_compare.py; layers: fixed_nn.py.

A float that meets the layer, a number or a plain tensor, is public: it is encoded at the same scale.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import torch

from syftlite._torch import aten, broadcast
from syftlite.errors import Misuse
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_masks import note_multiple, note_sum
from syftlite.tensors.waiting import Product, Waiting, little, widest

Fixed = FixedPrecisionTensor
Args = tuple[Any, ...]
Named = dict[str, Any]
implements = FixedPrecisionTensor.implements
LIMIT = 2.0**62
FACTOR_BITS = (16, 20)
"""Binary digits, at least and at most, of a public factor that is no whole number. Small factors are for large values: these need room."""
SMALLEST = 60
"""What is divided by more bits than these is 0."""


def first_of(args: Any) -> Fixed:
    """The first operand of the layer."""
    for arg in args:
        if isinstance(arg, Fixed):
            return arg
        if isinstance(arg, (list, tuple)) and any(isinstance(a, Fixed) for a in arg):
            return first_of(arg)
    raise AssertionError("no operand of the layer")


def same_scale(*operands: Any) -> dict[str, Any]:
    """The scheme of the operands, which must have one."""
    first, *others = [o for o in operands if isinstance(o, Fixed)]
    scheme: dict[str, Any] = first.attributes()
    for other in others:
        if other.attributes() != scheme and other.scale != first.scale:
            told = " and ".join(f"{o.base}**{o.precision_fractional}" for o in (first, *others))
            raise Misuse(f"operands of scale {told}: fix_precision() both alike")
    return scheme


def encoded(value: Any, scale: int, op: Any = "the operator") -> Any:
    """Public floats as ring elements of ``scale``, for ``op``: a plain tensor, or an int for a number."""
    if isinstance(value, torch.Tensor) and value.dim():
        if isinstance(value, torch.Tensor) and type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise Misuse(f"a fixed-precision tensor met a {type(value).__name__}: fix_precision() it too")
        found = (value.detach().double() * scale).round()
        worst = float(found.abs().max()) if found.numel() else 0.0
        if not worst < LIMIT:
            raise _too_large(worst / scale, scale, op)
        return found.long()
    number = float(value)
    if not abs(number * scale) < LIMIT:
        raise _too_large(number, scale, op)
    return round(number * scale)


def _too_large(value: float, scale: int, op: Any) -> ValueError:
    return ValueError(f"{op}: a public operand of {value:g} does not fit in ring elements of scale {scale}: they stay below 2^62")


def terms(x: Any, y: Any, op: Any) -> tuple[Any, Any, int, dict[str, Any]]:
    """Ring elements of both over a common divisor."""
    scheme = same_scale(x, y)
    if isinstance(x, Fixed) and isinstance(y, Fixed) and x.settled and y.settled:
        return x._child, y._child, 1, scheme
    scale = first_of((x, y)).scale
    common = _common(x, y, scale, op)
    given = [(v.linear() if common > 1 else (v._child, 1)) if isinstance(v, Fixed) else None for v in (x, y)]
    left, right = (
        encoded(v, scale * common, op) if found is None else found[0] if found[1] == common else found[0] * (common // found[1])
        for found, v in zip(given, (x, y), strict=True)
    )
    return left, right, common, scheme


def _common(x: Any, y: Any, scale: int, op: Any) -> int:
    """The divisor over which x and y may be added up: 1 where what waits must be divided first. Nobody knows how large a secret is: so only
    what is known to be small, a quotient or a small public number, is multiplied for the sake of a divisor that waits for the other."""
    operands = [v for v in (x, y) if isinstance(v, Fixed)]
    divisors = [v.divisor for v in operands]
    common = max(divisors)
    if common.bit_length() > widest(scale):
        return common if len(operands) == 2 and min(divisors) == common else 1
    if any(d != common and (d in (1, scale) or common % d) for d in divisors):
        return 1
    return common if all(isinstance(v, Fixed) or is_little(v, scale, common, op) for v in (x, y)) else 1


def is_little(public: Any, scale: int, divisor: int, op: Any) -> bool:
    """Whether public values may join what waits to be divided."""
    ring, most = encoded(public, scale, op), little(scale, divisor) * scale
    return abs(ring) <= most if isinstance(ring, int) else bool((ring.abs() <= most).all())


# -- sums and products


def _shifted(x: Any, y: Any, alpha: Any, minus: bool) -> Any:
    if alpha != 1:
        y = y * alpha
    combine, op = (operator.sub, "aten.sub") if minus else (operator.add, "aten.add")
    if isinstance(x, Fixed) and isinstance(y, Fixed) and (x.product is None) != (y.product is None):
        waits, settled = (x, y) if y.product is None else (y, x)
        power = waits.divisor & (waits.divisor - 1) == 0
        if power and (settled.divisor == 1 or _common(x, y, waits.scale, op) == 1):
            made = _with_term(waits, settled, combine if waits is x else lambda product, term: combine(term, product))
            return note_sum(made, x, y, minus)
    left, right, divisor, scheme = terms(x, y, op)
    made = Fixed.of(Waiting(combine(left, right), divisor), scheme)
    return note_sum(made, x, y, minus)


def _with_term(waits: Fixed, settled: Fixed, combine: Any) -> Fixed:
    """A sum of a product, which goes on waiting, and of what does not."""
    product, term, divisor = waits.product, settled._child, waits.divisor
    assert product is not None
    product.ring.check(term)
    shape = torch.Size(broadcast(waits.shape, settled.shape))
    whole = product.with_term(combine, term, lambda factor: term if factor == 1 else term * factor, divisor, shape)
    return Fixed.of(Waiting(whole, divisor), same_scale(waits, settled), shape)


@implements(aten.add.Tensor, aten.add.Scalar)
def _add(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return _shifted(args[0], args[1], kwargs.get("alpha", args[2] if len(args) > 2 else 1), minus=False)


@implements(aten.sub.Tensor, aten.sub.Scalar)
def _sub(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return _shifted(args[0], args[1], kwargs.get("alpha", args[2] if len(args) > 2 else 1), minus=True)


@implements(aten.rsub.Scalar, aten.rsub.Tensor)
def _rsub(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return _shifted(args[1], args[0], kwargs.get("alpha", args[2] if len(args) > 2 else 1), minus=True)


def number(value: Any) -> float | None:
    """A public number, or None for a tensor."""
    if isinstance(value, Fixed) or (isinstance(value, torch.Tensor) and value.dim()):
        return None
    return float(value)


def product(kind: str, x: Any, y: Any, shape: torch.Size) -> Fixed:
    """``kind``(x, y) that waits."""
    scheme, scale = same_scale(x, y), first_of((x, y)).scale
    left, right = (v._child if isinstance(v, Fixed) else encoded(v, scale, f"aten.{kind}") for v in (x, y))
    if x is y:
        right = left
    ring = arithmetic(left, right)
    ring.check(left, right)
    waits = Product(ring, lambda f: getattr(ring, kind)(left, right, f), shape)
    return Fixed.of(Waiting(waits, scale), scheme, shape)


@implements(aten.mul.Tensor, aten.mul.Scalar)
def _mul(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, y = args if isinstance(args[0], Fixed) else (args[1], args[0])
    by = number(y)
    if by is None:
        return product("mul", x, y, torch.Size(broadcast(x.shape, y.shape)))
    whole = by.is_integer() and abs(by) < LIMIT
    factor, bits = (int(by), 0) if whole else _as_fraction(by, x.scale)
    raw, divisor = x.linear() if whole or _bears(x.divisor, factor, bits, x.scale) else (x._child, 1)
    return note_multiple(cls.of(Waiting(raw * factor, divisor << bits), x.attributes()), x, by)


def _bears(divisor: int, factor: int, bits: int, scale: int) -> bool:
    """Whether what waits to be divided has room for factor / 2^bits: by the result's range, or its own, which a product has wider."""
    room = widest(scale)
    return abs(factor) == 1 or (divisor << bits).bit_length() <= room or (divisor != scale and (divisor * abs(factor)).bit_length() <= room)


def _as_fraction(number: float, scale: int) -> tuple[int, int]:
    """A public number as factor / 2^bits, to as many digits of its own as the ranges leave room for."""
    if not abs(number * scale) < LIMIT:
        raise _too_large(number, scale, "aten.mul")
    exponent = math.frexp(number)[1]
    digits = min(max(widest(scale) + exponent, FACTOR_BITS[0]), FACTOR_BITS[1])
    bits = min(max(digits - exponent, 0), SMALLEST)
    factor = round(number * (1 << bits))
    while bits and factor % 2 == 0:
        factor, bits = factor // 2, bits - 1
    return factor, bits


@implements(aten.mm.default, aten.bmm.default)
def _mm(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, y = args
    if x.dim() != y.dim() or x.dim() != (2 if func is aten.mm.default else 3):
        raise RuntimeError(f"{func} multiplies matrices, and operands of shapes {tuple(x.shape)} and {tuple(y.shape)} met: use @")
    if x.shape[-1] != y.shape[-2] or x.shape[:-2] != y.shape[:-2]:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({tuple(x.shape)} and {tuple(y.shape)})")
    return product("matmul", x, y, torch.Size([*x.shape[:-1], y.shape[-1]]))


@implements(aten.mv.default)
def _mv(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return (args[0] @ args[1].unsqueeze(1)).squeeze(1)


@implements(aten.dot.default)
def _dot(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return (args[0] * args[1]).sum()


@implements(aten.addmm.default, aten.baddbmm.default, aten.addmv.default, aten.addbmm.default)
def _addmm(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    bias, x, y = args
    out = (x @ y).sum(0) if func is aten.addbmm.default else x @ y
    out = out * kwargs["alpha"] if kwargs.get("alpha", 1) != 1 else out
    bias = bias * kwargs["beta"] if kwargs.get("beta", 1) != 1 else bias
    return out + bias


@implements(aten.lerp.Scalar)
def _lerp(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    start, end, weight = args
    return start + (end - start) * weight


@implements(aten.addcmul.default)
def _addcmul(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return args[0] + args[1] * args[2] * kwargs.get("value", 1)
