"""Requests to let values go, from filing to delivery. They outlive the session that filed them, and the node as far as its store does.

    filed --> pending --> approved --> released          a value is handed out once
                 |`--> denied   `--> expired
                 `--> expired

Filing takes an owned copy of the values: it is what the owner inspects and what leaves, whatever becomes of the object, the session or the
node meanwhile. It can be fetched by the request's id (`take`), or by a `get` of the very object while that is unchanged (gate.py).
`quorum` different owners must approve; where it is more than one, none of them may be who asked (an owner alone reads everything anyway).
One denial denies.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch

from syftlite.engine.journal import Clock, Journal
from syftlite.engine.marks import Poison
from syftlite.engine.session import Cell, Principal, Role, Stored
from syftlite.errors import GetNotPermittedError, NotOwnerError, QuotaExceededError, RequestNotFoundError
from syftlite.ops.spec import Spec

MAX_PENDING = 100
MAX_KEPT = 1 << 30
"""Bytes of values that the node keeps for one principal's requests."""
MAX_KNOWN = 10_000
"""Requests that are remembered; the oldest decided ones are forgotten."""
DAY = 86_400.0
Kept = torch.Tensor | Poison
"""A value that may leave: of one that failed, why it did."""


class Version(NamedTuple):
    """An object's storage, how often it had been written, and which view of it the object is: ids are the client's to give, and to give
    again."""

    cell: Cell
    writes: int
    view: Spec | None

    @classmethod
    def of(cls, tensor: torch.Tensor | None, cell: Cell) -> Version:
        """What is stored now."""
        return cls(cell, cell.writes, None if tensor is None else Spec.of(tensor))

    def holds(self, stored: Stored) -> bool:
        """Whether ``stored`` is this very object still."""
        tensor, cell = stored
        return self.cell is cell and self[1:] == Version.of(tensor, cell)[1:]


class Terms(NamedTuple):
    """What a decision takes: approvals of ``quorum`` owners, within ``seconds`` of filing; an approval is good for as long again."""

    quorum: int = 1
    seconds: float = 30 * DAY


@dataclass
class Release:
    """A request. ``what`` and ``program`` are for people; ``votes``: who approved; ``nbytes``: what is kept. ``filed`` and ``outstanding``
    are the live objects, by id, as long as their session is."""

    id: str
    principal: str
    reason: str
    what: list[str]
    sources: list[str]
    program: list[str]
    nbytes: int
    filed_at: float
    expires_at: float
    quorum: int = 1
    state: str = "pending"
    note: str = ""
    votes: list[str] = field(default_factory=list)
    filed: dict[int, Version] = field(default_factory=dict)
    outstanding: dict[int, Version] = field(default_factory=dict)

    @property
    def open(self) -> bool:
        """Whether something may still leave by it."""
        return self.state in ("pending", "approved")


class Store(Protocol):
    """Where requests are kept: durable when a call returns, as far as the store is."""

    def load(self) -> Iterable[Release]:
        """All, oldest first."""

    def add(self, release: Release, values: Sequence[Kept]) -> None:
        """Keep a new one with its values."""

    def update(self, release: Release, *, keep: bool) -> None:
        """Keep its new state; without ``keep`` its values go."""

    def forget(self, number: str) -> None:
        """Remove one."""

    def values(self, number: str) -> list[Kept]:
        """The values of one."""


class MemoryStore:
    """A store that lives as long as the process."""

    def __init__(self) -> None:
        self._values: dict[str, list[Kept]] = {}

    def load(self) -> Iterable[Release]:
        """Nothing."""
        return ()

    def add(self, release: Release, values: Sequence[Kept]) -> None:
        """Keep copies of the values."""
        self._values[release.id] = [v.clone(memory_format=torch.contiguous_format) if isinstance(v, torch.Tensor) else v for v in values]

    def update(self, release: Release, *, keep: bool) -> None:
        """Let go of the values."""
        if not keep:
            self._values.pop(release.id, None)

    def forget(self, number: str) -> None:
        """The same."""
        self._values.pop(number, None)

    def values(self, number: str) -> list[Kept]:
        """The values."""
        return self._values.get(number, [])


