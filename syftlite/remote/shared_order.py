"""Order among AdditiveSharingTensors along an axis of up to 128, and products of all that came before.

    sort, topk, kthvalue, median    by the places of all, shared too: one kernel (mpc/ranking.py)
    cumprod                         x_i x_(i-1), of that x_i x_(i-2), then by 4, ...: log2(n) products in a row

Of equal ones the first stays first.
"""

from __future__ import annotations

from typing import Any

import torch

from syftlite._torch import aten
from syftlite.errors import Misuse
from syftlite.remote.sharing import AdditiveSharingTensor
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.fixed_ranks import so_far

Shared = AdditiveSharingTensor
implements = AdditiveSharingTensor.implements
Args = tuple[Any, ...]
Named = dict[str, Any]


def _first(x: Any, dim: int, descending: bool, count: int) -> tuple[Any, Any]:
    """(the ``count`` first in order, their places)."""
    if not x.dim():
        best, place = _first(x.reshape(1), dim, descending, count)
        return best.squeeze(0), place.squeeze(0)
    if not x.numel() or not count:
        return x.narrow(dim, 0, count).clone(), x.narrow(dim, 0, count) * 0
    child = -x if descending else x
    ordered, places, _ = x.arithmetic.sort(child, dim, lowest_bit(current(), 1))
    ordered = -ordered if descending else ordered
    return ordered.narrow(dim, 0, count), places.narrow(dim, 0, count)


def _along(x: Shared, dim: int) -> int:
    """How many elements there are along the axis."""
    return x.shape[dim] if x.dim() else 1


def _filled(args: Args, *defaults: Any) -> Args:
    """An operand and its arguments, those that are missing by default."""
    return (*args, *defaults[len(args) - 1 :])


@implements(aten.sort.default, aten.sort.stable)
def _sort(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, *positional = _filled(args, -1, False)
    how: Named = {"dim": positional[0], "descending": positional[1], **kwargs}
    return _first(x, how["dim"], how["descending"], _along(x, how["dim"]))


def topk(x: Shared, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(the ``k`` greatest, or least, in order; their places)."""
    if not 0 <= k <= _along(x, dim):
        raise RuntimeError(f"topk: {k} elements are wanted of shape {tuple(x.shape)} along axis {dim}")
    return torch.return_types.topk(_first(x, dim, largest, k))


Shared.functions.update(dict.fromkeys((torch.topk, torch.Tensor.topk), topk))


@implements(aten.kthvalue.default)
def _kthvalue(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, dim, keep = _filled(args[:1] + args[2:], -1, False)
    return _ranked(func, x, dim, keep, args[1] - 1)


@implements(aten.median.dim)
def _median_along(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, dim, keep = _filled(args, -1, False)
    return _ranked(func, x, dim, keep, (_along(x, dim) - 1) // 2)


@implements(aten.median.default)
def _median(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x = args[0].reshape(-1)
    return _ranked(func, x, 0, False, (len(x) - 1) // 2)[0]


def _ranked(func: Any, x: Shared, dim: int, keep: bool, rank: int) -> Any:
    """(the element of a rank along the axis, from 0 for the least; its place)."""
    count = _along(x, dim)
    if not 0 <= rank < count:
        raise RuntimeError(f"{func}: there is no element of rank {rank + 1} along axis {dim} of shape {tuple(x.shape)}")
    found = _first(x, dim, False, count)
    return tuple(v if not x.dim() else v.narrow(dim, rank, 1) if keep else v.select(dim, rank) for v in found)


@implements(aten.cumprod.default)
def _cumprod(cls: type[Shared], func: Any, args: Args, kwargs: Named) -> Any:
    x, dim = args
    if kwargs.get("dtype") not in (None, torch.int64):
        raise Misuse(f"{func}: shares are ring elements, not {kwargs['dtype']}: x.float() where numbers are real")
    return so_far(x, dim) if x.dim() else x.clone()
