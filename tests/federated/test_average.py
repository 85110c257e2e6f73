"""Averages of models, batches by worker, accuracy."""

import copy

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ConfigurationError, TensorsNotCollocatedError
from syftlite.federated import accuracy, extract_batches_per_worker, federated_avg


def models(count):
    return [nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)) for _ in range(count)]


def mean(parts, weights):
    return {k: sum(w * p.state_dict()[k] for w, p in zip(weights, parts)) for k in parts[0].state_dict() if "num_batches" not in k}


@pytest.mark.parametrize("weights", [None, [1.0, 3.0, 0.0]], ids=["equal", "weighted"])
def test_models_here(weights):
    parts = models(3)
    before = copy.deepcopy(parts)
    given = dict(zip("abc", weights)) if weights else None
    average = federated_avg(dict(zip("abc", parts)), given)
    expected = mean(parts, [w / 4 for w in weights] if weights else [1 / 3] * 3)
    for name, tensor in expected.items():
        assert torch.allclose(average.state_dict()[name], tensor, atol=1e-6), name
    for part, was in zip(parts, before):
        assert all(torch.equal(p, q) for p, q in zip(part.state_dict().values(), was.state_dict().values()))


def test_models_at_an_aggregator(bob, alice):
    parts = models(2)
    expected = mean(parts, [0.5, 0.5])
    there = {alice: parts[0].send(alice).move(bob), bob: parts[1].send(bob)}
    average = federated_avg(there)
    assert average.location is bob
    average.get()
    for name, tensor in expected.items():
        assert torch.allclose(average.state_dict()[name], tensor, atol=1e-6), name


def test_wrong_models_are_named(bob):
    first, second = models(2)
    with pytest.raises(TensorsNotCollocatedError, match="here"):
        federated_avg({"a": first, "b": second.send(bob)})
    with pytest.raises(ConfigurationError, match="in common"):
        federated_avg({"a": nn.Linear(2, 2), "b": nn.Linear(2, 3)})
    with pytest.raises(ConfigurationError, match="got none"):
        federated_avg({})
    for weights in ({"a": 1.0}, {"a": 0.0, "b": 0.0}, {"a": -1.0, "b": 2.0}):
        with pytest.raises(ConfigurationError, match="weights"):
            federated_avg({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)}, weights)


@pytest.mark.parametrize("together", [False, True])
def test_batches_by_worker(bob, alice, together):
    fds = sy.BaseDataset(torch.arange(10.0), torch.arange(10)).federate([bob, alice])
    batches = extract_batches_per_worker(sy.FederatedDataLoader(fds, batch_size=2, iter_per_worker=together))
    assert set(batches) == {bob, alice} and [len(batches[w]) for w in (bob, alice)] == [3, 3]
    assert batches[alice][0][1].get().tolist() == [5, 6]


def test_accuracy_here_and_there(bob):
    scores, target = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.3, 0.7]]), torch.tensor([0, 1, 1, 1])
    assert accuracy(scores, target).item() == 0.75 == accuracy(scores.send(bob), target.send(bob)).get().item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.complex64])
@pytest.mark.parametrize("there", [False, True])
def test_many_models_of_few_bits(dtype, there, bob):
    made = {n: nn.Linear(1, 1, bias=False, dtype=dtype) for n in range(200)}
    for model in made.values():
        model.weight.data.fill_(1.0)
    given = {n: model.send(bob) for n, model in made.items()} if there else made
    average = federated_avg(given)
    assert (average.get() if there else average).weight.item() == 1.0 and average.weight.dtype == dtype


def test_a_model_of_weight_0_counts_as_nothing():
    good, diverged = nn.Linear(1, 1), nn.Linear(1, 1)
    diverged.weight.data.fill_(torch.inf)
    average = federated_avg({"a": good, "b": diverged}, {"a": 3, "b": 0})
    assert torch.equal(average.weight, good.weight)


def test_models_come_by_worker_or_in_a_list():
    models = [nn.Linear(2, 1) for _ in range(3)]
    by_name = sy.federated.federated_avg(dict(zip("abc", models, strict=True)), {"a": 1, "b": 2, "c": 3})
    listed = sy.federated.federated_avg(models, [1, 2, 3])
    assert torch.equal(by_name.weight, listed.weight) and torch.equal(by_name.bias, listed.bias)
    with pytest.raises(ConfigurationError, match="takes modules, by worker or in a list, not int"):
        sy.federated.federated_avg([models[0], 3])
    with pytest.raises(ConfigurationError, match="weights are one for each model"):
        sy.federated.federated_avg(models, [1, 2])


@pytest.mark.parametrize("weights", [[float("nan"), 1.0], [float("inf"), 1.0], ["a", "b"], [None, 1], [torch.tensor([1.0, 2.0]), 1], 3, nn.Linear(1, 1)])
def test_weights_are_finite_numbers(weights):
    models = [nn.Linear(2, 2), nn.Linear(2, 2)]
    with pytest.raises(ConfigurationError, match="weights are finite numbers|takes weights by worker"):
        federated_avg(models, weights)


@pytest.mark.parametrize("models", [None, nn.Linear(2, 2), 3])
def test_models_are_several(models):
    with pytest.raises(ConfigurationError, match="takes models by worker, or a list"):
        federated_avg(models)


def test_models_of_different_length_are_told_apart():
    with pytest.raises(ConfigurationError, match=r"as many parameters and buffers \(0: 2, 1: 4\)"):
        federated_avg([nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))])


def test_what_is_no_loader_and_no_scores_is_named():
    with pytest.raises(ConfigurationError, match="list is no FederatedDataLoader"):
        extract_batches_per_worker([])
    for scores, target in ((torch.zeros(4), torch.zeros(4)), (torch.zeros(4, 2), torch.zeros(3)), (torch.zeros(2, 2, 2), torch.zeros(2))):
        with pytest.raises(ConfigurationError, match=r"scores \(n, classes\)"):
            accuracy(scores, target)
    with pytest.raises(ConfigurationError, match="not of list and Tensor"):
        accuracy([1.0], torch.zeros(1))
