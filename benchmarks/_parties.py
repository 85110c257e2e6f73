"""Ours: two holders and a provider, as nodes in processes of their own or as virtual workers here, and what is computed between them.

    case = parties.case("relu", 1000)      its operands shared, its weights too, and fixed by a first run: all before any clock
    parties.run(case)                      seconds, from the user's line until both holders have answered a SYNC

The provider's work is in it: nothing is dealt before. Every result is then reconstructed and compared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.mpc.counting import Cost
from syftlite.wire.messages import SYNC

UNIT = 2.0**-16
"""Of fixed precision."""
NETWORK_TOLERANCE = 0.02
_numbers = count()


@dataclass
class Case:
    """``compute`` leaves with the holders what decodes to ``expected``, within ``tolerance``."""

    name: str
    compute: Callable[[], Any]
    expected: torch.Tensor
    tolerance: float


class LeNet(nn.Sequential):
    """Two convolutions with max pools, two dense layers."""

    def __init__(self) -> None:
        convolutions = (nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 16, 5), nn.ReLU(), nn.MaxPool2d(2))
        super().__init__(*convolutions, nn.Flatten(), nn.Linear(256, 100), nn.ReLU(), nn.Linear(100, 10))


class Averaging(nn.Sequential):
    """Three padded convolutions with average pools, one dense layer."""

    def __init__(self) -> None:
        pairs = ((1, 16), (16, 32), (32, 64))
        blocks = [m for i, o in pairs for m in (nn.Conv2d(i, o, 3, padding=1), nn.AvgPool2d(2), nn.ReLU())]
        super().__init__(*blocks, nn.Flatten(), nn.Linear(576, 10))


class Dense(nn.Sequential):
    """784-128-128-10."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))


NETWORKS: dict[str, type[nn.Module]] = {"lenet": LeNet, "cnn": Averaging, "mlp": Dense}
FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "exp": torch.exp,
    "reciprocal": torch.reciprocal,
    "sigmoid": torch.sigmoid,
    "softmax": lambda x: torch.softmax(x, 1),
}


def node_names(holders: int, replicated: bool = False) -> list[str]:
    """Of the holders, and of a provider if they have one."""
    if replicated:
        return [f"replica{i}" for i in range(holders)]
    return [*[f"holder{i}" for i in range(holders)], "provider"]


def network_b() -> nn.Module:
    """Two 5 x 5 convolutions of 16 channels with max pools, 100 and 10: MiniONN's."""
    first = (nn.Conv2d(1, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(16, 16, 5), nn.MaxPool2d(2), nn.ReLU())
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(256, 100), nn.ReLU(), nn.Linear(100, 10))


def network_c() -> nn.Module:
    """Two 5 x 5 convolutions of 20 and 50 channels with max pools, 500 and 10: LeNet's."""
    first = (nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU())
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(800, 500), nn.ReLU(), nn.Linear(500, 10))