class Requests:
    """The requests at a worker. ``terms``: what the policies of these datasets ask of a decision; it raises where they allow none."""

    def __init__(
        self, journal: Journal, clock: Clock, store: Store | None = None, terms: Callable[[Iterable[str]], Terms] | None = None
    ) -> None:
        self.journal, self.clock, self.store = journal, clock, store or MemoryStore()
        self.terms = terms or (lambda sources: Terms())
        self.all: dict[str, Release] = {release.id: release for release in self.store.load()}
        self.lock = threading.RLock()

    def file(
        self,
        principal: Principal,
        filed: dict[int, Version],
        values: Sequence[Kept],
        nbytes: int,
        reason: str,
        what: list[str],
        sources: list[str],
        program: list[str],
        digests: list[str],
    ) -> Release:
        """Keep copies of ``values``, which count as ``nbytes``, and ask for their release. Raises `QuotaExceededError`."""
        terms = self.terms(sources)
        with self.lock:
            mine = [r for r in self.current() if r.principal == principal.name]
            if (pending := sum(r.state == "pending" for r in mine)) >= MAX_PENDING:
                raise QuotaExceededError(f"{pending} requests of {principal.name} are pending: wait for the owner's decisions")
            if (kept := sum(r.nbytes for r in mine if r.open) + nbytes) > MAX_KEPT:
                raise QuotaExceededError(f"{kept:,} bytes would be kept for requests of {principal.name}, of at most {MAX_KEPT:,}")
            now = self.clock()
            number = secrets.token_hex(4)
            release = Release(number, principal.name, reason, what, sources, program, nbytes, now, now + terms.seconds, terms.quorum)
            release.filed = filed
            record = {"release": number, "principal": principal.name, "reason": reason, "what": what, "sources": sources}
            self.journal.append("filed", {**record, "digests": digests, "quorum": terms.quorum})
            self.store.add(release, values)
            self.all[number] = release
            self._forget_old()
            return release

    def _forget_old(self) -> None:
        for number in [r.id for r in self.all.values() if not r.open][: max(0, len(self.all) - MAX_KNOWN)]:
            self.store.forget(number)
            del self.all[number]

    def current(self) -> list[Release]:
        """All requests, those that are too old marked as expired."""
        with self.lock:
            for release in self.all.values():
                if release.open and release.expires_at <= self.clock():
                    self.journal.append("expired", {"release": release.id, "state": "expired"})
                    self._set(release, "expired")
            return list(self.all.values())

    def decide(self, principal: Principal, number: str, approve: bool, note: str) -> Release:
        """An owner's decision on a pending request. Raises `NotOwnerError` for who asked, `RequestNotFoundError`."""
        with self.lock:
            release = next((r for r in self.current() if r.id == number), None)
            if release is None or release.state != "pending":
                raise RequestNotFoundError(f"no pending request {number}: `syftlite requests` lists them")
            release.quorum = self._quorum(release)
            if principal.name == release.principal and release.quorum > 1:
                raise NotOwnerError(f"request {number} is your own, and takes {release.quorum} others: it is theirs to decide")
            votes = [*release.votes, principal.name] if approve and principal.name not in release.votes else release.votes
            record = {"release": number, "by": principal.name, "note": note}
            if approve and len(votes) < release.quorum:
                self.journal.append("voted", {**record, "said": f"approved, {len(votes)} of {release.quorum}"})
                release.votes = votes
                self.store.update(release, keep=True)
                return release
            state = "approved" if approve else "denied"
            self.journal.append(state, {**record, "state": state})
            release.votes, release.note = votes, note
            release.expires_at += self.clock() - release.filed_at if approve else 0.0
            self._set(release, state)
            release.outstanding = dict(release.filed) if approve else {}
            return release

    def _quorum(self, release: Release) -> int:
        """How many owners it takes: as many as when it was filed, and as policies ask for now."""
        try:
            return max(release.quorum, self.terms(release.sources).quorum)
        except GetNotPermittedError:
            return release.quorum  # no approval lets it go, and the gate says so

    def status(self, principal: Principal, number: str) -> Release:
        """The request, if it is ``principal``'s (or an owner or auditor asks)."""
        release = next((r for r in self.current() if r.id == number), None)
        if release is None or (principal.role not in SEE_ALL and release.principal != principal.name):
            raise RequestNotFoundError(f"you have no request {number}")
        return release

    def seen_by(self, principal: Principal) -> list[Release]:
        """The requests that ``principal`` may see, the undecided first, then by age."""
        seen = [r for r in self.current() if principal.role in SEE_ALL or r.principal == principal.name]
        return sorted(seen, key=lambda r: (r.state != "pending", r.filed_at))

    def inspect(self, principal: Principal, number: str) -> list[Kept]:
        """The values of a request that is still open, for an owner to look at: it lets nothing go to who asked."""
        with self.lock:
            release = self.status(principal, number)
            self.journal.append("inspected", {"by": principal.name, "release": number})
            return self.store.values(number) if release.open else []

    def take(self, principal: Principal, number: str) -> list[Kept]:
        """The values of an approved request, once, to who asked. Raises `GetNotPermittedError` otherwise."""
        with self.lock:
            release = self.must_be_approved(principal, number)
            values = list(self.store.values(number))
            record = {"principal": principal.name, "releases": [number], "sources": release.sources}
            self.journal.append("released", record)
            self.used(release)
            return values

    def must_be_approved(self, principal: Principal, number: str) -> Release:
        """The request, if what it is about may go to ``principal``. Raises `GetNotPermittedError` otherwise."""
        release = self.status(principal, number)
        if release.principal != principal.name or release.state != "approved":
            note = f": {release.note}" if release.note else ""
            raise GetNotPermittedError(f"request {number} of {release.principal} is {release.state}{note}")
        if principal.role is not Role.OWNER and (quorum := self._quorum(release)) > len(release.votes):
            told = f"{len(release.votes)} owners have approved request {number}, and the policy now takes {quorum}: ask anew"
            raise GetNotPermittedError(told)
        return release

    def approved(self, principal: Principal, number: int, stored: Stored) -> Release | None:
        """The approval by which object ``number``, as it is, may go to ``principal``."""
        for release in self.all.values():
            if release.state == "approved" and release.principal == principal.name and release.expires_at > self.clock():
                known = release.outstanding.get(number)
                if known is not None and known.holds(stored) and self._quorum(release) <= len(release.votes):
                    return release
        return None

    def used(self, release: Release, number: int | None = None) -> None:
        """An object of ``release`` goes (None: all do). A message may name one twice."""
        release.outstanding.pop(number, None) if number is not None else release.outstanding.clear()
        if not release.outstanding:
            self._set(release, "released")

    def _set(self, release: Release, state: str) -> None:
        release.state = state
        if not release.open:
            release.filed, release.outstanding = {}, {}
        self.store.update(release, keep=release.open)


SEE_ALL = (Role.OWNER, Role.AUDITOR)
"""Roles that see everybody's requests."""
