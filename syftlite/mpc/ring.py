"""The ring Z_2^k: int64 tensors, of which the low k bits count.

    share    x -> x_0, ..., x_(n-1) uniform with x = x_0 + ... + x_(n-1)      (mod 2^k)
    reveal   their sum, as signed numbers

Addition and multiplication of int64 respect the congruence, so only what looks at bits reduces first: an opened value, and the
provider's masks. k = 64 outside tests, where nothing needs reducing; rings of 2 to 8 bits are small enough to enumerate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from syftlite.randomness import random_like

A = TypeVar("A")
"""A tensor, or an array."""
Restore = Callable[[Tensor], Tensor]


class Heads(NamedTuple):
    """The narrow integers that have the highest bits of each of an array's elements."""

    kind: Any
    place: slice
    """Where they are, among all integers of that kind."""
    spare: int
    """How many bits of each are beyond the ring's."""
    up: int
    """From where what counts 2^(k-f) has to be shifted to be added to one."""
    sign: int
    """The place of their highest bit."""
    quarter: int
    """What 2^(k-2) is in them."""

    def of(self, x: Any) -> Any:
        """Those of ``x``, with zeros for what they have of lower bits than the ring; it may be a view."""
        found = x.view(self.kind)[self.place]
        return found << self.spare if self.spare else found

    def add(self, x: Any, y: Any) -> None:
        """x += 2^(k-f) y."""
        x.view(self.kind)[self.place] += y << self.up if self.up else y


def head_dtype(f: int) -> torch.dtype:
    """The narrowest integers, of 16 bits at least, that hold ``f`` bits."""
    return torch.int16 if f <= 16 else torch.int32 if f <= 32 else torch.int64


@cache
def _heads(ring: int, f: int) -> Heads:
    kind = torch.empty(0, dtype=head_dtype(f)).numpy().dtype
    bits = 8 * kind.itemsize
    word, bit = divmod(ring - 1, bits)
    return Heads(kind, slice(word, None, 64 // bits), bits - 1 - bit, bit + 1 - f, bits - 1, 1 << (bits - 2))


@dataclass(frozen=True)
class Ring:
    """Z_2^bits."""

    bits: int = 64

    @property
    def shift(self) -> int:
        """2^(bits - 2): what is truncated lies in [-shift, shift)."""
        return 1 << (self.bits - 2)

    def reduce(self, x: A) -> A:
        """The representative whose high bits are 0 (k < 64)."""
        return x if self.bits == 64 else x & ((1 << self.bits) - 1)  # type: ignore[operator,return-value]

    def signed(self, x: Tensor) -> Tensor:
        """The representative in [-2^(k-1), 2^(k-1))."""
        return x if self.bits == 64 else (x << (64 - self.bits)) >> (64 - self.bits)

    def shifted(self, x: Any, f: int, out: Any = None) -> Any:
        """The array of reduced ``x`` shifted right by ``f`` bits, zeros coming in; written to ``out`` if given."""
        return np.right_shift(x.view(np.uint64), f, out=None if out is None else out.view(np.uint64)).view(np.int64)

    def heads(self, f: int) -> Heads:
        """Where the ``f`` highest bits of an array's elements are, f < k."""
        return _heads(self.bits, f)


Z64 = Ring(64)


def share(x: Tensor, holders: int) -> list[Tensor]:
    """Additive shares of int64 ``x``, contiguous: the last is what the others lack."""
    others = [random_like(x.shape) for _ in range(holders - 1)]
    return [*others, (x - reduce(torch.add, others)).contiguous()]


def reveal(shares: Sequence[Tensor], ring: Ring = Z64) -> Tensor:
    """The value of all holders' shares."""
    return ring.signed(reduce(torch.add, shares))


def flat(*xs: Tensor) -> tuple[list[Tensor], Restore]:
    """Equal shapes as vectors in one order of elements, and the way back.

    Images that all lie channels last in memory stay so: the order is then that of memory. It is the same at every holder because
    strides are a function of the kernels that ran, and `ring.share` starts with contiguous shares.
    """
    first = xs[0]
    if first.dim() == 4 and all(x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous() for x in xs):
        n, c, h, w = first.shape
        return [x.permute(0, 2, 3, 1).reshape(-1) for x in xs], lambda y: y.view(n, h, w, c).permute(0, 3, 1, 2)
    return [x.reshape(-1) for x in xs], lambda y: y.view(first.shape)
