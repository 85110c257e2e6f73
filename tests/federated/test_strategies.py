"""Strategies against their formulas, written anew in numpy."""

import copy

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import syftlite as sy
from syftlite.errors import ConfigurationError
from syftlite.federated import Federation
from syftlite.federated import strategies as s
from syftlite.federated.strategies import Update

DIM = 3


def updates(rows):
    return [Update(f"c{i}", [torch.tensor(row[:-1], dtype=torch.float64)], int(row[-1])) for i, row in enumerate(rows)]


clients = st.lists(
    st.tuples(*[st.floats(-5, 5)] * DIM, st.integers(1, 50)).map(lambda t: [*t[:-1], t[-1]]), min_size=1, max_size=7
)


@given(clients)
def test_fedavg_is_the_mean_by_rows(rows):
    (mean,) = s.FedAvg().aggregate([torch.zeros(DIM)], updates(rows))
    array = numpy.array(rows)
    numpy.testing.assert_allclose(mean, (array[:, :-1] * array[:, -1:]).sum(0) / array[:, -1].sum(), atol=1e-9)


def two_rounds(strategy):
    w = torch.zeros(DIM, dtype=torch.float64)
    seen = []
    for mean in (torch.tensor([1.0, -2.0, 0.5]).double(), torch.tensor([2.0, 1.0, 0.0]).double()):
        (w,) = strategy.step([w], [mean])
        seen.append(w.numpy())
    return seen


def by_hand(rule):
    w = numpy.zeros(DIM)
    state = {}
    seen = []
    for mean in (numpy.array([1.0, -2.0, 0.5]), numpy.array([2.0, 1.0, 0.0])):
        w = rule(w, mean - w, state)
        seen.append(w)
    return seen


def momentum(w, d, state):
    state["v"] = 0.9 * state.get("v", 0) + d
    return w + 0.5 * state["v"]


def adaptive(second):
    def rule(w, d, state):
        state["m"] = 0.9 * state.get("m", 0) + 0.1 * d
        v = state.get("v", numpy.full(DIM, 0.01**2))
        state["v"] = second(v, d**2)
        return w + 0.1 * state["m"] / (numpy.sqrt(state["v"]) + 0.01)

    return rule


@pytest.mark.parametrize(
    ("strategy", "rule"),
    [
        (s.FedAvgM(0.9, 0.5), momentum),
        (s.FedAdagrad(0.1, tau=0.01), adaptive(lambda v, q: v + q)),
        (s.FedAdam(0.1, tau=0.01), adaptive(lambda v, q: 0.99 * v + 0.01 * q)),
        (s.FedYogi(0.1, tau=0.01), adaptive(lambda v, q: v - 0.01 * q * numpy.sign(v - q))),
        (s.Reptile(0.3), lambda w, d, state: w + 0.3 * d),
    ],
    ids=lambda v: type(v).__name__,
)
def test_server_steps_follow_their_papers(strategy, rule):
    for mine, its in zip(two_rounds(strategy), by_hand(rule), strict=True):
        numpy.testing.assert_allclose(mine, its, rtol=1e-12)


def test_robust_strategies_are_not_moved_by_a_liar():
    honest = [[1.0 + 0.1 * i, 2.0, 3.0, 10] for i in range(6)]
    lying = [*honest, [1e9, -1e9, 1e9, 10_000]]
    current = [torch.zeros(DIM)]
    for strategy in (s.Median(), s.TrimmedMean(0.2), s.Krum(1), s.Krum(1, keep=3)):
        (w,) = strategy.aggregate(current, updates(lying))
        assert (w - torch.tensor([1.25, 2.0, 3.0])).abs().max() < 0.3, strategy
    (moved,) = s.FedAvg().aggregate(current, updates(lying))
    assert moved.abs().max() > 1e6


