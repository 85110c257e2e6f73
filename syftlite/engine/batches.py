"""Batches: which of the queries that are ready run next, and how long a batch that is not full waits for more.

    add, drop      a query is ready; a client is gone
    next           one query of each channel in turn, those first that waited longest, while they fit into the largest batch
    patience       who was served a moment ago is likely to ask again: a next batch waits for them, a moment

No locks, no clock: who calls it holds the one and brings the other.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Collection, Container, Sequence

LINGER = 0.002
"""Seconds after a batch in which its clients are likely to ask again."""
Key = tuple[str, int]
"""A query: its channel, and its number there."""


class Batches:
    """Of at most ``max(sizes)`` rows; a batch of fewer is padded to the next of ``sizes``."""

    def __init__(self, sizes: Collection[int]) -> None:
        self._sizes = sorted(sizes)
        self._queues: OrderedDict[str, deque[tuple[Key, int]]] = OrderedDict()  # by channel, the one that waits longest first
        self._recent: frozenset[str] = frozenset()  # channels of the last batch
        self._last = 0.0  # when it ended

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, key: Key, rows: int) -> None:
        """A query is ready."""
        self._queues.setdefault(key[0], deque()).append((key, rows))

    def of(self, channel: str) -> set[Key]:
        """A channel's queries that are ready."""
        return {key for key, _ in self._queues.get(channel, ())}

    def drop(self, channel: str) -> list[Key]:
        """A client is gone; its queries that were ready."""
        return [key for key, _ in self._queues.pop(channel, ())]

    def next(self) -> tuple[int, list[Key]]:
        """(rows of the batch, its queries)."""
        keys: list[Key] = []
        rows, open_ = 0, list(self._queues)
        while open_:
            for channel in list(open_):
                queue = self._queues[channel]
                key, size = queue[0]
                if rows + size > self._sizes[-1]:
                    open_.remove(channel)
                    continue
                keys.append(key)
                rows += size
                queue.popleft()
                if queue:
                    self._queues.move_to_end(channel)
                else:
                    del self._queues[channel]
                    open_.remove(channel)
        return min(size for size in self._sizes if size >= rows), keys

    def ran(self, keys: Sequence[Key], now: float) -> None:
        """A batch of these ended."""
        self._recent, self._last = frozenset(channel for channel, _ in keys), now

    def patience(self, now: float) -> float:
        """Seconds that are left to wait for those of the last batch."""
        return max(self._last + LINGER - now, 0.0)

    def enough(self, here: Container[str]) -> bool:
        """Whether nobody is worth waiting for: the batch is full, or the clients of the last one that are still ``here`` have all asked."""
        ready = sum(rows for queue in self._queues.values() for _, rows in queue)
        return ready >= self._sizes[-1] or not any(c in here and c not in self._queues for c in self._recent)
