"""Rounds: right by plain torch, one message a client, nothing lost when clients fail or the server dies."""

import copy
import threading
import time

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import AggregationError, ConfigurationError, DependencyError
from syftlite.federated import FedAvgM, Federation, FedProx, Krum, LocalTraining, Median, Reptile
from syftlite.wire import messages as m

torch.manual_seed(0)
X, Y = torch.randn(90, 5), torch.randint(0, 3, (90,))
X[torch.arange(90), Y] += 2.0


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def parts():
    workers = [sy.VirtualWorker(id=f"federated-{i}", serialize=i == 1) for i in range(3)]
    yield sy.BaseDataset(X, Y).federate(workers)
    for worker in workers:
        worker.close()


def adam(parameters):
    return torch.optim.Adam(parameters, lr=0.02)


def spoilt(part, error):
    """Have the worker of ``part`` fail whenever it is to train."""
    engine = part.location.engine
    original = engine._handlers[m.SCAN]
    engine._handlers[m.SCAN] = lambda *given: (_ for _ in ()).throw(error)
    return lambda: engine._handlers.__setitem__(m.SCAN, original)


@pytest.mark.parametrize("proximal", [0.0, 0.5])
def test_a_clients_part_equals_plain_torch_and_is_one_frame(parts, proximal):
    training = LocalTraining(network, nn.functional.cross_entropy, adam, epochs=2, batch_size=8, proximal=proximal)
    part = parts["federated-1"]
    start = [t.detach() for t in network().parameters()]
    trained = training.start(part.location, part.data, part.targets, start, torch.Generator().manual_seed(7))
    model = network()
    optimizer = adam(model.parameters())
    x, y = part.data.get_copy(), part.targets.get_copy()
    losses = []
    for rows in training.batches(30, torch.Generator().manual_seed(7)):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        losses.append(loss.item())
        held = sum((p - w).pow(2).sum() for p, w in zip(model.parameters(), start, strict=True))
        (loss + proximal / 2 * held).backward()
        optimizer.step()
    torch.testing.assert_close(trained.losses.get(), torch.tensor(losses))
    for mine, its in zip(trained.values, model.parameters(), strict=True):
        torch.testing.assert_close(mine.get(), its.detach(), atol=1e-5, rtol=1e-4)


def test_an_epoch_has_nearly_equal_batches_of_different_rows():
    training = LocalTraining(network, nn.functional.cross_entropy, adam, epochs=3, batch_size=8)
    rows = training.batches(30, torch.Generator().manual_seed(0))
    assert rows.shape == (12, 7)
    for epoch in rows.view(3, -1):
        assert len(set(epoch.tolist())) == 28


def test_rounds_learn_and_leave_nothing_behind(parts):
    before = [part.location.objects_count() for part in parts.datasets.values()]
    federation = Federation(parts, network, optimizer=adam, epochs=2, batch_size=10, evaluate=(X, Y))
    history = federation.fit(4)
    assert history[-1].metrics["accuracy"] > 0.8 > history[0].metrics["accuracy"] - 0.1 and history[-1].loss < history[0].loss
    assert set(history[0].clients) == {"federated-0", "federated-1", "federated-2"} and history[0].dropped == {}
    del federation
    assert [part.location.objects_count() for part in parts.datasets.values()] == before
    assert "round 4, 3 clients, loss" in repr(history)


@pytest.mark.parametrize("options", [{"aggregation": "secure"}, {"aggregation": "secure", "strategy": Reptile(1.0)}, {"strategy": Reptile(1.0)}])
def test_what_hides_the_parts_gives_the_same_model(parts, options):
    plain = Federation(parts, network, optimizer=adam, seed=3)
    other = Federation(parts, network, optimizer=adam, seed=3, **options)
    plain.fit(2), other.fit(2)
    for mine, its in zip(plain.model.parameters(), other.model.parameters(), strict=True):
        torch.testing.assert_close(mine, its, atol=2e-3, rtol=0)


def test_clients_that_add_noise_learn_together(parts):
    """All weigh the same: what each moved, shrunk to the clip, and noise on the sum."""
    secure = {"noise_multiplier": 0.001, "clip": 50.0, "minimum": 3}
    federation = Federation(parts, network, epochs=3, aggregation="secure", secure=secure)
    federation.fit(4, progress=False)
    plain = Federation(parts, network, epochs=3)
    plain.fit(4, progress=False)
    for mine, its in zip(federation.model.parameters(), plain.model.parameters(), strict=True):
        assert 0 < (mine - its).abs().max() < 0.35
    before = [p.detach().clone() for p in federation.model.parameters()]
    federation.secure = {"noise_multiplier": 0.5, "clip": 0.01, "minimum": 3}
    federation.fit(1, progress=False)
    moved = torch.cat([(p.detach() - b).flatten() for p, b in zip(federation.model.parameters(), before, strict=True)])
    assert 0.0005 < float(moved.norm()) < 0.05, "a clip of 0.01 each, and noise of 0.005 / 3 on each of 75 numbers"


