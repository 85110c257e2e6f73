"""What the owner's datasets may be used for: their policies, by name, and what has left of each as aggregates.

A label names its datasets, not their policies, so a stricter policy holds at once for all that was ever made of one. A dataset without
a policy lets nothing go. What has left is in a `History`, durable before the value is handed over.
"""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch

from syftlite.engine.journal import Clock, History
from syftlite.errors import ConfigurationError, PolicyError, SendNotPermittedError
from syftlite.mpc.kernel import Kernel
from syftlite.ops.operator import Operator
from syftlite.policy.labels import Class, Label, private
from syftlite.policy.lineage import PLACE, Frame, frames, own
from syftlite.policy.partition import Partition
from syftlite.policy.rules import CLASSES, Policy, approve, from_tables

if TYPE_CHECKING:
    from syftlite.engine.session import Principal


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


NOTHING = Policy()


class Policies:
    """The policies of worker ``name``'s datasets. ``given``: those that its owner's configuration states, by dataset. ``registered``: the
    public keys of other owners' nodes, by the names that ``share`` has for them."""

    def __init__(
        self,
        name: str,
        history: History,
        clock: Clock,
        given: Mapping[str, Policy] | None = None,
        registered: Mapping[str, bytes] | None = None,
    ) -> None:
        self._named = {key: member for member, key in (registered or {}).items()}
        self.name, self.history, self.clock = name, history, clock
        self._given = dict(given or {})
        self._policies: dict[str, Policy] = {}
        self._frames: dict[str, Frame] = {}
        self._partitions: dict[str, Partition] = {}
        self.epoch = object()
        """Another object whenever a policy changes: what `compute` said before must be asked again."""
        self._until = math.inf
        self.lock = threading.RLock()

    @property
    def lasting(self) -> bool:
        """Whether what `compute` says holds as long as the epoch: no policy is to expire."""
        return self._until == math.inf

    # -- datasets

    def admit(self, name: str, tensor: torch.Tensor, policy: Policy | None = None) -> Label:
        """The label of the rows of dataset ``name``, from now on under ``policy`` (else what the configuration says, else approval)."""
        policy = policy or self._given.get(name) or approve()
        self.must_have_unit(name, tensor, policy)
        count = len(tensor) if tensor.dim() else 1
        units = None
        if type(policy.unit) is int:
            units = tensor.reshape(count, -1)[:, policy.unit].cpu().numpy().copy()  # not all columns with it
        frame = Frame(name, count, units, aggregates=_of_sums(policy))
        with self.lock:
            self._frames[name] = frame
            self.set(name, policy)
        return private(name, own(frame, tensor) if tensor.dim() and _of_rows(policy) else None)

    def must_have_unit(self, name: str, tensor: torch.Tensor, policy: Policy) -> None:
        """Raise `ConfigurationError` unless dataset ``name``, the rows of ``tensor``, has the column that ``policy`` says is its unit."""
        if policy.unit is None:
            return
        if type(policy.unit) is not int or tensor.dim() < 2 or not len(tensor) or not 0 <= policy.unit < tensor[0].numel():
            raise ConfigurationError(f"dataset {name} has no column {policy.unit!r} for its unit: it is a column's number, from 0")

    def with_unit(self, name: str, policy: Policy) -> Policy:
        """``policy``, with the unit that dataset ``name`` has if it states none."""
        return policy if policy.unit is not None or name not in self._policies else replace(policy, unit=self._policies[name].unit)

    def outgrown(self, name: str, policy: Policy, label: Label | None) -> bool:
        """Whether the rows of dataset ``name``, which have ``label``, need another one for ``policy``: more must be known of them."""
        if label is None or name not in self._frames or policy.unit != self._policies[name].unit:
            return True
        return (_of_rows(policy) and label.rows is None) or (_of_sums(policy) and not self._frames[name].aggregates)

    def stated(self, name: str, columns: Sequence[str]) -> Policy | None:
        """What the configuration says of dataset ``name``, whose unit may be one of ``columns`` by name."""
        policy = self._given.get(name)
        return None if policy is None else by_column(name, policy, columns)

    def set(self, name: str, policy: Policy) -> None:
        """Put dataset ``name`` under ``policy``, at once."""
        with self.lock:
            self._policies[name] = policy
            self.epoch = object()
            self._until = min(
                [p.expires for q in self._policies.values() for p in q.parts() if p.expires is not None], default=math.inf
            )

    def forget(self, names: Iterable[str]) -> None:
        """Nothing is made of the rows of these datasets any more: what is left of them, if anything, is nobody's."""
        with self.lock:
            for name in names:
                for kept in (self._policies, self._frames, self._partitions):
                    kept.pop(name, None)
            self.epoch = object()

    def of(self, sources: Iterable[str]) -> dict[str, Policy]:
        """The policies of ``sources``."""
        return {source: self._policies.get(source, NOTHING) for source in sorted(sources)}

    def inherited(self, sources: Iterable[str]) -> Policy:
        """The policy of what is made of ``sources``: that of each."""
        first, *rest = (policy.without_unit() for policy in self.of(sources).values())
        for policy in rest:
            first = first if policy == first else first & policy
        return first

    # -- finding and computing

    def finds(self, principal: Principal, sources: Iterable[str]) -> bool:
        """Whether ``principal`` is shown what is made of ``sources``."""
        return _owner(principal) or all(p.permits("find", principal.name, principal.role.value) for p in self.of(sources).values())

    def compute(self, principal: Principal, sources: frozenset[str], operator: Operator | Kernel) -> None:
        """Raise `PolicyError` unless ``principal`` may run ``operator`` on what derives from ``sources``."""
        now = self.clock()
        if not _owner(principal) and not all(
            p.permits("compute", principal.name, principal.role.value) and p.runs(operator.kind) and not p.ended(now)
            for p in self.of(sources).values()
        ):
            self._refuse_compute(principal, sources, operator)

    def _refuse_compute(self, principal: Principal, sources: frozenset[str], operator: Operator | Kernel) -> None:
        for source, policy in self.of(sources).items():
            if policy.ended(self.clock()):
                raise PolicyError(f"the policy of {source} has expired: ask {self.name}'s owner for a new one")
            if not policy.permits("compute", principal.name, principal.role.value):
                raise PolicyError(f"the policy of {source} (compute) does not let {principal.name} compute with it")
            if not policy.runs(operator.kind):
                allowed = [name for name in CLASSES if all(policy.runs(kind) for kind in CLASSES[name])]
                raise PolicyError(
                    f"the policy of {source} (ops) does not allow {operator.name}: of operators, it allows {', '.join(allowed)}"
                )

    def explain(self, principal: Principal, sources: Iterable[str]) -> str:
        """Which rules hold for a value of ``sources``, and what would let it go: the same whatever is in it, and never a count."""
        lines = [] if self.of(sources) else ["it is public: it may leave"]
        for source, policy in self.of(sources).items():
            lines.append(f"{source}: lets go {policy.ways()}")
            if not policy.permits("release", principal.name, principal.role.value):
                lines.append(f"{source}: release to {principal.name} is not allowed")
            if policy.ended(self.clock()):
                lines.append(f"{source}: its policy has expired")
            lines += [f"{source}: at most {p.rate.count} releases in {p.rate.seconds:g} s" for p in policy.parts() if p.rate is not None]
        return "\n".join(lines)

    # -- sharing

    def shared(self, sources: Iterable[str]) -> bool:
        """Whether values of ``sources`` may become shares at all."""
        return all(part.share for policy in self.of(sources).values() for part in policy.parts())

    def share(self, principal: Principal, sources: frozenset[str], members: Iterable[bytes | None]) -> None:
        """Raise `SendNotPermittedError` unless ``principal`` may compute on shares of ``sources`` in a group whose other members, their
        provider too, have proved to have the keys ``members``."""
        names = [self._named.get(member) if member is not None else None for member in members]
        for source, policy in self.of(sources).items():
            named = all(name is not None and policy.moves_to(name) for name in names)
            if not names or not named or policy.ended(self.clock()) or not policy.permits("compute", principal.name, principal.role.value):
                raise SendNotPermittedError(
                    f"an operand is a share of PRIVATE data: the policy of {source} (share) lets it take part only in groups whose other "
                    f"members and provider are {', '.join(policy.share) or 'nobody'}, known here by their keys ([registered])"
                )

    # -- releasing

    def refusal(self, sources: Iterable[str]) -> str:
        """Why a value of ``sources`` stays, and what would not: the same words whatever is the matter with it."""
        parts = [f"{source} lets go {policy.ways()}" for source, policy in self.of(sources).items()]
        return f"it derives from PRIVATE data of {self.name} ({', '.join(sorted(sources))}): {'; '.join(parts) or 'no policy lets it go'}"

    def free(self, principal: Principal, label: Label) -> bool:
        """Whether a value with ``label`` may simply leave to ``principal``."""
        return all(part.free for policy in self.of(label.sources).values() for part in policy.parts()) and self.open(
            principal, label.sources
        )

    def open(self, principal: Principal, sources: Iterable[str]) -> bool:
        """Whether anything of ``sources`` may leave to ``principal``, now."""
        return all(
            policy.permits("release", principal.name, principal.role.value) and not policy.ended(self.clock())
            for policy in self.of(sources).values()
        )

    def timely(self, principal: Principal, sources: Iterable[str], *, count: bool) -> bool:
        """Whether a release to ``principal`` is within the rates of ``sources``. ``count``: it takes place then, and is counted before
        anybody else's is looked at."""
        limits = {source: [p.rate for p in policy.parts() if p.rate is not None] for source, policy in self.of(sources).items()}
        with self.lock:
            now = self.clock()
            for source, rates in limits.items():
                past = self.history.times(source, principal.name) if rates else []
                if any(sum(at > now - rate.seconds for at in past) >= rate.count for rate in rates):
                    return False
            for source, rates in limits.items():
                if count and rates:
                    self.history.count(source, principal.name, now, now - max(r.seconds for r in rates))
        return True

    def aggregate(self, items: Sequence[Asked]) -> bool:
        """Whether ``items`` may leave as aggregates (R1), all together. If so they count as having left when this returns; if not, and
        that tells something, it is counted."""
        if any(item.hopeless for item in items):
            return False
        with self.lock:
            changed: dict[str, Partition] = {}
            allowed = True
            for source, policy in self.of(frozenset[str]().union(*(item.label.sources for item in items))).items():
                frame = self._frames[source]
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
                changed = {s: self._partition(self._frames[s]).with_told(p.told) for s, p in changed.items()}
            changed = {s: p for s, p in changed.items() if p is not self._partition(self._frames[s])}
            if changed:
                self.history.save({source: partition.dump() for source, partition in changed.items()})
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
            stored = self.history.load(frame.name)
            known = Partition.fresh(frame.count) if stored is None else Partition.load(stored)
        known = self._partitions[frame.name] = known.of_size(frame.count)
        return known

    def must_count(self, name: str) -> None:
        """Raise `ConfigurationError` for a dataset whose refusals nobody counts."""
        if name not in self._frames:
            raise ConfigurationError(f"dataset {name} is public: nothing of it is refused, and nothing counted")

    def forgive(self, name: str) -> None:
        """Start counting refusals of dataset ``name`` anew; what has left stays known."""
        with self.lock:
            partition = self._partition(self._frames[name]).with_told(0)
            self.history.save({name: partition.dump()})
            self._partitions[name] = partition


