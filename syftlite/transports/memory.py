"""An engine in this process, called in the caller's thread. `serialize=True` pushes every message through the codec, both ways.

    cast -> an operator: queue, with what is dropped meanwhile -> (`BATCH` wait | anything else is told, asked or looked at) -> engine

Operators wait for each other because a convolution empties the caches: the client's instructions then run together, and the engine's.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import count
from typing import Any, NoReturn

import torch

from syftlite._surroundings import as_elsewhere
from syftlite._torch import copied, unshared
from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.pending import Pending
from syftlite.engine.session import Principal, Session
from syftlite.errors import ConnectionLostError
from syftlite.ops.table import SEEDED
from syftlite.transports.base import MAX_SITES, Progress, Site, Transport
from syftlite.transports.greeting import greet
from syftlite.transports.interrupts import Held
from syftlite.wire import messages as m
from syftlite.wire.codec import Buffer
from syftlite.wire.connection import Connection
from syftlite.wire.messages import Message

BATCH = 64
"""Operators, and objects to forget, that wait at most."""


class MemoryTransport(Transport):
    """A session at ``engine`` as ``principal``. What arrives is an owned copy, as over a wire. ``batch``: how many operators wait, where
    nobody else looks at the engine; with 1 none does."""

    here = True

    def __init__(self, engine: Engine, principal: Principal, batch: int = 1) -> None:
        super().__init__()
        self.engine, self.worker, self.batch = engine, engine.name, batch
        self.session = engine.open_session(principal)
        self._queue: deque[Any] = self.drops  # one for both: an object goes after its last use, and before what comes next
        self._turn = threading.RLock()
        self._settling = False
        self._default = torch.get_default_dtype()
        self.prefix, self.principal, self.role = self.session.prefix, principal.name, principal.role.value
        self._requests = count(1)
        self._handle: Callable[[Session, Message], Message | Pending | None] = engine.handle
        self._begun: dict[int, Message | Pending | None] = {}

    def cast(self, message: Message, site: Site = None) -> None:
        """Carry ``message`` out; an operator by and by, unless it draws random numbers, which come in the program's order."""
        if message[0] == m.OP and message[1] not in SEEDED:
            if torch.get_default_dtype() is not self._default:
                self.settle()
                self._default = torch.get_default_dtype()
            self._queue.append((message, site))
            if len(self._queue) >= self.batch:
                self.settle()
            return
        self.settle()
        with as_elsewhere():
            self._carry_out(message, site)

    def begin(self, kind: int, *fields: Any) -> int:
        """Carry the message out now."""
        self.settle()
        request = next(self._requests)
        with as_elsewhere():
            self._begun[request] = (self.engine.handle if self.open else self._refuse)(self.session, (kind, request, *fields))
        return request

    def finish(self, request: int, within: float | None = None) -> Message:
        """Its answer."""
        answer = self._begun.pop(request)
        if isinstance(answer, Pending):
            answer = answer.wait(within)
            if answer is None:
                raise TimeoutError(f"{self.worker} did not answer within {within} s")
        assert answer is not None
        if answer[0] == m.VALUES:
            kind, number, values = answer
            del answer  # what was taken nobody else holds now: it is handed over
            answer = (kind, number, [values[at] if unshared(values, at) else values[at].clone() for at in range(len(values))])
        return self.unwrap(answer)

    def forget(self, request: int) -> None:
        """Let go of the answer."""
        self._begun.pop(request, None)

    def put(
        self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None = None
    ) -> None:
        """Store a copy of ``tensor``."""
        self.give(number, _ordinary(tensor), tags, description)

    def give(self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str) -> None:
        """Store ``tensor`` itself."""
        self.cast((m.PUT, number, _ordinary(tensor) if tensor.is_inference() else tensor.detach(), tags, description))

    def flush(self) -> None:
        """Carry out what waits."""
        self.settle()

    def settle(self) -> None:
        """Carry out what waits, in its order. Ctrl-C comes between two of them: what was written before is done, or waits still."""
        if not self._queue and not self._settling:
            return
        with self._turn:
            if self._settling:  # what is carried out has told us more: that comes after it
                return
            while self._queue and type(self._queue[0]) is int:
                self._next()  # forgetting computes nothing, so it may happen anywhere
            if not self._queue:
                return
            self._settling = True
            try:
                with Held(whole=True) as held, as_elsewhere(self._default):
                    while self._queue:
                        held.between()  # what a loop has promised before Ctrl-C is there after it
                        self._next()
            finally:
                self._settling = False

    def _next(self) -> None:
        item = self._queue.popleft()
        if type(item) is int:
            self.session.drop(item)
        else:
            self._carry_out(*item)

    def _carry_out(self, message: Message, site: Site) -> None:
        at = self.session.executed % MAX_SITES
        try:
            self.sites[at] = site
        except IndexError:
            self.place(at, site)
        self._handle(self.session, message)

    @property
    def open(self) -> bool:
        """Whether it has not been closed."""
        return self._handle != self._refuse

    def close(self) -> None:
        """End the session. What is told it afterwards raises `ConnectionLostError` where it is written."""
        self.settle()
        if self.open:
            self._handle, self.batch = self._refuse, 1
            self.engine.close_session(self.session)

    def _refuse(self, session: Session, message: Message) -> NoReturn:
        raise ConnectionLostError(f"{self.worker} was closed, and what was there is gone: make a worker of that id anew")


