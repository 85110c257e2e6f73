"""Ranks among FixedPrecisionTensors along an axis of up to 128, of one sort (fixed_order.py); and products of all that came before.

    median, kthvalue    the element of a rank, and its place
    quantile            between two ranks, as far as the public q says
    cumprod             x_i x_(i-1), of that x_i x_(i-2), then by 4, ...: log2(n) products in a row

Gradients are those of their parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from syftlite.errors import Misuse
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_order import sort

Fixed = FixedPrecisionTensor


def _ranked(name: str, x: Any, dim: int, keepdim: bool, rank: int) -> tuple[Any, Any]:
    """(the element of a rank along the axis, from 0 for the least; its place)."""
    count = x.shape[dim] if x.dim() else 1
    if not 0 <= rank < count:
        raise RuntimeError(f"{name}: there is no element of rank {rank + 1} along axis {dim} of shape {tuple(x.shape)}")
    value, place = (v if not x.dim() else v.narrow(dim, rank, 1) if keepdim else v.select(dim, rank) for v in sort(x, dim))
    return value, place


@Fixed.reexpresses(torch.median, torch.Tensor.median)
def median(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower of the two in the middle; and its place, of one axis."""
    if dim is None:
        return _ranked("median", x.reshape(-1), 0, False, (x.numel() - 1) // 2)[0]
    return torch.return_types.median(_ranked("median", x, dim, keepdim, ((x.shape[dim] if x.dim() else 1) - 1) // 2))


@Fixed.reexpresses(torch.nanmedian, torch.Tensor.nanmedian)
def nanmedian(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """The median: fixed precision has no NaN."""
    found = median(x, dim, keepdim)
    return found if dim is None else torch.return_types.nanmedian(found)


@Fixed.reexpresses(torch.kthvalue, torch.Tensor.kthvalue)
def kthvalue(x: Any, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """(the ``k``-th least, from 1; its place)."""
    return torch.return_types.kthvalue(_ranked("kthvalue", x, dim, keepdim, k - 1))


BETWEEN: dict[str, Callable[[float], tuple[int, float]]] = {
    "linear": lambda rank: (math.floor(rank), rank - math.floor(rank)),
    "lower": lambda rank: (math.floor(rank), 0.0),
    "higher": lambda rank: (math.ceil(rank), 0.0),
    "nearest": lambda rank: (round(rank), 0.0),
    "midpoint": lambda rank: (math.floor(rank), 0.0 if rank == math.floor(rank) else 0.5),
}
"""By the name of an interpolation: the rank below, and how far to go from there to the next."""


@Fixed.reexpresses(torch.quantile, torch.Tensor.quantile, torch.nanquantile, torch.Tensor.nanquantile)
def quantile(x: Any, q: Any, dim: int | None = None, keepdim: bool = False, *, interpolation: str = "linear") -> Any:
    """Where a share ``q`` of the elements along the axis, or of all, is below; of several, along a new first axis."""
    chances = torch.as_tensor(q, dtype=torch.float32) if not isinstance(q, Fixed) else None
    if chances is None or type(chances) is not torch.Tensor or chances.dim() > 1 or not bool(((chances >= 0) & (chances <= 1)).all()):
        raise Misuse(f"quantile: q is public, one number from 0 to 1 or a row of them, not {q!r}")
    if interpolation not in BETWEEN:
        raise ValueError(f"quantile: interpolation is one of {', '.join(BETWEEN)}, not {interpolation!r}")
    rows, axis = (x, dim) if dim is not None and x.dim() else (x.reshape(-1), 0)
    if not rows.shape[axis]:
        raise RuntimeError(f"quantile: there are no elements along axis {dim} of shape {tuple(x.shape)}")
    ordered = sort(rows, axis)[0]
    ranks = (chances * (rows.shape[axis] - 1)).reshape(-1).tolist()
    found = [_between(ordered, axis, *BETWEEN[interpolation](rank)) for rank in ranks]
    if keepdim:
        found = [v.reshape([1] * x.dim()) if dim is None else v.unsqueeze(axis) if x.dim() else v for v in found]
    return torch.stack(found) if chances.dim() else found[0]


def _between(ordered: Any, axis: int, rank: int, part: float) -> Any:
    low = ordered.select(axis, rank)
    return low + (ordered.select(axis, rank + 1) - low) * part if part else low.clone()


@Fixed.reexpresses(torch.cumprod, torch.Tensor.cumprod)
def cumprod(x: Any, dim: int, *, dtype: Any = None) -> Any:
    """Products of all up to each along the axis."""
    if dtype not in (None, torch.float32):
        raise Misuse(f"cumprod: fixed precision says torch.float32, not {dtype}: decode() the value first")
    return so_far(x, dim) if x.dim() else x.clone()


def so_far(x: Any, dim: int) -> Any:
    """Products of all up to each along the axis."""
    step, size = 1, x.shape[dim]
    x = x.clone()
    while step < size:
        x = torch.cat([x.narrow(dim, 0, step), x.narrow(dim, step, size - step) * x.narrow(dim, 0, size - step)], dim)
        step *= 2
    return x
