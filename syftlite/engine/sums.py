"""What has left of each dataset as aggregates (R1), and what of it tells too much.

A dataset's `Partition` says which rows what left tells apart. It is in a `History`, durable before a value is handed over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from syftlite.engine.journal import History
from syftlite.policy.labels import Class, Label
from syftlite.policy.lineage import Frame, frames
from syftlite.policy.partition import Partition
from syftlite.policy.rules import Policy


class Asked(NamedTuple):
    """A value that someone wants: its label, its elements, and whether it failed."""

    label: Label
    elements: int
    failed: bool

    @property
    def hopeless(self) -> bool:
        """Whether it is no aggregate, whatever its values are."""
        return self.label.level is not Class.AGG and not self.label.exposed and not self.failed

    @property
    def wrong(self) -> bool:
        """Whether it is no aggregate, its values being what they are."""
        return self.label.level is not Class.AGG or self.label.exposed or self.failed


class Sums:
    """The aggregates of a worker's datasets that left, by dataset. Whoever calls holds the lock of the policies."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._partitions: dict[str, Partition] = {}

    def leave(self, items: Sequence[Asked], policies: Mapping[str, Policy], datasets: Mapping[str, Frame]) -> bool:
        """Whether ``items``, made of ``datasets`` under ``policies``, may leave, all together. If so they count as having left when this
        returns; if not, and that tells something, it is counted."""
        if any(item.hopeless for item in items):
            return False
        changed: dict[str, Partition] = {}
        allowed = True
        for source, policy in policies.items():
            frame = datasets[source]
            before = self._partition(frame)
            mine = [item for item in items if source in item.label.sources]
            after = self._after(frame, before, policy, mine)
            wrong = any(item.wrong for item in mine)
            watched = any(before.watched(frame, item.label.selections) for item in mine)
            public = after is None and not watched and any(item.label.selections for item in mine)  # refused whatever rows are like
            told = (wrong or watched) and not public
            fits = after is not None and not wrong
            allowed = allowed and fits
            if after is not None and fits:
                changed[source] = after
            else:
                changed[source] = before.told_one() if told else before
        if not allowed:  # what tells something is counted; what would have left has not
            changed = {s: self._partition(datasets[s]).with_told(p.told) for s, p in changed.items()}
        changed = {s: p for s, p in changed.items() if p is not self._partition(datasets[s])}
        if changed:
            self._history.save({source: partition.dump() for source, partition in changed.items()})
            self._partitions.update(changed)
        return allowed

    def _after(self, frame: Frame, before: Partition, policy: Policy, items: Sequence[Asked]) -> Partition | None:
        terms = [part.aggregate for part in policy.parts() if part.aggregate is not None]
        if not terms or before.told >= min(t.probes for t in terms):
            return None
        selections = frames(s for item in items for s in item.label.selections).get(frame.name, [])
        if not selections or any(s.frame is not frame for s in selections):
            return None
        elements = sum(item.elements for item in items)
        after = None
        for term in terms:
            after = before.release(frame, selections, elements, term)
            if after is None:
                return None
        return after

    def _partition(self, frame: Frame) -> Partition:
        known = self._partitions.get(frame.name)
        if known is None:
            stored = self._history.load(frame.name)
            known = Partition.fresh(frame.count) if stored is None else Partition.load(stored)
        known = self._partitions[frame.name] = known.of_size(frame.count)
        return known

    def forgive(self, frame: Frame) -> None:
        """Start counting refusals of a dataset anew; what has left stays known."""
        partition = self._partition(frame).with_told(0)
        self._history.save({frame.name: partition.dump()})
        self._partitions[frame.name] = partition

    def forget(self, name: str) -> None:
        """Let go of what is kept here of dataset ``name``; its history stays."""
        self._partitions.pop(name, None)
