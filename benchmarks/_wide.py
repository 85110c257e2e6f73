"""What programs are made of; each function measures one section and returns its figures.

    plan        ten operations as a plan over a loopback websocket, against one blocking operation
    uncached    x[i] over i, which no cache knows, against an operation that is in the cache
    cnn         an epoch's part of a convolutional network's training on two virtual workers, against plain torch
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from _measure import Figure, Goal, compared, in_turns
from _node import Node
from _peers import Settings
from _speed import Nowhere
from torch import nn
from torch.nn import functional as F

import syftlite as sy

# -- plan


@sy.func2plan(args_shape=[(10,), (10,)])
def ten(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Ten additions."""
    for _ in range(10):
        x = x + y
    return x


def _each(operation: Callable[[], torch.Tensor], count: int, expected: torch.Tensor) -> Callable[[], float]:
    def run() -> float:
        answer = expected
        began = time.perf_counter()
        for _ in range(count):
            answer = operation()
        seconds = time.perf_counter() - began
        assert torch.equal(answer, expected)
        return seconds / count * 1e6

    return run


def plan(settings: Settings) -> list[Figure]:
    """A plan's call and the get of its result, beside one operation's."""
    count = settings.count(1000)
    with Node() as node:
        a, b = torch.rand(10), torch.rand(10)
        x, y = a.send(node.worker), b.send(node.worker)
        one, planned = in_turns(
            5 * settings.repeats,
            _each(lambda: (x + y).get(), count, a + b),
            _each(lambda: ten(x, y).get(), count, ten(a, b)),
        )
    return [compared("plan of 10 ops + get", "us", Goal("<=", 1.2, "x"), planned, "one blocking op + get", one, gain=False)]


# -- uncached


def uncached(settings: Settings) -> list[Figure]:
    """Indexing by a number that is new each time, beside an addition, whose result's shape the cache knows."""
    count = settings.count(20_000)
    x = torch.zeros(count, 2).send(sy.BaseWorker("nowhere-rows", Nowhere()))

    def rows() -> float:
        began = time.perf_counter()
        for i in range(count):
            x[i]
        return (time.perf_counter() - began) / count * 1e6

    def sums() -> float:
        began = time.perf_counter()
        for _ in range(count):
            x + x
        return (time.perf_counter() - began) / count * 1e6

    known, new = in_turns(settings.repeats, sums, rows)
    return [compared("a row of x, each once", "us", Goal("<=", 2, "x"), new, "x + x, cached", known, gain=False)]


# -- cnn


class Net(nn.Module):
    """The network of PySyft's lesson on MNIST: two convolutions, two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.c2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.f1, self.f2 = nn.Linear(800, 500), nn.Linear(500, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 1, 28, 28) images -> (n, 10) log-probabilities."""
        x = F.max_pool2d(self.c1(x).relu(), 2)
        x = F.max_pool2d(self.c2(x).relu(), 2)
        return F.log_softmax(self.f2(self.f1(x.reshape(-1, 800)).relu()), dim=1)


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    """One batch."""
    optimizer.zero_grad()
    F.nll_loss(model(x), y).backward()
    optimizer.step()


def plain_steps(data: torch.Tensor, targets: torch.Tensor, batches: int) -> Callable[[], float]:
    """Milliseconds a batch of the same loop in plain torch."""
    def run() -> float:
        torch.manual_seed(1)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        began = time.perf_counter()
        for i in range(batches):
            part = slice(i * 64, i * 64 + 64)
            train_step(model, optimizer, data[part], targets[part])
        return (time.perf_counter() - began) / batches * 1e3

    return run


def _federated(data: torch.Tensor, targets: torch.Tensor) -> Callable[[], float]:
    workers = [sy.VirtualWorker(id="cnn-a"), sy.VirtualWorker(id="cnn-b")]
    loader = sy.FederatedDataLoader(sy.BaseDataset(data, targets).federate(workers), batch_size=64)

    def run() -> float:
        torch.manual_seed(1)
        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        began = time.perf_counter()
        for x, y in loader:
            train_step(model.send(x.location), optimizer, x, y)
            model.get()
        return (time.perf_counter() - began) / len(loader) * 1e3

    return run


def cnn(settings: Settings) -> list[Figure]:
    """Batches of 64 images; the model goes to the batch's worker and comes back, as the lesson has it. The images are noise: values
    take no time."""
    batches = max(4, settings.count(40))
    data, targets = torch.rand(64 * batches, 1, 28, 28), torch.randint(0, 10, (64 * batches,))
    plain, federated = in_turns(settings.repeats, plain_steps(data, targets, batches), _federated(data, targets))
    return [compared("MNIST CNN, two virtual workers", "ms/batch", Goal("<=", 1.3, "x"), federated, "plain torch", plain, gain=False)]