def test_shares_among_aggregators_give_the_same_model(parts):
    holders = [sy.VirtualWorker(id=f"aggregator-{i}") for i in range(3)]
    plain = Federation(parts, network, optimizer=adam, seed=3)
    shared = Federation(parts, network, optimizer=adam, seed=3, aggregation="shares", aggregators=holders[:2], crypto_provider=holders[2])
    plain.fit(1), shared.fit(1)
    for mine, its in zip(plain.model.parameters(), shared.model.parameters(), strict=True):
        torch.testing.assert_close(mine, its, atol=1e-4, rtol=0)


def test_a_buffer_takes_the_first_that_finish(parts):
    federation = Federation(parts, network, optimizer=adam, buffer=2, evaluate=(X, Y))
    history = federation.fit(6)
    assert all(len(r.clients) == 2 for r in history) and history[-1].metrics["accuracy"] > 0.7


# -- failures


def test_a_client_that_fails_is_named_and_the_round_goes_on(parts):
    mend = spoilt(parts["federated-2"], MemoryError("no room"))
    federation = Federation(parts, network, optimizer=adam, minimum=2)
    (first,) = federation.fit(1)
    assert set(first.clients) == {"federated-0", "federated-1"} and list(first.dropped) == ["federated-2"]
    mend()
    assert set(federation.fit(1)[-1].clients) == {"federated-0", "federated-1", "federated-2"}


def test_too_few_is_an_error_that_names_them_and_keeps_the_model(parts):
    federation = Federation(parts, network, optimizer=adam, minimum=3)
    federation.fit(1)
    reached = copy.deepcopy(federation.model.state_dict())
    spoilt(parts["federated-0"], MemoryError("no room"))
    with pytest.raises(AggregationError, match=r"2 clients came through, and 3 are needed. federated-0"):
        federation.fit(1)
    assert all(torch.equal(reached[k], v) for k, v in federation.model.state_dict().items()) and len(federation.history) == 1


def test_a_straggler_is_left_out_until_it_is_free(parts, only_one_is_late):
    only_one_is_late(3)
    engine, free = parts["federated-1"].location.engine, threading.Event()
    scan = engine._handlers[m.SCAN]

    def slow(*given):
        free.wait(60)
        return scan(*given)

    engine._handlers[m.SCAN] = slow
    federation = Federation(parts, network, optimizer=adam, minimum=2, deadline=1.0)
    first, second = federation.fit(2)
    assert first.dropped == {"federated-1": "not done within 1 s"} and second.dropped == {"federated-1": "still at work on an earlier round"}
    free.set()
    federation._work.busy["federated-1"].exception(30)
    federation.deadline = 60.0
    assert "federated-1" in federation.fit(1)[-1].clients


def test_a_federation_that_died_goes_on_from_its_checkpoint(parts, tmp_path):
    def make():
        return Federation(parts, network, optimizer=adam, strategy=FedAvgM(), fraction=0.6, checkpoint=tmp_path / "run.safetensors", seed=5)

    whole = make()
    whole.path = None
    whole.fit(4)
    make().fit(2)  # and then it dies
    resumed = make().resume()
    assert len(resumed.history) == 2
    resumed.fit(2)
    for mine, its in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(mine, its)
    assert [r.clients for r in whole.history] == [r.clients for r in resumed.history]
    with pytest.raises(ConfigurationError, match="FedAvgM"):
        Federation(parts, network, strategy=FedProx()).resume(tmp_path / "run.safetensors")
    (tmp_path / "broken").write_bytes(b"nothing")
    with pytest.raises(ConfigurationError, match="no checkpoint"):
        make().resume(tmp_path / "broken")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"aggregation": "secret"}, "aggregation is one of"),
        ({"aggregation": "secure", "strategy": Krum(0)}, "looks at every client"),
        ({"aggregation": "shares", "strategy": Median()}, "looks at every client"),
        ({"aggregation": "secure", "buffer": 2}, "a buffer needs"),
        ({"aggregation": "shares"}, "aggregators="),
        ({"fraction": 0.0}, "fraction is in"),
        ({"minimum": 4}, "minimum 1 to 3"),
        ({"epochs": 0}, "epochs and batch_size"),
    ],
)
def test_what_cannot_work_is_refused_at_once(parts, options, match):
    with pytest.raises(ConfigurationError, match=match):
        Federation(parts, network, **options)


