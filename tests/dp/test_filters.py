"""Budgets for adaptive questions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from syftlite.dp.accountant import gaussian, noise_for, pure, rdp, tight
from syftlite.dp.filters import Spent, limits
from syftlite.errors import ConfigurationError

EVENTS = st.lists(
    st.one_of(
        st.builds(gaussian, st.floats(0.5, 50), st.sampled_from([1.0, 0.01]), st.integers(1, 100)), st.builds(pure, st.floats(0.001, 2))
    ),
    min_size=1,
    max_size=6,
)


def spent(events, variation=0.0):
    return Spent().plus(tuple(events), variation)


def sampled(noise, uses):
    return [gaussian(noise, 0.01, uses)]


@settings(max_examples=30)
@given(EVENTS, st.sampled_from([1e-8, 1e-5]))
@example(sampled(1.25, 3), 1e-5)
@example(sampled(1.5, 1), 1e-5)
@example(sampled(2.0, 100), 1e-5)
@example(sampled(2.5, 1), 1e-5)
@example(sampled(4.0, 3), 1e-8)
@example(sampled(16.484375, 96), 1e-8)
def test_what_a_budget_admits_is_within_it(events, delta):
    """The filter never admits what conversion of the same sum says is over, and is not much stricter."""
    epsilon = spent(events).epsilon(delta)
    converted = tight(rdp(events), delta)
    assert converted <= epsilon * 1.001
    assert not spent(events).fits(epsilon * 0.99, delta) or epsilon < 1e-5
    if 0.1 < converted < 10:
        assert epsilon < converted * 1.6


@pytest.mark.parametrize(("epsilon", "delta"), [(0.5, 1e-6), (1, 1e-6), (4, 1e-6), (8, 1e-5)])
def test_one_release_that_takes_nearly_all_fits(epsilon, delta):
    assert spent([gaussian(noise_for(epsilon, delta) * 1.05)]).fits(epsilon, delta)
    assert spent([pure(epsilon * 0.95)]).fits(epsilon, delta)
    assert not spent([gaussian(noise_for(epsilon, delta))]).fits(epsilon, delta)


@pytest.mark.parametrize("delta", [1e-300, 1e-9, 1e-6])
@given(st.lists(st.floats(0.01, 2), min_size=1, max_size=6))
def test_pure_epsilons_that_add_up_to_the_budget_are_admitted(delta, epsilons):
    total = sum(map(Fraction, epsilons))
    account = float(total) if float(total) >= total else math.nextafter(float(total), math.inf)
    assert spent([pure(epsilon) for epsilon in epsilons]).admitted(account, delta)
    assert not spent([pure(epsilon) for epsilon in (*epsilons, account)]).admitted(account, delta)


@given(delta=st.sampled_from([1e-300, 1e-9, 1e-5]), epsilons=st.lists(st.floats(0.01, 5), min_size=1, max_size=5))
def test_pure_epsilons_are_told_as_no_more_than_their_sum(delta, epsilons):
    held = spent([pure(epsilon) for epsilon in epsilons])
    assert 0 < held.least(delta) <= min(math.fsum(epsilons) * (1 + 1e-12), held.epsilon(delta))
    assert held.admitted(held.least(delta) * (1 + 1e-12), delta)


def test_what_is_not_pure_does_not_simply_add_up():
    held = spent([pure(0.5)])
    assert held.plus((pure(0.5),), 0.0).admitted(1.0, 1e-6) and not held.plus((pure(0.5),), 1e-8).admitted(1.0, 1e-6)
    assert not held.plus((gaussian(noise_for(0.5, 1e-6)),), 0.0).admitted(1.0, 1e-300)
    assert held.plus((gaussian(100.0),), 0.0).plus((pure(0.3),), 0.0).admitted(1.0, 1e-6)


def test_many_small_ones_compose_better_than_by_addition():
    tenth = [pure(0.1) for _ in range(100)]
    assert 1.9 * spent(tenth).epsilon(1e-6) < 10


def test_table_error_counts_against_delta():
    events = [gaussian(10)]
    assert spent(events, 1e-12).fits(4, 1e-6)
    assert not spent(events, 1e-9).fits(4, 1e-6)


def test_nothing_spent_is_nothing():
    assert Spent().epsilon(1e-6) == 0 and Spent().fits(1e-3, 1e-9)


@pytest.mark.parametrize("account", [(0, 1e-6), (1, 0), (1, 1), (float("inf"), 0.1)])
def test_what_is_no_budget_is_refused(account):
    with pytest.raises(ConfigurationError, match="budget"):
        limits(*account)
