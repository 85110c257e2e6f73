"""The measurements themselves, one function a section; each returns the figures it gave.

    pointer     a pointer op's cost on the client, against torch.add
    roundtrip   (x + y).get() over a loopback websocket, against `websockets` by itself
    pipelined   a million ops without waiting, against torch RPC and Ray
    bulk        16 MB up and down, against `websockets` by itself
    training    round trips of a training step: counted, not timed
    memory      objects and resident memory over many ops with temporaries
    clients     a hundred clients at once
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from _measure import Figure, Goal, compared, in_turns, judged, skipped, slope
from _node import Node, Relay, client, resident
from _peers import Peer, PeerMissing
from syftlite.transports.base import Transport
from syftlite.wire.messages import SYNC, Message

PYSYFT_BLOCKING = 425e-6
PYSYFT_NOTE = "a constant: PySyft 0.2.9 as published for its own machine (Python 3.7, torch 1.4), not run here"
LARGE = 16_000_000


@dataclass
class Settings:
    """``scale`` divides every count; ``python`` runs the peers, None for none of them."""

    repeats: int = 7
    scale: int = 1
    python: str | None = sys.executable
    long: bool = False

    def count(self, full: int, least: int = 1) -> int:
        """How often to do what a full run does ``full`` times."""
        return max(least, full // self.scale)

    def peer(self, program: str) -> Peer:
        """The peer ``program``, started. Raises `PeerMissing`."""
        if self.python is None:
            raise PeerMissing("peers are turned off")
        return Peer(self.python, program)


# -- pointer


class Nowhere(Transport):
    """Drops every message: what is left of an operation is the client's own work."""

    worker, prefix, principal, role = "nowhere", 1, "nobody", "scientist"

    def __init__(self) -> None:
        super().__init__()
        self.drops = type(self.drops)(maxlen=1)  # nobody sends them

    def cast(self, message: Message, site: Any = None) -> None:
        """Forget ``message``."""

    def ask(self, kind: int, *fields: Any) -> Message:
        """Nobody answers."""
        raise NotImplementedError

    def put(self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str) -> None:
        """Forget ``tensor``."""

    def close(self) -> None:
        """Nothing to end."""


def _adds(x: torch.Tensor, y: torch.Tensor, count: int) -> Callable[[], float]:
    def run() -> float:
        add = torch.add
        began = time.perf_counter()
        for _ in range(count):
            add(x, y)
        return (time.perf_counter() - began) / count * 1e6

    return run


def pointer(settings: Settings) -> list[Figure]:
    """A whole pointer op on the client, and one on a worker of this process."""
    count = settings.count(50_000)
    x, y = torch.rand(10), torch.rand(10)
    nowhere, here = sy.BaseWorker("nowhere", Nowhere()), sy.VirtualWorker(id="here")
    sent = [(x.send(worker), y.send(worker)) for worker in (nowhere, here)]
    local, null, virtual = in_turns(settings.repeats, _adds(x, y, count), *(_adds(a, b, count) for a, b in sent))
    assert torch.equal((sent[1][0] + sent[1][1]).get(), x + y)
    common = {"unit": "us", "peer_name": "local torch.add", "peer": local, "gain": False}
    return [
        compared("pointer op, null transport", ours=null, goal=Goal("<=", 6, "x"), **common),
        compared("pointer op, virtual worker", ours=virtual, goal=Goal("<=", 9, "x"), **common),
    ]


# -- roundtrip


def _round_trips(worker: sy.BaseWorker, count: int) -> Callable[[], float]:
    local_x, local_y = torch.rand(10), torch.rand(10)
    x, y, expected = local_x.send(worker), local_y.send(worker), local_x + local_y

    def run() -> float:
        answer = None
        began = time.perf_counter()
        for _ in range(count):
            answer = (x + y).get()
        seconds = time.perf_counter() - began
        assert torch.equal(answer, expected)
        return seconds / count * 1e6

    return run


def _sizes(node: Node) -> tuple[int, int]:
    """Bytes of our request and of its answer, as they pass a relay."""
    relay = Relay(node.port)
    worker = client(relay.uri, node.token)
    _round_trips(worker, 50)()
    worker.close()
    usual = [Counter(tap.sizes[-40:]).most_common(1)[0][0] for tap in (relay.sent, relay.answered)]
    return usual[0], usual[1]


