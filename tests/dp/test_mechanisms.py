"""Mechanisms: right on average, deaf to what is out of bounds, and refusing what makes no sense."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import syftlite as sy
from syftlite.dp import noise as noise_module
from syftlite.dp.mechanisms import FINISH, STATISTICS, Query, estimated_bounds, permute_and_flip
from syftlite.dp.noise import FEW, Statistic, gaussian_integers, laplace_integers, noised, step_for
from syftlite.errors import ConfigurationError

LOTS = 1000.0
"""An epsilon at which noise is next to none."""
X = torch.linspace(-3, 8, 4001)


@pytest.mark.parametrize("delta", [None, 1e-6])
@pytest.mark.parametrize(
    ("kind", "right"),
    [
        ("count", 4001.0),
        ("sum", float(X.clamp(-2, 6).sum())),
        ("mean", float(X.clamp(-2, 6).mean())),
        ("variance", float(X.clamp(-2, 6).var(correction=0))),
    ],
)
def test_with_hardly_any_noise_the_answer_is_right(kind, right, delta):
    answer = Query(kind, LOTS, delta, None if kind == "count" else (-2.0, 6.0)).run(X)
    assert answer.shape == () and answer.dtype == torch.float64
    assert float(answer) == pytest.approx(right, rel=1e-3, abs=1e-2)


def test_a_histogram_counts_bins_with_the_last_edge_inside():
    x = torch.tensor([0.0, 0.5, 1.0, 1.0, 2.0, 3.0, -1.0, 9.0, math.nan])
    answer = Query("histogram", LOTS, grid=(0.0, 1.0, 2.0, 3.0)).run(x)
    assert answer.tolist() == [2, 2, 2]


def test_count_of_booleans_counts_the_true_ones():
    assert Query("count", LOTS).run(X > 0).item() == int((X > 0).sum())


@pytest.mark.parametrize("p", [0.0, 0.25, 0.5, 0.9, 1.0])
def test_quantiles(p):
    answer = Query("quantile", LOTS, bounds=(-4.0, 9.0), grid=(p, 2048)).run(X)
    assert float(answer) == pytest.approx(float(X.quantile(p)), abs=0.02) or (p in (0, 1) and -4 <= float(answer) <= 9)


@pytest.mark.parametrize("kind", ["sum", "mean", "variance", "quantile"])
def test_bounds_that_are_not_stated_are_estimated(kind):
    query = Query(kind, 50.0, grid=(0.5, 4096) if kind == "quantile" else ())
    right = {"sum": X.sum(), "mean": X.mean(), "variance": X.var(), "quantile": X.median()}[kind]
    assert float(query.run(X)) == pytest.approx(float(right), rel=0.05)
    assert query.estimates and len(query.cost()) == 2
    assert sum(event.noise * event.uses for event in query.cost()) == pytest.approx(50)


def test_estimated_bounds_hold_the_bulk_and_forget_single_values():
    x = torch.cat([torch.full((500,), 3.0), torch.full((500,), -40.0), torch.tensor([1e9])])
    assert estimated_bounds(x, 1.0, 1) == (-64.0, 4.0)
    assert estimated_bounds(torch.zeros(1000), 1.0, 1) == (0.0, 0.0)
    assert estimated_bounds(torch.full((1000,), 0.75), 1.0, 1) == (0.5, 1.0)
    with pytest.raises(ConfigurationError, match="state bounds"):
        estimated_bounds(torch.ones(3), 0.1, 1)


@given(st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from(["sum", "mean", "variance", "histogram", "count"]))
def test_one_row_moves_a_statistic_by_its_sensitivity_at_most(value, kind):
    """Whatever the row holds: this is what every claim rests on."""
    query = Query(kind, 1.0, bounds=(-2.0, 7.5), grid=tuple(float(e) for e in range(-4, 9)) if kind == "histogram" else ())
    without = torch.tensor([1.0, 5.0, -9.0, 3.25])
    with_it = torch.cat([without, torch.tensor([value])])
    for a, b in zip(STATISTICS[kind](query, without, 1), STATISTICS[kind](query, with_it, 1), strict=True):
        assert a.sensitivity == b.sensitivity and a.step == b.step and a.sums.dtype == torch.int64
        assert int((a.sums - b.sums).abs().sum()) <= a.sensitivity


@given(st.floats(1e-250, 1e250))
def test_a_step_is_a_power_of_two_and_fine(largest):
    step = step_for(largest)
    assert math.frexp(step)[0] == 0.5 and 2**15 <= largest / step <= 2**18


def test_several_rows_of_one_unit_need_more_noise():
    query = Query("sum", 1.0, bounds=(0.0, 1.0))
    one, three = STATISTICS["sum"](query, X, 1)[0], STATISTICS["sum"](query, X, 3)[0]
    assert three.sensitivity == 3 * one.sensitivity
    assert query.cost() == query.cost()


def test_every_answer_is_a_multiple_of_the_step():
    statistic = Statistic(torch.tensor([12345, -7]), 65536, 2.0**-20)
    for noise in (noise_module.Noise(0.7), noise_module.Noise(0.7, 1.3)):
        steps = noised(statistic, noise) / statistic.step
        assert bool((steps == steps.round()).all())


@pytest.mark.parametrize("numel", [64, 65])
def test_single_values_are_exact_and_many_come_from_tables(numel, monkeypatch):
    called = []
    monkeypatch.setattr(noise_module.gaussians, "gaussian", lambda variance, n, *_: called.append(n) or torch.zeros(n, dtype=torch.int64))
    noised(Statistic(torch.zeros(numel, dtype=torch.int64), 10, 1.0), noise_module.Noise(1.0, 1.0))
    assert called == [65][: numel > 64]
    assert (noise_module.variation(numel) > 0) == (numel > 64)


def test_permute_and_flip_prefers_as_it_should():
    """Two candidates, u apart by 1 at rate r: the worse is chosen with probability exp(-r) / 2."""
    from fractions import Fraction

    worse = sum(permute_and_flip([0, -1], Fraction(1)) == 1 for _ in range(8000)) / 8000
    assert worse == pytest.approx(math.exp(-1) / 2, abs=0.02)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Query("mode", 1.0), "count, sum"),
        (lambda: Query("count", 0.0), "epsilon"),
        (lambda: Query("count", 1.0, 2.0), "delta"),
        (lambda: Query("sum", 1.0, bounds=(1.0, math.inf)), "bounds"),
        (lambda: Query("sum", 1.0, bounds=(2.0, 1.0)), "bounds"),
        (lambda: Query("histogram", 1.0, grid=(1.0,)), "edges"),
        (lambda: Query("histogram", 1.0, grid=(1.0, 1.0)), "rise"),
        (lambda: Query("quantile", 1.0, grid=(1.5, 10)), "probability"),
        (lambda: Query("quantile", 1.0, grid=(0.5, 0.5)), "resolution"),
        (lambda: Query("quantile", 1.0, 1e-6, grid=(0.5, 10)), "delta"),
        (lambda: Query("sum", 1.0, bounds=(0.0, 1.0)).run(torch.ones(3, 2)), "column"),
        (lambda: Query("sum", 1.0, bounds=(0.0, 1.0)).run(torch.ones(3), 0), "at least one row"),
        (lambda: Query("sum", 1.0, bounds=(0.0, 1e290)).run(torch.ones(3)), "1e260"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(make, words):
    with pytest.raises(ConfigurationError, match=words):
        make()


def test_every_kind_has_its_parts():
    for kind in STATISTICS:
        query = Query(kind, 1.0, bounds=(0.0, 1.0), grid=(0.0, 1.0) if kind == "histogram" else ())
        parts = STATISTICS[kind](query, X, 1)
        assert kind in FINISH and sum(event.uses for event in query.cost()) == len(parts)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda x: sy.dp.mean(x, bounds=3, epsilon=1), r"bounds are \(low, high\), two numbers, not 3"),
        (lambda x: sy.dp.sum(x, bounds=(1,), epsilon=1), r"bounds are \(low, high\), two numbers, not \(1,\)"),
        (lambda x: sy.dp.variance(x, bounds=("a", "b"), epsilon=1), r"bounds are \(low, high\), two numbers"),
        (lambda x: sy.dp.count(x, epsilon="1"), "epsilon is a number above 0, not '1'"),
        (lambda x: sy.dp.count(x, epsilon=1, delta="1"), "delta lies between 0 and 1, not '1'"),
        (lambda x: sy.dp.histogram(x, edges=3, epsilon=1), "edges are rising numbers, one more than bins, not 3"),
        (lambda x: sy.dp.quantile(x, "half", bounds=(0, 1), epsilon=1), "a probability and a resolution are numbers"),
    ],
)
def test_what_are_no_numbers_is_told_by_name(ask, why):
    with pytest.raises(ConfigurationError, match=why):
        ask(torch.ones(5))


@pytest.mark.parametrize("numel", [1, FEW, FEW + 1])
@pytest.mark.parametrize("scale", [Fraction(10) ** 20, Fraction(10) ** 100, Fraction(10) ** 400])
def test_noise_that_no_number_here_holds_is_told_of(numel, scale):
    for drawn in (laplace_integers, gaussian_integers):
        with pytest.raises(ConfigurationError, match="a larger epsilon or a smaller noise multiplier"):
            drawn(scale, numel)
