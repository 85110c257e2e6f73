"""What a fixed-precision tensor keeps instead of a value that nobody has asked for: raw / divisor, relu and pool to follow.

    Product    a product that may be computed divided, or pooled, at no more cost
    Waiting    relu?(max-pooled?(raw)) / divisor;  `done` computes it
    Value      shared by a tensor and what detaches from it: whoever needs it first does it for all;  Memory: by a tensor and its views
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from weakref import WeakSet, WeakValueDictionary

import torch

from syftlite.ops.encoding import HEADROOM
from syftlite.tensors.arithmetic import PLAIN, arithmetic
from syftlite.tensors.comparing import current, lowest_bit

WIDTH = (17, 20)
"""Bits, at least and at most, of the factor that stands for 1 / divisor where the divisor is no power of two: its relative error."""
REACH = 20
"""What waits to be divided may have a value of up to 2^20 (or as products have it, where that is less)."""


def widest(scale: int) -> int:
    """The bits of the largest divisor that may wait: value * scale * divisor stays below 2^62."""
    bits = (scale - 1).bit_length()
    return HEADROOM - bits - min(REACH, HEADROOM - 2 * bits)


def little(scale: int, divisor: int) -> float:
    """The largest public number that joins what waits to be divided by ``divisor``: where a factor stands for it, one that its error moves
    by half a unit at most."""
    if divisor & (divisor - 1) and not _twice(scale, divisor):
        return float((1 << WIDTH[0]) / scale)
    return float(2.0 ** (min(REACH, HEADROOM - 2 * (scale - 1).bit_length()) - 6))


def _twice(scale: int, divisor: int) -> bool:
    """Whether it is divided by ``divisor`` in two steps, as products of a scale that is no power of two are."""
    return bool(scale & (scale - 1)) and divisor % scale == 0


class Product(NamedTuple):
    """A product that nobody has asked for yet. ``issue(f)`` computes it, divided by 2^f; ``pooled(kernel, stride)`` gives the product
    with its windows summed, if it can absorb that."""

    ring: Any
    issue: Callable[[int], torch.Tensor]
    shape: torch.Size
    pooled: Callable[[tuple[int, int], tuple[int, int]], Product | None] = lambda kernel, stride: None

    def with_term(
        self, combine: Callable[[Any, Any], Any], other: Any, times: Callable[[int], Any], divisor: int, shape: torch.Size
    ) -> Product:
        """``combine``(this product, a sum's other term) before the division by ``divisor`` that waits; of ring elements that have been
        divided already, where the whole division is one with the product: then that is one computation and not two. The term is what
        ``times`` makes of ``other`` and a factor."""
        ring = arithmetic(other) if self.ring is PLAIN else self.ring

        def issue(f: int) -> torch.Tensor:
            if 1 << f == divisor:
                whole: torch.Tensor = combine(self.issue(f), times(1))
                return whole
            raw = combine(self.issue(0), times(divisor))
            divided: torch.Tensor = ring.truncate(raw, f) if f else raw
            return divided

        return Product(ring, issue, shape)


class Waiting(NamedTuple):
    """The value is relu?(max-pooled?(raw)) / divisor, where raw is a ring tensor or a `Product`."""

    raw: Any
    divisor: int = 1
    relu: bool = False
    pool: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    bound: float | None = None
    """Of what relu and pool compare (tensors/comparing.py)."""

    @property
    def nothing(self) -> bool:
        """Whether the value is there."""
        return self.divisor == 1 and not self.relu and self.pool is None and not isinstance(self.raw, Product)

    @property
    def compares(self) -> bool:
        """Whether relu or a pool waits."""
        return self.relu or self.pool is not None


def bounded(waiting: Waiting) -> Waiting:
    """``waiting``, about to be compared: within the bound of the block that this is written in. Of two bounds the wider holds for both."""
    here = current()
    if waiting.compares:
        here = None if here is None or waiting.bound is None else max(here, waiting.bound)
    return waiting._replace(bound=here)


class Memory:
    """What a tensor and its views have in common."""

    __slots__ = ("keepers", "values", "writes")

    def __init__(self) -> None:
        self.writes = 0  # in place, by anyone
        self.keepers: WeakValueDictionary[int, Any] | None = None  # tensors that keep the value as it is: by id
        self.values: WeakSet[Value] | None = None  # that lie in it; None: one, which never had a view


class Value:
    """What a tensor and all that detaches from it have in common: whoever needs what waits first does it for all."""

    __slots__ = ("__weakref__", "_filled", "memory", "true_at", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting, self.memory = waiting, Memory()
        self.true_at = -1
        self._filled: tuple[torch.Tensor, int] | None = None

    @property
    def truths(self) -> bool:
        """Whether it is known to be a comparison: 1 or 0 everywhere."""
        return self.true_at == self.memory.writes

    def note_truths(self) -> None:
        """Note that it is one, until it is written to."""
        self.true_at = self.memory.writes

    @property
    def filled(self) -> torch.Tensor | None:
        """The public numbers far below all scores that it was filled with, 0 elsewhere, if nothing was written since; else None."""
        return None if self._filled is None or self._filled[1] != self.memory.writes else self._filled[0]

    def note_filled(self, known: torch.Tensor | None) -> None:
        """Note them."""
        self._filled = None if known is None else (known, self.memory.writes)

    def viewed_by(self, view: Value) -> None:
        """Note that both lie in one memory."""
        if self.memory.values is None:
            self.memory.values = WeakSet((self,))
        view.memory = self.memory
        self.memory.values.add(view)

    @property
    def alone(self) -> bool:
        """Whether no view of it is alive, nor what it is a view of."""
        return self.memory.values is None or all(value is self for value in self.memory.values)


def done(waiting: Waiting, scale: int) -> torch.Tensor:
    """The ring tensor that ``waiting`` stands for."""
    raw, divisor, relu, pool, bound = waiting
    f = divisor.bit_length() - 1
    if divisor & (divisor - 1):
        raw, f = _to_divide(raw, divisor, scale)
    elif isinstance(raw, Product):
        if not relu and pool is None:
            return raw.issue(f)
        raw = raw.issue(0)
    ring = arithmetic(raw)
    if pool is not None:
        pooled: torch.Tensor = ring.max_pool2d(raw, *pool, f, relu, lowest_bit(bound, scale << f, padded=any(pool[2])))
        return pooled
    divided: torch.Tensor = ring.relu(raw, f, lowest_bit(bound, scale << f)) if relu else ring.truncate(raw, f)
    return divided


def _to_divide(raw: Any, divisor: int, scale: int) -> tuple[Any, int]:
    """Ring elements, and how many bits to divide them by instead of by ``divisor``, which is no power of two."""
    ring = raw.ring if isinstance(raw, Product) else arithmetic(raw)
    if ring is PLAIN or _twice(scale, divisor):
        whole = raw.issue(0) if isinstance(raw, Product) else raw
        return ring.quotient(whole, divisor), 0
    bits, most = divisor.bit_length(), widest(scale) - 1  # what was added to it may have doubled it
    width = min(WIDTH[1], max(WIDTH[0], most - bits))
    first = max(0, width + bits - most)  # divide by 2^first, multiply by 2^f 2^first / divisor, divide by 2^f
    f = width + bits - first
    raw = raw.issue(first) if isinstance(raw, Product) else ring.truncate(raw, first)
    return raw * round((1 << (f + first)) / divisor), f
