"""Rational samplers: their laws, by chi-square against the formula."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction as F

import pytest
from scipy import stats

from syftlite.dp import exact

N = 6_000


def fits(draws: list[int], mass: dict[int, float]) -> bool:
    """Whether ``draws`` follow ``mass``: chi-square at 1 in 10^6; what is rare goes into one cell."""
    counts, expected, seen = Counter(draws), [], []
    for value, p in mass.items():
        if p * len(draws) >= 10:
            expected.append(p * len(draws))
            seen.append(counts.pop(value, 0))
    expected.append(max(len(draws) - sum(expected), 1e-9))
    seen.append(sum(counts.values()))
    if expected[-1] < 5:
        expected[0], seen[0] = expected[0] + expected.pop(), seen[0] + seen.pop()
    return stats.chisquare(seen, [e * len(draws) / sum(expected) for e in expected]).pvalue > 1e-6


def gaussian_mass(variance: float) -> dict[int, float]:
    weights = {k: math.exp(-k * k / (2 * variance)) for k in range(-int(40 * variance**0.5) - 2, int(40 * variance**0.5) + 3)}
    return {k: w / sum(weights.values()) for k, w in weights.items()}


def laplace_mass(scale: float) -> dict[int, float]:
    e = math.exp(-1 / scale)
    return {k: (1 - e) / (1 + e) * e ** abs(k) for k in range(-int(40 * scale) - 2, int(40 * scale) + 3)}


def test_below_is_uniform():
    bits = exact.sampler()
    assert fits([bits.below(7) for _ in range(N)], dict.fromkeys(range(7), 1 / 7))
    assert {bits.below(1) for _ in range(10)} == {0}


@pytest.mark.parametrize("gamma", [F(0), F(1, 3), F(1), F(5, 2)])
def test_coins_of_exponential_probability(gamma):
    bits = exact.sampler()
    heads = sum(exact.bernoulli_exp(gamma, bits) for _ in range(N))
    assert stats.binomtest(heads, N, math.exp(-gamma)).pvalue > 1e-6


@pytest.mark.parametrize("scale", [F(1, 2), F(3), F(7, 3)])
def test_discrete_laplace(scale):
    bits = exact.sampler()
    assert fits([exact.discrete_laplace(scale, bits) for _ in range(N)], laplace_mass(float(scale)))


@pytest.mark.parametrize("variance", [F(1, 4), F(2), F(81, 4)])
def test_discrete_gaussian(variance):
    bits = exact.sampler()
    assert fits([exact.discrete_gaussian(variance, bits) for _ in range(N)], gaussian_mass(float(variance)))
    assert not fits([exact.discrete_gaussian(variance * 2, bits) for _ in range(N)], gaussian_mass(float(variance)))
