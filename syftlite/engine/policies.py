"""What the owner's datasets may be used for: their policies, by name.

A label names its datasets, not their policies, so a stricter policy holds at once for all that was ever made of one. A dataset without
a policy lets nothing go. When values left is in a `History`, durable before one is handed over; so are aggregates (sums.py).
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from syftlite.engine.journal import Clock, History
from syftlite.engine.sums import Asked, Sums
from syftlite.errors import ConfigurationError, PolicyError, SendNotPermittedError
from syftlite.mpc.kernel import Kernel
from syftlite.ops.operator import Operator
from syftlite.policy.columns import by_column
from syftlite.policy.labels import Label, private
from syftlite.policy.lineage import PLACE, Frame, own
from syftlite.policy.rules import CLASSES, Policy, approve

if TYPE_CHECKING:
    from syftlite.engine.session import Principal

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
        self.sums = Sums(history)
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

    def watched(self, frame: Frame) -> bool:
        """Whether ``frame`` is how the policy of now tells rows apart: under another one they may have been other units'."""
        return self._frames.get(frame.name) is frame

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
                self.sums.forget(name)
                for kept in (self._policies, self._frames):
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
        """Whether releases to ``principal`` are within the rates of ``sources``, of each as many as it is named times. ``count``: they take
        place then, and are counted before anybody else's are looked at."""
        times = Counter(sources)
        limits = {source: [p.rate for p in policy.parts() if p.rate is not None] for source, policy in self.of(times).items()}
        with self.lock:
            now = self.clock()
            for source, rates in limits.items():
                past = self.history.times(source, principal.name) if rates else []
                if any(sum(at > now - rate.seconds for at in past) + times[source] > rate.count for rate in rates):
                    return False
            for source, rates in limits.items():
                if count and rates:
                    self.history.count(source, principal.name, now, now - max(r.seconds for r in rates), times[source])
        return True

    def aggregate(self, items: Sequence[Asked]) -> bool:
        """Whether ``items`` may leave as aggregates (R1), all together (`Sums.leave`)."""
        with self.lock:
            return self.sums.leave(items, self.of(frozenset[str]().union(*(item.label.sources for item in items))), self._frames)

    def must_count(self, name: str) -> None:
        """Raise `ConfigurationError` for a dataset whose refusals nobody counts."""
        if name not in self._frames:
            raise ConfigurationError(f"dataset {name} is public: nothing of it is refused, and nothing counted")

    def forgive(self, name: str) -> None:
        """Start counting refusals of dataset ``name`` anew; what has left stays known."""
        with self.lock:
            self.sums.forgive(self._frames[name])


def takes(tensor: torch.Tensor, policy: Policy) -> tuple[int, int]:
    """Bytes that `Policies.admit` keeps besides ``tensor``, and those that it takes meanwhile."""
    rows = len(tensor) if tensor.dim() else 1
    return PLACE * rows, PLACE * rows + (48 * tensor.numel() if _of_sums(policy) else 0)


def _of_sums(policy: Policy) -> bool:
    return any(part.aggregate is not None for part in policy.parts())


def _of_rows(policy: Policy) -> bool:
    """Whether it asks which rows a value was made of."""
    return any(part.aggregate is not None or part.dp is not None for part in policy.parts())


def _owner(principal: Principal) -> bool:
    return principal.role.value == "owner"
