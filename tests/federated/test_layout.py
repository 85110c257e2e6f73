"""What of a model is trained, averaged, counted or left alone, in every kind of round."""

import copy

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import AggregationError, ConfigurationError
from syftlite.federated import FedAdam, FedAvg, FedAvgM, Federation, FedProx, Krum, Median, TrimmedMean
from syftlite.federated.layout import Layout

torch.manual_seed(0)
X, Y = torch.randn(90, 5), torch.randint(0, 3, (90,))


class Mixed(nn.Module):
    """Trained and frozen layers, statistics, and constants of every kind."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.norm, self.last = nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)
        self.first.requires_grad_(False)
        self.register_buffer("mask", torch.tensor([0.0, -torch.inf, 0.0]))
        self.register_buffer("scale", torch.rand(3, dtype=torch.float64))
        self.register_buffer("wide", torch.ones(1, 1).expand(1, 3))
        self.register_buffer("places", torch.arange(3))
        self.register_buffer("open", torch.tensor([True, False, True]))

    def forward(self, x):
        return self.last(self.norm(self.first(x)).relu()) * self.wide + self.mask.exp() + self.scale.float() + self.places


class Plain(Mixed):
    """... without statistics."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)


CONSTANT = ("first.weight", "first.bias", "mask", "scale", "wide", "places", "open")


@pytest.fixture
def parts():
    workers = [sy.VirtualWorker(id=f"layout-{i}") for i in range(3)]
    yield sy.BaseDataset(X, Y).federate(workers)
    for worker in workers:
        worker.close()


@pytest.fixture
def shares():
    holders = [sy.VirtualWorker(id=f"layout-aggregator-{i}") for i in range(3)]
    yield {"aggregation": "shares", "aggregators": holders[:2], "crypto_provider": holders[2]}
    for holder in holders:
        holder.close()


def test_every_tensor_has_its_place():
    layout, names = Layout(Mixed()), [name for name, _ in [*Mixed().named_parameters(), *Mixed().named_buffers()]]
    assert [names[at] for at in layout.weights] == ["norm.weight", "norm.bias", "last.weight", "last.bias"]
    assert [names[at] for at in layout.statistics] == ["scale", "wide", "norm.running_mean", "norm.running_var"]
    assert [names[at] for at in layout.counts] == ["places", "open", "norm.num_batches_tracked"]
    with pytest.raises(ConfigurationError, match="no parameters that are trained"):
        Layout(nn.Linear(2, 2).requires_grad_(False))


def test_clients_in_this_process_take_memory_when_they_write():
    """What a snapshot and its copies show stays what it was, whichever is written, by whomever."""
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(300, 40), nn.Linear(40, 2))
    layout, was = Layout(model), [p.detach().clone() for p in model.parameters()]
    values = layout.snapshot()
    lender, writer = (sy.VirtualWorker(id=name) for name in ("lender", "writer"))
    try:
        copies = [[worker.send(value) for value in values] for worker in (lender, writer)]
        here = {value.const_data_ptr() for value in values}
        assert all({t.const_data_ptr() for t in worker._objects.values()} == here for worker in (lender, writer))
        for pointer in copies[1]:
            pointer.mul_(2.0)
        with torch.no_grad():
            model[0].weight.zero_()
            values[1].zero_()
        assert all(torch.equal(now.get(), then) for now, then in zip(copies[0], was, strict=True))
        assert all(torch.equal(now.get(), 2 * then) for now, then in zip(copies[1], was, strict=True))
        assert torch.equal(values[0], was[0]) and not values[1].any()
    finally:
        lender.close()
        writer.close()


@pytest.mark.parametrize(
    "options",
    [{}, {"strategy": FedAvgM()}, {"strategy": FedAdam(eta=0.3)}, {"strategy": Median()}, {"strategy": TrimmedMean(0.4)},
     {"strategy": Krum(0)}, {"buffer": 2}, {"aggregation": "secure"}, {"aggregation": "secure", "strategy": FedAdam(eta=0.3)}, "shares"],
    ids=str,
)  # fmt: skip
def test_constants_stay_to_the_bit_and_variances_positive(parts, shares, options):
    federation = Federation(parts, Mixed, epochs=4, batch_size=8, **(shares if options == "shares" else options))
    before = {name: value.clone() for name, value in federation.model.state_dict().items()}
    federation.fit(3)
    after = federation.model.state_dict()
    assert [name for name in CONSTANT if not torch.equal(before[name], after[name])] == []
    assert not torch.equal(before["last.weight"], after["last.weight"]) and not torch.equal(before["norm.running_mean"], after["norm.running_mean"])
    assert float(after["norm.running_var"].min()) > 0 and all(len(r.clients) >= 2 and not r.clipped for r in federation.history)


