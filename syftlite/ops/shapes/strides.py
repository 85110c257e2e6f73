"""The strides of a fresh result."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Other than rows, by the number of dimensions."""


def layout(shape: tuple[int, ...], tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The strides that an elementwise kernel gives a fresh result of ``shape``: dimensions in the order in which its operands have them
    (at::TensorIteratorBase::reorder_dimensions)."""
    same = all(x.shape == shape for x in tensors)
    strides = [x.expand(shape).stride() for x in tensors]
    order = list(reversed(range(len(shape))))
    if same and all(x.is_contiguous() for x in tensors):
        pass
    elif same and all(s == strides[0] for s in strides) and _dense(shape, strides[0]):
        return strides[0]
    else:
        for last in range(1, len(order)):
            _insert(order, last, shape, strides)
    found, step = [0] * len(shape), 1
    for dim in order:
        found[dim] = step
        step *= max(shape[dim], 1)
    return tuple(found)


def _dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements fill their memory without gap or overlap."""
    step = 1
    for stride, size in sorted((s, d) for s, d in zip(strides, shape, strict=True) if d > 1):
        if stride != step:
            return False
        step *= size
    return 0 not in shape


def _insert(order: list[int], last: int, shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> None:
    """One step of an insertion sort of dimensions, the innermost first; those whose order no operand tells stay."""
    for before in reversed(range(last)):
        turn = _compared(order[before], order[last], shape, strides)
        if turn < 0:
            return
        if turn > 0:
            order[before], order[last] = order[last], order[before]
            last = before


def _compared(one: int, other: int, shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> int:
    for stride in strides:
        if stride[one] and stride[other]:
            if stride[one] != stride[other]:
                return 1 if stride[one] > stride[other] else -1
            if shape[one] > shape[other]:
                return 1
    return 0
