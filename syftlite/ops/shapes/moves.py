"""Rules of products, of sums, and of what moves elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from syftlite._torch import aten
from syftlite.ops.shapes.rules import RULES, Rule, Unsure, empty, rule
from syftlite.ops.shapes.strides import FORMATS, layout


def _plain(*tensors: Tensor) -> None:
    """Raise unless all are meta tensors of one dtype."""
    if not all(x.is_meta and x.dtype == tensors[0].dtype for x in tensors):
        raise Unsure


@rule(aten.mm.default)
def _mm(x: Tensor, y: Tensor) -> Tensor:
    _plain(x, y)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[0]:
        raise Unsure
    return empty((x.shape[0], y.shape[1]), x.dtype)


@rule(aten.bmm.default)
def _bmm(x: Tensor, y: Tensor) -> Tensor:
    _plain(x, y)
    if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1]:
        raise Unsure
    return empty((x.shape[0], x.shape[1], y.shape[2]), x.dtype)


@rule(aten.addmm_.default)
def _addmm_(total: Tensor, x: Tensor, y: Tensor) -> Tensor:
    _plain(total, x, y)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[0] or total.shape != (x.shape[0], y.shape[1]):
        raise Unsure
    return total


@rule(aten.sum.dim_IntList)
def _sum(x: Tensor, dims: Any, keep: bool = False) -> Tensor:
    if not x.is_meta or not dims or x.is_floating_point() or x.is_complex() or not x.dim():
        raise Unsure
    gone = {d % x.dim() if -x.dim() <= d < x.dim() else Unsure.raised() for d in dims}
    if len(gone) < len(dims):
        raise Unsure
    shape = [1 if d in gone else size for d, size in enumerate(x.shape) if keep or d not in gone]
    if not x.is_contiguous() and len(shape) > 1:
        raise Unsure
    return empty(shape, torch.int64)


@rule(aten.cat.default)
def _cat(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = xs[0]
    _plain(*xs)
    dims = first.dim()
    other = FORMATS.get(dims, torch.contiguous_format)
    if not dims or not -dims <= dim < dims or any(x.is_contiguous(memory_format=other) and not x.is_contiguous() for x in xs):
        raise Unsure
    shape = list(first.shape)
    dim %= dims
    if any(x.dim() != dims or any(d != dim and a != b for d, (a, b) in enumerate(zip(x.shape, shape, strict=True))) for x in xs):
        raise Unsure
    shape[dim] = sum(x.shape[dim] for x in xs)
    return empty(shape, first.dtype)


@rule(aten.stack.default)
def _stack(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = xs[0]
    _plain(*xs)
    if any(x.shape != first.shape for x in xs) or not -first.dim() <= dim <= first.dim() or first.dim() > 2:
        raise Unsure
    return empty((*first.shape[:dim], len(xs), *first.shape[dim:]) if dim >= 0 else Unsure.raised(), first.dtype)


@rule(aten.flip.default)
def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    if not x.is_meta or not x.is_contiguous() or len(dims) != 1 or not -x.dim() <= dims[0] < x.dim():
        raise Unsure
    return empty(x.shape, x.dtype)


@rule(aten.gather.default)
def _gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    fits = index.dim() == x.dim() and -x.dim() <= dim < x.dim() and index.dtype == torch.int64
    if not x.is_meta or not fits or any(d != dim % x.dim() and i > n for d, (i, n) in enumerate(zip(index.shape, x.shape, strict=True))):
        raise Unsure
    return empty(index.shape, x.dtype)


@rule(aten.repeat.default)
def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    if not x.is_meta or len(repeats) < x.dim() or any(r < 0 for r in repeats):
        raise Unsure
    shape = (*[1] * (len(repeats) - x.dim()), *x.shape)
    return empty([r * s for r, s in zip(repeats, shape, strict=True)], x.dtype)


@rule(aten.roll.default)
def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not x.is_meta or not x.is_contiguous() or len(shifts) != len(dims) or any(not -x.dim() <= d < x.dim() for d in dims):
        raise Unsure
    return empty(x.shape, x.dtype)


@rule(aten.clone.default, aten.empty_like.default, aten.zeros_like.default, aten.ones_like.default, aten._to_copy.default)
def _like(
    x: Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = torch.preserve_format,
) -> Tensor:
    elsewhere = device is not None and torch.device(device).type != "meta"
    if elsewhere or not x.is_meta or 0 in x.stride() or memory_format not in (None, torch.preserve_format, torch.contiguous_format):
        raise Unsure
    kept = dtype or x.dtype
    if memory_format is torch.contiguous_format or x.is_contiguous():
        return empty(x.shape, kept)
    return torch.empty_strided(x.shape, layout(tuple(x.shape), [x]), dtype=kept, device="meta")


@rule(aten.index.Tensor)
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """`x[:, places]`: places along one dimension."""
    (dim,) = [d for d, index in enumerate(indices) if index is not None] if sum(i is not None for i in indices) == 1 else [Unsure.raised()]
    index = indices[dim]
    if index is None or index.dtype != torch.int64 or index.dim() != 1 or not x.is_meta or not x.is_contiguous() or dim >= x.dim():
        raise Unsure
    return empty((*x.shape[:dim], len(index), *x.shape[dim + 1 :]), x.dtype)


@rule(aten.arange.default)
def _arange(end: int, *, dtype: torch.dtype | None = None, device: Any = None, pin_memory: bool | None = None) -> Tensor:
    if type(end) is not int or end < 0 or device is None or torch.device(device).type != "meta":
        raise Unsure
    return empty((end,), dtype or torch.int64)


def _of_bytes(func: Any) -> Rule:
    """Classes may be named in bytes, as torch's kernels have it and its meta kernels do not."""
    place = [argument.name for argument in func._schema.arguments].index("target")

    def wide(*args: Any) -> Any:
        if args[place].dtype != torch.uint8:
            raise Unsure
        return func(*args[:place], args[place].long(), *args[place + 1 :])

    return wide


for _func in (aten.nll_loss_forward.default, aten.nll_loss_backward.default):
    RULES[_func] = _of_bytes(_func)
