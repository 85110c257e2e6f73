"""What is claimed, tested from outside: many runs on neighbouring data, and how well an observer tells them apart.

    epsilon >= log((P1(event) - delta) / P0(event))       for every event

An event is chosen on one half of the runs, its probabilities bounded on the other (Clopper and Pearson 1934): a lower bound on epsilon that
holds with probability 1 - 10^-4. Noise of half the size is caught, and so is noise in floating point (Mironov 2012).
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats

from syftlite.dp import noise as noise_module
from syftlite.dp.accountant import noise_for
from syftlite.dp.mechanisms import FINISH, STATISTICS, Query
from syftlite.dp.noise import Noise, Statistic, noised
from syftlite.secagg.noise import deviation, drawn, sensitivity

RUNS = 100_000
DOUBT = 1e-4
EPSILON = 1.0


def lower_bound(one: torch.Tensor, other: torch.Tensor, delta: float = 0.0) -> float:
    """A lower bound on epsilon from (runs,) outcomes on two neighbouring datasets. Events: above, or below, a threshold."""
    half = len(one) // 2
    best = 0.0
    for a, b in ((one, other), (other, one)):
        for sign in (1, -1):
            chosen, told = (sign * a[:half], sign * b[:half]), (sign * a[half:], sign * b[half:])
            cuts = torch.quantile(torch.cat(chosen), torch.linspace(0.002, 0.998, 60, dtype=torch.float64))
            above = [1 - torch.searchsorted(torch.sort(c).values, cuts) / half for c in chosen]
            cut = cuts[((above[0] - delta) / (above[1] + 50 / half)).argmax()]
            hits, misses = int((told[0] >= cut).sum()), int((told[1] >= cut).sum())
            low = stats.beta.ppf(DOUBT / 8, hits, half - hits + 1) if hits else 0.0
            high = stats.beta.ppf(1 - DOUBT / 8, misses + 1, half - misses) if misses < half else 1.0
            if low > delta:
                best = max(best, math.log((low - delta) / high))
    return best


def outcomes(query: Query, values: torch.Tensor) -> torch.Tensor:
    """(runs, parts of the answer): the mechanism's own statistics, noise and end, many runs at once."""
    statistics = STATISTICS[query.kind](query, values, 1)
    share = query.noise.share(1 / len(statistics))
    many = [s._replace(sums=s.sums.expand(RUNS, *s.sums.shape).contiguous()) for s in statistics]
    return FINISH[query.kind](query, [noised(s, share) for s in many]).reshape(RUNS, -1)


BASE = torch.tensor([2.0, 3.0, 9.0] * 4)
CASES = [
    Query("count", EPSILON),
    Query("sum", EPSILON, bounds=(0.0, 10.0)),
    Query("mean", EPSILON, bounds=(0.0, 10.0)),
    Query("variance", EPSILON, bounds=(0.0, 10.0)),
    Query("histogram", EPSILON, grid=(0.0, 5.0, 20.0)),
    Query("count", EPSILON, 1e-3),
    Query("sum", EPSILON, 1e-3, bounds=(0.0, 10.0)),
]


def names(query: Query) -> str:
    return f"{query.kind}-{'pure' if query.delta is None else 'gaussian'}"


def measured(query: Query) -> float:
    with_one = torch.cat([BASE, torch.tensor([10.0])])
    a, b = outcomes(query, BASE), outcomes(query, with_one)
    return max(lower_bound(a[:, k], b[:, k], query.delta or 0.0) for k in range(a.shape[1]))


@pytest.mark.parametrize("query", CASES, ids=names)
def test_no_observer_learns_more_than_is_claimed(query):
    assert measured(query) <= EPSILON


@pytest.mark.parametrize("query", [CASES[0], CASES[1], CASES[4], CASES[5], CASES[6]], ids=names)
def test_half_the_noise_is_caught(query, monkeypatch):
    laplace, gaussian = noise_module.laplace_integers, noise_module.gaussian_integers
    monkeypatch.setattr(noise_module, "laplace_integers", lambda scale, numel: laplace(scale / 2, numel))
    monkeypatch.setattr(noise_module, "gaussian_integers", lambda sigma, numel: gaussian(sigma / 2, numel))
    assert measured(query) > EPSILON


def test_the_test_is_sharp():
    """A pure mechanism's worst event is found nearly whole: the bound is not slack everywhere."""
    assert measured(CASES[0]) > 0.8 * EPSILON


def test_quantiles_by_their_exact_coins():
    query = Query("quantile", 2.0, bounds=(0.0, 4.0), grid=(0.5, 4))
    a = torch.tensor([float(query.run(torch.tensor([1.0, 1.0]))) for _ in range(4000)])
    b = torch.tensor([float(query.run(torch.tensor([1.0, 1.0, 4.0]))) for _ in range(4000)])
    assert lower_bound(a.double(), b.double()) <= 2.0


# -- noise that several add (secagg/noise.py)


def told_apart(clients: int, noise_multiplier: float) -> float:
    """Of sums in which one client's value is its clip, or nothing, and ``clients`` of six add their noise; many rounds at once."""
    clip, bits = 1.0, 4
    sigma = deviation(noise_multiplier, clip, bits, 1, 6)
    without, noise = (sum(drawn(sigma, RUNS) for _ in range(clients)) for _ in range(2))
    return lower_bound(without.double(), (noise + sensitivity(clip, bits, 1)).double(), 1e-3)


def test_noise_that_six_clients_add_is_as_good_as_one_servers():
    needed = noise_for(EPSILON, 1e-3)
    assert told_apart(6, needed) <= EPSILON < told_apart(1, needed), "and what one adds is not enough"


# -- floating point


def on_a_finer_grid(answers: torch.Tensor) -> torch.Tensor:
    """The attack: near zero, float32 has values between the multiples of 2^-24; 1 + noise, rounded, has none of them."""
    steps = answers.double() * 2**25
    return (answers.abs() < 0.4) & (steps != steps.round())


def test_noise_in_floating_point_gives_the_data_away():
    zero, one = torch.zeros(RUNS) + torch.randn(RUNS), torch.ones(RUNS) + torch.randn(RUNS)
    assert float(on_a_finer_grid(zero).double().mean()) > 0.1 and int(on_a_finer_grid(one).sum()) == 0
    seen = on_a_finer_grid(zero).double(), on_a_finer_grid(one).double()
    assert lower_bound(*seen, delta=1e-5) > 5  # for a mechanism that claims 4.2 at this delta
    assert noise_for(4.2, 1e-5) > 1.0


def test_noise_on_the_grid_does_not():
    claimed = noise_module.FINE
    answers = [noised(Statistic(torch.full((RUNS,), x), claimed, 1 / claimed), Noise(1.0, 1.0)) for x in (0, claimed)]
    seen = [on_a_finer_grid(a.float()) for a in answers]
    assert int(seen[0].sum()) == int(seen[1].sum()) == 0
    for k in range(1, 9):  # nor does any other digit
        digits = [((a * claimed / 2**k) % 1).double() for a in answers]
        assert lower_bound(*digits, delta=1e-5) < 0.2
