"""Private training in rounds: it is DP-SGD from the round's weights, charged to the owners, and ends with their budgets."""

import math

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import AggregationError, ConfigurationError
from syftlite.federated import Federation, FedProx, PrivateTraining, private
from syftlite.federated.checkpoint import load
from syftlite.transports.memory import MemoryTransport

torch.manual_seed(0)
ROWS = torch.randn(300, 5)
ROWS[:, 4] = (ROWS[:, 0] > 0).float()


def network():
    torch.manual_seed(1)
    return nn.Linear(4, 2)


@pytest.fixture
def clinics():
    """Two owners with PRIVATE rows, and their parts as a scientist sees them."""
    workers, parts = [], []
    for i, epsilon in enumerate((1000.0, 3.0)):
        engine = Engine(f"clinic-{i}")
        engine.load("rows", ROWS[150 * i : 150 * i + 150], ["#rows"], policy=sy.policy.dp(epsilon=epsilon, delta=1e-5))
        workers.append(sy.BaseWorker(engine.name, MemoryTransport(engine, Principal("carol", Role.SCIENTIST))))
        (table,) = workers[-1].search("#rows")
        parts.append(sy.BaseDataset(table[:, :4], table[:, 4].long()))
    yield sy.FederatedDataset(parts)
    for worker in workers:
        worker.close()


def training(noise, **options):
    sgd = lambda parameters: torch.optim.SGD(parameters, lr=0.5)  # noqa: E731
    return PrivateTraining(network, l2_norm_clip=1.0, noise_multiplier=noise, optimizer=sgd, **options)


