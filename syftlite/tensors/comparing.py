"""Comparisons of 32 bits in place of 64, where the caller says that what is compared is small.

    with sy.mpc.comparing(bound=1000):        all of  x < y, relu, max, pools  that are written in the block
        y = model(x)

A window of 32 bits from bit `low` is right where -2^(low+31) <= v <= 2^(low+31) - 2^low, v being what is compared, a difference for maxima
(mpc/comparison.py). So low is the least with bound * units <= 2^low (2^31 - 1), units being those of 1.0. With low > 0 a value of less than
2^low units below 0 may count as 0 or more: bound / 2^31 of 1.0, nearly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from syftlite.errors import Misuse

WHOLE = -1
"""The `low` that compares all bits."""
_HIGHEST = 32

_bound: ContextVar[float | None] = ContextVar("bound", default=None)


@contextmanager
def comparing(*, bound: float) -> Iterator[None]:
    """What the block compares looks at 32 bits: ``bound`` is the largest magnitude of any compared value, and of any difference that is
    compared. Nobody can see whether it holds: beyond it results are garbage. Raises `Misuse` for a bound that is no positive number."""
    if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not 0 < bound < math.inf:
        raise Misuse(f"a bound is a positive number, the largest magnitude that is compared, not {bound!r}")
    token = _bound.set(float(bound))
    try:
        yield
    finally:
        _bound.reset(token)


def current() -> float | None:
    """The bound of the block that this is written in."""
    return _bound.get()


def lowest_bit(bound: float | None, units: int, *, padded: bool = False) -> int:
    """``low`` for values within ``bound``, 1.0 being ``units``; `WHOLE` without a bound. Pools that are ``padded`` compare with what is
    below all of them, and need another bit. Raises `Misuse` for a bound of more than 64 bits."""
    if bound is None:
        return WHOLE
    largest = math.ceil(bound * units) << (1 if padded else 0)
    low = max(0, (-(-largest // ((1 << 31) - 1)) - 1).bit_length())
    if low > _HIGHEST:
        raise Misuse(f"a bound of {bound:g} at {units:,} units for 1.0 needs more than 64 bits: make it smaller, or leave it out")
    return low
