"""The logic of comparisons of AdditiveSharingTensors, and what reads all along an axis.

    &  |  ^  ~           a b,  a + b - a b,  a + b - 2 a b,  1 - a
    any, all             whether a sum of comparisons is not 0, or is their number
    x[x > y] = b         b + (x <= y) (x - b)
    amax, amin, argmin   of max;  prod: halves, log2(n) products in a row
    ones_like, fill_     zeros, and a public number

A comparison is noted to be (`Held.truths`), and stays so through views and copies. logical_and and its like take other numbers too, which
are true where they are not 0; & | ^ ~ refuse them: nobody has their bits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from syftlite._torch import aten, axes
from syftlite.errors import Misuse
from syftlite.remote.shared_compare import noted, truth
from syftlite.remote.shared_ops import linear, owned, whole
from syftlite.remote.sharing import AdditiveSharingTensor

Shared = AdditiveSharingTensor
implements = AdditiveSharingTensor.implements
Args = tuple[Any, ...]
Named = dict[str, Any]


def _and(x: Any, y: Any) -> Any:
    return noted(x * y)


def _or(x: Any, y: Any) -> Any:
    return noted(x + y - x * y)


def _xor(x: Any, y: Any) -> Any:
    return noted(x + y - x * y * 2)


def _not(x: Any) -> Any:
    return noted(1 - x)


def _is_truth(x: Any) -> bool:
    return x.held.truths if isinstance(x, Shared) else type(x) is bool or getattr(x, "dtype", None) == torch.bool


def _enter(name: str, combine: Callable[..., Any], *bitwise: Any, written: Any = None) -> None:
    """Register ``combine`` for logical_``name`` of numbers, for functions ``bitwise`` of comparisons alone, and for ``written``, which
    writes to its first operand."""

    def logical(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
        return combine(*map(truth, args))

    def function(*args: Any) -> Any:
        if not all(map(_is_truth, args)):
            raise NotImplementedError(
                f"{Shared.__name__} knows aten.bitwise_{name} of comparisons, such as x > 0, and not of numbers: use logical_{name}()"
            )
        return combine(*map(truth, args))

    implements(getattr(aten, f"logical_{name}").default)(logical)
    Shared.functions.update(dict.fromkeys(bitwise, function))
    if written is not None:
        Shared.functions[written] = lambda x, y: noted(x.copy_(function(x, y)))


_T = torch.Tensor
_enter("and", _and, torch.bitwise_and, _T.bitwise_and, _T.__and__, _T.__rand__, written=_T.__iand__)
_enter("or", _or, torch.bitwise_or, _T.bitwise_or, _T.__or__, _T.__ror__, written=_T.__ior__)
_enter("xor", _xor, torch.bitwise_xor, _T.bitwise_xor, _T.__xor__, _T.__rxor__, written=_T.__ixor__)
_enter("not", _not, torch.bitwise_not, _T.bitwise_not, _T.__invert__)


def _counted(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """How many are true, over some axes or all."""
    return truth(x).sum(list(range(x.dim())) if dim is None else dim, keepdim=keepdim)


@implements(aten.any.default, aten.any.dim, aten.any.dims)
def _any(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    return noted(_counted(*args, **kwargs) != 0)


@implements(aten.all.default, aten.all.dim, aten.all.dims)
def _all(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    total = _counted(*args, **kwargs)
    return noted(total == args[0].numel() // max(total.numel(), 1))


@implements(aten.index_put.default)
def _put(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, indices, values, *accumulate = args
    (mask, *more) = indices
    if more or not isinstance(mask, Shared) or any(accumulate):
        return linear(cls, func, args, kwargs)
    if not mask.held.truths or math.prod(values.shape) != 1:
        raise Misuse(f"{func}: a secret mask is a comparison, and what is written there one value: use torch.where(mask, values, x)")
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())), values.reshape([]), x)


# -- constants


@implements(aten.ones_like.default, aten.full_like.default)
def _like(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    return torch.zeros_like(args[0], **kwargs) + (args[1] if len(args) > 1 else 1)


@implements(aten.new_ones.default, aten.new_full.default)
def _new(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    return args[0].new_zeros(args[1], **kwargs) + (args[2] if len(args) > 2 else 1)


@implements(aten.fill_.Scalar, aten.fill_.Tensor)
def _fill(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, value = args
    owned(func, x)
    return x.copy_((value if isinstance(value, Shared) else torch.tensor(whole(value))).expand(x.shape))


# -- along axes


@implements(aten.amax.default)
def _amax(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, dims, keep = (*args, (), False)[:3] if len(args) == 1 else (*args, False)[:3]
    for dim in reversed(axes(x, dims)):
        x = torch.max(x, dim, keep)[0]
    return x if args[0].dim() else x.clone()


@implements(aten.amin.default)
def _amin(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    return -torch.amax(-args[0], *args[1:])


@implements(aten.argmin.default)
def _argmin(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    return torch.argmax(-args[0], *args[1:])


@implements(aten.prod.default, aten.prod.dim_int)
def _prod(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, dim, keep = args[0], args[1] if len(args) > 1 else None, args[2] if len(args) > 2 else False
    if dim is None or not x.dim():
        x, dim, keep = x.reshape(-1), 0, False
    if not x.shape[dim]:
        return x.sum(dim, keepdim=keep) + 1
    alone = x.shape[dim] == 1
    while (n := x.shape[dim]) > 1:
        both = x.narrow(dim, 0, n // 2) * x.narrow(dim, n // 2, n // 2)
        x = torch.cat([both, x.narrow(dim, n - 1, 1)], dim) if n % 2 else both
    x = x if keep else x.squeeze(dim)
    return x.clone() if alone else x