def network_d() -> nn.Module:
    """One 5 x 5 convolution of 5 channels at every second place, 100 and 10: Chameleon's."""
    return nn.Sequential(nn.Conv2d(1, 5, 5, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(980, 100), nn.ReLU(), nn.Linear(100, 10))


Step = tuple[Callable[[], nn.Module], Callable[..., Any]]
STEPS: dict[str, Step] = {
    "train mse": (Dense, F.mse_loss),
    "train ce": (Dense, F.cross_entropy),
    "train A": (Dense, F.cross_entropy),
    "train B": (network_b, F.cross_entropy),
    "train C": (network_c, F.cross_entropy),
    "train D": (network_d, F.cross_entropy),
}
"""Training steps: the network and its loss. A to D are those that TF Encrypted publishes figures of (its examples/benchmark/training)."""
FUNCTION_TOLERANCE = 0.01


def _encoded(x: torch.Tensor) -> torch.Tensor:
    """The numbers that fixed precision makes of ``x``, in double."""
    return (x.double() / UNIT).round() * UNIT


class Parties:
    """Holders and a provider; or three holders of ``replicated`` shares, and nobody else. Use as a context manager."""

    def __init__(
        self, *, virtual: bool = False, holders: int = 2, replicated: bool = False, cluster: sy.LocalCluster | None = None
    ) -> None:
        self.virtual, self.holders, self.replicated = virtual, holders, replicated
        self._cluster = cluster

    def __enter__(self) -> Parties:
        if self.virtual:
            number = next(_numbers)
            self.workers: tuple[sy.BaseWorker, ...] = tuple(sy.VirtualWorker(id=f"sharing-{number}-{i}") for i in range(self.holders + 1))
        else:
            self._cluster = self._cluster or sy.LocalCluster(*node_names(self.holders, self.replicated), threads=1)
            self.workers = self._cluster.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._cluster is not None:
            self._cluster.stop()

    # -- cases

    def shared(self, x: Any) -> Any:
        """A tensor's, or a module's, values as shares at the holders."""
        return x.fix_precision().share(*self.workers[: self.holders], **self._options())

    def _options(self) -> dict[str, Any]:
        return {"protocol": "aby3"} if self.replicated else {"crypto_provider": self.workers[-1]}

    def case(self, name: str, size: int) -> Case:
        """mul, matmul, lt, relu, a function, lenet, cnn or mlp, of that size: elements, a matrix' side, or images; or a training step."""
        torch.manual_seed(1)
        if name in STEPS:
            return self._step(name, size)
        with torch.no_grad():
            if name in FUNCTIONS:
                return self._function(name, size)
            return self._network(name, size) if name in NETWORKS else self._operator(name, size)

    def _operator(self, name: str, size: int) -> Case:
        shape = (size, size) if name == "matmul" else (size,)
        a, b = torch.randn(shape), torch.randn(shape)
        x, y, p, q = self.shared(a), self.shared(b), _encoded(a), _encoded(b)
        cases: dict[str, tuple[Callable[[], Any], Callable[[], torch.Tensor], float]] = {
            "mul": (lambda: x * y, lambda: p * q, 2 * UNIT),
            "matmul": (lambda: x @ y, lambda: p @ q, 2 * UNIT),
            "lt": (lambda: x < y, lambda: (p < q).double(), 0.0),
            "relu": (lambda: x.relu(), lambda: p.relu(), 0.0),
        }
        compute, expected, tolerance = cases[name]
        return Case(name, compute, expected(), tolerance)

    def _network(self, name: str, images: int) -> Case:
        model, x = NETWORKS[name]().eval(), torch.rand(images, 1, 28, 28)
        expected = model(x).double()
        self.shared(model)
        z = self.shared(x)
        infer = sy.func2plan(state=(model,))(lambda images: model(images))
        case = Case(name, lambda: infer(z), expected, NETWORK_TOLERANCE)
        for _ in range(2):  # the first run masks and opens the weights, the second records the plan
            self.check(case, self._done(case))
        return case

    def _function(self, name: str, size: int) -> Case:
        """Of ``size`` elements; softmax of a tenth as many rows."""
        function = FUNCTIONS[name]
        x = torch.rand(size) * 4 + 0.25 if name == "reciprocal" else torch.randn((size // 10, 10) if name == "softmax" else (size,))
        z = self.shared(x)
        return Case(name, lambda: function(z), function(_encoded(x)), FUNCTION_TOLERANCE)

    def _step(self, name: str, images: int) -> Case:
        """A training step by SGD, as a plan: one message to each party. The rate is so small that every step's loss is the first's."""
        make, loss = STEPS[name]
        plain, x = make(), torch.rand(images, 1, 28, 28)
        targets = torch.arange(images) % 10
        y = F.one_hot(targets, 10).float()
        with torch.no_grad():
            expected = loss(plain(x), y).double()
        plain.fix_precision().share(*self.workers[: self.holders], **self._options(), requires_grad=True)
        optimizer = torch.optim.SGD(plain.parameters(), lr=1e-6)
        given = self.shared(x), self.shared(y)

        def step(x: Any, y: Any) -> Any:
            with torch.enable_grad():
                optimizer.zero_grad()
                value = loss(plain(x), y)
                value.backward()
                optimizer.step()
            return value.detach()

        plan = sy.func2plan(state=(plain, optimizer))(step)
        case = Case(name, lambda: plan(*given), expected, NETWORK_TOLERANCE)
        for _ in range(2):  # as it is, then recorded
            self.check(case, self._done(case))
        return case

    # -- running

    def settle(self) -> None:
        """Wait until all have done what they were asked."""
        for worker in self.workers:
            worker.ask(SYNC)

    def _done(self, case: Case) -> Any:
        """The result, nothing of it put off."""
        with torch.no_grad():
            result = case.compute()
        result.child  # noqa: B018 - a product waits for what may follow it until its value is asked for
        return result

    def run(self, case: Case, in_a_row: int = 1) -> float:
        """Seconds of one computation, of ``in_a_row`` that follow each other; the last is then checked."""
        self.settle()
        began = time.perf_counter()
        for _ in range(in_a_row):
            result = self._done(case)
        asked = [(holder.transport, holder.transport.begin(SYNC)) for holder in self.workers[: self.holders]]
        for transport, request in asked:
            transport.finish(request)
        seconds = (time.perf_counter() - began) / in_a_row
        self.check(case, result)
        return seconds

    def check(self, case: Case, result: Any) -> None:
        """Assert that it is right."""
        worst = float((result.get().decode().double() - case.expected).abs().max())
        assert worst <= case.tolerance, f"{case.name}: off by {worst}, more than {case.tolerance}"

    def cost(self, case: Case) -> Cost:
        """Rounds and bytes of one computation."""
        with sy.mpc.count() as cost:
            self._done(case)
        return cost

    def cpu(self, case: Case, runs: int) -> float:
        """Seconds of processor time of one computation: all three parties', without the client's where it is another process."""
        self.settle()
        before = self._cpu()
        for _ in range(runs):
            result = self._done(case)
            self.settle()
        seconds = (self._cpu() - before) / runs
        self.check(case, result)
        return seconds

    def _cpu(self) -> float:
        if self._cluster is None:
            return time.process_time()
        ticks = 0
        for name in self._cluster.names:
            fields = Path(f"/proc/{self._cluster.process(name).pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])  # utime and stime
        return ticks / os.sysconf("SC_CLK_TCK")
