"""Workers on Ray: engines in actors, frames in calls.

    RayTransport --exchange(worker, frames)--> Host (an actor: a process somewhere in the cluster) --> Door --> Engine
                 <------- frames -------------

What waits for no answer is gathered and sent with what does, or when there is much of it; calls are not waited for until an answer is
wanted. Ray itself lets whoever reaches its cluster run any code there: it is for simulations, and for one owner's own machines.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable
from itertools import count
from typing import Any

import torch

from syftlite._malloc import keep_warm
from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConnectionLostError, DependencyError
from syftlite.transports.base import Progress, Site, Transport
from syftlite.transports.greeting import greet
from syftlite.wire import messages as m
from syftlite.wire.connection import Connection
from syftlite.wire.messages import Message

MANY = 256
"""Messages that are sent together at most."""
MUCH = 8 << 20
"""Bytes of tensors that are gathered at most."""
OWNER = Principal("me", Role.OWNER)
"""As at a virtual worker, whoever calls it is its owner."""


def ray() -> Any:
    """Ray, connected to the cluster that RAY_ADDRESS names, or to one started on this machine. Raises `DependencyError`."""
    try:
        module = importlib.import_module("ray")
    except ImportError:
        raise DependencyError('workers on Ray need ray: pip install "syftlite[ray]"') from None
    if not module.is_initialized():
        module.init(**({} if "RAY_ADDRESS" in os.environ else {"include_dashboard": False, "log_to_driver": False}))
    return module


def cores() -> int:
    """Cores of the cluster."""
    return max(1, int(ray().cluster_resources().get("CPU", 1)))


class Host:
    """What runs in an actor: the engines of some workers, each behind a door."""

    def __init__(self, threads: int | None) -> None:
        keep_warm()
        if threads is not None:
            torch.set_num_threads(threads)
        self._doors: dict[str, Door] = {}

    def open(self, name: str, device: str | None) -> None:
        """Make an engine for the worker ``name``."""
        self._doors[name] = Door(Engine(name, device=device), lambda scheme, secret: OWNER)

    def exchange(self, name: str, frames: list[bytes]) -> list[bytes]:
        """Carry out ``frames`` at worker ``name``; the answers."""
        door = self._doors[name]
        answers: list[bytes] = []
        for frame in frames:
            door.receive(frame)
            while door.inbox or door.outbox:
                door.run(quick=False)
                answers += [b"".join(answer) for answer in door.frames()]
        return answers

    def close(self, name: str) -> int:
        """Forget worker ``name``. How many are left."""
        self._doors.pop(name).leave()
        return len(self._doors)


class Hosts:
    """Actors, on which workers are placed in turn. ``count``: one for each of the cluster's cores if it is left out; ``options``: what
    Ray is told of each (`num_cpus`, `num_gpus`, `resources`, ...)."""

    def __init__(self, count: int | None = None, threads: int | None = 1, **options: Any) -> None:
        number = count if count is not None else cores()
        made = ray().remote(Host).options(**{"scheduling_strategy": "SPREAD", **options})
        self.actors = [made.remote(threads) for _ in range(number)]
        self._turn = 0

    def next(self) -> Any:
        """The actor whose turn it is."""
        self._turn += 1
        return self.actors[(self._turn - 1) % len(self.actors)]

    def close(self) -> None:
        """End the actors."""
        for actor in self.actors:
            ray().kill(actor)


class RayTransport(Transport):
    """A session at worker ``name``, in ``actor``, as its owner."""

    def __init__(self, name: str, actor: Any, device: str | None = None) -> None:
        super().__init__()
        self.worker, self.actor, self._ray = name, actor, ray()
        self._connection = Connection(worker=False, reserve=lambda nbytes: None)
        self._requests = count(1)
        self._answers: dict[int, Message] = {}
        self._gathered: list[Message] = []
        self._bytes = self._sent = 0
        self._flying: list[Any] = []
        self._lock = threading.RLock()
        self._wait(actor.open.remote(name, device), None)
        greet(self, self._connection, self._exchange, "memory", "")

    def _exchange(self, message: Message) -> Message:
        """Of the handshake."""
        return self._received(self._wait(self._call([message]), None))[0]

    def _call(self, batch: list[Message]) -> Any:
        return self.actor.exchange.remote(self.worker, [b"".join(frame) for frame in self._connection.frames(batch)])

    def _received(self, frames: Iterable[bytes]) -> list[Message]:
        return [message for frame in frames for message in self._connection.receive(frame)]

    def _wait(self, call: Any, within: float | None) -> Any:
        try:
            return self._ray.get(call, timeout=within)
        except self._ray.exceptions.GetTimeoutError:
            raise TimeoutError(f"{self.worker} did not answer within {within} s") from None
        except self._ray.exceptions.RayError as error:
            raise ConnectionLostError(f"the actor of {self.worker} is gone: {str(error).splitlines()[0]}") from None

    def cast(self, message: Message, site: Site = None) -> None:
        """Send ``message`` with the next that wants an answer, or before."""
        with self._lock:
            for ended in self.ends(len(self.drops)):
                self._gather(ended, None)
            self._gather(message, site)
            if len(self._gathered) >= MANY:
                self.flush()

    def _gather(self, message: Message, site: Site) -> None:
        self.place(self._sent, site)
        self._sent += 1
        self._gathered.append(message)

    def flush(self) -> None:
        """Send what has been gathered."""
        with self._lock:
            batch, self._gathered, self._bytes = self._gathered, [], 0
            if batch:
                self._flying.append(self._call(batch))

    def begin(self, kind: int, *fields: Any) -> int:
        """Send the message after all that was gathered, and what is to be forgotten."""
        with self._lock:
            request = next(self._requests)
            self.cast((kind, request, *fields))
            self.flush()
            return request

    def finish(self, request: int, within: float | None = None) -> Message:
        """Its answer."""
        with self._lock:
            while request not in self._answers:
                frames = self._wait(self._flying[0], within)
                del self._flying[0]
                self._answers.update({answer[1]: answer for answer in self._received(frames)})
            return self.unwrap(self._answers.pop(request))

    def put(
        self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None = None
    ) -> None:
        """Store ``tensor``."""
        copy = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        self.cast((m.PUT, number, copy, tags, description))
        self._bytes += copy.nbytes
        if self._bytes >= MUCH:
            self.flush()

    def close(self) -> None:
        """End the session, and the actor with the last of its workers."""
        try:
            if not self._wait(self.actor.close.remote(self.worker), None):
                self._ray.kill(self.actor)
        except ConnectionLostError:
            pass  # it is gone already
