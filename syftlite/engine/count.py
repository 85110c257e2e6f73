"""The count of a served model: how many queries it takes, how many it has served, and what its owner is told of them.

    take_more, take, give_back      the owner allows so many; each that comes takes one; one that is not run gives it back
    began, write                    a batch runs; its queries are served, a line each
    watch                           PROGRESS, when there is something to tell
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from syftlite.engine.pending import Pending
from syftlite.errors import ModelStoppedError
from syftlite.wire import messages as m

LINES = 64
"""Of the last queries served, that PROGRESS tells."""
MAX_WATCHERS = 64


class Taken(Protocol):
    """A query that was taken."""

    allowance: int


class Count:
    """Of ``model``. ``ended``: why it ended, if it did; ``waits``: whether a query that was taken still waits."""

    def __init__(self, model: str, lock: threading.RLock, ended: Callable[[], str | None], waits: Callable[[], bool]) -> None:
        self.model, self._lock, self._ended, self._waits = model, lock, ended, waits
        self.left: int | None = 0
        """Queries to take; None for any number."""
        self._allowance = 0  # how often the owner has said how many
        self.served = 0
        self._running = 0  # queries of batches that were begun and are not written down
        self._lines: deque[str] = deque(maxlen=LINES)
        self._watchers: list[tuple[Pending, int, int]] = []

    def take_more(self, count: int | None) -> None:
        """Take ``count`` more; None for any number, 0 for none."""
        with self._lock:
            self.left, self._allowance = count, self._allowance + 1
        self.tell()

    def take(self) -> int:
        """A query comes; which allowance it takes from. Raises `ModelStoppedError` if none is taken now."""
        with self._lock:
            if self.left == 0:
                raise ModelStoppedError(f"model {self.model!r} takes no queries now ({self.served} served): its owner may serve() it again")
            if self.left is not None:
                self.left -= 1
            return self._allowance

    def give_back(self, queries: Iterable[Taken]) -> None:
        """These were taken and are not run. Nobody takes their places once the owner has said anew how many."""
        with self._lock:
            if self.left is not None:
                self.left += sum(query.allowance == self._allowance for query in queries)

    def began(self, count: int) -> None:
        """A batch of so many queries runs."""
        with self._lock:
            self._running += count

    def write(self, queries: Sequence[tuple[str, int, float]], rows: int) -> None:
        """A batch of ``rows`` rows was served: of each query who asked, its rows, and the seconds that it took."""
        together = f" in a batch of {rows}" if len(queries) > 1 else ""
        with self._lock:
            self._running -= len(queries)
            for who, size, seconds in queries:
                self.served += 1
                told = f"{size} row{'' if size == 1 else 's'}{together}, {seconds * 1e3:.1f} ms"
                self._lines.append(f"request {self.served}: {who}, {told}")
        self.tell()

    @property
    def state(self) -> str:
        """serving, stopped, or why it ended."""
        return self._ended() or ("stopped" if self.left == 0 and not self._waits() and not self._running else "serving")

    def watch(self, request: int, seen: int | None) -> Pending:
        """PROGRESS, when more than ``seen`` have been served or the model is not serving; now, if that is None."""
        pending, seen = Pending(), -1 if seen is None else seen
        with self._lock:
            self._watchers = [w for w in self._watchers[-MAX_WATCHERS:] if w[0].wait(0) is None]
            self._watchers.append((pending, request, seen))
        self.tell()
        return pending

    def tell(self) -> None:
        """Answer whoever watches, if there is something to tell."""
        with self._lock:
            state, served, lines = self.state, self.served, list(self._lines)
            due = [w for w in self._watchers if served > w[2] or state != "serving"]
            self._watchers = [w for w in self._watchers if w not in due]
        for pending, request, seen in due:
            fresh = min(served - max(seen, 0), len(lines)) if seen < served else 0
            pending.settle((m.PROGRESS, request, state, served, tuple(lines[len(lines) - fresh :])))
