"""What hides updates, whatever their size and whoever goes; late clients; and who is named in the end."""

import logging
import subprocess
import sys
import threading
import time

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import AggregationError, ConfigurationError
from syftlite.federated import FedAdam, Federation, Krum, Median, PrivateTraining, TrimmedMean
from syftlite.wire import messages as m

torch.manual_seed(0)
X, Y = torch.randn(120, 5), torch.randint(0, 3, (120,))
X[torch.arange(120), Y] += 2.0


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def workers():
    made = [sy.VirtualWorker(id=f"rounds-{i}") for i in range(4)]
    yield made
    for worker in made:
        worker.close()


@pytest.fixture
def parts(workers):
    return sy.BaseDataset(X, Y).federate(workers)


@pytest.fixture
def shares():
    holders = [sy.VirtualWorker(id=f"rounds-aggregator-{i}") for i in range(3)]
    yield {"aggregation": "shares", "aggregators": holders[:2], "crypto_provider": holders[2]}
    for holder in holders:
        holder.close()


def broken(worker, *kinds, after=0, wait=None):
    """Have ``worker`` fail, or ``wait``, whenever it is asked for one of ``kinds`` (all if none), from the so manieth time on."""
    engine, times = worker.engine, [0]
    handlers = engine._handlers
    kept = dict(handlers.items() if isinstance(handlers, dict) else enumerate(handlers))

    def fails(kind):
        def handler(*given):
            times[0] += 1
            if times[0] <= after:
                return kept[kind](*given)
            if wait is None:
                raise MemoryError("no room")
            wait.wait(60)
            return kept[kind](*given)

        return handler

    for kind in kinds or [kind for kind, handler in kept.items() if handler is not None]:
        handlers[kind] = fails(kind)
    return lambda: [handlers.__setitem__(kind, handler) for kind, handler in kept.items()]


def same(one, other, **within):
    for mine, its in zip(one.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=0, **within)


def lies(worker, answer):
    """Have ``worker`` give ``answer`` of the tensors that it is asked for."""
    ask = worker.ask
    worker.ask = lambda kind, *fields: (*(told := ask(kind, *fields))[:2], answer(told[2])) if kind == m.GET else ask(kind, *fields)


@pytest.mark.parametrize("options", [{}, {"strategy": Median()}, {"strategy": Krum(0)}, {"buffer": 4}], ids=str)  # none ends before the liar
@pytest.mark.parametrize(
    "answer",
    [
        lambda values: [torch.full((), 9.0), *values[1:]],
        lambda values: [value[None] for value in values],
        lambda values: [value.sum() for value in values],
        lambda values: [values[0].T, *values[1:]],
        lambda values: [value.to(torch.complex64) for value in values],
        lambda values: [value.long() for value in values],
        lambda values: values[:-2],
        lambda values: [*values, values[0]],
        lambda values: [],
        lambda values: [values[0] * float("nan"), *values[1:]],
    ],
)
def test_a_client_that_gives_other_tensors_than_asked_for_is_left_out(workers, parts, options, answer):
    """Also where it is the first: the others are measured by the model, not by it."""
    lies(workers[0], answer)
    result = Federation(parts, network, epochs=1, batch_size=10, **options).fit(1, progress=False)[0]
    assert "rounds-0" in result.dropped and set(result.clients) == {"rounds-1", "rounds-2", "rounds-3"}


@pytest.mark.parametrize("options", [{"strategy": Krum(0, keep=4)}, {"strategy": Krum(0, keep=4), "buffer": 4, "deadline": 5.0}], ids=str)
def test_of_fewer_clients_than_a_strategy_needs_there_is_word_of_who_is_missing(workers, parts, options):
    federation = Federation(parts, network, epochs=1, batch_size=10, **options)
    before = [p.detach().clone() for p in federation.model.parameters()]
    repair = broken(workers[2], m.GET)
    with pytest.raises(AggregationError, match=r"3 clients came through, and 4 are needed.*rounds-2"):
        federation.fit(1, progress=False)
    assert all(map(torch.equal, before, federation.model.parameters()))
    repair()
    assert len(federation.fit(1, progress=False)[0].clients) == 4


