"""Vectors of discrete Gaussians: most draws by one look into a list, the others by rejection, exact in all that they decide.

    word, 32 bits  =  u, k bits | ... | place, 16 bits        buckets b of w = 2^k integers, b w - w/2 <= x < b w + w/2; sigma >= 64 w
    b's place:       x = b w + u        c_b of the 2^16 places are b's: as many as stay below P in all of b (Marsaglia 1963)
    nobody's, 1%:    x ~ P(x) - c_b / (2^16 w), from candidates b w + u: b has n_b of 2^15 places, n_b E >= 2^16 w T_b - c_b, T_b >= P in b;
                     taken with probability (2^16 w P(x) - c_b) / (n_b E)                                (Marsaglia, Tsang 2000: the wedges)

Whether a candidate is taken is seen in float64, to 2^-49; what is closer than 2^-40 is decided in integers, by 96 bits more of the coin
(Karney 2016). c_b, n_b and E are whole. Laws beyond `NARROW` are sums, b being one again:

    x = a + m b     a, b discrete Gaussians, sigma^2 = sigma_a^2 + m^2 sigma_b^2, sigma_a = 2.2 m: P(x) is that of the discrete Gaussian
                    but for a factor within 1 +- 5 exp(-2 pi^2 s^2) < 1 +- 2^-120, by Poisson summation; 1/s^2 = 1/2.2^2 + 1/sigma_b^2
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from math import ceil, floor, isqrt

import numpy as np
import torch

from syftlite.dp.tables import GUARD_BITS, TAIL_BITS, WIDEST, exponential, too_wide
from syftlite.randomness import random_like

NARROW = 1 << 20
"""Standard deviations up to which one `Lookup` holds a law; its draws are below 2^24: exact as float32, too."""
SMOOTH = Fraction(11, 5)
_PLACES = 16
_CHOICES = 15
_NOBODY = -(1 << 30)
"""In the list, where a place is nobody's."""
_COIN = 50
_MORE = 96
_UNSURE = 2.0**-40
"""Beyond all rounding of sides up to 1; more where the coin's 50 bits are coarse because candidates are far too many."""
_PIECE = 1 << 18


