"""Turns: many threads wait for answers on one connection, and one of them reads it for all.

    lead       this thread reads, until its own answer is here
    deliver    an answer: whoever waits for it is woken, and nobody else
    pass_on    another that waits reads from now on
"""

from __future__ import annotations

import threading

from syftlite.wire.messages import Message

NOBODY = 0
"""No request's number."""


class _Gate:
    """Where one thread waits."""

    __slots__ = ("leads", "shut")

    def __init__(self) -> None:
        self.leads, self.shut = False, threading.Lock()
        self.shut.acquire()


class Turns:
    """Of one connection. Requests are numbers from 1; whoever asked forgets in the end."""

    def __init__(self) -> None:
        self.answers: dict[int, Message] = {}
        """Those that have come and nobody has read."""
        self._asked: set[int] = set()
        self._gates: dict[int, _Gate] = {}
        self.leader: int | None = None
        """The request of the thread that reads, 0 for one that waits for nothing; None while nobody reads."""
        self._ended = False
        self._lock = threading.Lock()

    def ask(self, request: int) -> None:
        """An answer to ``request`` is wanted."""
        self._asked.add(request)

    def forget(self, request: int) -> None:
        """Not any more: it has been read, or its thread was interrupted, wherever that was."""
        with self._lock:
            self._asked.discard(request)
            self.answers.pop(request, None)
            left_alone = self.leader == request
        if left_alone:
            self.pass_on()

    def lead(self, request: int, seconds: float | None) -> bool:
        """Wait until the answer is here or the connection has ended, which is False; or until this thread is the one that reads, which is
        True: it passes that on. Raises TimeoutError after ``seconds``."""
        with self._lock:
            if request in self.answers or self._ended:
                return False
            if self.leader is None:
                self.leader = request
                return True
            gate = self._gates[request] = _Gate()
        try:
            opened = gate.shut.acquire(timeout=-1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))
        except BaseException:
            self._gave_up(request)
            raise
        if not opened and self._gave_up(request):
            raise TimeoutError
        return gate.leads

    def try_to_lead(self) -> bool:
        """Whether this thread, which waits for nothing, is now the one that reads."""
        with self._lock:
            if self.leader is not None or self._ended:
                return False
            self.leader = NOBODY
            return True

    def _gave_up(self, request: int) -> bool:
        """Whether the thread that waited was still to wait."""
        with self._lock:
            return self._gates.pop(request, None) is not None

    def pass_on(self) -> None:
        """Have one of those that wait read."""
        with self._lock:
            self.leader = next(iter(self._gates), None)
            if self.leader is None:
                return
            gate = self._gates.pop(self.leader)
            gate.leads = True
        gate.shut.release()

    def deliver(self, request: int, answer: Message) -> None:
        """The answer to ``request``, if it is still wanted."""
        with self._lock:
            if request not in self._asked:
                return
            self.answers[request] = answer
            gate = self._gates.pop(request, None)
        if gate is not None:
            gate.shut.release()

    def end(self) -> None:
        """No answer will come: wake all that wait."""
        with self._lock:
            self._ended = True
            gates, self._gates = list(self._gates.values()), {}
        for gate in gates:
            gate.shut.release()