def _ordinary(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of ``tensor`` that may be written and trained: one made in inference mode may not."""
    with torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext():
        return copied(tensor)


class SerializingTransport(Transport):
    """As `MemoryTransport`, but through both ends' connections: what a socket would carry, without the socket."""

    here = True
    batch = 1

    def __init__(self, engine: Engine, principal: Principal) -> None:
        super().__init__()
        self.engine, self.worker = engine, engine.name
        self.door = Door(engine, lambda scheme, secret: principal)
        self.connection = Connection(worker=False, reserve=lambda nbytes: None)
        self._requests = count(1)
        self._answers: dict[int, Message] = {}
        self._later: deque[Message] = deque()  # answers that came on other threads
        self._posted = threading.Condition()
        self._turn = threading.RLock()  # any number of threads may use a worker
        self.door.later = self._post
        greet(self, self.connection, lambda message: self._exchange([message])[0], "memory", "")
        assert self.door.session is not None
        self.session = self.door.session

    def _exchange(self, batch: list[Message]) -> list[Message]:
        with Held(whole=True):
            return self._both_ways(batch)

    def _both_ways(self, batch: list[Message]) -> list[Message]:
        answers: list[Message] = []
        for frame in [*self.connection.frames(batch), ()]:
            with as_elsewhere():
                replies = self._frames(frame)
            for reply in replies:
                answers += self.connection.receive(reply)
        if self.door.closing:
            raise ConnectionLostError(f"{self.worker} closed the connection: {self.door.closing}")
        return answers

    def _frames(self, frame: Sequence[Buffer]) -> list[bytes]:
        """What the other end sends when it gets ``frame``, or has something to say already."""
        if frame:
            self.door.receive(b"".join(frame))
        while self._later:
            self.door.post(self._later.popleft())
        replies: list[bytes] = []
        while self.door.inbox or self.door.outbox:
            self.door.run(quick=False)
            replies += [b"".join(reply) for reply in self.door.frames()]
        return replies

    def cast(self, message: Message, site: Site = None) -> None:
        """Encode, decode and carry out ``message``."""
        with self._turn:
            self.settle()
            self.place(self.session.executed, site)
            self._take(self._exchange([message]))

    def begin(self, kind: int, *fields: Any) -> int:
        """Encode, decode and carry out the message."""
        with self._turn:
            self.settle()
            request = next(self._requests)
            self._take(self._exchange([(kind, request, *fields)]))
        return request

    def finish(self, request: int, within: float | None = None) -> Message:
        """Its answer, encoded and decoded."""
        deadline = None if within is None else time.monotonic() + within
        while request not in self._answers:
            left = None if deadline is None else deadline - time.monotonic()
            with self._posted:
                if not self._posted.wait_for(lambda: self._later or request in self._answers, left):
                    raise TimeoutError(f"{self.worker} did not answer within {within} s")
            with self._turn:
                self._take(self._exchange([]))
        return self.unwrap(self._answers.pop(request))

    def forget(self, request: int) -> None:
        """Let go of the answer."""
        self._answers.pop(request, None)

    def _take(self, answers: list[Message]) -> None:
        with self._posted:
            self._answers.update({answer[1]: answer for answer in answers})
            self._posted.notify_all()  # another thread may wait for one of them

    def _post(self, answer: Message) -> None:
        with self._posted:
            self._later.append(answer)
            self._posted.notify_all()

    def put(
        self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None = None
    ) -> None:
        """Store ``tensor``."""
        self.cast((m.PUT, number, tensor.detach(), tags, description))

    def settle(self) -> None:
        """Carry out pending drops."""
        with self._turn:
            if self.drops and self.open:
                self._take(self._exchange(self.ends(len(self.drops))))

    @property
    def open(self) -> bool:
        """Whether it has not been closed."""
        return not self.door.closing

    def close(self) -> None:
        """End the session."""
        self.door.leave()