def test_data_is_found_by_tag():
    worker = sy.VirtualWorker(id="tagged")
    worker.load(X, "#x"), worker.load(Y, "#y")
    assert Federation([worker], network, data=("#x", "#y")).fit(1)[0].loss > 0
    with pytest.raises(ConfigurationError, match="has 0 tensors tagged #z"):
        Federation([worker], network, data=("#z", "#y"))
    with pytest.raises(ConfigurationError, match="which data"):
        Federation([worker], network)


def test_curves_are_drawn(parts, tmp_path):
    history = Federation(parts, network, evaluate=(X, Y)).fit(2)
    assert set(history.series()) >= {"loss", "accuracy", "test loss", "loss/federated-0"}
    assert history.plot(tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    try:
        history.tensorboard(tmp_path / "events")
        assert list((tmp_path / "events").glob("events.out.tfevents*"))
    except DependencyError as error:
        assert "syftlite[tensorboard]" in str(error)


def test_on_real_nodes(three_nodes):
    parts = sy.BaseDataset(X, Y).federate(three_nodes[:2])
    federation = Federation(parts, network, optimizer=adam, epochs=3, aggregation="secure", evaluate=(X, Y))
    assert federation.fit(3)[-1].metrics["accuracy"] > 0.7


def test_dampening_is_refused():
    """Its first step is another one than those that follow, and one step is recorded."""
    with pytest.raises(ConfigurationError, match="dampening=0"):
        Federation([sy.BaseDataset(X, Y)], network, optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, dampening=0.5))


def test_a_move_that_shares_cannot_hold_is_named():
    holders = [sy.VirtualWorker(id=f"far-{i}") for i in range(3)]
    targets = (torch.zeros(4, 1), torch.zeros(6, 1), torch.full((4, 1), 2e13))
    given = [sy.BaseDataset(torch.ones(len(y), 1), y) for y in targets]
    federation = Federation(
        given, lambda: nn.Linear(1, 1), loss=nn.functional.mse_loss, aggregation="shares", aggregators=holders[:2], crypto_provider=holders[2]
    )
    told = federation.fit(1, progress=False)[0]
    assert list(told.clients) == ["client-0", "client-1"] and "have moved by 2.7e+11 or more" in told.dropped["client-2"]
    assert federation.model.weight.abs().item() < 10


def test_after_an_interruption_the_next_fit_waits_for_those_at_work(parts, monkeypatch):
    """Until their deadline, which they have not missed yet."""
    engines, free = [part.location.engine for part in parts.datasets.values()], threading.Event()
    for engine in engines:

        def slow(*given, scan=engine._handlers[m.SCAN]):
            free.wait(60)
            return scan(*given)

        engine._handlers[m.SCAN] = slow
    federation = Federation(parts, network, optimizer=adam, deadline=30.0)

    def interrupted(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as during:
        during.setattr("syftlite.federated.crew.Crew.wait", interrupted)
        during.setattr("syftlite.federated.crew.Crew.leave", lambda crew: time.sleep(0.5))  # so that all have begun
        with pytest.raises(KeyboardInterrupt):
            federation.fit(1)
    assert len(federation._work.busy) == 3
    threading.Timer(0.5, free.set).start()
    (told,) = federation.fit(1)
    assert len(told.clients) == 3 and not told.dropped


def test_classes_may_be_bytes(parts):
    models = []
    for dtype in (torch.int64, torch.uint8):
        rows = [sy.BaseDataset(X, Y.to(dtype))]
        federation = Federation(rows, network, seed=2, evaluate=(X, Y.to(dtype)), evaluate_clients=True)
        told = federation.fit(1)[0]
        assert {"accuracy", "accuracy at clients"} <= told.metrics.keys()
        models.append(federation.model)
    assert all(torch.equal(a, b) for a, b in zip(*[model.parameters() for model in models], strict=True))


def test_more_steps_than_a_message_holds_train_alike(parts, monkeypatch):
    models = []
    for most in (1 << 14, 7):
        monkeypatch.setattr(m, "SCAN_STEPS", most)
        federation = Federation(parts, network, optimizer=adam, epochs=2, batch_size=4, seed=3)
        assert federation.fit(1)[0].loss > 0
        models.append(federation.model)
    assert all(torch.equal(a, b) for a, b in zip(*[model.parameters() for model in models], strict=True))