@pytest.mark.parametrize("options", [{"strategy": Krum(1)}, {"strategy": Krum(0, keep=5)}, {"strategy": Krum(0), "buffer": 2}, {"strategy": Krum(0), "fraction": 0.5}])
def test_a_strategy_that_can_never_have_enough_clients_is_refused_at_once(parts, options):
    with pytest.raises(ConfigurationError, match=r"Krum.* needs \d clients in a round"):
        Federation(parts, network, **options)


# -- updates that nobody sees


def test_weights_of_any_size_are_added_and_what_is_clipped_is_told(workers, caplog):
    x = torch.randn(120, 4)
    y = (x @ torch.tensor([1.0, 2.0, 3.0, 4.0]) + 30)[:, None]
    parts = sy.BaseDataset(x, y).federate(workers)
    options = {"loss": F.mse_loss, "epochs": 1, "batch_size": 30}
    linear = lambda: nn.Linear(4, 1)  # noqa: E731
    made = []
    for more in ({}, {"aggregation": "secure"}):
        torch.manual_seed(3)
        made.append(Federation(parts, linear, **options, **more))
        made[-1].fit(20)
    assert float(made[0].model.bias.detach()) > 25
    same(*made, atol=1e-3)
    assert all(r.clipped == {} for r in made[1].history)
    with caplog.at_level(logging.WARNING, "syftlite.federated"):
        tight = Federation(parts, linear, aggregation="secure", secure={"clip": 0.01}, **options)
        first, second = tight.fit(2)
    assert set(first.clipped) == set(second.clipped) == {w.id for w in workers} and "update clipped" in str(first)
    assert len(caplog.records) == 1 and "rounds-0" in caplog.text and "0.01" in caplog.text


@pytest.mark.parametrize("aggregation", ["secure", "shares"])
def test_a_sum_of_one_is_refused_by_name(parts, shares, aggregation):
    options = shares if aggregation == "shares" else {"aggregation": "secure"}
    federation = Federation(parts, network, **options)
    for name in ("rounds-0", "rounds-1", "rounds-3"):
        broken(parts[name].location, m.SCAN)
    with pytest.raises(AggregationError, match=r"1 clients came through, and 2 are needed. rounds-0: .*; rounds-1: .*; rounds-3"):
        federation.fit(1)
    for few in ({"fraction": 0.25}, {"fraction": 0.1}):
        with pytest.raises(ConfigurationError, match="a round here has 1 of 4 clients"):
            Federation(parts, network, **options, **few)


def test_whose_vector_is_in_the_sum_is_among_the_clients(parts):
    """It fails at the stage after it has sent its vector."""
    federation, plain = (Federation(parts, network, aggregation=kind, seed=1) for kind in ("secure", "plain"))
    mend = broken(parts["rounds-3"].location, m.AGGREGATE, after=4)
    federation.fit(1), mend(), plain.fit(1)
    assert list(federation.history[0].clients) == [f"rounds-{i}" for i in range(4)] and federation.history[0].dropped == {}
    same(federation, plain, atol=1e-3)
    broken(parts["rounds-3"].location, m.AGGREGATE, after=3)
    assert list(federation.fit(1)[-1].dropped) == ["rounds-3"] and len(federation.history[-1].clients) == 3


def test_a_stage_of_a_sum_keeps_its_deadline(parts, only_one_is_late):
    go = threading.Event()
    federation = Federation(parts, network, aggregation="secure", secure={"deadline": 1.0})
    only_one_is_late(len(parts.datasets) + 1)  # nobody so far
    federation.fit(1)
    only_one_is_late(len(parts.datasets))
    broken(parts["rounds-2"].location, m.AGGREGATE, after=3, wait=go)
    began = time.monotonic()
    try:
        federation.fit(1)
        assert federation.history[-1].dropped == {"rounds-2": "no answer within 1 s"} and time.monotonic() - began < 20
    finally:
        go.set()


