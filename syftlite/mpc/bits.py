"""Bit planes: one bit of every element, packed, so that a boolean circuit works on whole words.

A plane of 64 w elements is w words: element e is bit e mod 64 of word e // 64. `planes` makes one of each bit of the values, by transposing
64 x 64 blocks of bits with six butterflies over whole rows (Warren, Hacker's Delight, 7-3): no gather, no table. `digits` takes four bits
at a time instead, one number for each, which a table of 16 bits is looked up by. Rows are in the order of bitrev(j), for bit or digit j, so
the high and low halves of all pairs of neighbours are `rows[h:]` and `rows[:h]`: contiguous at every level of a halving tree. Row 0 always
belongs to the least significant one.

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

    kind: Any
    stages: int
    masks: tuple[Any, ...]
    order: Any
    """(width,): the row that is bit 0, 1, ... of a word after all stages."""
    spare: int
    """Bits of a word that are not used."""


def raw(x: Any) -> Any:
    """The memory of tensor ``x`` as numpy's array, on which an operator takes a third of the time that torch needs to begin one; a tensor
    without values as it is. What is written with operators, slices and the functions here works on either."""
    return x.numpy() if isinstance(x, Tensor) and not x.is_meta else x


def tensor(x: Any) -> Tensor:
    """What `raw` was taken of."""
    return x if isinstance(x, Tensor) else torch.from_numpy(x)


def contiguous(x: Any) -> Any:
    """``x``, its elements one after the other in memory."""
    return x.contiguous() if isinstance(x, Tensor) else np.ascontiguousarray(x)


def wide(x: Any) -> Any:
    """Integers of 64 bits."""
    return x.long() if isinstance(x, Tensor) else x.astype(np.int64, copy=False)


def joined(*parts: Any, axis: int = 0) -> Any:
    """Rows one below the other."""
    return torch.cat(parts, axis) if isinstance(parts[0], Tensor) else np.concatenate(parts, axis)


def difference(x: Tensor, y: Tensor, out: Tensor | None = None) -> Tensor:
    """x - y, which numpy computes in vectors and torch does not; written to ``out`` if given."""
    if x.is_meta:
        return torch.sub(x, y, out=out)
    found = np.subtract(x.numpy(), y.numpy(), out=None if out is None else out.numpy())
    return torch.from_numpy(np.asarray(found)) if out is None else out


def add_to(x: Tensor, y: Tensor) -> Tensor:
    """x += y, in vectors."""
    total = raw(x)
    total += raw(y)
    return x


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
    return Words(kind, stages, tuple(kind(m) for m in signed), np.array(reverse), bits - width)


@cache
def levels(width: int, leaf: int = 2, *sizes: int) -> tuple[tuple[int, int], ...]:
    """(groups, segments in a group) of each level of a tree that needs a message, from the leaves up. ``sizes``: of the groups, from the
    root down; the last for all levels below, too. 64 bits, leaves of 4, sizes of 4: 4 groups of four, and one."""
    sizes = sizes or (2,)
    found: list[tuple[int, int]] = []
    groups, segments = 1, width // leaf
    while groups < segments:
        size = min(sizes[min(len(found), len(sizes) - 1)], segments // groups)
        found.append((groups, size))
        groups *= size
    return tuple(found[::-1])


def masks_at(groups: int, size: int) -> int:
    """Bits that a level opens of an element, each under a mask: each segment's (lt, eq), without the highest lt and the very lowest eq."""
    return (2 * size - 1) * groups - 1


def planes(x: Any, width: int) -> Any:
    """(n,) words -> (width, n / width) planes; row bitrev(j) holds bit j of all values."""
    w = len(x) // width
    if isinstance(x, Tensor):
        return x.new_empty(width, w)
    constants, values = words(width), x.reshape(w, width)
    rows = np.empty((width, w), values.dtype)
    step = max((1 << 20) // (width * x.itemsize), 1)  # blocks of 1 MiB stay in the cache through all stages
    for start in range(0, w, step):
        rows[constants.order, start : start + step] = values[start : start + step].T
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
    return rows


def digits(x: Any, width: int) -> Any:
    """(n,) words -> (width / 4, n) uint16; row bitrev(j) holds bits 4 j ... 4 j + 3 of all values. Of 2 bits, one row."""
    n, cut = len(x), _cut(width)
    if isinstance(x, Tensor):
        return x.new_empty((width // cut.kept, n), dtype=torch.int16)
    parts = np.ascontiguousarray(x.view(cut.kind).reshape(n, *cut.places).T).reshape(-1, n)
    out = np.empty((len(cut.shifts), *parts.shape), np.uint16)
    for row, shift in zip(out, cut.shifts):
        np.right_shift(parts, shift, out=row)
    out &= (1 << cut.kept) - 1
    return out.reshape(-1, n)


class _Cut(NamedTuple):
    """How words are taken apart into digits: their lowest 16 bits by shifts, and what is above by where it is in memory."""

    kept: int
    """Bits of a digit."""
    kind: str
    places: tuple[int, ...]
    shifts: tuple[int, ...]


@cache
def _cut(width: int) -> _Cut:
    kept, low = min(width, 4), min(width, 16)
    shifts = range(0, low, kept)
    order = tuple(shifts[j] for j in words(len(shifts)).order)
    return _Cut(kept, f"u{max(low, 8) // 8}", (2,) * (words(width).stages - words(low).stages), order)


def pack(bits: Any, width: int) -> Any:
    """(..., n) bytes or truths, a bit each: set if it is not 0 -> planes (..., n / width)."""
    shape = (*bits.shape[:-1], bits.shape[-1] // width)
    if isinstance(bits, Tensor):
        return bits.new_empty(shape, dtype=word_dtype(width))
    packed = np.packbits(bits.reshape(*shape, width), -1, "little") if width < 8 else np.packbits(bits, bitorder="little")
    return packed.view(words(width).kind).reshape(shape)


def unpack(plane: Any, width: int) -> Any:
    """One plane (w,) -> (n,) int64 of 0 or -1: every element's bit as a mask."""
    if isinstance(plane, Tensor):
        return plane.new_empty(len(plane) * width, dtype=torch.int64)
    bits = np.unpackbits(plane.view(np.uint8), bitorder="little").view(np.int8)
    return wide(-bits.reshape(len(plane), -1)[:, :width].reshape(-1))


def window(x: Any, width: int, low: int) -> Any:
    """Bits low ... low + width - 1 of ``x`` as words of that width."""
    x = x >> low if low else x
    return x.to(word_dtype(width)) if isinstance(x, Tensor) else x.astype(words(width).kind, copy=False)


def msb_and_rest(x: Any, width: int) -> tuple[Any, Any]:
    """(the plane of the most significant bit, the `digits` of all others) of words."""
    rest, spare = digits(x, width), words(width).spare
    rest[-1] &= (1 << (min(width, 4) - 1)) - 1
    return pack((x << spare if spare else x) < 0, width), rest
