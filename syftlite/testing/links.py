"""Virtual time, and links that fail on schedule. Everything that differs between two runs comes from one seeded generator.

    Timeline     what happens when: (time, number) -> action, in that order
    Link         client <=> node: frames in both directions, each with its chance of a fault

A link without faults is what TCP gives: every frame, once, in order, until an end closes.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from typing import NamedTuple, Protocol

EPOCH = 1_700_000_000.0
"""When virtual time starts, in seconds since the epoch."""


class Faults(NamedTuple):
    """``delay`` is the longest that a frame may be late, in seconds, holding up those behind it; the others are chances per frame."""

    drop: float = 0.0
    delay: float = 0.0
    cut: float = 0.0
    reorder: float = 0.0
    duplicate: float = 0.0


class Timeline:
    """Virtual time: it passes when `step` carries out what is due next, and not otherwise."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.trace: list[str] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def clock(self) -> float:
        """Seconds since the epoch, as `time.time`."""
        return EPOCH + self.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Carry out ``action`` at time ``when``, after what is due then already."""
        self._count += 1
        heapq.heappush(self._due, (max(when, self.now), self._count, action))

    def after(self, delay: float, action: Callable[[], None]) -> None:
        """Carry out ``action`` ``delay`` seconds from now."""
        self.at(self.now + delay, action)

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.now:.6f} {text}")

    def run_until(self, condition: Callable[[], bool], deadline: float) -> bool:
        """Let time pass until ``condition`` holds, at most to ``deadline``. Whether it holds."""
        while not condition():
            if not self._due or self._due[0][0] > deadline:
                self.now = max(self.now, deadline)
                return False
            self.now, _, action = heapq.heappop(self._due)
            action()
        return True


class End(Protocol):
    """What hangs on one end of a link."""

    def take(self, frame: bytes) -> None:
        """A frame came."""

    def lost(self, cause: str) -> None:
        """The link is gone."""


class Link:
    """One connection, by the name ``name`` in the trace. Attach both ends before sending."""

    client: End
    node: End

    def __init__(self, timeline: Timeline, name: str, faults: Faults, latency: float) -> None:
        self.timeline, self.name, self.faults, self.latency = timeline, name, faults, latency
        self.cause: str | None = None
        self._number = {True: 0, False: 0}
        self._busy_until = {True: 0.0, False: 0.0}

    def send(self, frame: bytes, *, to_node: bool) -> None:
        """Let ``frame`` travel, as far as its fate allows."""
        if self.cause is not None:
            return
        self._number[to_node] += 1
        label = f"{self.name} {'->' if to_node else '<-'} frame {self._number[to_node]}"
        chance, faults = self.timeline.random.random, self.faults
        if chance() < faults.cut:
            self.timeline.note(f"{label}: the line is cut")
            self.cut("the line was cut")
        elif chance() < faults.drop:
            self.timeline.note(f"{label}: dropped")
        else:
            arrival = self._arrival(label, to_node)
            self._deliver(frame, arrival, label, to_node)
            if chance() < faults.duplicate:
                self._deliver(frame, arrival + chance() * self.latency, f"{label} again", to_node)

    def _arrival(self, label: str, to_node: bool) -> float:
        chance, faults = self.timeline.random.random, self.faults
        arrival = self.timeline.now + self.latency + chance() * faults.delay
        if chance() < faults.reorder:
            self.timeline.note(f"{label}: held back, later ones overtake it")
            return arrival + (1 + 4 * chance()) * self.latency
        self._busy_until[to_node] = arrival = max(arrival, self._busy_until[to_node])
        return arrival

    def _deliver(self, frame: bytes, arrival: float, label: str, to_node: bool) -> None:
        def arrive() -> None:
            if self.cause is None:
                self.timeline.note(f"{label}: {len(frame)} bytes")
                (self.node if to_node else self.client).take(frame)

        self.timeline.at(arrival, arrive)

    def cut(self, cause: str) -> None:
        """Break the connection now: what is under way is lost, and both ends learn of it."""
        if self.cause is None:
            self.cause = cause
            self.timeline.after(self.latency, lambda: self.client.lost(cause))
            self.timeline.after(self.latency, lambda: self.node.lost(cause))

    def finish(self, cause: str, *, to_node: bool) -> None:
        """Close from one end: the other gets what was sent before, then ``cause``."""
        when = max(self._busy_until[to_node], self.timeline.now + self.latency)
        self.timeline.at(when, lambda: self.cut(cause))
