"""Bit planes: one row of words for each bit of the value, so that a boolean circuit works on packed words at every level.

A vector of 64 w elements is a (64, w) matrix of words. `planes` transposes each 64 x 64 block of bits with six butterflies over whole
rows (Warren, Hacker's Delight, 7-3): no gather, no table. Bit k of the bit number changes places with bit 5-k of the row number, so bit j
of all values ends in row bitrev(j), and the high and low halves of all pairs of neighbours are `p[h:]` and `p[:h]`: contiguous
at every level of a halving tree. Row 0 always belongs to the least significant segment.

Widths of 32 (a window of the value) and, for tests, 16, 8, 4 and 2 bits work alike on narrower words.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

Tree = tuple[int, ...]
"""A comparison's: bits of a leaf; how many segments the root takes together, and each level below."""


class Words(NamedTuple):
    """The words of planes of ``width`` bits."""

    stages: int
    masks: tuple[Any, ...]
    to_top: Any
    """(width, 1): how far each row's bit is shifted to reach the word's top."""


def raw(x: Tensor) -> Any:
    """The memory of ``x`` as numpy's array, on which an operator takes a third of the time that torch needs to begin one; a tensor
    without values as it is. What is written with operators, slices and `joined` works on either."""
    return x if x.is_meta else x.numpy()


def tensor(x: Any) -> Tensor:
    """What `raw` was taken of."""
    return x if isinstance(x, Tensor) else torch.from_numpy(x)


def joined(*parts: Any, axis: int = 0) -> Any:
    """Rows one below the other."""
    return torch.cat(parts, axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis)


def word_dtype(width: int) -> torch.dtype:
    """The narrowest integers of at least ``width`` bits."""
    return {64: torch.int64, 32: torch.int32, 16: torch.int16}.get(width, torch.int8)


@cache
def words(width: int) -> Words:
    """Constants of one width: 64, 32, 16, 8, 4 or 2."""
    stages, bits = width.bit_length() - 1, word_dtype(width).itemsize * 8
    reverse = [int(f"{j:0{stages}b}"[::-1], 2) for j in range(width)]
    masks = [sum(((1 << (1 << k)) - 1) << i for i in range(0, width, 2 << k)) for k in range(stages)]  # 0x5555.., 0x3333.., ...
    signed = [m - (1 << bits) if m >> (bits - 1) else m for m in masks]
    kind = np.dtype(f"int{bits}").type
    return Words(stages, tuple(kind(m) for m in signed), np.array([[bits - 1 - j] for j in reverse], kind))


def levels(width: int, leaf: int = 2, *sizes: int) -> list[tuple[int, int]]:
    """(groups, segments in a group) of each level of a tree that needs a message, from the leaves up. ``sizes``: of the groups, from the
    root down; the last for all levels below, too. 64 bits, leaves of 4, sizes of 4: 4 groups of four, and one."""
    sizes = sizes or (2,)
    found: list[tuple[int, int]] = []
    groups, segments = 1, width // leaf
    while groups < segments:
        size = min(sizes[min(len(found), len(sizes) - 1)], segments // groups)
        found.append((groups, size))
        groups *= size
    return found[::-1]


def masks_at(groups: int, size: int) -> int:
    """Bits that a level opens of an element, each under a mask: each segment's (lt, eq), without the highest lt and the very lowest eq."""
    return (2 * size - 1) * groups - 1


def quarters(rows: Any) -> tuple[Any, ...]:
    """Planes (width, w) -> four of (width / 4, w): bits 0, 1, 2, 3 of every group of four."""
    n = len(rows) // 4
    return rows[:n], rows[2 * n : 3 * n], rows[n : 2 * n], rows[3 * n :]


def planes(x: Tensor) -> Tensor:
    """(width, w) words -> (width, w) planes, in place; row bitrev(j) holds bit j of all values."""
    width, w = x.shape
    if x.is_meta:
        return x
    constants, rows = words(width), x.numpy()
    step = (1 << 20) // (width * x.itemsize)  # blocks of 1 MiB stay in the cache through all stages
    for start in range(0, w, step):
        block = rows[:, start : start + step]
        for k in range(constants.stages):
            v = block.reshape(1 << k, 2, width >> (k + 1), -1)  # row bit stages-1-k against bit k of the word; a view
            even, odd = v[:, 0], v[:, 1]
            t = even >> (1 << k)
            t ^= odd
            t &= constants.masks[k]
            odd ^= t
            t <<= 1 << k
            even ^= t
    return x


def unpack(plane: Tensor, width: int) -> Tensor:
    """One plane (w,) -> (width, w) int64 of 0 or -1: every element's bit as a mask, in the order of elements."""
    if plane.is_meta:
        return plane.new_empty((width, *plane.shape), dtype=torch.int64)
    rows = plane.numpy() << words(width).to_top
    rows >>= plane.itemsize * 8 - 1
    return torch.from_numpy(rows.astype(np.int64, copy=False))


def padded(x: Tensor, width: int) -> Tensor:
    """A vector as the (width, w) matrix of its words, zeros at the end."""
    w = -(-x.numel() // width)
    missing = width * w - x.numel()
    return (torch.cat([x, x.new_zeros(missing)]) if missing else x).view(width, w)


def window(x: Tensor, width: int, low: int) -> Tensor:
    """Bits low ... low + width - 1 of ``x`` as words of that width: a new tensor."""
    if x.dtype == (dtype := word_dtype(width)):
        return x >> low if low else x.clone()
    return (x >> low if low else x).to(dtype)
