"""RunningMean: sum n_k w_k / sum n_k over whoever comes in time, each added as it comes, so that no more than a few are held at once.

A running sum is in float64, so that in float32 it is the same whatever the order; of what is in float64 itself rounding is summed beside it
(Dekker 1971), and only what is left of that depends on the order. It has a lane, a sum of its own, for each core.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

import torch

from syftlite.errors import AggregationError
from syftlite.federated.strategies import Values

HIGH = -1 << 27
"""Of a float64's bits, as a whole number: those of 26 binary digits. They and the other 27 by a count of rows are exact."""
PIECE = 1 << 20
"""Elements that are widened at a time. Shorter pieces would stay in a core's cache, but each addition gives the interpreter's lock away,
and threads that hand it to and fro take longer than memory does."""


class RunningMean:
    """Adds clients' weights as they come, from any thread, until it is closed."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        """Of whom it has, by name."""
        self._shapes: list[torch.Size] | None = None
        self._lanes: list[list[_Sum]] = []
        self._free = threading.Condition()
        self._used, self._closed = 0, False
        self._spoilt = False
        """Whether a part of somebody's weights may be in it."""

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
            lane = self._lanes.pop() if self._lanes else [_Sum(value) for value in values]
        added = False
        try:
            for total, value in zip(lane, values, strict=True):
                total.add(value, rows)
            added = True
        finally:
            with self._free:
                self._used -= 1
                self._lanes.append(lane)
                self._spoilt = self._spoilt or not added
                if added:
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
        """The mean. Of whom there is one at least. Raises `AggregationError` where somebody's weights were not added whole."""
        if self._spoilt:
            raise AggregationError("weights of one client could not be added, and part of them may be in the sum: begin the round again")
        rows = sum(self.rows.values())
        first, *others = self._lanes
        for lane in others:
            for total, part in zip(first, lane, strict=True):
                total.join(part)
        return [total.whole().div_(rows) for total in first]


class _Sum:
    """Of tensors ``like`` this one; ``rounded``: what rounding has taken, where it would."""

    def __init__(self, like: torch.Tensor) -> None:
        self.total = torch.zeros(like.shape, dtype=torch.float64)
        self.rounded = torch.zeros_like(self.total) if like.dtype is torch.float64 else None

    def add(self, value: torch.Tensor, rows: int) -> None:
        """Add ``rows`` times ``value``."""
        value = value if self.rounded is None else value.to(torch.float64)
        pieces = [t.reshape(-1).split(PIECE) for t in (self.total, value)]
        if self.rounded is None:
            for whole, part in zip(*pieces, strict=True):
                whole.add_(part, alpha=rows)
            return
        for whole, part, rounded in zip(*pieces, self.rounded.view(-1).split(PIECE), strict=True):
            high = (part.view(torch.int64) & HIGH).view(torch.float64)
            _exactly(whole, rounded, high * rows)
            _exactly(whole, rounded, (part - high) * rows)

    def join(self, other: _Sum) -> None:
        """Add another sum."""
        if self.rounded is None or other.rounded is None:
            self.total.add_(other.total)
            return
        _exactly(self.total, self.rounded, other.total)
        self.rounded.add_(other.rounded)

    def whole(self) -> torch.Tensor:
        """All of it."""
        return self.total if self.rounded is None else self.total.add_(self.rounded)


def _exactly(total: torch.Tensor, rounded: torch.Tensor, term: torch.Tensor) -> None:
    """total + rounded <- total + rounded + term, but for what is beyond both: Knuth's two-sum."""
    made = total + term
    taken = made - total
    rounded.add_((total - (made - taken)).add_(term - taken))
    total.copy_(made)


def _told(shapes: Sequence[torch.Size]) -> str:
    return ", ".join(str(list(shape)) for shape in shapes)
