"""Start here: what syftlite is, in a few tests that read like a program."""

import pytest
import torch

import syftlite as sy


@pytest.fixture
def bob():
    return sy.VirtualWorker(id="tiny-bob")


def test_a_sum_is_computed_where_the_data_is(bob):
    x = torch.tensor([1, 2, 3, 4]).send(bob)
    y = torch.tensor([5, 6, 7, 8]).send(bob)

    z = x + y

    assert z.location is bob and z.shape == (4,)
    assert z.get().tolist() == [6, 8, 10, 12]


def test_nothing_is_left_behind(bob):
    x = torch.ones(3).send(bob)
    (x * 2).get()
    del x

    assert bob._objects == {}


def test_a_model_trains_at_the_worker(bob):
    data, target = torch.eye(4).send(bob), torch.arange(4.0).reshape(4, 1).send(bob)
    model = torch.nn.Linear(4, 1).send(bob)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    for _ in range(200):
        optimizer.zero_grad()
        loss = (model(data) - target).pow(2).sum()
        loss.backward()
        optimizer.step()

    assert loss.item() < 1e-2
    assert isinstance(model.get().weight, torch.nn.Parameter)


def test_private_data_stays(bob):
    bob.load(torch.arange(6.0), "#ages", private=True)
    (ages,) = bob.search("#ages")

    with pytest.raises(sy.errors.GetNotPermittedError, match="PRIVATE"):
        (ages + 1).get(user="a scientist")


def test_mistakes_are_named(bob):
    x = torch.ones(3).send(bob)

    with pytest.raises(RuntimeError, match=r"send\(\) it there first"):
        x + torch.ones(3)
    with pytest.raises(RuntimeError, match="broadcast"):
        x + torch.ones(4).send(bob)
