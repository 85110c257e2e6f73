"""A holder's stock of its own shares of correlations: expanded while its model has nothing to do, so that a query finds them ready. Before,
each stream is rehearsed, for what correlations it takes. Then run by run, of all streams alike, up to `BUDGET` bytes.

What the provider deals is streams.py's `Ahead`. This needs nobody: every holder expands from its own keys, by the correlations' numbers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from functools import partial

from syftlite.engine.spare import Job, SpareTime
from syftlite.engine.streams import Stream
from syftlite.errors import SyftliteError
from syftlite.mpc.correlations import layout

BUDGET = 64 << 20
"""Bytes that a holder keeps expanded, for all streams of a model together."""
MAX_RUNS = 32
"""Of one stream."""


class Stock(SpareTime):
    """Of these streams."""

    def __init__(self, streams: Collection[Stream], row: Sequence[int]) -> None:
        super().__init__("expanding ahead")
        self._streams, self._row = streams, row
        self._new = list(streams)  # not rehearsed yet
        self._reached = {stream.rows: 0 for stream in streams}
        """By rows: the correlation to expand next."""

    def runs(self, stream: Stream) -> int:
        """How many whole runs of ``stream`` are expanded."""
        return max(0, self._reached[stream.rows] // len(stream.requests) - stream.runs) if stream.requests else 0

    def _job(self) -> Job | None:
        if self._new:
            return partial(self._rehearse, self._new.pop(0))
        stream = self._least()
        if stream is None:
            return None
        number = max(self._reached[stream.rows], stream.runs * len(stream.requests))
        self._reached[stream.rows] = number + 1
        kind, args = stream.requests[number % len(stream.requests)]
        return lambda: stream.party.expand(number, kind, args)

    def _rehearse(self, stream: Stream) -> None:
        with contextlib.suppress(SyftliteError):  # its first run fails likewise, and tells
            stream.rehearse(self._row, self.pause)

    def _least(self) -> Stream | None:
        """The stream that is furthest from what it should have."""
        known = [stream for stream in self._streams if stream.requests]
        filled = {stream: self.runs(stream) / target for stream in known if (target := _target(stream, len(known)))}
        least = min(filled, key=filled.__getitem__, default=None)
        return None if least is None or filled[least] >= 1 else least


def _target(stream: Stream, streams: int) -> int:
    found = [layout(kind, args) for kind, args in stream.requests]
    nbytes = sum(f.free + (0 if stream.party.last else f.sent) for f in found)
    return min(MAX_RUNS, BUDGET // streams // max(nbytes, 1))
