"""Vectors of noise: the alias method decides as its weights say, to the last bit."""

from __future__ import annotations

from fractions import Fraction as F

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from syftlite.dp import tables
from syftlite.errors import ConfigurationError
from tests.dp.test_exact import fits, laplace_mass


@given(st.lists(st.integers(0, 2**200), min_size=2, max_size=40).filter(any))
def test_every_outcome_has_the_mass_of_its_weight(weights):
    table = tables.Table(weights)
    height = 1 << (127 - table.columns)
    mass = [0] * (1 << table.columns)
    for column, threshold in enumerate(table._thresholds):
        assert 0 <= threshold <= height
        mass[column] += threshold
        mass[(column ^ int(table.packed[column])) & ((1 << table.columns) - 1)] += height - threshold
    assert sum(mass) == 1 << 127
    shares = [(weight << 127) // sum(weights) for weight in weights] + [0] * (len(mass) - len(weights))
    for k, share in enumerate(shares):
        assert 0 <= mass[k] - share <= (len(weights) if share == max(shares) else 0)


def test_a_coin_that_equals_its_threshold_is_decided_by_more_bits():
    table = tables.Table([1, 2])  # column 0's threshold is 2/3 of its height: ...0101 | 0101...
    coin = table._coin
    kept = int(table.packed[0]) >> table.columns
    words = torch.full((4000,), kept, dtype=torch.int32)
    assert kept < (1 << coin) - 1
    drawn = table.draw(words)
    beyond = (table._thresholds[0] & ((1 << table._beyond) - 1)) / (1 << table._beyond)
    share = float((drawn == 0).double().mean())
    assert 0 < beyond < 1 and abs(share - beyond) < 0.05
    assert table.draw(words - 1).eq(0).all() and table.draw(words + 1).eq(1).all()


@pytest.mark.parametrize("sigma", [10**5, 10**9])
def test_very_wide_ones(sigma):
    x = tables.laplace(F(sigma), 50_000).double() / sigma
    assert stats.kstest(x.numpy(), "laplace").pvalue > 1e-6
    assert len((x * sigma % 1000).unique()) > 900


@pytest.mark.parametrize("scale", [F(1, 2), F(3), F(120)])
def test_laplace(scale):
    drawn = tables.laplace(scale, 100_000)
    assert fits(drawn.tolist(), laplace_mass(float(scale)))
    assert not fits((drawn * 2).tolist(), laplace_mass(float(scale)))


def test_what_is_too_wide_is_refused():
    with pytest.raises(ConfigurationError, match="larger epsilon"):
        tables.laplace(F(tables.WIDEST + 1), 3)


def test_an_exponential_to_two_hundred_bits():
    import mpmath

    with mpmath.workprec(400):
        for x in (F(1, 3), F(1, 10**9), F(7), F(123, 4)):
            error = abs(mpmath.mpf(tables.exponential(x)) / 2**224 - mpmath.exp(-mpmath.mpf(x.numerator) / x.denominator))
            assert error < mpmath.mpf(2) ** -215