def test_shares_go_on_without_a_client_and_name_an_aggregator(parts, shares):
    federation, plain = Federation(parts, network, seed=1, **shares), Federation(parts, network, seed=1)
    scan = parts["rounds-1"].location.engine._handlers[m.SCAN]
    mend = broken(parts["rounds-1"].location)
    parts["rounds-1"].location.engine._handlers[m.SCAN] = scan  # it trains, and fails to share
    federation.fit(1)
    mend()
    assert list(federation.history[0].dropped) == ["rounds-1"] and len(federation.history[0].clients) == 3
    broken(parts["rounds-1"].location, m.SCAN)
    plain.fit(1)
    same(federation, plain, atol=1e-4)
    broken(shares["aggregators"][1])
    with pytest.raises(AggregationError, match="rounds-aggregator-1: MemoryError"):
        federation.fit(1)
    assert len(federation.history) == 1


# -- updates that are none


@pytest.mark.parametrize("options", [{}, {"strategy": Median()}, {"strategy": TrimmedMean(0.3)}, {"strategy": Krum(0)}, {"buffer": 4},
                                     {"aggregation": "secure"}, "shares"], ids=str)  # fmt: skip
def test_nan_is_left_out_by_name_before_any_strategy(parts, shares, options):
    parts["rounds-2"].data[:] = float("nan")
    federation = Federation(parts, network, **(shares if options == "shares" else options))
    (first,) = federation.fit(1)
    assert "NaN" in first.dropped["rounds-2"] and set(first.clients) == {"rounds-0", "rounds-1", "rounds-3"}
    assert all(bool(p.isfinite().all()) for p in federation.model.parameters())


# -- odd clients


def test_an_odd_client_is_left_out_by_name(workers):
    rows = [(torch.randn(n, width), torch.randint(0, 3, (n,))) for n, width in ((40, 5), (0, 5), (40, 6), (1, 5))]
    parts = sy.FederatedDataset([sy.BaseDataset(x, y).send(w) for (x, y), w in zip(rows, workers, strict=True)])
    normed = lambda: nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))  # noqa: E731
    for options in ({}, {"buffer": 1}):
        (first,) = Federation(parts, normed, **options).fit(1)
        assert list(first.clients) == ["rounds-0"] and first.dropped["rounds-1"] == "it has no rows"
        assert set(first.dropped) == {"rounds-1", "rounds-2", "rounds-3"} and "Expected more than 1 value" in first.dropped["rounds-3"]


def test_what_no_client_can_do_is_an_error_as_it_is(parts):
    with pytest.raises(ZeroDivisionError):
        Federation(parts, network, loss=lambda output, target: 1 / 0).fit(1)


def test_a_dead_client_is_left_out_of_private_training_and_comes_back(parts):
    training = PrivateTraining(network, l2_norm_clip=1.0, noise_multiplier=1.0, batch_size=10)
    federation = Federation(parts, network, training=training)
    mend = broken(parts["rounds-1"].location)
    (first,) = federation.fit(1)
    assert list(first.dropped) == ["rounds-1"] and len(first.clients) == 3
    mend()
    assert federation.fit(1)[-1].dropped == {}


# -- in their own time


def test_a_buffer_goes_on_from_one_fit_to_the_next(parts):
    go = threading.Event()
    mend = broken(parts["rounds-1"].location, m.SCAN, wait=go)
    federation = Federation(parts, network, buffer=2)
    for _ in range(3):
        federation.fit(1)
    go.set()
    mend()
    federation._work.busy["rounds-1"].exception(30)
    assert "rounds-1" in federation.fit(1)[-1].clients and [len(r.clients) for r in federation.history] == [2] * 4


@pytest.mark.parametrize("strategy", [Median(), TrimmedMean(0.25), Krum(0, keep=2)])
def test_a_buffer_gives_a_robust_strategy_every_clients_weights(workers, strategy):
    x = X.clone()
    x[90:] *= 1e4
    parts = sy.BaseDataset(x, Y).federate(workers)
    made = [Federation(parts, network, strategy=strategy, batch_size=30, buffer=buffer) for buffer in (None, 4)]
    for federation in made:
        federation.fit(1)
    for together, buffered in zip(*(federation.model.parameters() for federation in made), strict=True):
        assert buffered.abs().max() < 10
        torch.testing.assert_close(buffered, together, atol=1e-4, rtol=1e-4)


