"""Threads for clients: as many as can compute at once, and more only where these seem to sleep.

More threads than cores fight for the interpreter and for warm memory: a round of a hundred simulated clients takes twice as long on eight
threads as on two. But a client may sleep, as a simulated straggler does, and is to hold nobody up: when nobody has begun for `PATIENCE`
although somebody waits, there is one thread more. None of them keeps a program from ending.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import ALL_COMPLETED, Future, wait
from typing import Any

from syftlite._threads import Daemon

PATIENCE = 1.0
"""Seconds, or a quarter of what may be waited if that is less."""


class Crew:
    """``few`` threads, and up to ``most``."""

    def __init__(self, few: int, most: int) -> None:
        self._allowed, self._most = few, max(few, most)
        self._waiting: deque[tuple[Future[Any], Callable[..., Any], tuple[Any, ...]]] = deque()
        self._threads = self._idle = 0
        self._ended = False
        self._begun = time.monotonic()  # when somebody last did
        self._lock = threading.Condition()

    def submit(self, call: Callable[..., Any], *given: Any) -> Future[Any]:
        """Have ``call(*given)`` done, in its turn."""
        future: Future[Any] = Future()
        with self._lock:
            self._waiting.append((future, call, given))
            self._hire()
        return future

    def wait(self, futures: Collection[Future[Any]], seconds: float, return_when: str = ALL_COMPLETED) -> set[Future[Any]]:
        """Those of ``futures`` that are done, after at most so many seconds."""
        until, patience = time.monotonic() + seconds, min(PATIENCE, seconds / 4)
        while True:
            left = until - time.monotonic()
            done, others = wait(futures, max(0.0, min(left, patience)), return_when)
            if not others or left <= patience or (done and return_when != ALL_COMPLETED):
                return done
            with self._lock:
                if self._waiting and time.monotonic() - self._begun >= patience and self._allowed < self._most:
                    self._allowed += 1
                    self._hire()

    def leave(self) -> None:
        """Begin nothing more. Whoever is at work goes on alone."""
        with self._lock:
            self._ended = True
            while self._waiting:
                self._waiting.popleft()[0].cancel()
            self._lock.notify_all()

    def _hire(self) -> None:
        if self._idle >= len(self._waiting):
            self._lock.notify()
        elif self._threads < self._allowed:
            self._threads += 1
            Daemon(self._work, "client", self.leave)

    def _work(self) -> None:
        while (task := self._next()) is not None:
            future, call, given = task
            try:
                future.set_result(call(*given))
            except BaseException as error:
                future.set_exception(error)
            del task, future, call, given  # what it was done with is not this thread's to keep while it waits

    def _next(self) -> tuple[Future[Any], Callable[..., Any], tuple[Any, ...]] | None:
        with self._lock:
            while True:
                while self._waiting:
                    task = self._waiting.popleft()
                    if task[0].set_running_or_notify_cancel():
                        self._begun = time.monotonic()
                        return task
                if self._ended:
                    self._threads -= 1
                    return None
                self._idle += 1
                self._lock.wait()
                self._idle -= 1