def test_one_with_an_aggregate_of_its_own_is_given_every_clients_weights():
    class Largest(s.FedAvg):
        def aggregate(self, current, updates):
            return [torch.stack(column).amax(0) for column in zip(*[u.values for u in updates], strict=True)]

    class Half(s.FedAvg):
        linear = True

        def aggregate(self, current, updates):
            return self.step(current, s.weighted_mean(updates))

    assert not Largest.linear and not type("Larger", (Largest,), {}).linear and Half.linear and s.FedAvg.linear
    model = lambda: torch.nn.Linear(2, 2)  # noqa: E731
    parts = [sy.BaseDataset(torch.randn(8, 2) * k, torch.randint(0, 2, (8,))) for k in (1, 2)]
    torch.manual_seed(0)
    federation = Federation(parts, model, strategy=Largest(), batch_size=8)
    alone = [Federation([part], lambda: copy.deepcopy(federation.model), batch_size=8) for part in parts]
    for each in (federation, *alone):
        each.fit(1)
    torch.testing.assert_close(federation.model.weight, torch.maximum(*(each.model.weight for each in alone)))
    with pytest.raises(ConfigurationError, match="looks at every client"):
        Federation(parts, model, strategy=Largest(), aggregation="secure")


def test_a_share_of_the_clients_that_is_whole_is_cut_whole():
    for trim, clients in ((0.29, 100), (0.28, 25), (0.1, 10), (0.07, 100)):
        cut = round(trim * clients)
        values = torch.arange(clients, dtype=torch.float64) ** 2
        (w,) = s.TrimmedMean(trim).aggregate([torch.zeros(1)], [s.Update(str(v), [v.view(1)], 1) for v in values])
        assert w.item() == pytest.approx(float(values[cut : clients - cut].mean()))


def test_robust_strategies_need_enough_clients():
    with pytest.raises(ConfigurationError, match="more than 4 clients, not 4"):
        s.Krum(1).aggregate([torch.zeros(DIM)], updates([[0.0, 0.0, 0.0, 1]] * 4))
    with pytest.raises(ConfigurationError, match="below 0.5"):
        s.TrimmedMean(0.5)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: s.FedProx(-1), "mu is at least 0: got -1"), (lambda: s.FedAvgM(1.0), "beta is"), (lambda: s.FedAdam(eta=-1), "eta and tau"),
        (lambda: s.FedYogi(beta1=1.0), "beta1"), (lambda: s.Reptile(0), "epsilon is above 0"), (lambda: s.Krum(-1, 0), "byzantine is at least 0"),
        (lambda: s.Krum(1, 0), "keep at least 1"),
        (lambda: s.Krum(1, 6).aggregate([torch.zeros(DIM)], updates([[0.0, 0.0, 0.0, 1]] * 6)), "keeps 6 needs 7 clients, not 6"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_are_refused(make, match):
    with pytest.raises(ConfigurationError, match=match):
        make()


@pytest.mark.parametrize("value", ["1", None, float("nan"), float("inf"), True, 1j])
@pytest.mark.parametrize("make", [s.FedProx, s.FedAvgM, s.FedAdam, s.FedYogi, s.FedAdagrad, s.Reptile, s.TrimmedMean, s.Krum])
def test_settings_are_finite_numbers(make, value):
    with pytest.raises(ConfigurationError, match="is a finite number, not|both are whole"):
        make(value)


@pytest.mark.parametrize("far", [0.0, 1e6])
def test_krum_tells_clients_apart_however_large_their_weights_are(far):
    torch.manual_seed(0)
    start, moved = [far * torch.randn(50, dtype=torch.float64)], 1e-3 * torch.randn(30, 50, dtype=torch.float64)
    square = (moved[:, None] - moved).square().sum(-1).sort(1).values[:, 1 : 30 - 5 - 2 + 1].sum(1)
    (w,) = s.Krum(5).aggregate(start, [Update(str(i), [start[0] + each], 1) for i, each in enumerate(moved)])
    torch.testing.assert_close(w - start[0], moved[square.argmin()], rtol=1e-4, atol=1e-9)