def test_with_next_to_no_noise_it_is_clipped_descent_from_the_rounds_weights():
    parts = sy.BaseDataset(ROWS[:, :4], ROWS[:, 4].long()).federate([sy.VirtualWorker(id=f"open-{i}") for i in range(2)])
    federation = Federation(parts, network, training=training(1e-4, steps=2))
    federation.fit(2)
    model = network()
    for _ in range(2):
        after = []
        for part in (ROWS[:150], ROWS[150:]):
            w, b = model.weight.detach().clone(), model.bias.detach().clone()
            for _ in range(2):
                residual = (part[:, :4] @ w.T + b).softmax(1) - nn.functional.one_hot(part[:, 4].long(), 2)
                norms = residual.norm(dim=1) * (part[:, :4].square().sum(1) + 1).sqrt()
                residual = residual / norms.clamp(min=1)[:, None]
                w, b = w - 0.5 * residual.T @ part[:, :4] / 150, b - 0.5 * residual.mean(0)
            after.append((w, b))
        with torch.no_grad():
            model.weight.copy_((after[0][0] + after[1][0]) / 2), model.bias.copy_((after[0][1] + after[1][1]) / 2)
    torch.testing.assert_close(federation.model.weight, model.weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(federation.model.bias, model.bias, atol=1e-3, rtol=0)


@pytest.mark.parametrize("aggregation", ["plain", "secure"])
def test_rounds_are_charged_and_end_with_the_budget(clinics, aggregation, tmp_path):
    federation = Federation(
        clinics, network, training=training(3.0, batch_size=40, steps=3), aggregation=aggregation, minimum=2, checkpoint=tmp_path / "run",
        evaluate=(ROWS[:, :4], ROWS[:, 4].long()),
    )  # fmt: skip
    with pytest.raises(AggregationError, match="clinic-1: BudgetExceededError: it would cost more than is left: rows"):
        federation.fit(50)
    rounds = list(federation.history)
    assert rounds and rounds[-1].metrics["accuracy"] > 0.7
    spent = [r.spent["clinic-1"] for r in rounds]
    assert spent == sorted(set(spent)) and spent[-1] <= 3.0 and all(r.loss is None for r in rounds)
    assert " spent in " in str(rounds[-1]) and load(tmp_path / "run").told["rounds"][0]["spent"] == rounds[0].spent
    assert federation.history.plot(tmp_path / "costs.png").read_bytes()[:4] == b"\x89PNG"


def test_prices_are_learned_as_classes_are():
    x = torch.randn(200, 3)
    y = x @ torch.tensor([[1.0], [-1.0], [0.5]])
    parts = sy.BaseDataset(x, y).federate([sy.VirtualWorker(id=f"prices-{i}") for i in range(2)])
    loss, model = nn.functional.mse_loss, lambda: nn.Linear(3, 1)
    mine = PrivateTraining(model, l2_norm_clip=1.0, noise_multiplier=0.5, steps=10, loss=loss)
    history = Federation(parts, model, training=mine, loss=loss, evaluate=(x, y)).fit(5)
    assert history[-1].metrics["test loss"] < 0.2 < history[0].metrics["test loss"]


def test_what_cannot_work_is_refused_at_once(clinics):
    with pytest.raises(ConfigurationError, match="steps is at least 1"):
        training(1.0, steps=0)
    with pytest.raises(ConfigurationError, match="noise_multiplier"):
        training(0.0)
    with pytest.raises(ConfigurationError, match="goes with the usual training"):
        Federation(clinics, network, training=training(1.0), strategy=FedProx())


def test_what_clients_keep_goes_into_a_checkpoint(tmp_path):
    """Momentum over all rows, with next to no noise: two rounds and two more are four."""
    parts = sy.BaseDataset(ROWS[:, :4], ROWS[:, 4].long()).federate([sy.VirtualWorker(id=f"kept-{i}") for i in range(2)])
    for optimizer in (lambda p: torch.optim.SGD(p, lr=0.5, momentum=0.9), lambda p: torch.optim.Adam(p, lr=0.05)):

        def make(optimizer=optimizer):
            mine = PrivateTraining(network, l2_norm_clip=1.0, noise_multiplier=1e-6, steps=3, optimizer=optimizer)
            return Federation(parts, network, training=mine, checkpoint=tmp_path / "run.safetensors")

        whole, halves = make(), make()
        whole.fit(4), halves.fit(2)
        resumed = make().resume()
        resumed.fit(2)
        torch.testing.assert_close(whole.model.weight, resumed.model.weight, atol=1e-4, rtol=0)
        torch.testing.assert_close(whole.model.bias, resumed.model.bias, atol=1e-4, rtol=0)


def test_a_client_that_fails_while_a_checkpoint_is_made_is_left_out_of_it(clinics, monkeypatch):
    mine = training(1.0)
    for part in clinics.datasets.values():
        mine.record(part.location, part.data, part.targets)
        optimizer = mine._clients[part.location.id].optimizer
        optimizer.optimizer.state = {p: {"kept": torch.ones(1)} for p in optimizer.parameters}

    def here(value):
        mine._clients.pop("clinic-1", None)
        return value

    monkeypatch.setattr(private, "_here", here)
    assert "clinic-0/kept" in mine.state()


@pytest.mark.parametrize("own", [{"epochs": 2}, {"batch_size": 7}, {"optimizer": torch.optim.SGD}, {"loss": nn.functional.mse_loss}])
def test_settings_that_it_would_not_heed_are_refused(clinics, own):
    with pytest.raises(ConfigurationError, match=f"{next(iter(own))}: settings of the usual training"):
        Federation(clinics, network, training=training(1.0), **own)
    Federation(clinics, network, training=training(1.0), loss=nn.functional.cross_entropy)  # it is the training's own


@pytest.mark.parametrize("layer", [nn.BatchNorm1d(4), nn.BatchNorm1d(4, track_running_stats=False), nn.InstanceNorm1d(4, track_running_stats=True)])
def test_what_mixes_examples_is_refused_at_once(layer):
    with pytest.raises(ConfigurationError, match="1: batch norm mixes examples"):
        PrivateTraining(lambda: nn.Sequential(nn.Linear(4, 4), layer), l2_norm_clip=1.0, noise_multiplier=1.0)
    PrivateTraining(lambda: nn.Sequential(nn.Linear(4, 4), layer).eval(), l2_norm_clip=1.0, noise_multiplier=1.0)


def test_without_a_budget_it_tells_what_all_steps_have_cost(tmp_path):
    parts = sy.BaseDataset(ROWS[:, :4], ROWS[:, 4].long()).federate([sy.VirtualWorker(id=f"told-{i}") for i in range(2)])
    make = lambda: Federation(parts, network, training=training(2.0, batch_size=15, steps=3, delta=1e-5), checkpoint=tmp_path / "c")  # noqa: E731
    first, second = make().fit(2)
    (third,) = make().resume().fit(1)[2:]
    for number, told in enumerate((first, second, third), 1):
        cost = sy.dp.tight(sy.dp.rdp([sy.dp.gaussian(2.0, 0.1, 3 * number)]), 1e-5)
        assert told.spent == {f"told-{i}": pytest.approx(cost, rel=1e-3) for i in range(2)}
    assert Federation(parts, network, training=training(2.0)).fit(1)[0].spent == {}
    with pytest.raises(ConfigurationError, match="delta lies between"):
        training(2.0, delta=0.0)


def test_noise_that_promises_nothing_ends_no_round(tmp_path):
    wide = lambda: nn.Linear(4, 40)  # noqa: E731
    parts = sy.BaseDataset(ROWS[:, :4], ROWS[:, 4].long()).federate([sy.VirtualWorker(id=f"bare-{i}") for i in range(2)])
    little = PrivateTraining(wide, l2_norm_clip=1.0, noise_multiplier=1e-3, batch_size=15, delta=1e-5)
    make = lambda: Federation(parts, wide, training=little, checkpoint=tmp_path / "c")  # noqa: E731
    told = make().fit(1)
    assert told[0].spent == dict.fromkeys(told[0].clients, math.inf) and len(told[0].clients) == 2
    assert told.plot(tmp_path / "c.png").exists() and make().resume().history[0] == told[0]


def crashing(self, parts, dropped, needed):
    raise KeyboardInterrupt


def test_steps_of_a_round_that_a_crash_lost_stay_counted(tmp_path, monkeypatch):
    """Of the first round, before there is a checkpoint, and of a later one; none twice."""
    parts = sy.BaseDataset(ROWS[:, :4], ROWS[:, 4].long()).federate([sy.VirtualWorker(id=f"lost-{i}") for i in range(2)])
    make = lambda: Federation(parts, network, training=training(2.0, batch_size=15, steps=3, delta=1e-5), checkpoint=tmp_path / "c")  # noqa: E731
    cost = lambda steps: pytest.approx(sy.dp.tight(sy.dp.rdp([sy.dp.gaussian(2.0, 0.1, steps)]), 1e-5), rel=1e-3)  # noqa: E731
    with monkeypatch.context() as during:
        during.setattr("syftlite.federated.work.Work.quorum", crashing)
        with pytest.raises(KeyboardInterrupt):
            make().fit(1)
        assert not (tmp_path / "c").exists() and (tmp_path / "c.spent").exists()
    (told,) = make().resume().fit(1)
    assert [*told.spent.values()] == [cost(6)] * 2 and not (tmp_path / "c.spent").exists()
    with monkeypatch.context() as during:
        during.setattr("syftlite.federated.work.Work.quorum", crashing)
        with pytest.raises(KeyboardInterrupt):
            make().resume().fit(1)
    for _ in range(2):
        with (tmp_path / "c.spent").open("a") as file:
            file.write('["lost-0", 2.0')  # as of a machine that went down
        assert make().resume().training.events()["lost-0"] == {sy.dp.gaussian(2.0, 0.1): 9}
    assert [*make().resume().fit(1)[-1].spent.values()] == [cost(12)] * 2
    assert [*make().resume().fit(1)[-1].spent.values()] == [cost(15)] * 2


def test_going_back_in_this_process_forgets_no_step(tmp_path):
    parts = sy.BaseDataset(ROWS[:, :4], ROWS[:, 4].long()).federate([sy.VirtualWorker(id=f"back-{i}") for i in range(2)])
    federation = Federation(parts, network, training=training(2.0, batch_size=15, steps=3, delta=1e-5), checkpoint=tmp_path / "c")
    federation.fit(1)
    federation.save(tmp_path / "early")
    federation.fit(1)
    told = federation.resume(tmp_path / "early").fit(1)[-1]
    assert told.number == 2 and not told.dropped
    cost = sy.dp.tight(sy.dp.rdp([sy.dp.gaussian(2.0, 0.1, 9)]), 1e-5)
    assert [*told.spent.values()] == [pytest.approx(cost, rel=1e-3)] * 2