def test_with_a_buffer_a_fraction_is_at_work_at_a_time(parts):
    federation = Federation(parts, network, buffer=3, fraction=0.5)
    at_work, submit = [], federation._work.submit

    def counted(*given):
        future = submit(*given)
        at_work.append(len(federation._work.busy))
        return future

    federation._work.submit = counted
    history = federation.fit(4)
    assert max(at_work) == 2 and all(len(result.clients) == 3 for result in history)
    assert {name for result in history for name in result.clients} == {f"rounds-{i}" for i in range(4)}


def test_with_a_buffer_whoever_cannot_begin_makes_room_for_another(workers, parts):
    mend = broken(workers[0])
    history = Federation(parts, network, buffer=3, fraction=0.25).fit(2)
    mend()
    assert all(set(result.clients) == {"rounds-1", "rounds-2", "rounds-3"} for result in history)


def test_a_buffer_names_whoever_is_late(parts, only_one_is_late):
    go = threading.Event()
    only_one_is_late(1)
    broken(parts["rounds-1"].location, m.SCAN, wait=go)
    try:
        (first,) = Federation(parts, network, buffer=4, deadline=1.0).fit(1)
        assert first.dropped == {"rounds-1": "not done within 1 s"} and len(first.clients) == 3
        with pytest.raises(AggregationError, match="rounds-1: not done within 1 s"):
            Federation(parts, network, buffer=4, minimum=4, deadline=1.0).fit(1)
    finally:
        go.set()


def test_a_program_ends_though_a_straggler_does_not():
    program = """
import threading, torch, syftlite as sy
from torch import nn
from syftlite.federated import Federation
from syftlite.wire import messages as m
workers = [sy.VirtualWorker(id=f"ends-{i}") for i in range(3)]
parts = sy.BaseDataset(torch.randn(60, 2), torch.randint(0, 2, (60,))).federate(workers)
workers[1].engine._handlers[m.SCAN] = lambda *given: threading.Event().wait(300)
print(Federation(parts, lambda: nn.Linear(2, 2), deadline=1.0).fit(1)[0].dropped)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0 and "not done within 1 s" in ended.stdout, ended.stderr


# -- a federation's own


def test_a_strategy_is_each_federations_own(parts):
    strategy = FedAdam(eta=0.1)
    made = [Federation(parts, network, strategy=strategy, seed=1) for _ in range(2)]
    for federation in made:
        federation.fit(2)
    assert strategy.state == {} and all(torch.equal(a, b) for a, b in zip(*[f.model.parameters() for f in made], strict=True))


def test_rows_are_transformed_before_they_go(workers):
    raw = X * 100
    scale = lambda row: row / 100  # noqa: E731
    models = []
    for given in ([sy.BaseDataset(raw, Y, scale)], [sy.BaseDataset(raw / 100, Y)], sy.BaseDataset(raw[:30], Y[:30], scale).federate(workers[:1])):
        federation = Federation(given, network, seed=1)
        federation.fit(1)
        models.append(federation.model)
    assert torch.equal(models[0][0].weight, models[1][0].weight)
    few = Federation([sy.BaseDataset(raw[:30] / 100, Y[:30])], network, seed=1)
    few.fit(1)
    assert torch.equal(models[2][0].weight, few.model[0].weight)


def test_fit_needs_no_gradients_to_be_on(parts):
    with torch.no_grad():
        assert Federation(parts, network).fit(1)[0].dropped == {}


def test_a_form_of_data_is_recorded_before_anybody_is_at_work_and_once_though_it_fails(workers, monkeypatch):
    rows = [(torch.randn(n, width), torch.randint(0, 3, (n,))) for n, width in ((40, 5), (20, 5), (40, 6), (30, 6))]
    parts = sy.FederatedDataset([sy.BaseDataset(x, y).send(w) for (x, y), w in zip(rows, workers, strict=True)])
    federation = Federation(parts, network, fraction=0.75)
    built = []
    build = federation.training.plan.build
    monkeypatch.setattr(federation.training.plan, "build", lambda *given: built.append(federation._work.busy.copy()) or build(*given))
    for _ in range(4):
        for result in federation.fit(2, progress=False):
            assert not {"rounds-2", "rounds-3"} & set(result.clients)
    assert built[:4] == [{}] * 4 and len(built) == 4
