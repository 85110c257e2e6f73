"""A deterministic simulator: ordinary pointer programs over real connections, doors and lanes, on links that fail, in virtual time.

    PointerTensor -> SimulatedTransport -> Connection -> Link -> Lane -> Door -> Node (an Engine)
                                        <-            <-

    >>> import torch
    >>> with Simulator(seed=7, drop=0.01, delay=0.05) as simulator:
    ...     alice = simulator.worker("alice")
    ...     (torch.ones(3).send(alice) + 1).get()
    tensor([2., 2., 2.])

Nothing sleeps: time passes only while somebody waits for an answer. One seed gives one trace, and every failure names it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import Any, cast

from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.pending import Pending
from syftlite.engine.session import Principal, Role, Session
from syftlite.remote.worker import BaseWorker
from syftlite.testing.links import Faults, Link, Timeline
from syftlite.testing.transport import SimulatedTransport, brief
from syftlite.transports.lanes import Lane
from syftlite.wire.connection import Frame
from syftlite.wire.messages import Message

LATENCY = 0.001
COMPUTE = 0.003
"""Seconds that a frame travels, and that work on a lane's pool takes at most."""


class Simulator:
    """Nodes and their clients. The keywords are every link's `Faults`; ``seed`` None takes a random one, which failures then name."""

    def __init__(
        self,
        seed: int | None = None,
        *,
        drop: float = 0.0,
        delay: float = 0.0,
        cut: float = 0.0,
        reorder: float = 0.0,
        duplicate: float = 0.0,
    ) -> None:
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self.faults = Faults(drop, delay, cut, reorder, duplicate)
        self.timeline = Timeline(self.seed)
        self.nodes: dict[str, Node] = {}
        self.workers: list[SimulatedWorker] = []

    @property
    def trace(self) -> list[str]:
        """What happened so far, a line an event, each with its virtual time."""
        return self.timeline.trace

    @property
    def now(self) -> float:
        """Virtual seconds since the start."""
        return self.timeline.now

    def node(self, id: str) -> Node:
        """The node ``id``, made when first asked for."""
        if id not in self.nodes:
            self.nodes[id] = Node(id, self.timeline)
        return self.nodes[id]

    def worker(
        self,
        id: str = "alice",
        client: str = "me",
        *,
        role: Role = Role.SCIENTIST,
        timeout: float = 60.0,
        faults: Faults | None = None,
    ) -> SimulatedWorker:
        """A connection of ``client`` to node ``id``; ``faults`` instead of the simulator's. Several clients may share a node."""
        node = self.node(id)
        node.principals[client] = Principal(client, role)
        link = Link(self.timeline, f"{client}@{id}", self.faults if faults is None else faults, LATENCY)
        link.node = Seat(self.timeline, link, node)
        transport = SimulatedTransport(self, link, client, timeout)
        worker = SimulatedWorker(id if client == "me" else f"{id}/{client}", transport)
        self.workers.append(worker)
        return worker

    def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass."""
        self.timeline.run_until(lambda: False, self.now + seconds)

    def tagged(self, text: object) -> str:
        """``text`` and how to see it happen again."""
        options = "".join(f", {name}={value:g}" for name, value in self.faults._asdict().items() if value)
        return f"{text}\n  at {self.now:.6f} s of Simulator(seed={self.seed}{options})"

    def check(self, condition: bool, text: str) -> None:
        """Raise `AssertionError`, saying how to replay, unless ``condition`` holds."""
        if not condition:
            raise AssertionError(self.tagged(text))

    def close(self) -> None:
        """Close all connections."""
        for worker in self.workers:
            worker.close()
        self.workers.clear()

    def __enter__(self) -> Simulator:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if isinstance(error, Exception) and f"seed={self.seed}" not in str(error):
            error.args = (self.tagged(error.args[0] if error.args else type(error).__name__), *error.args[1:])
        self.close()


# -- the node's end


class Node(Engine):
    """An engine on virtual time. ``done`` lists every message that it carried out, as (session, message), tensors left out."""

    def __init__(self, name: str, timeline: Timeline) -> None:
        self.principals: dict[str, Principal] = {}
        self.done: list[tuple[int, Message]] = []
        super().__init__(name, clock=timeline.clock, bits=timeline.random.getrandbits)

    def authenticate(self, scheme: str, secret: str) -> Principal | None:
        """A client's name is its token here."""
        return self.principals.get(secret)

    def handle(self, session: Session, message: Message) -> Message | Pending | None:
        """As `Engine.handle`, and remember it."""
        answer = super().handle(session, message)
        self.done.append((session.prefix, brief(message)))
        return answer


class Seat:
    """A node's end of one link: a door, its lane, and the socket that the lane takes it for."""

    blocked = False

    def __init__(self, timeline: Timeline, link: Link, node: Node) -> None:
        self.link = link
        self.door = Door(node, node.authenticate)
        pool, loop = Pool(timeline), cast(asyncio.AbstractEventLoop, Loop(timeline))
        self.lane = Lane(self.door, self, pool, pool, loop)
        self._reading = True
        self._held: list[bytes] = []

    def take(self, frame: bytes) -> None:
        """A frame came."""
        if self._reading:
            self.lane.feed(frame)
        else:
            self._held.append(frame)

    def lost(self, cause: str) -> None:
        """The link is gone."""
        self.lane.leave()

    def write(self, frame: Frame) -> None:
        """The lane answers."""
        self.link.send(b"".join(frame), to_node=False)

    def write_here(self, frame: Frame) -> bool:
        """There is but one thread: the event loop's writes."""
        return False

    def read_on(self, yes: bool) -> None:
        """The lane has room, or has not."""
        self._reading = yes
        while self._reading and self._held:
            self.lane.feed(self._held.pop(0))

    def end(self, reason: str) -> None:
        """The lane closes."""
        self.link.finish(f"the node closed the connection: {reason}", to_node=False)


class Pool(Executor):
    """A lane's pool: work takes a random, virtual time."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Carry ``fn`` out later. What it raises is a defect of the lane's: it ends the simulation."""
        future: Future[Any] = Future()
        self.timeline.after(self.timeline.random.random() * COMPUTE, lambda: future.set_result(fn(*args, **kwargs)))
        return future


class Loop:
    """As much of an event loop as a lane uses."""

    def __init__(self, timeline: Timeline) -> None:
        self.timeline = timeline

    def call_soon_threadsafe(self, callback: Callable[..., object], *args: Any) -> None:
        """Carry ``callback`` out next."""
        self.timeline.after(0.0, lambda: (callback(*args), None)[1])


# -- the client's end


class SimulatedWorker(BaseWorker):
    """A node in a simulation."""

    transport: SimulatedTransport
