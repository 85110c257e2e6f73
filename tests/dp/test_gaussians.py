"""Vectors of discrete Gaussians: their laws to the last bit, as their tables and thresholds say, and their draws, with flaws planted."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction as F
from functools import cache

import mpmath
import pytest
import torch
from scipy import stats

from syftlite.dp import gaussians, tables
from syftlite.dp.gaussians import Lookup, gaussian
from syftlite.errors import ConfigurationError
from tests.dp.test_exact import fits, gaussian_mass

N = 400_000


def off(law: Lookup) -> float:
    """How far, summed over x >= 0 and over x <= 0, what the list of places and `Lookup.takes` give is from the discrete Gaussian; the larger."""
    w, owned = 1 << law.shift, Counter(law.places.tolist())
    nobody = owned.pop(gaussians._NOBODY, 0)
    with mpmath.workprec(300):
        chosen = Counter(law.candidates.tolist())
        rest: dict[int, mpmath.mpf] = {}
        for b, most in enumerate(law.heights):
            for x in range(((b - law.last) << law.shift) - w // 2, ((b - law.last) << law.shift) + (w + 1) // 2):
                height = (tables.exponential(F(x * x) / (2 * law.variance)) << 16) - law.total * law.counts[b]
                rest[x] = chosen[b] * min(max(mpmath.mpf(height) / most, 0), 1) if most else mpmath.mpf(0)
        whole = mpmath.fsum(rest.values())
        exact = {x: mpmath.exp(-(mpmath.mpf(x * x) * law.variance.denominator) / (2 * law.variance.numerator)) for x in rest}
        total = mpmath.fsum(exact.values())
        gaps = {x: (mpmath.mpf(owned[(x + w // 2) >> law.shift << law.shift]) / w + nobody * p / whole) / 65536 - exact[x] / total for x, p in rest.items()}
        return float(max(mpmath.fsum(abs(g) for x, g in gaps.items() if x * sign >= 0) for sign in (-1, 1)))


@pytest.mark.parametrize("variance", [F(1, 50), F(7, 3), F(127**2), F(150**2), F(1201, 4) ** 2])
def test_every_outcome_has_its_probability(variance):
    law = Lookup(variance)
    assert law.shift == 0 or 64 <= float(variance) ** 0.5 / 2**law.shift < 128
    assert 0 < off(law) < 2.0**-112
    assert law.last << law.shift > 13 * float(variance) ** 0.5 - 1


def test_a_place_too_many_shows():
    law = Lookup(F(128**2))
    law.places[20_000] = law.places[40_000]
    assert 2.0**-20 < off(law) < 2.0**-15


def test_floats_and_integers_take_the_same_candidates(monkeypatch):
    law = Lookup(F(3000**2))
    drawn = gaussians.random_like
    kept: list[torch.Tensor] = []
    monkeypatch.setattr(gaussians, "random_like", lambda *a: kept.append(drawn(*a)) or kept[-1].clone())
    taken = law._taken(3000)
    asked: list[tuple[int, int, int]] = []
    whole = law.takes
    monkeypatch.setattr(law, "takes", lambda *a: asked.append(a) or whole(*a))
    again = iter([*kept, *kept])
    monkeypatch.setattr(gaussians, "random_like", lambda shape, *a: next(again).clone() if shape != (12,) else drawn(shape, *a))
    assert torch.equal(law._taken(3000), taken) and not asked
    monkeypatch.setattr(gaussians, "_UNSURE", math.inf)
    assert torch.equal(law._taken(3000), taken) and len(asked) == 3000


@pytest.mark.parametrize("sigma", [30, 3000, gaussians.NARROW - 1])
def test_a_narrow_law_is_the_same_in_floats(sigma, monkeypatch):
    drawn, kept = gaussians.random_like, []
    monkeypatch.setattr(gaussians, "random_like", lambda *a: kept.append(drawn(*a)) or kept[-1].clone())
    whole = gaussian(F(sigma**2), 40_000)
    again = iter(kept)
    monkeypatch.setattr(gaussians, "random_like", lambda *a: next(again))
    floats = gaussian(F(sigma**2), 40_000, torch.float32)
    assert floats.dtype is torch.float32 and whole.dtype is torch.int32 and torch.equal(floats.to(torch.int32), whole)


def test_a_coin_at_its_threshold_is_decided_by_more_bits():
    law = Lookup(F(3000**2))
    bucket, x = law.last + 40, 40 << law.shift
    height = (tables.exponential(F(x * x) / (2 * law.variance)) << 16) - law.total * law.counts[bucket]
    at = (height << 50) // law.heights[bucket]
    share = float(F(height << 50, law.heights[bucket]) - at)
    assert law.takes(x, bucket, at - 1) and not law.takes(x, bucket, at + 1)
    assert stats.binomtest(sum(law.takes(x, bucket, at) for _ in range(3000)), 3000, share).pvalue > 1e-6


def sound(draw, variance: F) -> bool:
    """Whether two vectors of ``draw`` follow the law, symmetric, each value anew."""
    a, b = draw(N), draw(N)
    mass = gaussian_mass(float(variance))
    signs = stats.binomtest(int((a > 0).sum()), int((a != 0).sum()), 0.5).pvalue > 1e-6
    other = [a.double() @ v.double() / N / float(variance) for v in (b, a.roll(1), a.roll(gaussians._PIECE), a.roll(N // 2))]
    return fits(a.tolist(), mass) and signs and all(abs(float(c)) < 6 / N**0.5 for c in other)


@pytest.mark.parametrize("variance", [F(1, 3), F(20**2), F(200**2)])
def test_draws(variance):
    assert sound(lambda n: gaussian(variance, n), variance)


def biased(n: int) -> torch.Tensor:
    x = gaussian(F(20**2), n)
    x[::50].abs_()
    return x


def repeated(n: int) -> torch.Tensor:
    return gaussian(F(20**2), n // 2).repeat(2)


@cache
def once() -> torch.Tensor:
    return gaussian(F(20**2), N)


FLAWS = {
    "wider by 2%": lambda n: gaussian(F(102, 100) ** 2 * 400, n),
    "narrower by 2%": lambda n: gaussian(F(98, 100) ** 2 * 400, n),
    "a sign in 50 too often positive": biased,
    "half of it used twice": repeated,
    "all of it used twice": lambda n: once(),
    "in twos": lambda n: gaussian(F(10**2), n) * 2,
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_flaws_are_caught(flaw):
    assert not sound(FLAWS[flaw], F(20**2))


def test_buckets_without_their_wedges_are_caught(monkeypatch):
    """Whether rejection matters: all candidates taken, 1 in 160 draws too far from its law."""
    variance = F(200**2)
    monkeypatch.setattr(Lookup, "_taken", lambda law, count: _all(law, count))
    law = Lookup(variance)
    inner = law.rest(N)
    monkeypatch.undo()
    outer = Lookup(variance).rest(N)
    assert stats.ks_2samp(inner.numpy(), outer.numpy()).pvalue < 1e-6


def _all(law: Lookup, count: int) -> torch.Tensor:
    bucket = law.candidates[(gaussians.random_like((count,)) & 32767).numpy()] - law.last
    return torch.from_numpy(bucket << law.shift).int() + (gaussians.random_like((count,), torch.int32) >> (32 - law.shift))


def test_a_wide_one_is_a_sum_of_narrow_ones(monkeypatch):
    monkeypatch.setattr(gaussians, "NARROW", 7)
    gaussians._levels.cache_clear()
    assert [unit for _, unit in gaussians._levels(F(20**2))] == [1, 3]
    assert fits(gaussian(F(20**2), 200_000).tolist(), gaussian_mass(400.0))
    monkeypatch.setattr(gaussians, "SMOOTH", F(1, 5))  # too coarse a step between the second one's values shows
    gaussians._levels.cache_clear()
    assert not fits(gaussian(F(20**2), 200_000).tolist(), gaussian_mass(400.0))
    gaussians._levels.cache_clear()


@pytest.mark.parametrize("sigma", [10**5, 10**6, 10**9])
def test_very_wide_ones(sigma):
    drawn = gaussian(F(sigma) ** 2, 50_000)
    assert drawn.dtype == (torch.int32 if sigma <= gaussians.NARROW else torch.int64)
    assert stats.kstest((drawn.double() / sigma).numpy(), "norm").pvalue > 1e-6
    assert len((drawn % 1000).unique()) > 900


def test_none_and_one():
    assert gaussian(F(10**8), 0).shape == (0,) and gaussian(F(10**8), 1).shape == (1,)


def test_what_is_too_wide_is_refused():
    with pytest.raises(ConfigurationError, match="larger epsilon"):
        gaussian(F(tables.WIDEST + 1) ** 2, 3)
