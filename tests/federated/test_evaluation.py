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


def test_one_score_a_row_has_no_accuracy():
    """Whether it is a logit, and where its threshold is, is the loss's to know."""
    torch.manual_seed(0)
    x = torch.randn(40, 5)
    y = (x.sum(1) > 0).long()
    loss = lambda scores, target: F.binary_cross_entropy_with_logits(scores[:, 0], target.float())  # noqa: E731
    given = [sy.BaseDataset(x[:20], y[:20]), sy.BaseDataset(x[20:], y[20:])]
    told = Federation(given, lambda: nn.Linear(5, 1), loss=loss, evaluate=(x, y), evaluate_clients=True).fit(1, progress=False)[0]
    assert set(told.metrics) == {"test loss", "loss at clients"}


class Several(nn.Module):
    """A score for each class at each of several places, and something else beside."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Linear(5, 12), nn.BatchNorm1d(5).train(False)

    def forward(self, x):
        scores = self.layer(self.norm(x))
        return scores.view(-1, 3, 4), scores.sum(1)


def test_scores_of_any_form():
    torch.manual_seed(0)
    x, y = torch.randn(20, 5), torch.randint(0, 3, (20, 4))
    loss = lambda out, target: F.cross_entropy(out[0], target)  # noqa: E731
    given = [sy.BaseDataset(x[:8], y[:8]), sy.BaseDataset(x[8:], y[8:])]
    federation = Federation(given, Several, loss=loss, evaluate=(x, y), evaluate_clients=True)
    told = federation.fit(1, progress=False)[0]
    assert set(told.metrics) == {"test loss", "loss at clients"} and not told.dropped
    assert federation.model.training and not federation.model.norm.training, "each layer has the mode that it had"


def test_a_round_is_kept_though_its_evaluation_fails(tmp_path):
    failing, plain = [True], lambda: nn.Linear(5, 3)

    def evaluate(model):
        model.train(False)
        if failing:
            raise OSError("disk full")
        return 1.0

    given, path = parts(20, 20), tmp_path / "run.safetensors"
    federation = Federation(given, plain, evaluate=evaluate, checkpoint=path)
    before = federation.layout.snapshot()
    with pytest.raises(OSError, match="disk full"):
        federation.fit(3, progress=False)
    assert len(federation.history) == 1 and not federation.history[0].metrics
    assert not torch.equal(before[0], federation.layout.snapshot()[0])
    failing.clear()
    resumed = Federation(given, plain, evaluate=evaluate, checkpoint=path).resume()
    for each in (federation, resumed):
        assert each.fit(1, progress=False)[-1].metrics == {"evaluation": 1.0} and len(each.history) == 2
    assert torch.equal(federation.layout.snapshot()[0], resumed.layout.snapshot()[0])


def test_a_function_gets_the_model_as_it_is_used():
    """Not in training: no dropout, and no statistics of what it is evaluated on."""

    def network():
        return nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 3))

    rows, seen = torch.randn(50, 5) + 100, []

    def told(model):
        seen.append([layer.training for layer in model.modules()])
        return float(torch.equal(model(rows), model(rows)))

    federation = Federation(parts(30, 30), network, evaluate=told)
    federation.model[2].eval()
    assert federation.fit(1)[0].metrics == {"evaluation": 1.0}
    assert not any(seen[0]) and [layer.training for layer in federation.model] == [True, True, False, True]
    assert federation.model[1].running_mean.abs().max() < 10
