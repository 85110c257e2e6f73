"""RunningMean: sum n_k w_k / sum n_k over whoever comes in time, each added as it comes, so that no more than a few are held at once.

A running sum is in float64, so that in float32 it is the same whatever the order. It has a lane, a sum of its own, for each core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import torch

from syftlite.errors import AggregationError
from syftlite.federated.strategies import Values

PIECE = 1 << 20
"""Elements that are widened at a time. Shorter pieces would stay in a core's cache, but each addition gives the interpreter's lock away,
and threads that hand it to and fro take longer than memory does."""


class RunningMean:
    """Adds clients' weights as they come, from any thread, until it is closed."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        """Of whom it has, by name."""
        self._shapes: list[torch.Size] | None = None
        self._lanes: list[Values] = []
        self._free = threading.Condition()
        self._used, self._closed = 0, False

    def add(self, worker: str, values: Sequence[torch.Tensor], rows: int) -> bool:
        """Add what ``worker`` has trained on ``rows`` rows. False: it came too late. Raises `AggregationError` for other shapes than the
        first one's."""
        shapes = [value.shape for value in values]
        with self._free:
            self._free.wait_for(lambda: self._closed or self._lanes or self._used < (os.cpu_count() or 1))
            if self._closed:
                return False
            if shapes != (self._shapes or shapes):
                raise AggregationError(f"its weights are of shapes {_told(shapes)}, and others' of {_told(self._shapes or [])}")
            self._shapes = shapes
            self._used += 1
            lane = self._lanes.pop() if self._lanes else [torch.zeros(shape, dtype=torch.float64) for shape in shapes]
        for total, value in zip(lane, values, strict=True):
            for whole, part in zip(total.view(-1).split(PIECE), value.reshape(-1).split(PIECE), strict=True):
                whole.add_(part, alpha=rows)
        with self._free:
            self._used -= 1
            self._lanes.append(lane)
            self.rows[worker] = rows
            self._free.notify_all()
        return True

    def close(self) -> None:
        """Take nothing more."""
        with self._free:
            self._closed = True
            self._free.notify_all()
            self._free.wait_for(lambda: not self._used)

    def values(self) -> Values:
        """The mean. Of whom there is one at least."""
        rows = sum(self.rows.values())
        first, *others = self._lanes
        for lane in others:
            for total, part in zip(first, lane, strict=True):
                total.add_(part)
        return [total.div_(rows) for total in first]


def _told(shapes: Sequence[torch.Size]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
