"""What is counted; each function measures one section and returns its figures.

    training    round trips of a training step
    memory      objects and resident memory over many ops with temporaries
    clients     a hundred clients at once: their errors, foreign answers, and shares of the node

The clients work twice: in five processes, which press the node hardest, and in one, where the kernel's division of few cores among
processes does not show.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from _measure import Figure, Goal, judged, slope
from _node import Node, Relay, client, resident
from _peers import Settings
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.transports.client import SocketTransport
from syftlite.wire.messages import SYNC, Message

# -- training


class Counting(SocketTransport):
    """Keeps the kinds of all questions asked."""

    def __init__(self, uri: str, token: str) -> None:
        self.asked: list[int] = []
        super().__init__(uri, token)

    def ask(self, kind: int, *fields: Any) -> Message:
        """Ask, and remember it."""
        self.asked.append(kind)
        return super().ask(kind, *fields)


def training(settings: Settings) -> list[Figure]:
    """How often a training step waits: questions asked, and messages that come back past a relay."""
    figures = []
    with Node() as node:
        for optimizer in (torch.optim.SGD, torch.optim.Adam):
            relay = Relay(node.port)
            worker = client(relay.uri, node.token, Counting)
            asked = worker.transport.asked
            steps = _train(worker, optimizer, settings.count(50, 5), (asked, relay.answered.sizes))
            worker.close()
            asks, answers = zip(*steps, strict=True)
            note = f"over {len(steps)} steps: {sum(asks)} questions, {sum(answers)} messages from the node"
            name = f"training step of an MLP, {optimizer.__name__}"
            worst = [float(max(step)) for step in steps]
            figures.append(judged(name, "round trips", Goal("<=", 1), worst, max(worst), note))
    return figures


def _train(worker: sy.BaseWorker, optimizer: Any, steps: int, growing: tuple[list[int], ...]) -> list[tuple[int, ...]]:
    """How much each step added to the lists ``growing``; also checks that the steps are a local model's."""
    torch.manual_seed(0)
    local = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))
    model.load_state_dict(local.state_dict())
    features, labels = torch.rand(64, 20), torch.randint(2, (64,))
    model.send(worker)
    pairs = [(local, optimizer(local.parameters(), lr=0.01), features, labels)]
    pairs.append((model, optimizer(model.parameters(), lr=0.01), features.send(worker), labels.send(worker)))
    added = []
    for _ in range(steps):
        before, losses = [len(g) for g in growing], []
        for net, rule, x, y in pairs:
            rule.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            rule.step()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) < 1e-5, losses
        added.append(tuple(len(g) - had for had, g in zip(before, growing, strict=True)))
    return added


# -- memory


def memory(settings: Settings) -> list[Figure]:
    """Objects and resident memory over ops with temporaries."""
    points, ops = 10, settings.count(1_000_000 if settings.long else 100_000, 1000)
    chunk = ops // points // 4
    with Node() as node:
        x, y = torch.rand(10).send(node.worker), torch.rand(10).send(node.worker)

        def work() -> None:
            for _ in range(chunk):
                torch.relu((x + y) * 0.5 - x)
            node.worker.ask(SYNC)

        for _ in range(max(points, 100_000 // settings.scale // chunk // 4)):
            work()
        start, trace = node.worker.objects_count(), []
        for point in range(points + 1):
            trace.append((point * chunk * 4 / 1e5, resident(), resident(node.pid)))
            if point < points:
                work()
        left = node.worker.objects_count() - start
    done = f"{chunk * 4 * points:,} ops with temporaries"
    figures = [judged(f"objects left by {done}", "objects", Goal("<=", 0), [float(left)])]
    for side, column in (("client", 1), ("node", 2)):
        growth = slope([(point[0], point[column]) for point in trace])
        note = " ".join(f"{point[column]:.1f}" for point in trace) + " MiB"
        figures.append(judged(f"RSS slope, {side}", "MiB/1e5 ops", Goal("<=", 1), [growth], note=note))
    return figures


# -- clients


@dataclass
class Crowd:
    """What ``processes`` times ``each`` clients did in ``seconds``."""

    processes: int
    each: int
    seconds: float
    completed: list[int] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    foreign: int = 0

    def __str__(self) -> str:
        rate = sum(self.completed) / self.seconds
        low, middle, high = min(self.completed), statistics.median(self.completed), max(self.completed)
        return f"{rate:,.0f} op+get/s in all; slowest {low:,}, median {middle:,.0f}, fastest {high:,}"

    @property
    def where(self) -> str:
        """How many processes the clients share."""
        return "1 process" if self.processes == 1 else f"{self.processes} processes"

    def work(self, node: Node) -> None:
        """Start the processes, let all clients work at the same time, and collect what they say."""
        program = [sys.executable, str(Path(__file__).parent / "_clients.py")]
        running = [subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(self.processes)]
        try:
            for i, process in enumerate(running):
                _tell(process, {"uri": node.uri, "token": node.token, "clients": self.each, "first": i * self.each})
            for process in running:
                assert _line(process) == "ready"
            begin = time.monotonic() + self.seconds / 4
            for process in running:
                _tell(process, {"begin": begin, "end": begin + self.seconds})
            for process in running:
                report = json.loads(_line(process))
                self.completed += report["completed"]
                self.errors += report["errors"]
                self.foreign += report["foreign"]
        finally:
            for process in running:
                process.kill()
                process.communicate()


def clients(settings: Settings) -> list[Figure]:
    """A hundred clients of one node, each checking every answer."""
    total, seconds = (100, 6.0) if settings.scale == 1 else (10, 0.5)
    crowds = [Crowd(5, total // 5, seconds), Crowd(1, total, seconds)]
    for crowd in crowds:
        with Node() as node:
            crowd.work(node)
    errors = [error for crowd in crowds for error in crowd.errors]
    name = f"{total} clients at once"
    figures = [
        judged(f"{name}: errors", "clients", Goal("<=", 0), [float(len(errors))], note="; ".join(sorted(set(errors))[:3])),
        judged(f"{name}: foreign answers", "answers", Goal("<=", 0), [float(sum(crowd.foreign for crowd in crowds))]),
    ]
    for crowd in crowds:
        shares = [max(crowd.completed) / min(crowd.completed) if min(crowd.completed) else float("inf")]
        figures.append(judged(f"{name}, {crowd.where}: fastest / slowest", "x", Goal("<=", 1.5), shares, note=str(crowd)))
    return figures


def _tell(process: subprocess.Popen[str], value: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
