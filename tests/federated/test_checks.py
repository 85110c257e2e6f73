"""What cannot be meant is refused when it is said; what a round is worth is told in plain numbers."""

import numpy
import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ConfigurationError
from syftlite.federated import FedAvg, Federation, PrivateTraining
from syftlite.federated.checkpoint import load

torch.manual_seed(0)
X, Y = torch.randn(40, 5), torch.randint(0, 3, (40,))


def network():
    return nn.Linear(5, 3)


@pytest.fixture
def parts():
    workers = [sy.VirtualWorker(id=f"checks-{i}") for i in range(4)]
    yield sy.BaseDataset(X, Y).federate(workers)
    for worker in workers:
        worker.close()


SECURE = {"aggregation": "secure"}


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"secure": {"noise_multiplier": 5.0}}, 'is for aggregation="secure"'),
        ({"aggregators": ["a", "b"]}, 'are for aggregation="shares"'),
        ({**SECURE, "crypto_provider": "c"}, 'are for aggregation="shares"'),
        ({**SECURE, "secure": {"foo": 1}}, "no option foo"),
        ({**SECURE, "secure": {"minimum": 50}}, "minimum is 2 to 4"),
        ({**SECURE, "secure": {"threshold": 50}}, "threshold is 2 to 4"),
        ({**SECURE, "secure": {"clip": -1}}, "clip and max_weight are positive"),
        ({**SECURE, "secure": {"fraction_bits": 200}}, "fraction_bits 0 to 40"),
        ({**SECURE, "secure": {"noise_multiplier": -1.0}}, "noise_multiplier at least 0"),
        ({**SECURE, "secure": {"noise_multiplier": 1e-9}}, "noise of deviation"),
        ({"strategy": "fedavg"}, r"strategy is an object .*such as FedAvg\(\)"),
        ({"strategy": FedAvg}, r"such as FedAvg\(\)"),
        ({"minimum": 2.5}, "minimum 1 to 4"),
        ({"buffer": 1.5}, "a buffer holds"),
        ({"deadline": None}, "deadline positive: got 1.0, 1, None"),
        ({"fraction": "all"}, "fraction is in .*'all'"),
        ({"epochs": 1.5}, "whole numbers, .*: got 1.5"),
        ({"batch_size": "8"}, "whole numbers"),
        ({"optimizer": lambda parameters: None}, "makes a torch.optim.Optimizer, and it made None"),
        ({"optimizer": lambda parameters: torch.optim.SGD([torch.zeros(1)], lr=0.1)}, "none of the model's trained parameters"),
        ({"evaluate": 3}, "evaluate is"),
        ({"evaluate": (X, Y[:3])}, "evaluate is"),
        ({"evaluate": (X[:0], Y[:0])}, "evaluate is"),
    ],
)
def test_it_is_refused_at_once(parts, options, match):
    with pytest.raises(ConfigurationError, match=match):
        Federation(parts, network, **options)


def test_a_worker_is_one_client():
    worker = sy.VirtualWorker(id="checks-twice")
    worker.load(X, "#x"), worker.load(Y, "#y")
    with pytest.raises(ConfigurationError, match="named more than once: checks-twice"):
        Federation([worker, worker], network, data=("#x", "#y"))
    worker.close()


def test_a_fraction_is_of_all_clients():
    parts = sy.federated.split_iid(sy.BaseDataset(torch.randn(100, 5), torch.randint(0, 3, (100,))), 100)
    assert [Federation(parts, network, fraction=f).sampled for f in (0.07, 0.55, 0.551)] == [7, 55, 56]


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        (None, {}), (0.5, {"evaluation": 0.5}), (numpy.float32(0.5), {"evaluation": 0.5}), ({"a": torch.tensor(0.25)}, {"a": 0.25}),
        ({"a": torch.tensor([2]), "b": numpy.int64(3)}, {"a": 2.0, "b": 3.0}), ({1: True}, {"1": 1.0}),
    ],
)  # fmt: skip
def test_an_evaluation_is_kept_as_plain_numbers(parts, tmp_path, told, kept):
    federation = Federation(parts, network, evaluate=lambda model: told, checkpoint=tmp_path / "run")
    assert federation.fit(1)[0].metrics == kept == load(tmp_path / "run").told["rounds"][0]["metrics"]
    assert all(type(value) is float for value in federation.history[0].metrics.values())


@pytest.mark.parametrize("told", ["good", {"a": torch.ones(2)}, {"a": None}])
def test_what_is_no_number_is_refused(parts, told):
    with pytest.raises(ConfigurationError, match="a number, or numbers by name"):
        Federation(parts, network, evaluate=lambda model: told).fit(1)


def test_clients_of_another_federation_keep_their_names(monkeypatch):
    from syftlite.federated import clients

    named = []
    monkeypatch.setattr(clients.RayWorker, "several", lambda names: [named.append(n) or sy.VirtualWorker(id=n) for n in names])
    made = [Federation([sy.BaseDataset(X, Y)] * 2, network, engine="ray") for _ in range(2)]
    assert len(set(named)) == 4 and [f.fit(1)[0].dropped for f in made] == [{}, {}]