def roundtrip(settings: Settings) -> list[Figure]:
    """One op and the get of its result, waiting."""
    name, unit, goal, count = "blocking op + get", "us", Goal(">=", 1, "x"), settings.count(3000)
    with ExitStack() as stack:
        node = stack.enter_context(Node())
        request, answer = _sizes(node)
        run = _round_trips(node.worker, count)
        peer_name = f"websockets echo, {request} + {answer} bytes"
        try:
            echo = stack.enter_context(settings.peer("websocket_echo.py"))
            peer = lambda: echo.run("echo", count=count, request=request, answer=answer) / count * 1e6  # noqa: E731
            theirs, ours = in_turns(settings.repeats, peer, run)
            first = compared(name, unit, goal, ours, peer_name, theirs, gain=True)
        except PeerMissing as missing:
            (ours,) = in_turns(settings.repeats, run)
            first = skipped(name, unit, goal, peer_name, str(missing), ours)
    pysyft = [PYSYFT_BLOCKING * 1e6]
    return [first, compared(name, unit, Goal(">=", 5, "x"), ours, "PySyft 0.2.9", pysyft, gain=True, note=PYSYFT_NOTE)]


# -- pipelined


def _chain(worker: sy.BaseWorker, count: int) -> Callable[[], float]:
    """``count`` additions, each under a fresh id, each dropping the last result; the final value counts them."""
    one = torch.ones(10).send(worker)

    def run() -> float:
        z = torch.zeros(10).send(worker)
        worker.ask(SYNC)
        began = time.perf_counter()
        for _ in range(count):
            z = z + one
        last = z.get()
        seconds = time.perf_counter() - began
        assert torch.equal(last, torch.full((10,), float(count))), (last, count)
        return seconds / count * 1e6

    return run


def pipelined(settings: Settings) -> list[Figure]:
    """Ops whose results stay remote, without waiting for any."""
    count = settings.count(1_000_000)
    peers = [
        ("torch RPC rpc_async", "torch_rpc.py", settings.count(20_000), Goal(">=", 6, "x")),
        ("Ray actor calls", "ray_actor.py", settings.count(5_000), Goal(">=", 20, "x")),
    ]
    name, unit, runs, missing = "pipelined op", "us", {}, {}
    with ExitStack() as stack:
        node = stack.enter_context(Node())
        for peer_name, program, calls, _ in peers:
            try:
                peer = stack.enter_context(settings.peer(program))
                runs[peer_name] = lambda peer=peer, calls=calls: peer.run("pipelined", count=calls) / calls * 1e6
            except PeerMissing as error:
                missing[peer_name] = str(error)
        ours, *theirs = in_turns(min(settings.repeats, 5), _chain(node.worker, count), *runs.values())
    measured = dict(zip(runs, theirs, strict=True))
    figures = [judged(f"pipelined, {count:,} ops, checked", "op/s", Goal(">=", 100_000), [1e6 / us for us in ours])]
    for peer_name, _, _, goal in peers:
        if peer_name in measured:
            figures.append(compared(name, unit, goal, ours, peer_name, measured[peer_name], gain=True))
        else:
            figures.append(skipped(name, unit, goal, peer_name, missing[peer_name], ours))
    return figures


# -- bulk


