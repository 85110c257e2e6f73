"""What a model is worth where the clients' rows are."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.engine.session import Principal, Role
from syftlite.federated import Federation
from syftlite.federated.crew import Crew
from syftlite.federated.evaluation import at_clients
from syftlite.transports.memory import MemoryTransport


def parts(*sizes):
    torch.manual_seed(4)
    return [sy.BaseDataset(torch.randn(n, 5), torch.randint(0, 3, (n,))) for n in sizes]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.5), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize("aggregation", ["plain", "secure"])
def test_by_client_and_in_the_mean(aggregation):
    data = parts(6, 3, 1500)
    federation = Federation(data, net, evaluate_clients=True, aggregation=aggregation)
    history = federation.fit(2)
    model = federation.model.eval()
    for (name, told), part in zip(history[-1].evaluated.items(), data, strict=True):
        with torch.no_grad():
            scores = model(part.data)
        assert told["loss"] == pytest.approx(F.cross_entropy(scores, part.targets).item(), abs=1e-5)
        assert told["accuracy"] == pytest.approx((scores.argmax(1) == part.targets).float().mean().item(), abs=1e-6)
        assert history.series()[f"evaluated loss/{name}"][-1] == (2, told["loss"])
    losses = [told["loss"] for told in history[-1].evaluated.values()]
    expected = sum(loss * n for loss, n in zip(losses, (6, 3, 1500), strict=True)) / 1509
    assert history[-1].metrics["loss at clients"] == pytest.approx(expected, rel=1e-6)
    assert "accuracy at clients" in str(history[-1]) and not history[-1].dropped


def test_real_numbers_have_no_accuracy_and_failures_have_names():
    data = [sy.BaseDataset(torch.randn(4, 2), torch.randn(4, 1)) for _ in range(2)]

    def loss(scores, target):
        if len(scores) == 4 and not torch.is_grad_enabled():
            return F.mse_loss(scores[:, :0] if loss.spoilt else scores, target)
        return F.mse_loss(scores, target)

    loss.spoilt = False
    federation = Federation(data, lambda: nn.Linear(2, 1), loss=loss, evaluate_clients=True)
    assert [*federation.fit(1)[-1].evaluated[federation.clients[0][0].id]] == ["loss"]
    loss.spoilt = True
    result = federation.fit(1)[-1]
    assert not result.evaluated and all("not evaluated" in why for why in result.dropped.values()) and len(result.dropped) == 2


def test_what_a_policy_keeps_is_left_out(tmp_path):
    workers = [sy.VirtualWorker(id=f"evaluation-{n}") for n in range(2)]
    for n, worker in enumerate(workers):
        worker.load(torch.randn(6, 5), "#x", private=n == 1)
        worker.load(torch.randint(0, 3, (6,)), "#y", private=n == 1)
    others = [sy.BaseWorker(f"client-of-{w.id}", MemoryTransport(w.engine, Principal("ann", Role.SCIENTIST))) for w in workers]
    dropped = {}
    clients = [(w, w.search("#x")[0], w.search("#y")[0]) for w in others]
    told = at_clients(net(), clients, F.cross_entropy, Crew(2, 2), 60.0, dropped)
    assert [*told] == [others[0].id] and not dropped


def test_with_a_checkpoint(tmp_path):
    path = tmp_path / "there.safetensors"
    history = Federation(parts(6, 3), net, evaluate_clients=True, checkpoint=path).fit(1)
    again = Federation(parts(6, 3), net, evaluate_clients=True, checkpoint=path).resume()
    assert again.history[-1].evaluated == history[-1].evaluated
    again.fit(1)
    assert sorted(again.history.series()) == sorted(set(again.history.series()))