def takes(tensor: torch.Tensor, policy: Policy) -> tuple[int, int]:
    """Bytes that `Policies.admit` keeps besides ``tensor``, and those that it takes meanwhile."""
    rows = len(tensor) if tensor.dim() else 1
    return PLACE * rows, PLACE * rows + (48 * tensor.numel() if _of_sums(policy) else 0)


def _of_sums(policy: Policy) -> bool:
    return any(part.aggregate is not None for part in policy.parts())


def _of_rows(policy: Policy) -> bool:
    """Whether it asks which rows a value was made of."""
    return any(part.aggregate is not None or part.dp is not None for part in policy.parts())


def by_column(name: str, policy: Policy, columns: Sequence[str]) -> Policy:
    """``policy``, with the number of the one of dataset ``name``'s ``columns`` that its unit is, where it has that by name."""
    if type(policy.unit) is not str:
        return policy
    if policy.unit not in columns:
        known = ", ".join(columns) or "no names"
        raise ConfigurationError(f"dataset {name} has no column {policy.unit!r} for its unit; it has {known}")
    return replace(policy.without_unit(), unit=columns.index(policy.unit))


def columns_in(description: str, width: int) -> list[str]:
    """The names in a description's "columns: a, b, c", if they are as many as the columns."""
    found = re.search(r"columns: ([^;\n]*)", description)
    names = [name.strip() for name in found[1].split(",")] if found else []
    return names if len(names) == width else []


def parse_policy(name: str, text: str) -> Policy:
    """The policy of dataset ``name`` that a message describes, as JSON of `Policy.tables`. Raises `ConfigurationError`."""
    try:
        tables = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"the policy of {name} is no JSON") from None
    return from_tables(name, tables)


def _owner(principal: Principal) -> bool:
    return principal.role.value == "owner"