def bulk(settings: Settings) -> list[Figure]:
    """A large tensor up, and down."""
    count, goal, unit, peer_name = settings.count(8), Goal(">=", 0.7, "x"), "MB/s", "asyncio websockets, 1 MiB fragments"
    value = torch.rand(LARGE // 4)

    def speed(seconds: float) -> float:
        return LARGE * count / seconds / 1e6

    with ExitStack() as stack:
        node = stack.enter_context(Node())
        kept = value.send(node.worker)

        def put() -> float:
            began = time.perf_counter()
            for _ in range(count):
                value.send(node.worker)
                node.worker.ask(SYNC)
            return speed(time.perf_counter() - began)

        def get() -> float:
            began = time.perf_counter()
            for _ in range(count):
                answer = kept.get_copy()
            seconds = time.perf_counter() - began
            assert torch.equal(answer, value)
            return speed(seconds)

        ours = {"put": put, "get": get}
        try:
            peer = stack.enter_context(settings.peer("websocket_echo.py"))
        except PeerMissing as missing:
            taken = {do: in_turns(settings.repeats, run)[0] for do, run in ours.items()}
            return [skipped(f"16 MB {do}", unit, goal, peer_name, str(missing), samples) for do, samples in taken.items()]
        figures = []
        for do, run in ours.items():
            theirs, mine = in_turns(settings.repeats, lambda do=do: speed(peer.run(do, size=LARGE, count=count)), run)
            figures.append(compared(f"16 MB {do}", unit, goal, mine, peer_name, theirs, gain=False))
        return figures


# -- training


def training(settings: Settings) -> list[Figure]:
    """How often a training step waits: questions asked, and messages that come back past a relay."""
    figures = []
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        with Node() as node:
            relay = Relay(node.port)
            worker = client(relay.uri, node.token)
            asked = _counting(worker.transport)
            steps = _train(worker, optimizer, settings.count(50, 5), lambda: (len(asked), len(relay.answered.sizes)))
            worker.close()
        asks, answers = zip(*steps, strict=True)
        worst = [float(max(a, b)) for a, b in zip(asks, answers, strict=True)]
        note = f"over {len(steps)} steps: {sum(asks)} questions, {sum(answers)} messages from the node"
        name = f"training step of an MLP, {optimizer.__name__}"
        figures.append(judged(name, "round trips", Goal("<=", 1), worst, max(worst), note))
    return figures


def _counting(transport: Transport) -> list[int]:
    """The kinds of all questions asked through ``transport`` from now on."""
    asked: list[int] = []
    ask = transport.ask

    def counted(kind: int, *fields: Any) -> Message:
        asked.append(kind)
        return ask(kind, *fields)

    transport.ask = counted  # type: ignore[method-assign]
    return asked


def _train(worker: sy.BaseWorker, optimizer: Any, steps: int, counts: Callable[[], tuple[int, int]]) -> list[tuple[int, ...]]:
    """What each step added to ``counts``; also checks that the steps are a local model's."""
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
        before, losses = counts(), []
        for net, rule, x, y in pairs:
            rule.zero_grad()
            loss = F.cross_entropy(net(x), y)
            loss.backward()
            rule.step()
            losses.append(loss.item())
        assert abs(losses[0] - losses[1]) < 1e-5, losses
        added.append(tuple(b - a for a, b in zip(before, counts(), strict=True)))
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


def clients(settings: Settings) -> list[Figure]:
    """A hundred clients of one node, each checking every answer."""
    processes, each = (4, 25) if settings.scale == 1 else (2, 5)
    seconds = 8.0 if settings.scale == 1 else 0.5
    program = [sys.executable, str(Path(__file__).parent / "_clients.py")]
    with Node() as node:
        running = [subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)]
        try:
            for i, process in enumerate(running):
                _tell(process, {"uri": node.uri, "token": node.token, "clients": each, "first": i * each})
            for process in running:
                assert _line(process) == "ready"
            begin = time.monotonic() + seconds / 4
            for process in running:
                _tell(process, {"begin": begin, "end": begin + seconds})
            reports = [json.loads(_line(process)) for process in running]
        finally:
            for process in running:
                process.kill()
                process.communicate()
    completed = [float(n) for report in reports for n in report["completed"]]
    errors = [error for report in reports for error in report["errors"]]
    foreign = sum(report["foreign"] for report in reports)
    slowest, fastest = min(completed), max(completed)
    note = f"{sum(completed) / seconds:,.0f} op+get/s in all; slowest {slowest:,.0f}, median {statistics.median(completed):,.0f}, fastest {fastest:,.0f}"
    name = f"{len(completed)} clients at once"
    return [
        judged(f"{name}: errors", "clients", Goal("<=", 0), [float(len(errors))], note="; ".join(sorted(set(errors))[:3])),
        judged(f"{name}: foreign answers", "answers", Goal("<=", 0), [float(foreign)]),
        judged(f"{name}: fastest / slowest", "x", Goal("<=", 1.5), [fastest / slowest if slowest else float("inf")], note=note),
    ]


def _tell(process: subprocess.Popen[str], value: dict[str, Any]) -> None:
    assert process.stdin is not None
    process.stdin.write(json.dumps(value) + "\n")
    process.stdin.flush()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


SECTIONS: dict[str, Callable[[Settings], list[Figure]]] = {
    f.__name__: f for f in (pointer, roundtrip, pipelined, bulk, training, memory, clients)
}