@pytest.mark.parametrize("name", ["Adagrad", "NAdam", "RAdam", "Adamax", "ASGD", "LBFGS", "SparseAdam"])
def test_an_optimizer_that_is_no_plan_is_refused_by_name(parts, name):
    with pytest.raises(ConfigurationError, match=f"{name} cannot be recorded .* SGD, Adam, AdamW, RMSprop, Adadelta and Rprop can"):
        Federation(parts, network, optimizer=lambda parameters: getattr(torch.optim, name)(parameters, lr=0.01))


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW", "RMSprop", "Adadelta", "Rprop"])
def test_one_that_is_a_plan_is_not(parts, name):
    federation = Federation(parts, network, optimizer=lambda parameters: getattr(torch.optim, name)(parameters, lr=0.01))
    assert federation.fit(1)[0].dropped == {}


@pytest.mark.parametrize("options", [{"loss": "ce"}, {"optimizer": "sgd"}])
def test_a_function_is_one(parts, options):
    with pytest.raises(ConfigurationError, match=f"{next(iter(options))} is a function"):
        Federation(parts, network, **options)
    with pytest.raises(ConfigurationError, match="model_fn is a function that makes the model"):
        Federation(parts, network())


def test_rows_may_be_arrays():
    part = sy.BaseDataset(X.numpy(), Y.numpy())
    assert Federation([part], network).fit(1)[0].dropped == {} and torch.equal(part.data, X)


def test_a_model_is_made(parts):
    with pytest.raises(ConfigurationError, match="makes a torch.nn.Module, and it made None"):
        Federation(parts, lambda: None)
    private = {"l2_norm_clip": 1.0, "noise_multiplier": 1.0}
    with pytest.raises(ConfigurationError, match="makes a torch.nn.Module, and it made None"):
        PrivateTraining(lambda: None, **private)
    with pytest.raises(ConfigurationError, match="makes a torch.optim.Optimizer, and it made None"):
        PrivateTraining(network, optimizer=lambda parameters: None, **private)
    with pytest.raises(ConfigurationError, match="steps is at least 1"):
        PrivateTraining(network, steps=1.5, **private)


def test_without_rounds_there_is_nothing_to_draw(parts, tmp_path):
    with pytest.raises(ConfigurationError, match="no rounds"):
        Federation(parts, network).history.plot(tmp_path / "curves.png")


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({**SECURE, "secure": ["clip"]}, "secure is a dictionary"),
        *[({**SECURE, "secure": {name: "3"}}, f"{name} is a number, not '3'") for name in ("deadline", "noise_multiplier", "clip", "max_weight")],
        *[({**SECURE, "secure": {name: 2.5}}, f"{name} is a whole number") for name in ("minimum", "threshold", "neighbours", "fraction_bits")],
        ({"seed": None}, "seed is a whole number"),
        ({"seed": "1"}, "seed is a whole number"),
        ({"checkpoint": 3}, "checkpoint is a file's name, not 3"),
        ({"training": 3}, "training is an object with record"),
        ({"training": PrivateTraining}, "training is an object with record"),
        ({"loss": nn.CrossEntropyLoss}, r"CrossEntropyLoss\(\), not CrossEntropyLoss"),
        ({"optimizer": "sgd"}, "such as lambda parameters: torch.optim.SGD"),
        ({"scheduler": torch.optim.lr_scheduler.StepLR}, "a function of the optimizer alone, such as"),
        ({"data": "#x"}, "data is two tags"),
        ({"data": ("#x",)}, "data is two tags"),
    ],
)  # fmt: skip
def test_what_is_no_such_thing_is_named_with_what_would_be(parts, options, match):
    clients = [sy.local_worker] if "data" in options else parts
    with pytest.raises(ConfigurationError, match=match):
        Federation(clients, network, **options)


@pytest.mark.parametrize("clients", [None, 3, "bob", X, sy.BaseDataset(X, Y)])
def test_clients_are_several(clients):
    with pytest.raises(ConfigurationError, match="clients are a FederatedDataset"):
        Federation(clients, network)


@pytest.mark.parametrize("rounds", ["3", 1.5, -1, None])
def test_rounds_are_counted(parts, rounds):
    with pytest.raises(ConfigurationError, match="how many rounds more"):
        Federation(parts, network).fit(rounds)


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda out, y: {"loss": out.sum()}, "one number tensor, and it gave dict"),
        (lambda out, y: (out.sum(), 1), "it gave tuple"),
        (lambda out, y: None, "it gave NoneType"),
        (lambda out, y: 1.0, "it gave float"),
        (lambda out, y: nn.functional.cross_entropy(out, y, reduction="none"), r"it gave \[10\] .*its mean"),
        (lambda out, y: out.sum() * 1j, "complex64: return a real one"),
        (lambda out, y: out.argmax(1).sum(), "int64: return a real one"),
        (lambda out, y: out.detach().sum(), "does not follow from what is trained"),
    ],
)
def test_a_loss_is_one_number_that_follows_from_the_output(parts, loss, match):
    federation = Federation(parts, network, loss=loss)
    with pytest.raises(ConfigurationError, match=match):
        federation.fit(1)


def test_a_secure_sum_says_what_it_is_of():
    with pytest.raises(ConfigurationError, match="a secure sum is of {worker"):
        sy.federated.secure_sum([X])
    with pytest.raises(ConfigurationError, match="clip is a number"):
        sy.federated.secure_sum({}, clip="8")
