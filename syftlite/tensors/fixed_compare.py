"""Comparisons of FixedPrecisionTensors, and what chooses by them: relu, abs, maxima and their places.

A comparison is 1 or 0 at the layer's scale; an index is a whole number below it. A relu waits, for the division and the pool that follow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from syftlite._torch import aten, axes
from syftlite.errors import PointerMisuseError
from syftlite.tensors.arithmetic import PLAIN, arithmetic
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_ops import encoded, first_of, implements, same_scale, terms
from syftlite.tensors.fixed_ops import number as number_of
from syftlite.tensors.waiting import Product, bounded

Fixed = FixedPrecisionTensor
Args = tuple[Any, ...]
Named = dict[str, Any]


def _truths(bit: Any, scheme: dict[str, Any]) -> Fixed:
    made = Fixed.of(bit, scheme)
    made._value.note_truths()
    return made


def endless(*values: Any) -> bool:
    """Whether one of them is public, a number and infinite, or no number."""
    numbers = [v for v in values if not isinstance(v, Fixed)]
    return any(number is not None and not math.isfinite(number) for number in map(number_of, numbers))


def _certain(answer: bool, args: Args) -> Fixed:
    """What a comparison with infinity gives, which everybody knows: a public constant."""
    made: Any = torch.full_like(first_of(args), float(answer))
    made._value.note_truths()
    return made  # type: ignore[no-any-return]


def _lifted(args: Args) -> Args:
    """Operands of a comparison, whole secrets among them in the scheme of those that are not."""
    return tuple(_real(v, first_of(args)) if isinstance(v, torch.Tensor) else v for v in args)


def _real(value: torch.Tensor, like: Fixed) -> Any:
    whole = not isinstance(value, Fixed) and arithmetic(value) is not PLAIN
    return Fixed.of(value * like.scale, like.attributes()) if whole else value


def _comparison(below: bool, swap: bool) -> Callable[..., Any]:
    def compare(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
        secrets = isinstance(args[0], Fixed) and isinstance(args[1], Fixed)
        args = args if secrets else _lifted(args)
        x, y = reversed(args) if swap else args
        if not secrets and endless(x, y):
            first, second = (0.0 if isinstance(v, Fixed) else float(v) for v in (x, y))
            return _certain(first < second if below else first >= second, args)
        left, right, divisor, scheme = terms(x, y, func)
        scale = first_of(args).scale
        f = scale.bit_length() - 1 if scale & (scale - 1) == 0 else 0
        bit = arithmetic(left, right).less(left, right, f, not below, lowest_bit(current(), scale * divisor))
        return _truths(bit if f else bit * scale, scheme)

    return compare


def _over(name: str) -> tuple[Any, Any]:
    packet = getattr(aten, name)
    return packet.Tensor, packet.Scalar


implements(*_over("lt"))(_comparison(below=True, swap=False))
implements(*_over("gt"))(_comparison(below=True, swap=True))
implements(*_over("ge"))(_comparison(below=False, swap=False))
implements(*_over("le"))(_comparison(below=False, swap=True))


@implements(*_over("eq"), *_over("ne"))
def _equal(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    args = _lifted(args)
    if endless(*args):
        return _certain(func not in _over("eq"), args)
    left, right = (v._child if isinstance(v, Fixed) else encoded(v, first_of(args).scale, func) for v in args)
    difference = left - right
    bit = arithmetic(difference).zero(difference)
    return _truths((bit if func in _over("eq") else 1 - bit) * first_of(args).scale, same_scale(*args))


@implements(aten.isnan.default, aten.isinf.default)
def _endless(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """Nowhere: fixed precision has no infinity and no NaN."""
    return _certain(False, args)


@implements(aten.nan_to_num.default)
def _numbers(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return args[0].clone()


@implements(aten.relu.default)
def _relu(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x = args[0]
    waiting = bounded(x._waiting)
    return cls.of(waiting._replace(relu=True), x.attributes(), x.shape if isinstance(waiting.raw, Product) or waiting.pool else None)


@implements(aten.abs.default)
def _abs(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return args[0].relu() * 2 - args[0]


@implements(aten.sign.default)
def _sign(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return (args[0] > 0) - (args[0] < 0)


@implements(aten.maximum.default, aten.minimum.default)
def _extreme(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, y = args
    above = (x - y).relu()
    return y + above if func is aten.maximum.default else x - above


@implements(aten.max.default, aten.min.default)
def _max(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x = args[0]
    if func is aten.min.default:
        return -(-x).max()
    child = x._child.reshape(-1)
    return cls.of(arithmetic(child).max(child, 0, lowest_bit(current(), x.scale)), x.attributes())


@implements(aten.amax.default)
def _amax(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, dims, keep = args[0], args[1] if len(args) > 1 else (), args[2] if len(args) > 2 else False
    for dim in reversed(axes(x, dims)):
        child = arithmetic(x._child).max(x._child, dim, lowest_bit(current(), x.scale))
        x = cls.of(child.unsqueeze(dim) if keep else child, x.attributes())
    return x if args[0].dim() else x.clone()


@implements(aten.amin.default)
def _amin(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return -torch.amax(-args[0], *args[1:])


@implements(aten.max.dim)
def _max_dim(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    """(maxima, indices): the indices are shared too, as whole numbers below the layer."""
    x, dim, keep = (*args, False)[:3]
    child = x._child if x.dim() else x._child.reshape(1)
    best, _, place = arithmetic(child).max_and_mask(child, dim, lowest_bit(current(), x.scale))
    if keep and x.dim():
        best, place = best.unsqueeze(dim), place.unsqueeze(dim)
    return cls.of(best, x.attributes()), place


@implements(aten.min.dim)
def _min_dim(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    best, place = torch.max(-args[0], *args[1:])
    return -best, place


@implements(aten.argmin.default)
def _argmin(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return torch.argmax(-args[0], *args[1:])


@implements(
    aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default, aten.clamp_min.Tensor, aten.clamp_max.default, aten.clamp_max.Tensor
)  # fmt: skip
def _clamp(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, low, high = (args[0], None, args[1]) if func in (aten.clamp_max.default, aten.clamp_max.Tensor) else (*args, None, None)[:3]
    low, high = bounds(kwargs.get("min", low), kwargs.get("max", high))
    x = x.clone() if isinstance(x, Fixed) else x.float()
    x = x if low is None else (x - low).relu() + low
    return x if high is None else high - (high - x).relu()


def bounds(low: Any, high: Any) -> tuple[Any, Any]:
    """Those of a clamp; None for one that is infinite, and none."""
    low, high = (v.float() if isinstance(v, torch.Tensor) and v.dtype == torch.bool else v for v in (low, high))
    return None if type(low) is float and low == -math.inf else low, None if type(high) is float and high == math.inf else high


@implements(aten.argmax.default)
def _argmax(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, dim, keep = args[0], args[1] if len(args) > 1 else None, args[2] if len(args) > 2 else False
    axes(x, dim)
    child, axis = (x._child.reshape(-1), 0) if dim is None or not x.dim() else (x._child, dim)
    place = arithmetic(child).max_and_mask(child, axis, lowest_bit(current(), x.scale))[2]
    if keep and x.dim():
        return place.reshape([1] * x.dim()) if dim is None else place.unsqueeze(axis)
    return place


@implements(aten._local_scalar_dense.default)
def _scalar(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    child = args[0]._child
    if args[0].is_secret:
        raise PointerMisuseError("the value is shared: get() reconstructs it")
    return child.item() / args[0].scale
