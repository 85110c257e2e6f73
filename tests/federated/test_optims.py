"""An optimizer for each worker, each with a state of its own."""

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ConfigurationError, WorkerNotFoundError

OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, lr=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
    "adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_each_worker_trains_with_its_own(bob, alice, make):
    model = nn.Linear(3, 1)
    reference = nn.Linear(3, 1)
    reference.load_state_dict(model.state_dict())
    optims = sy.Optims([bob.id, alice], optim=make(model.parameters()))
    own = {worker: make(reference.parameters()) for worker in (bob, alice)}
    data = {worker: (torch.randn(5, 3), torch.randn(5, 1)) for worker in (bob, alice)}
    there = {worker: [t.send(worker) for t in data[worker]] for worker in data}
    for _ in range(3):
        for worker in (bob, alice):
            for m, optimizer, (x, y) in (
                (model.send(worker), optims.get_optim(worker.id), there[worker]),
                (reference, own[worker], data[worker]),
            ):
                optimizer.zero_grad()
                (m(x) - y).pow(2).mean().backward()
                optimizer.step()
            model.get()
    assert torch.allclose(model.weight, reference.weight, atol=1e-5)
    assert optims.get_optim(bob) is not optims.get_optim(alice)


def test_settings_groups_and_reset():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    optimizer = torch.optim.SGD([{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters()}], lr=0.1, momentum=0.9)
    optims = sy.Optims(["bob", "alice"], optim=optimizer)
    assert optims.count() == 2 and [g["lr"] for g in optims.get_optim("bob").param_groups] == [0.5, 0.1]
    model(torch.ones(1, 2)).sum().backward()
    optims.get_optim("bob").step()
    assert len(optims.get_optim("bob").state) == 4 and not optims.get_optim("alice").state and not optimizer.state
    optims.reset()
    assert not optims.get_optim("bob").state
    with pytest.raises(WorkerNotFoundError, match="bob, alice"):
        optims.get_optim("carol")


def test_it_is_of_a_list_of_workers_and_an_optimizer():
    sgd = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    for workers in (None, 3, "bob", sy.local_worker):
        with pytest.raises(ConfigurationError, match="a list of workers or ids"):
            sy.Optims(workers, optim=sgd)
    with pytest.raises(ConfigurationError, match="optim is a torch optimizer"):
        sy.Optims(["bob"], optim=torch.optim.SGD)
