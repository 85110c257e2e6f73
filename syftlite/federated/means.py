"""RunningMean: sum n_k w_k / sum n_k over whoever comes in time, a few at once as they come, so that no more than these are held.

A running sum is in float64, so that in float32 it is the same whatever the order. It has a lane, a sum of its own, for each core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import torch

from syftlite.errors import AggregationError
from syftlite.federated.strategies import Values

PIECE = 1 << 15
"""Elements that are widened at a time: they stay in the cache until they are added."""
AT_ONCE = 4
"""Clients that are added together: a piece of the sum is read, and written, once for all of them."""

Held = list[tuple[Sequence[torch.Tensor], int]]


class RunningMean:
    """Adds clients' weights as they come, from any thread, until it is closed."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        """Of whom it has, by name."""
        self._shapes: list[torch.Size] | None = None
        self._held: Held = []
        self._lanes: list[Values] = []
        self._changed = threading.Condition()
        self._adding, self._closed = 0, False

    def add(self, worker: str, values: Sequence[torch.Tensor], rows: int) -> bool:
        """Add what ``worker`` has trained on ``rows`` rows, which must stay as it is. False: it came too late. Raises `AggregationError`
        for other shapes than the first one's."""
        shapes = [value.shape for value in values]
        with self._changed:
            if self._closed:
                return False
            if shapes != (self._shapes or shapes):
                raise AggregationError(f"its weights are of shapes {_told(shapes)}, and others' of {_told(self._shapes or [])}")
            self._shapes, self.rows[worker] = shapes, rows
            self._held.append((values, rows))
            lane = self._lane() if len(self._held) >= AT_ONCE else None
            if lane is None:
                return True
            held, self._held = self._held, []
        self._pour(held, lane)
        return True

    def close(self) -> None:
        """Take nothing more."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._adding)
            held, self._held = self._held, []
            lane = self._lane() if held else None
        if lane is not None:
            self._pour(held, lane)

    def values(self) -> Values:
        """The mean, once it is closed. Of whom there is one at least."""
        rows = sum(self.rows.values())
        first, *others = self._lanes
        for lane in others:
            for total, part in zip(first, lane, strict=True):
                total.add_(part)
        return [total.div_(rows) for total in first]

    def _lane(self) -> Values | None:
        """A sum that nobody is adding to; None while there are as many as cores."""
        if not self._lanes and self._adding >= (os.cpu_count() or 1):
            return None
        self._adding += 1
        return self._lanes.pop() if self._lanes else [torch.zeros(shape, dtype=torch.float64) for shape in self._shapes or ()]

    def _pour(self, held: Held, lane: Values) -> None:
        for place, total in enumerate(lane):
            parts = [(values[place].reshape(-1).split(PIECE), rows) for values, rows in held]
            for at, whole in enumerate(total.view(-1).split(PIECE)):
                for pieces, rows in parts:
                    whole.add_(pieces[at], alpha=rows)
        with self._changed:
            self._adding -= 1
            self._lanes.append(lane)
            self._changed.notify_all()


def _told(shapes: Sequence[torch.Size]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
