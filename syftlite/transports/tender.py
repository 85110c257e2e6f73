"""The one daemon thread of a client: it flushes what nobody flushed while the session's patience lasted and, while nobody reads, answers
pings.

    dozing   nothing is queued: asleep until `wake`, but looking at the socket once a second
    awake    a tick a millisecond, until nothing was queued for `QUIET_TICKS`; for `BUSY_TICKS`, once there was something to flush: a
             program that leaves its messages to this thread, and waits for answers between, should not have to wake it each time

It holds its session weakly: a client that nobody uses any more goes, and its thread with it.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Protocol

from syftlite._threads import Daemon

TICK = 0.001
LOOK = 1.0
QUIET_TICKS, BUSY_TICKS = 20, 200


class Tended(Protocol):
    """What is looked after. ``flushes`` counts flushes by anyone, but for those of a question alone: whoever only asks, queues nothing."""

    flushes: int

    @property
    def open(self) -> bool:
        """Whether there is still something to look after."""

    @property
    def waiting(self) -> bool:
        """Whether something is queued."""

    @property
    def patience(self) -> int:
        """For how many ticks without a flush it may wait."""

    def flush(self) -> None:
        """Send what is queued."""

    def poll(self) -> None:
        """Answer pings and notice the end, unless somebody reads anyway."""


class Tender:
    """Looks after ``session`` from a thread of its own."""

    def __init__(self, session: Tended, sleep: Callable[[float], None] = time.sleep) -> None:
        self._session, self._sleep = weakref.ref(session), sleep
        self._alarm = threading.Event()
        self._ended = self.dozing = False

    def start(self) -> None:
        """Start the thread."""
        Daemon(self._tend, "syftlite tender", self.end)

    def end(self) -> None:
        """Look after nothing any more."""
        self._ended = True
        self.wake()

    def wake(self) -> None:
        """Something was queued, or the session ended."""
        self.dozing = False
        self._alarm.set()

    def _tend(self) -> None:
        while not self._ended and (session := self._session()) is not None and session.open:
            self.dozing = True
            waiting = session.waiting  # asked after dozing is set: what is queued later wakes us
            del session
            woken = waiting or self._alarm.wait(LOOK)
            self.dozing = False
            self._alarm.clear()
            session = self._session()
            if self._ended or session is None or not session.open:
                return
            try:
                if woken:
                    self._look_after(session)
                else:
                    session.poll()
            except Exception:  # the session has recorded it, and tells its next user
                return

    def _look_after(self, session: Tended) -> None:
        quiet, waited, most, flushes, looked = 0, 0, QUIET_TICKS, session.flushes, time.monotonic()
        while quiet < most and session.open and not self._ended:
            self._sleep(TICK)
            quiet += 1
            waited = waited + 1 if session.flushes == flushes else 0
            if session.waiting:
                if waited >= session.patience:
                    session.flush()
                    waited, most = 0, BUSY_TICKS
                quiet = 0
            flushes = session.flushes
            if time.monotonic() - looked > LOOK:
                session.poll()
                looked = time.monotonic()
        session.poll()
