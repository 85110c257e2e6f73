"""A lane: one session's messages, in its order, off the event loop's thread unless they take microseconds.

    feed(frame) -> door.receive -> [write answers] -> [run quick ones here] -> [the rest on the pool] -> back, until nothing is left

While a lane computes, the event loop goes on reading (its session's frames wait in the door's inbox), answering pings and serving
other lanes. Whoever computed answers, where the socket has room, and wakes the event loop only for what is left. What a message released
is written to the socket before the next message runs, so that nothing can change it on the way; a reader that does not read therefore
stops its own lane, and holds no thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Protocol

from syftlite._threads import ENDED, Daemon
from syftlite.engine.door import Door
from syftlite.wire.connection import Frame
from syftlite.wire.messages import Message

log = logging.getLogger("syftlite.server")
MAX_BACKLOG = 20_000
MAX_WAITING = 64 << 20
"""Messages, and bytes of their tensors, waiting in a lane at which its connection is no longer read."""


class Line(Protocol):
    """The socket as a lane sees it."""

    blocked: bool

    def write(self, frame: Frame) -> None:
        """Write one websocket message."""

    def write_here(self, frame: Frame) -> bool:
        """The same on a thread that is not the event loop's, if nothing waits to be written; whether it was."""

    def read_on(self, yes: bool) -> None:
        """Read, or stop reading."""

    def end(self, reason: str) -> None:
        """Close after what is written."""


class OwnThread:
    """A thread for what waits for other workers: one a lane, kept, since a new one for each message would find its memory cold."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.do = self._work.put
        Daemon(self._run, name, partial(self.do, None))

    def _run(self) -> None:
        _preempt_nobody()
        while (work := self._work.get()) is not None:
            work()


def _preempt_nobody() -> None:
    """Have this thread wait for its turn when it is woken: whoever woke it has more to send, and where cores are few each change of threads
    finds the caches cold."""
    if hasattr(os, "SCHED_BATCH"):
        with contextlib.suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


class Lane:
    """Drives ``door``'s messages for the connection ``line``, on the event loop's thread and ``pool``; the end is ``closing``'s, since a
    session may have a million objects."""

    def __init__(self, door: Door, line: Line, pool: Executor, closing: Executor, loop: asyncio.AbstractEventLoop) -> None:
        self.door, self.line, self.pool, self.closing, self.loop = door, line, pool, closing, loop
        self._computing = False
        self._left = self._closed = False
        self._answers: Iterator[Frame] | None = None
        self._late: deque[Message] = deque()  # answers that came later
        self._paused = False
        self._own: OwnThread | None = None
        door.later = self._later

    @property
    def idle(self) -> bool:
        """Whether everything that came has been answered."""
        return not self._computing and self._answers is None

    def feed(self, frame: bytes) -> None:
        """Take in one frame."""
        self.door.receive(frame)
        if not self._computing:
            self.advance()
        if not self._paused and (len(self.door.inbox) > MAX_BACKLOG or self.door.waiting > MAX_WAITING):
            self._paused = True  # it computes, or its reader does not read
            self.line.read_on(False)
            if not self._computing:  # any more
                self.advance()

    def advance(self) -> None:
        """Write and run as far as can be done now; called again when the socket has room and when a computation ends."""
        self._advance()
        if self._paused and len(self.door.inbox) < MAX_BACKLOG // 2 and self.door.waiting <= MAX_WAITING // 2:
            self._paused = False
            self.line.read_on(True)

    def _advance(self) -> None:
        door = self.door
        while not self._computing and not self._left:
            while self._late:
                door.post(self._late.popleft())
            if self._answers is None and door.outbox:
                self._answers = door.frames()
            if self._answers is not None:
                if self.line.blocked:
                    return
                frame = next(self._answers, None)
                if frame is None:
                    self._answers = None
                else:
                    self.line.write(frame)
            elif door.closing is not None:
                self.line.end(door.closing)
                return
            elif not door.inbox:
                return
            elif door.waits or not door.run_quick():
                self._computing = True
                if door.waits:
                    self._own = self._own or OwnThread(f"{door.engine.name} peer")
                    self._own.do(self._run)
                else:
                    self._compute()

    def _compute(self) -> None:
        try:
            self.pool.submit(self._run, pooled=True)
        except RuntimeError:  # the program ends, and its pools take nothing more
            self.door.closing, self._computing = ENDED, False

    def _run(self, *, pooled: bool = False) -> None:
        """Carry out what waits, on another thread than the event loop's, and answer from there: to wake that takes a turn of a core, so it
        is done only if there is something for it to do."""
        door = self.door
        try:
            door.run(pooled=pooled)
            if not door.closing:
                self._answer_here()
        except Exception:  # such as no memory for an answer: what comes after it must not take its place
            log.exception("an answer of %s was lost", door.engine.name)
            self._answers, door.closing = None, door.closing or "RemoteError"
        finally:
            self._computing = False
        # what comes from now on the event loop sees to, so all of this is looked at afterwards
        if door.inbox or door.outbox or door.closing or self._left or self._paused or self._answers is not None or self._late:
            try:
                self.loop.call_soon_threadsafe(self._resume)
            except RuntimeError:  # the loop has ended, and every session with it
                door.leave()

    def _answer_here(self) -> None:
        self._answers = self.door.frames() if self.door.outbox else None
        for frame in self._answers or ():
            if not self.line.write_here(frame):
                self._answers = itertools.chain([frame], self._answers or ())
                return
        self._answers = None

    def _later(self, answer: Message) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self.loop.call_soon_threadsafe(self._post, answer)

    def _post(self, answer: Message) -> None:
        self._late.append(answer)
        if not self._computing:
            self.advance()

    def _resume(self) -> None:
        if not self._computing:
            if self._left:
                self._close()
            else:
                self.advance()

    def leave(self) -> None:
        """The connection is gone: let the message that is running end, carry out no other, and close the session."""
        self._left = True
        self.door.closing = self.door.closing or "gone"
        self.door.interrupt()
        if self._own is not None:
            self._own.do(None)
        if not self._computing:
            self._close()

    def _close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            self.closing.submit(self._leave_door)
        except RuntimeError:  # the program ends
            self._leave_door()

    def _leave_door(self) -> None:
        try:
            self.door.leave()
        except Exception:
            log.exception("a session of %s did not close as it should", self.door.engine.name)