def test_statistics_are_the_mean_by_rows_whatever_the_servers_step(parts, shares):
    made = [
        Federation(parts, Mixed, epochs=2, batch_size=30, **options)
        for options in ({}, {"strategy": FedAvgM(0.9, eta=0.1)}, {"strategy": FedAdam()}, {"buffer": 3}, {"aggregation": "secure"}, shares)
    ]
    for federation in made:
        federation.fit(1)
    first = made[0].model.state_dict()
    assert int(first["norm.num_batches_tracked"]) == 2, "as federated_avg: of one client"
    for federation in made[1:]:
        state = federation.model.state_dict()
        for name in ("norm.running_mean", "norm.running_var"):
            torch.testing.assert_close(state[name], first[name], atol=1e-4, rtol=0)


def test_noise_covers_what_is_trained_and_nothing_else_moves(parts):
    secure = {"noise_multiplier": 1.0, "clip": 0.5, "minimum": 3}
    federation = Federation(parts, Plain, aggregation="secure", secure=secure)
    before = {name: value.clone() for name, value in federation.model.state_dict().items()}
    federation.fit(2)
    after = federation.model.state_dict()
    assert [name for name in CONSTANT if not torch.equal(before[name], after[name])] == []
    assert not torch.equal(before["last.weight"], after["last.weight"])
    with pytest.raises(ConfigurationError, match="statistics of norm follow the data, and noise covers weights alone"):
        Federation(parts, Mixed, aggregation="secure", secure=secure)


class Odd(FedAvg):
    """Gives what ``change`` makes of the mean."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def step(self, current, mean):
        return self.change(mean)


class OddMedian(Odd):
    """The same, of a robust one."""

    linear = False

    def aggregate(self, current, updates):
        return self.change(Median().aggregate(current, updates))


CHANGES = [lambda made: made[:-1], lambda made: [*made, made[0]], lambda made: [*made[:-1], torch.zeros(1)], lambda made: None,
           lambda made: [*made[:-1], 3.0]]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("kind", "options"), [(Odd, {}), (Odd, {"buffer": 2}), (Odd, {"aggregation": "secure"}), (OddMedian, {})])
def test_a_strategy_that_gives_something_else_is_named_and_nothing_is_written(parts, change, kind, options):
    federation = Federation(parts, lambda: nn.Linear(5, 3), strategy=kind(change), **options)
    before = [p.detach().clone() for p in federation.model.parameters()]
    with pytest.raises(AggregationError, match=rf"{kind.__name__}\(\) gave"):
        federation.fit(1)
    assert all(torch.equal(b, p) for b, p in zip(before, federation.model.parameters(), strict=True))


@pytest.mark.parametrize("options", [{}, {"strategy": FedAdam()}, {"strategy": Median()}, {"aggregation": "secure", "secure": {"noise_multiplier": 1.0}},
                                     {"strategy": FedProx(0.1)}, {"buffer": 2}])  # fmt: skip
def test_parameters_that_the_optimizer_does_not_have_stay_as_they_are(parts, options):
    def make(parameters):
        return torch.optim.SGD(list(parameters)[2:], lr=0.1)

    federation = Federation(parts, lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), optimizer=make, **options)
    before = [p.detach().clone() for p in federation.model.parameters()]
    federation.fit(2)
    kept = [torch.equal(b, p) for b, p in zip(before, federation.model.parameters(), strict=True)]
    assert kept == [True, True, False, False] and all(p.requires_grad for p in federation.model.parameters())


def test_some_of_the_parameters_are_trained_as_torch_trains_them():
    make = lambda parameters: torch.optim.SGD(list(parameters)[2:], lr=0.1)  # noqa: E731
    federation = Federation([sy.BaseDataset(X, Y)], lambda: nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3)), optimizer=make, batch_size=90, epochs=3)
    reference = copy.deepcopy(federation.model)
    federation.fit(1)
    optimizer = make(reference.parameters())
    for _ in range(3):
        optimizer.zero_grad()
        nn.functional.cross_entropy(reference(X), Y).backward()
        optimizer.step()
    for one, other in zip(federation.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other)
