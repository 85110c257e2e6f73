"""Vectors of discrete noise: Walker's alias method on 32-bit words, exact in all that it decides (Walker 1977; Vose 1991).

    word (31 bits)  =  column, c bits | coin, 31 - c bits         column's entry: threshold (31 - c bits), alias ^ column (c bits)
    coin < threshold: the column     coin > threshold: its alias     equal (2^-17 or less a draw): decided by 96 bits more of both

Column weights are integers over 2^127, computed with Python's integers, so a table's law is within `TABLE_ERROR` of the true one in total
variation: what an account is charged for (`filters`). Gaussians are in `gaussians`; a wide Laplace is made of narrow tables:

    |x| = a + m b   a geometric below m, b geometric, or such a sum again: independent, exactly
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import ceil, isqrt

import torch

from syftlite.errors import ConfigurationError
from syftlite.randomness import random_like

TABLE_ERROR = 2.0**-110
"""Total variation a draw, with room to spare: at each of up to six levels a truncated tail (2^-120) and 2^14 weights rounded by 2^-127."""

_WEIGHT_BITS = 127
TAIL_BITS = 128
GUARD_BITS = 224
_MOST_COLUMNS = 14
WIDEST = 1 << 40
"""The largest standard deviation, or scale, that is drawn here."""
_PIECE = 1 << 16


class Table:
    """Draws k with probability weights[k] / sum(weights). ``weights``: at most 2^14 non-negative integers."""

    def __init__(self, weights: Sequence[int]) -> None:
        self.columns = max(1, (len(weights) - 1).bit_length())
        if self.columns > _MOST_COLUMNS:
            raise ValueError(f"a table has at most {1 << _MOST_COLUMNS} entries, not {len(weights)}")
        shares = _rounded([*weights, *[0] * ((1 << self.columns) - len(weights))])
        self._thresholds, aliases = _columns(shares, 1 << (_WEIGHT_BITS - self.columns))
        self._coin = 31 - self.columns
        self._coins = (1 << self._coin) - 1
        self._beyond = _WEIGHT_BITS - 31
        kept = [min(threshold >> self._beyond, self._coins) for threshold in self._thresholds]
        entries = [t << self.columns | a ^ column for column, (t, a) in enumerate(zip(kept, aliases, strict=True))]
        self.packed = torch.tensor(entries, dtype=torch.int32)
        self._aliases = (1 << self.columns) - 1

    def draw(self, words: torch.Tensor) -> torch.Tensor:
        """The outcomes, int32, that ``words`` stand for: int32, of which the lower 31 bits count."""
        column = (words >> self._coin).bitwise_and_(self._aliases)
        entry = torch.index_select(self.packed, 0, column)  # a quarter of the time of packed[column]
        below = (entry >> self.columns).sub_(words & self._coins)
        ties = (below == 0).nonzero().flatten() if int(torch.count_nonzero(below)) < len(below) else None
        out = column.bitwise_xor_(entry.bitwise_and_(self._aliases).bitwise_and_(below.bitwise_right_shift_(31)))
        if ties is not None:
            self._settle(out, words, ties)
        return out

    def _settle(self, out: torch.Tensor, words: torch.Tensor, places: torch.Tensor) -> None:
        """The draws whose coin equals what is kept of the threshold: by the bits of both beyond."""
        for place in places.tolist():
            more = int.from_bytes(random_like((self._beyond // 8,), torch.uint8).numpy().tobytes(), "little")
            word = int(words[place])
            at = (word >> self._coin) & self._aliases
            whole = ((word & self._coins) << self._beyond) | more
            out[place] = at if whole < self._thresholds[at] else (at ^ int(self.packed[at])) & self._aliases


def _rounded(weights: Sequence[int]) -> list[int]:
    """``weights`` scaled to sum to 2^127 exactly; each is within one of its true share, but for the largest, which takes the rest."""
    total, whole = sum(weights), 1 << _WEIGHT_BITS
    shares = [(weight << _WEIGHT_BITS) // total for weight in weights]
    shares[shares.index(max(shares))] += whole - sum(shares)
    return shares


def _columns(shares: list[int], height: int) -> tuple[list[int], list[int]]:
    """(threshold, alias) of each column of ``height``: Vose's algorithm in integers."""
    left, thresholds, aliases = list(shares), [height] * len(shares), list(range(len(shares)))
    low = [k for k, share in enumerate(left) if share < height]
    high = [k for k, share in enumerate(left) if share > height]
    while low:
        short, tall = low.pop(), high[-1]
        thresholds[short], aliases[short] = left[short], tall
        left[tall] -= height - left[short]
        if left[tall] <= height:
            high.pop()
            if left[tall] < height:
                low.append(tall)
    return thresholds, aliases


# -- weights


def exponential(x: Fraction) -> int:
    """exp(-x) for 0 <= x, in units of 2^-224."""
    halvings = max(0, ceil(x).bit_length())
    term = total = 1 << (GUARD_BITS + 64)
    small = x / (1 << halvings)
    k = 0
    while term:
        k += 1
        term = term * small.numerator // (small.denominator * k)
        total += -term if k % 2 else term
    for _ in range(halvings):
        total = (total * total) >> (GUARD_BITS + 64)
    return total >> 64


def _geometric(scale: Fraction, count: int | None) -> Table:
    """k with weight exp(-k / scale), for k < ``count`` or as long as it is above 2^-128."""
    p, ratio = 1 << GUARD_BITS, exponential(1 / scale)
    weights: list[int] = []
    while len(weights) < count if count is not None else p >> (GUARD_BITS - TAIL_BITS):
        weights.append(p)
        p = (p * ratio) >> GUARD_BITS
    return Table(weights)


# -- vectors


def too_wide(steps: Fraction | float, most: int = WIDEST) -> ConfigurationError:
    """What is wrong with a law of ``steps``."""
    told = f"{float(steps):,.0f}" if steps < 10**30 else "more than 10^30"
    return ConfigurationError(f"noise of {told} steps, at most {most:,}: ask for a larger epsilon or a smaller noise multiplier")


def _pieces(numel: int, draw: Callable[[int], torch.Tensor]) -> torch.Tensor:
    if numel <= _PIECE:
        return draw(numel)
    return torch.cat([draw(min(_PIECE, numel - start)) for start in range(0, numel, _PIECE)])  # a piece stays in the cache


@lru_cache(maxsize=64)
def _laplace_levels(scale: Fraction) -> tuple[tuple[Table, int], ...]:
    """(table, what its draws are multiplied with)."""
    if scale > WIDEST:
        raise too_wide(scale)
    levels, unit = [], 1
    while scale > 90:
        m = min(1 << _MOST_COLUMNS, isqrt(ceil(scale)) + 1)
        levels.append((_geometric(scale, m), unit))
        scale, unit = scale / m, unit * m
    return (*levels, (_geometric(scale, None), unit))


def laplace(scale: Fraction, numel: int) -> torch.Tensor:
    """(numel,) int64, P(x) ~ exp(-|x| / scale). ``scale`` at most `WIDEST`."""
    levels = _laplace_levels(scale)

    def draw(n: int) -> torch.Tensor:
        words = random_like((len(levels), n), torch.int32)
        sign = words[0] >> 31
        magnitude = torch.zeros(n, dtype=torch.int64)
        for (table, unit), row in zip(levels, words, strict=True):
            magnitude.add_(table.draw(row), alpha=unit)
        out = (magnitude ^ sign).sub_(sign)
        again = ((magnitude == 0) & (sign != 0)).nonzero().flatten()  # zero has one sign
        if len(again):
            out[again] = draw(len(again))
        return out

    return _pieces(numel, draw)
