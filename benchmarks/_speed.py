"""What is timed; each function measures one section and returns its figures.

    pointer     a pointer op's cost on the client, against torch.add
    roundtrip   (x + y).get() over a loopback websocket, against `websockets` by itself
    pipelined   a million ops without waiting, against torch RPC and Ray
    bulk        16 MB up and down, against `websockets` by itself
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from _measure import Figure, Goal, compared, in_turns, judged, skipped
from _node import Node, Relay, client
from _peers import PeerMissing, Settings

import syftlite as sy
from syftlite.transports.base import Transport
from syftlite.wire.messages import SYNC, Message

PYSYFT_BLOCKING = 425e-6
PYSYFT_NOTE = "a constant: PySyft 0.2.9 as published for its own machine (Python 3.7, torch 1.4), not run here"
LARGE = 16_000_000


# -- pointer


class Nowhere(Transport):
    """Drops every message: what is left of an operation is the client's own work."""

    worker, prefix, principal, role = "nowhere", 1, "nobody", "scientist"

    def __init__(self) -> None:
        super().__init__()
        self.drops = type(self.drops)(maxlen=1)  # nobody sends them

    def cast(self, message: Message, site: Any = None) -> None:
        """Forget ``message``."""

    def begin(self, kind: int, *fields: Any) -> int:
        """Nobody answers."""
        raise NotImplementedError

    def finish(self, request: int, within: float | None = None) -> Message:
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
    """One op and the get of its result, waiting. Short turns, and many: whether two processes share a core changes every second."""
    name, unit, goal, count = "blocking op + get", "us", Goal(">=", 1, "x"), settings.count(1000)
    turns = 5 * settings.repeats
    with ExitStack() as stack:
        node = stack.enter_context(Node())
        request, answer = _sizes(node)
        run = _round_trips(node.worker, count)
        peer_name = f"websockets echo, {request} + {answer} bytes"
        try:
            echo = stack.enter_context(settings.peer("websocket_echo.py"))
            peer = lambda: echo.run("echo", count=count, request=request, answer=answer) / count * 1e6  # noqa: E731
            theirs, ours = in_turns(turns, peer, run)
            first = compared(name, unit, goal, ours, f"{peer_name} ({echo.version})", theirs, gain=True)
        except PeerMissing as missing:
            (ours,) = in_turns(turns, run)
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
    """Ops whose results stay remote, without waiting for any: a million alone, then in turns with the peers, whose daemons take cores."""
    name, unit, count = "pipelined op", "us", settings.count(1_000_000)
    peers = [
        ("torch RPC rpc_async", "torch_rpc.py", settings.count(20_000), Goal(">=", 6, "x")),
        ("Ray actor calls", "ray_actor.py", settings.count(5_000), Goal(">=", 20, "x")),
    ]
    with Node() as node:
        (alone,) = in_turns(min(settings.repeats, 3), _chain(node.worker, count))
        figures = [judged(f"pipelined, {count:,} ops, checked", "op/s", Goal(">=", 100_000), [1e6 / us for us in alone])]
        for peer_name, program, calls, goal in peers:
            ours = _chain(node.worker, settings.count(200_000))
            try:
                with settings.peer(program) as peer:
                    theirs, mine = in_turns(
                        settings.repeats, lambda p=peer, n=calls: p.run("pipelined", count=n) / n * 1e6, ours
                    )
                figures.append(compared(name, unit, goal, mine, f"{peer_name} ({peer.version})", theirs, gain=True))
            except PeerMissing as missing:
                figures.append(skipped(name, unit, goal, peer_name, str(missing), [ours()]))
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
            figures.append(compared(f"16 MB {do}", unit, goal, mine, f"{peer_name} ({peer.version})", theirs, gain=False))
        return figures
