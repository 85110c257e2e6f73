"""Costs and their conversion, against two other accountants, and numbers in print."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.dp.accountant import ORDERS, Event, gaussian, mironov, noise_for, pure, rdp, tight
from syftlite.dp.filters import Spent
from syftlite.errors import ConfigurationError


def test_a_thousand_steps_as_opacus_and_dp_accounting_count_them():
    dp_accounting = pytest.importorskip("dp_accounting")
    curve = rdp([gaussian(1.0, 0.01, 1000)])
    assert tight(curve, 1e-5) == pytest.approx(2.1014, abs=5e-5)
    peer = dp_accounting.rdp.RdpAccountant(ORDERS)
    peer.compose(dp_accounting.PoissonSampledDpEvent(0.01, dp_accounting.GaussianDpEvent(1.0)), 1000)
    assert tight(curve, 1e-5) == pytest.approx(peer.get_epsilon(1e-5), rel=1e-5)
    for order, ours, theirs in zip(ORDERS, curve.tolist(), peer._rdp, strict=True):
        # it bounds what lies between whole orders, where ours integrates
        assert theirs == pytest.approx(ours, rel=1e-7) if order == int(order) else theirs >= ours * (1 - 1e-9)


@pytest.mark.parametrize(("noise", "rate", "steps"), [(1.0, 0.01, 1000), (0.7, 256 / 60000, 10_000), (4.0, 0.3, 50), (2.0, 1.0, 3)])
def test_as_opacus_between_whole_orders_too(noise, rate, steps):
    analysis = pytest.importorskip("opacus.accountants.analysis.rdp")
    orders = [order for order in ORDERS if order < 64]
    theirs = analysis.compute_rdp(q=rate, noise_multiplier=noise, steps=steps, orders=orders)
    assert rdp([gaussian(noise, rate, steps)]).tolist()[: len(orders)] == pytest.approx(list(theirs), rel=1e-6)


@pytest.mark.parametrize(
    ("noise", "epochs", "printed", "today"), [(1.3, 15, 1.19, 0.95), (1.1, 60, 3.01, 2.60), (0.7, 45, 7.10, 6.32)]
)
def test_the_published_table(noise, epochs, printed, today):
    curve = rdp([gaussian(noise, 256 / 60_000, epochs * 60_000 // 256)])
    assert mironov(curve, 1e-5) == pytest.approx(printed, abs=5e-3)
    assert tight(curve, 1e-5) == pytest.approx(today, rel=6e-3)


@given(st.floats(1e-6, 20))
def test_a_pure_mechanism_costs_at_most_its_epsilon_at_every_order(epsilon):
    curve = rdp([pure(epsilon)])
    assert bool((curve <= epsilon).all())
    assert bool((curve[1:] >= curve[:-1] - 1e-12).all())
    # randomised response attains the bound: D_a(p || 1-p), p = e^eps / (1 + e^eps)
    p = 1 / (1 + math.exp(-epsilon))
    for order, cost in zip(ORDERS[:150:7], curve.tolist()[:150:7], strict=True):
        logs = torch.tensor([order * math.log(p) + (1 - order) * math.log1p(-p), order * math.log1p(-p) + (1 - order) * math.log(p)])
        assert cost == pytest.approx(float(torch.logsumexp(logs.double(), 0)) / (order - 1), rel=1e-3, abs=1e-6)


@settings(max_examples=30)
@given(st.floats(0.05, 10), st.sampled_from([1e-9, 1e-6, 1e-3]))
def test_the_noise_that_is_found_is_enough_and_little_less_is_not(epsilon, delta):
    noise = noise_for(epsilon, delta)
    assert tight(rdp([gaussian(noise)]), delta) <= epsilon < tight(rdp([gaussian(noise * 0.999)]), delta)


def test_noise_for_many_sampled_steps():
    noise = noise_for(2.6, 1e-5, 256 / 60_000, 14_040)
    assert noise == pytest.approx(1.1, rel=0.01)


@settings(max_examples=15)
@given(st.floats(0.3, 10), st.floats(1e-4, 0.99))
def test_a_sample_costs_less_than_all_and_more_noise_less(noise, rate):
    whole, part, quieter = rdp([gaussian(noise)]), rdp([gaussian(noise, rate)]), rdp([gaussian(noise * 1.1, rate)])
    assert bool((part <= whole * (1 + 1e-9) + 1e-12).all()) and bool((quieter <= part + 1e-12).all())


@pytest.mark.parametrize("wrong", [lambda: gaussian(0), lambda: gaussian(1, 0), lambda: gaussian(math.nan), lambda: pure(0), lambda: pure(math.inf)])
def test_what_cannot_be_a_cost_is_refused(wrong):
    with pytest.raises(ConfigurationError):
        wrong()
    with pytest.raises(ConfigurationError, match="delta"):
        tight(rdp([pure(1)]), 0)


@pytest.mark.parametrize("rate", [1e-3, 0.3])
def test_however_little_the_noise_its_cost_is_found(rate):
    noises = (0.0501, 0.0499, 0.01, 1e-3, 1e-6)
    costs = [tight(rdp([gaussian(noise, rate)]), 1e-5) for noise in noises]
    assert costs[1] == pytest.approx(costs[0], rel=0.01) and costs == sorted(costs)
    for noise, cost in zip(noises[2:], costs[2:], strict=True):
        assert 0.95 < cost / tight(rdp([gaussian(noise)]), 1e-5) <= 1
    assert 0 < noise_for(1e5, 1e-5, rate) < 0.01


@pytest.mark.parametrize("rate", [1e-3, 0.3, 1 - 1e-16, 1.0])
@pytest.mark.parametrize("noise", [10.0**-k for k in range(8, 320, 6)] + [5e-324])
def test_next_to_no_noise_is_never_free(noise, rate):
    """Also where its square is no number above 0."""
    curve = rdp([gaussian(noise, rate)])
    assert not curve.isnan().any() and bool((curve[torch.tensor(ORDERS) >= 2] > 1e8).all())
    assert tight(curve, 1e-5) > 1e8 and mironov(curve, 1e-5) > 1e8
    assert not Spent().plus((gaussian(noise, rate),), 0.0).admitted(1e6, 1e-5)


@given(st.floats(1e-12, 1e-2))
def test_a_little_pure_epsilon_costs_something_at_every_order(epsilon):
    """Times the order, half of its square: Bun and Steinke 2016, proposition 3.3."""
    curve = rdp([pure(epsilon)])
    bound = torch.tensor([min(epsilon, order * epsilon**2 / 2) for order in ORDERS], dtype=torch.float64)
    assert bool((curve <= bound * (1 + 1e-9)).all()) and bool((curve[torch.tensor(ORDERS) * epsilon < 0.1] > 0).all())
    assert bool((curve >= bound * 0.99)[torch.tensor(ORDERS) * epsilon < 0.1].all())


@pytest.mark.parametrize(
    "event", [Event("gaussian", math.nan), Event("gaussian", -1.0), Event("gaussian", 1.0, 2.0), Event("pure", 0.0), Event("pure", math.inf)]
)
def test_an_event_that_nobody_can_have_made_costs_no_number(event):
    with pytest.raises(ConfigurationError):
        rdp([event])


def test_no_releases_need_no_noise_and_are_none():
    with pytest.raises(ConfigurationError, match="at least 1, not 0"):
        noise_for(1.0, 1e-5, 0.01, 0)


@pytest.mark.parametrize("uses", [-1, 1.5, "2", None])
def test_noise_is_drawn_so_many_times(uses):
    cost = Event("pure", 1.0, 1.0, uses)
    for ask in (lambda: gaussian(1.0, 0.1, uses), lambda: pure(1.0, uses), lambda: pure(1.0).times(uses), lambda: rdp([cost])):
        with pytest.raises(ConfigurationError, match="how often noise was drawn is a whole number"):
            ask()


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda: rdp(3), "a list of events"), (lambda: rdp([3]), "costs are of events"), (lambda: rdp(pure(1.0)), "a list of events"),
        (lambda: tight(3, 1e-5), r"those that rdp\(events\) gives"), (lambda: mironov([1.0, 2.0], 1e-5), r"those that rdp\(events\) gives"),
        (lambda: tight(rdp([]), "a"), "delta lies between"), (lambda: mironov(rdp([]), 0), "delta lies between"),
        (lambda: gaussian("a"), "needs a multiplier"), (lambda: gaussian(1.0, "a"), "sampling rate"),
        (lambda: noise_for(1.0, 1e-5, count="a"), "count is"),
    ],
)  # fmt: skip
def test_what_costs_nothing_that_is_known_is_named(ask, match):
    with pytest.raises(ConfigurationError, match=match):
        ask()
