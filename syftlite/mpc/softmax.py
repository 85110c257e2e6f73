"""softmax and its logarithm over the last axis.

    top      the greatest of each row (ranking.py)                  6 or 7 rounds up to 16 elements
    e        e^(x - top), at most 1                                 2
    total    the sum of e: 1 <= total <= n                          none
    1/total, log total    n <= 16: a series on [1, 4] or [1, 16];  more: by bins, from 1 on (roots.py)
    softmax = e / total,    log softmax = x - top - log total

Elements that are more than 495 below their row's greatest are wrong; those more than 12 below are 0 up to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from syftlite.mpc.exponential import NEGATIVE, exponential
from syftlite.mpc.party import Party
from syftlite.mpc.products import product
from syftlite.mpc.ranking import greatest_of
from syftlite.mpc.roots import BASIS, MOST, NORMAL, bins, times_log_2
from syftlite.mpc.rounds import together
from syftlite.mpc.series import DEALT, SERIES, Basis, series
from syftlite.mpc.truncation import truncate

WITHIN_32_BITS = 0
"""Differences below 2^31 units."""
DIRECT = 16
ROOM = 60
"""e and the reciprocal of the total together fill so many bits."""
AHEAD = 14
"""Bits that e loses once it is scaled as the total is."""
SOFTMAX, LOG_SOFTMAX = 1, 2
"""What `softmax` gives, as bits of a number."""


class Total(NamedTuple):
    """What follows from the sum of e: the factor of e / sum, bits by which their product is divided, log of the sum, its bits."""

    e: Tensor
    inverse: Tensor
    shift: int
    logarithm: Tensor
    bits: int


async def softmax(p: Party, x: Tensor, f: int, what: int) -> tuple[Tensor, ...]:
    """(rows, n) -> softmax, its logarithm, or both, (rows, n)."""
    rows, n = x.shape
    below = x - (await greatest_of(p, x, WITHIN_32_BITS))[:, None]
    e = (await exponential(p, below.reshape(-1), f, NEGATIVE)).view(rows, n)
    names = [name for bit, name in ((SOFTMAX, "reciprocal"), (LOG_SOFTMAX, "log")) if what & bit]
    total = await (_directly if n <= DIRECT else _by_bins)(p, e, f, names)
    jobs = []
    if what & SOFTMAX:
        jobs.append(_times(p, total.e, total.inverse, total.shift))
    if what & LOG_SOFTMAX:
        jobs.append(truncate(p, total.logarithm, total.bits - f))
    done = await together(p, *jobs)
    if what & LOG_SOFTMAX:
        done[-1] = below - done[-1][:, None]
    return tuple(done)


async def _directly(p: Party, e: Tensor, f: int, names: list[str]) -> Total:
    bits, end, terms = ROOM - f, *((4, BASIS.terms) if e.shape[1] <= 4 else (DIRECT, 14))
    chosen, unit = [SERIES[f"{name} {end}"] for name in names], 2.0 ** (bits - DEALT)
    found = await series(p, e.sum(1), Basis(f + end.bit_length(), terms, 1), chosen, [unit] * len(names))
    return Total(e, found[0], bits, found[-1], bits)


async def _by_bins(p: Party, e: Tensor, f: int, names: list[str]) -> Total:
    """e s <= 2^30: after AHEAD bits are gone, 2^16."""
    total, bits = e.sum(1), ROOM - (MOST - AHEAD)
    near = await bins(p, total, signed=False, least=f)
    s = near.chosen(p, near.scales)
    normal, e = await together(p, product(p, "mul", total, s), product(p, "mul", e, s[:, None]))
    chosen, unit = [SERIES[f"{name} 4"] for name in names], 2.0 ** (bits - DEALT)
    found, e = await together(p, series(p, normal, BASIS, chosen, [unit] * len(names)), _cut(p, e, AHEAD))
    logarithm = found[-1] + near.chosen(p, [times_log_2(2 * k << bits) for k in near.exponents])
    return Total(e, found[0], bits + NORMAL - AHEAD - f, logarithm, bits)


async def _times(p: Party, e: Tensor, inverse: Tensor, shift: int) -> Tensor:
    return await _cut(p, await product(p, "mul", e, inverse[:, None]), shift)


async def _cut(p: Party, x: Tensor, f: int) -> Tensor:
    return (await truncate(p, x.reshape(-1), f)).view(x.shape)
