"""The gate: the one place through which a value leaves, whatever the message was.

    PUBLIC            leaves
    PRIVATE           leaves to the owner; to anyone else only what the owner approved: this object, unchanged, to this principal, once

An approval is bound to the object and to how often its storage had been written when it was filed, not to its content: an approval by
content would answer "is this other private value equal to that one?". A keyed digest of the content is in the journal. Every decision is
there before it takes effect. A failed value keeps its label: whether it failed is told to whom the value could be told.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NamedTuple, NoReturn

import torch

from syftlite.engine.executor import Poisoned
from syftlite.engine.journal import Clock, Journal
from syftlite.engine.policies import Asked, Policies
from syftlite.engine.session import Cell, Principal, Role, Stored
from syftlite.errors import GetNotPermittedError, NotOwnerError, QuotaExceededError, RequestNotFoundError
from syftlite.ops.spec import Spec
from syftlite.policy.labels import Label

MAX_PENDING = 100


Item = tuple[int, Stored]
"""An object's id and what is stored under it."""


class Version(NamedTuple):
    """An object's storage and how often it had been written."""

    cell: Cell
    writes: int


@dataclass
class Release:
    """A request to let values go. ``state`` is pending, approved, denied or released."""

    id: str
    principal: str
    reason: str
    what: list[str]
    filed: dict[int, Version]
    filed_at: float
    state: str = "pending"
    note: str = ""
    outstanding: dict[int, Version] = field(default_factory=dict)