class Lookup:
    """A discrete Gaussian of ``variance``, at most `NARROW` squared."""

    def __init__(self, variance: Fraction) -> None:
        self.variance = variance
        self.shift = k = max(0, isqrt(floor(variance)).bit_length() - 7)
        halves = _powers(exponential(Fraction(1 << 2 * k, 8) / variance))  # P(j w / 2) / P(0)
        lowest, highest = (halves[1::2], [halves[0], *halves[1::2]]) if k else (halves[::2], halves[::2])
        last = self.last = len(highest) - 1
        lowest += [0] * (last + 1 - len(lowest))
        order = [abs(b) for b in range(-last, last + 1)]
        self.total = sum(halves[2 * b] if 2 * b < len(halves) else 0 for b in order)  # 2^16 w P(x) is 2^16 exp(...) over it
        self.counts = [(lowest[b] << _PLACES) // self.total for b in order]
        tops = [highest[b] << _PLACES for b in order]
        gaps = [top - self.total * count for top, count in zip(tops, self.counts, strict=True)]
        unit = sum(gaps) // ((1 << _CHOICES) - len(order)) + 1
        chances = [-(-gap // unit) for gap in gaps]
        chances[last] += (1 << _CHOICES) - sum(chances)  # what is left of the list makes one bucket's candidates too many
        self.heights = [unit * chance for chance in chances]
        self.places = torch.full((1 << _PLACES,), _NOBODY, dtype=torch.int32)
        owners = torch.arange(-last, last + 1, dtype=torch.int32).repeat_interleave(torch.tensor(self.counts))
        self.places[: len(owners)] = owners << k
        self._drawn_as = {torch.int32: self.places, torch.float32: self.places.to(torch.float32)}
        self.candidates = np.repeat(np.arange(len(order), dtype=np.int16), chances)  # short, to stay in the cache
        edges = [max(0, (2 * b - 1 << k) // 2) ** 2 if k else b * b for b in order]
        shares = [float(Fraction(self.total * count, top)) for count, top in zip(self.counts, tops, strict=True)]
        ratios = [float(Fraction(height, top)) for height, top in zip(self.heights, tops, strict=True)]
        self._known = np.array([edges, shares, ratios], dtype=np.float64)
        self._rate = float(1 / (2 * variance))

    def draw(self, numel: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
        """(numel,) int32, or float32, which has them exactly."""
        listed, out, left = self._drawn_as[dtype], torch.empty(numel, dtype=dtype), []
        nobody = out.numpy().dtype.type(_NOBODY)
        for start in range(0, numel, _PIECE):  # torch picks; all else takes NumPy a third to a half of torch's time
            part = out[start : start + _PIECE]
            words, found = random_like(part.shape, torch.int32).numpy(), part.numpy()
            torch.index_select(listed, 0, torch.from_numpy(words & np.int32((1 << _PLACES) - 1)), out=part)
            left.append((found == nobody).nonzero()[0] + start)
            if self.shift:
                words >>= np.int32(32 - self.shift)
                np.add(found, words, out=found, dtype=found.dtype, casting="unsafe")  # the type that a sum of both has takes twice as long
        places = torch.from_numpy(np.concatenate(left)) if left else torch.empty(0, dtype=torch.int64)
        return out.index_copy_(0, places, self.rest(len(places)).to(dtype))

    def rest(self, count: int) -> torch.Tensor:
        """(count,) int32 of the law of what is at nobody's places."""
        found: list[torch.Tensor] = []
        while count:
            taken = self._taken(count * 7 // 4 + 32)[:count]
            count -= len(taken)
            found.append(taken)
        return torch.cat(found) if found else torch.empty(0, dtype=torch.int32)

    def _taken(self, count: int) -> torch.Tensor:
        """Those of ``count`` candidates that are taken, in order, int32. In NumPy: it begins an operation in half of torch's time."""
        words, bits = random_like((2, count)).numpy()
        bucket = self.candidates[words & ((1 << _CHOICES) - 1)].astype(np.int64)
        x = (bucket - self.last) << self.shift
        if self.shift:
            x += words >> (64 - self.shift)
        coins = bits & ((1 << _COIN) - 1)
        edges, shares, ratios = self._known.take(bucket, axis=1)
        gaps = np.exp((edges - np.square(x, dtype=np.float64)) * self._rate) - shares - coins * 2.0**-_COIN * ratios
        taken = gaps > 0
        for at in np.flatnonzero(np.abs(gaps) < _UNSURE * (1 + 2.0**-8 * ratios)).tolist():
            taken[at] = self.takes(int(x[at]), int(bucket[at]), int(coins[at]))
        return torch.from_numpy(x[taken].astype(np.int32))

    def takes(self, x: int, bucket: int, coin: int) -> bool:
        """Whether candidate ``x`` is taken where the coin's first 50 bits are ``coin``: in integers."""
        more = int.from_bytes(random_like((_MORE // 8,), torch.uint8).numpy().tobytes(), "little")
        height = (exponential(x * x / (2 * self.variance)) << _PLACES) - self.total * self.counts[bucket]
        return (coin << _MORE | more) * self.heights[bucket] < height << (_COIN + _MORE)


def _powers(ratio: int) -> list[int]:
    """r^(j^2), j = 0, 1, ..., while they are above 2^-128, like ``ratio`` in units of 2^-224: p_{j+1} = p_j r^(2j+1)."""
    powers, step, square = [1 << GUARD_BITS], ratio, (ratio * ratio) >> GUARD_BITS
    while powers[-1] >> (GUARD_BITS - TAIL_BITS):
        powers.append((powers[-1] * step) >> GUARD_BITS)
        step = (step * square) >> GUARD_BITS
    return powers[:-1]


@lru_cache(maxsize=64)
def _levels(variance: Fraction) -> tuple[tuple[Lookup, int], ...]:
    """(law, what its draws are multiplied with)."""
    if variance > WIDEST * WIDEST:
        raise too_wide(isqrt(ceil(variance)))
    levels, unit = [], 1
    while variance > NARROW * NARROW:
        m = min(int(NARROW / SMOOTH), isqrt(ceil(variance)) // NARROW + 1)
        narrow = (SMOOTH * m) ** 2
        levels.append((Lookup(narrow), unit))
        variance, unit = (variance - narrow) / (m * m), unit * m
    return (*levels, (Lookup(variance), unit))


def gaussian(variance: Fraction, numel: int, narrow: torch.dtype = torch.int32) -> torch.Tensor:
    """(numel,) integers, P(x) ~ exp(-x^2 / 2 variance); ``narrow``, int32 or float32, where one `Lookup` holds them, int64 where not.
    Standard deviation at most `WIDEST`."""
    (first, _), *others = _levels(variance)
    out = first.draw(numel, torch.int32 if others else narrow)
    for law, unit in others:
        out = out.long().add_(law.draw(numel), alpha=unit)
    return out
