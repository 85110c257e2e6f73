"""A holder's stock of its own shares of correlations: expanded while its model has nothing to do, so that a query finds them ready. Before,
each stream is rehearsed, for what correlations it takes.

    begin, end     of a run: while there is one, nothing is expanded
    the thread     when it has been quiet for a moment: run by run, of all streams alike, up to `BUDGET` bytes

What the provider deals is streams.py's `Ahead`. This needs nobody: every holder expands from its own keys, by the correlations' numbers.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial

from syftlite.engine.streams import QUIET, Stream
from syftlite.errors import SyftliteError
from syftlite.mpc.correlations import layout

BUDGET = 64 << 20
"""Bytes that a holder keeps expanded, for all streams of a model together."""
MAX_RUNS = 32
"""Of one stream."""
STOP_SECONDS = 5.0
"""For what is being expanded."""


class Stock:
    """Of these streams."""

    def __init__(self, streams: Collection[Stream], row: Sequence[int]) -> None:
        self._streams, self._row = streams, row
        self._new = list(streams)  # not rehearsed yet
        self._next = {stream.rows: 0 for stream in streams}
        """By rows: the correlation to expand next."""
        self._busy = 0
        self._quiet_since = 0.0
        self._ended = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Fill it on a thread of its own."""
        self._thread = threading.Thread(target=self._fill, daemon=True, name="expanding ahead")
        self._thread.start()
        atexit.register(self.stop)  # a thread inside torch would make the interpreter's end an abort

    def begin(self) -> None:
        """A run begins."""
        with self._changed:
            self._busy += 1

    def end(self) -> None:
        """A run has ended."""
        with self._changed:
            self._busy -= 1
            self._quiet_since = time.monotonic()
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more is needed."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        atexit.unregister(self.stop)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def runs(self, stream: Stream) -> int:
        """How many whole runs of ``stream`` are expanded."""
        return max(0, self._next[stream.rows] // len(stream.requests) - stream.runs) if stream.requests else 0

    def _fill(self) -> None:
        while (work := self._wanted()) is not None:
            work()

    def _wanted(self) -> Callable[[], None] | None:
        """The next correlation, when it is quiet and something is wanted; None at the end."""
        with self._changed:
            while not self._ended:
                left = self._quiet_since + QUIET - time.monotonic()
                if self._new and not self._busy:
                    return partial(self._rehearse, self._new.pop(0))
                wanted = None if self._busy else self._least()
                if wanted is None:
                    self._changed.wait()
                elif left > 0:
                    self._changed.wait(left)
                else:
                    return self._taken(wanted)
            return None

    def _rehearse(self, stream: Stream) -> None:
        with contextlib.suppress(SyftliteError):  # its first run fails likewise, and tells
            stream.rehearse(self._row, self._pause)

    def _pause(self) -> None:
        """Let a run that has begun have the processor, and the interpreter."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy or self._ended)

    def _least(self) -> Stream | None:
        """The stream that is furthest from what it should have."""
        known = [stream for stream in self._streams if stream.requests]
        filled = {stream: self.runs(stream) / target for stream in known if (target := _target(stream, len(known)))}
        least = min(filled, key=filled.__getitem__, default=None)
        return None if least is None or filled[least] >= 1 else least

    def _taken(self, stream: Stream) -> Callable[[], None]:
        number = max(self._next[stream.rows], stream.runs * len(stream.requests))
        self._next[stream.rows] = number + 1
        kind, args = stream.requests[number % len(stream.requests)]
        return lambda: stream.party.expand(number, kind, args)


def _target(stream: Stream, streams: int) -> int:
    found = [layout(kind, args) for kind, args in stream.requests]
    nbytes = sum(f.free + (0 if stream.party.last else f.sent) for f in found)
    return min(MAX_RUNS, BUDGET // streams // max(nbytes, 1))