class Gate:
    """Decides what leaves worker ``name``."""

    def __init__(self, name: str, journal: Journal, clock: Clock, policies: Policies) -> None:
        self.name, self.journal, self.clock, self.policies = name, journal, clock, policies
        self.releases: dict[str, Release] = {}
        self._key = secrets.token_bytes(32)
        self._lock = threading.RLock()

    def permit(self, principal: Principal, label: Label) -> None:
        """Raise `GetNotPermittedError` unless anything with ``label`` may be told to ``principal`` without approval."""
        if label.shared:
            raise GetNotPermittedError(f"it is {self.name}'s share of a secret, which leaves only re-randomised: get() the shared tensor")
        if label.private and principal.role is not Role.OWNER and not self.policies.free(principal, label):
            self._refuse(principal, label.sources)

    def _refuse(self, principal: Principal, sources: Iterable[str]) -> NoReturn:
        self.journal.append("refused", {"principal": principal.name, "sources": sorted(sources)})
        raise GetNotPermittedError(self.policies.refusal(sources))

    def release(self, principal: Principal, items: Sequence[Item]) -> list[torch.Tensor]:
        """The values of ``items``, all or none. Raises `GetNotPermittedError`, or `Poisoned` for a value that never came."""
        marked = [item for item in items if item[1][1].mark is not None]
        for _, (_, cell) in marked:
            if cell.label.shared and (cell.mark is None or cell.mark.poison is None):
                self.permit(principal, cell.label)
        if marked and principal.role is not Role.OWNER:
            held = [item for item in marked if item[1][1].label.private]
            if held:
                with self._lock:
                    self._spend(principal, held)
        values: list[torch.Tensor] = []
        for _, (tensor, cell) in items:
            if cell.mark is not None and cell.mark.poison is not None:
                raise Poisoned(cell.mark.poison)
            values.append(tensor)  # type: ignore[arg-type]
        return values

    def _spend(self, principal: Principal, held: Sequence[Item]) -> None:
        """Let ``held`` go, all of it, or raise; every policy of every source of each must have a way for it."""
        used: list[tuple[Release, int]] = []
        sums: list[Item] = []
        sources = frozenset[str]().union(*(cell.label.sources for _, (_, cell) in held))
        if not self.policies.open(principal, sources) or not self.policies.timely(principal, sources, count=False):
            self._refuse(principal, sources)
        for number, stored in held:
            approval = self._approval(principal, number, stored[1])
            parts = [part for policy in self.policies.of(stored[1].label.sources).values() for part in policy.parts()]
            if not parts or not all(part.free or part.aggregate or (part.approve and approval) for part in parts):
                self._refuse(principal, sources)
            if approval is not None:
                used.append((approval, number))
            if not all(part.free or (part.approve and approval) for part in parts):
                sums.append((number, stored))
        self._sum(principal, sources, sums)
        self.policies.timely(principal, sources, count=True)
        record: dict[str, Any] = {"principal": principal.name, "releases": sorted({r.id for r, _ in used})}
        if sums:
            record |= {"sources": sorted(sources), "aggregates": len(sums)}
        self.journal.append("released", record)
        for release, number in used:
            release.outstanding.pop(number, None)  # a message may name an object twice
            if not release.outstanding:
                release.state = "released"

    def _sum(self, principal: Principal, sources: frozenset[str], items: Sequence[Item]) -> None:
        """Let ``items`` go as aggregates, or raise. What has left already, unchanged, costs nothing again."""
        fresh = [stored for _, stored in items if not _has_left(stored)]
        if not fresh:
            return
        asked = [Asked(cell.label, 1 if t is None else max(t.numel(), 1), t is None or cell.poisoned) for t, cell in fresh]
        if not self.policies.aggregate(asked):
            self._refuse(principal, sources)
        for tensor, cell in fresh:
            if tensor is not None:
                cell.left = (cell.writes, Spec.of(tensor))

    def _approval(self, principal: Principal, number: int, cell: Cell) -> Release | None:
        for release in self.releases.values():
            if release.state == "approved" and release.principal == principal.name:
                approved = release.outstanding.get(number)
                if approved is not None and approved.cell is cell and approved.writes == cell.writes:
                    return release
        return None

    def _digest(self, item: Stored) -> bytes:
        tensor, cell = item
        digest = blake2b(key=self._key, digest_size=32)
        if tensor is None or (cell.mark is not None and cell.mark.poison is not None):
            digest.update(repr(cell.mark and cell.mark.poison).encode())
        else:
            digest.update(repr(Spec.contiguous(tensor.shape, tensor.dtype)).encode())
            flat = tensor.contiguous().view(-1).cpu()
            if flat.numel():
                digest.update(flat.view(torch.uint8).numpy().data)
        return digest.digest()

    def file(self, principal: Principal, items: Sequence[Item], reason: str) -> Release:
        """File a request to release ``items`` to ``principal``."""
        with self._lock:
            pending = sum(r.state == "pending" and r.principal == principal.name for r in self.releases.values())
            if pending >= MAX_PENDING:
                raise QuotaExceededError(f"{pending} requests of {principal.name} are pending: wait for the owner's decisions")
            filed = {number: Version(cell, cell.writes) for number, (_, cell) in items}
            what = [_summary(stored) for _, stored in items]
            digests = [self._digest(stored).hex() for _, stored in items]
            release = Release(secrets.token_hex(4), principal.name, reason, what, filed, self.clock())
            record = {"release": release.id, "principal": principal.name, "reason": reason, "what": what, "digests": digests}
            self.journal.append("filed", record)
            self.releases[release.id] = release
            return release

    def decide(self, principal: Principal, number: str, approve: bool, note: str) -> Release:
        """The owner's decision on a pending request."""
        only_owner(principal)
        with self._lock:
            release = self.releases.get(number)
            if release is None or release.state != "pending":
                raise RequestNotFoundError(f"no pending request {number}: `syftlite requests` lists them")
            state = "approved" if approve else "denied"
            self.journal.append(state, {"release": number, "by": principal.name, "note": note})
            release.state, release.note = state, note
            release.outstanding = dict(release.filed) if approve else {}
            return release

    def status(self, principal: Principal, number: str) -> Release:
        """The request, if it is ``principal``'s (or the owner asks)."""
        release = self.releases.get(number)
        if release is None or (principal.role is not Role.OWNER and release.principal != principal.name):
            raise RequestNotFoundError(f"you have no request {number}")
        return release


def _has_left(stored: Stored) -> bool:
    tensor, cell = stored
    return tensor is not None and cell.left == (cell.writes, Spec.of(tensor))


def only_owner(principal: Principal) -> None:
    """Raise `NotOwnerError` unless ``principal`` is the owner."""
    if principal.role is not Role.OWNER:
        raise NotOwnerError(f"only the owner may do this, and {principal.name} is a {principal.role.value}")


def _summary(item: Stored) -> str:
    tensor, cell = item
    sources = ", ".join(sorted(cell.label.sources)) or "public"
    if tensor is None or (cell.mark is not None and cell.mark.poison is not None):
        return f"a failed operation, from {sources}"
    return f"{Spec.contiguous(tensor.shape, tensor.dtype)} from {sources}"
