"""The gate: the one place through which a value leaves, whatever the message was.

    PUBLIC            leaves
    PRIVATE           leaves to the owner; to anyone else only what the owner approved: this object, unchanged, to this principal, once

For a `get`, an approval is bound to the object and to how often its storage had been written when it was filed, not to its content: an
approval by content would answer "is this other private value equal to that one?". A keyed digest of the content is in the journal. Every
decision is there before it takes effect. What was filed can also be fetched as it was then (requests.py). A failed value keeps its label:
whether it failed is told to whom the value could be told.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, NoReturn

import torch

from syftlite.engine.executor import Poisoned
from syftlite.engine.journal import Clock, Journal
from syftlite.engine.policies import Policies
from syftlite.engine.requests import DAY, Kept, Release, Requests, Store, Terms, Version
from syftlite.engine.session import Principal, Role, Session, Still, Stored
from syftlite.engine.sums import Asked
from syftlite.errors import GetNotPermittedError, NotOwnerError
from syftlite.ops.spec import Spec
from syftlite.policy.labels import Label

Item = tuple[int, Stored]
"""An object's id and what is stored under it."""


class Gate:
    """Decides what leaves worker ``name``."""

    def __init__(
        self, name: str, journal: Journal, clock: Clock, policies: Policies, store: Store | None = None, secret: bytes | None = None
    ) -> None:
        self.name, self.journal, self.clock, self.policies = name, journal, clock, policies
        self.requests = Requests(journal, clock, store, self.terms)
        self._key = secret or secrets.token_bytes(32)
        self._lock = self.requests.lock

    def terms(self, sources: Iterable[str]) -> Terms:
        """What the policies of ``sources`` ask of an approval. Raises `GetNotPermittedError` where one of them knows none."""
        quorum, seconds = 1, 30 * DAY
        for policy in self.policies.of(sources).values():
            for part in policy.parts():
                if part.approve is not None:
                    quorum, seconds = max(quorum, part.approve.quorum), min(seconds, part.approve.expires or seconds)
                elif not part.free:  # what is handed out by a request's number meets no other rule
                    raise GetNotPermittedError(self.policies.refusal(sources))
        return Terms(quorum, seconds)

    def permit(self, principal: Principal, label: Label) -> None:
        """Let something with ``label`` be told to ``principal``, a release. Raises `GetNotPermittedError` where that takes an approval."""
        if label.shared:
            raise GetNotPermittedError(f"it is {self.name}'s share of a secret, which leaves only re-randomised: get() the shared tensor")
        if label.private and principal.role is not Role.OWNER:
            if not self.policies.free(principal, label) or not self.policies.timely(principal, label.sources, count=True):
                self._refuse(principal, label.sources)
            self.journal.append("released", {"principal": principal.name, "releases": [], "sources": sorted(label.sources)})

    def _refuse(self, principal: Principal, sources: Iterable[str]) -> NoReturn:
        self.journal.append("refused", {"principal": principal.name, "sources": sorted(sources)})
        raise GetNotPermittedError(self.policies.refusal(sources))

    def release(self, principal: Principal, items: Sequence[Item]) -> list[torch.Tensor]:
        """The values of ``items``, all or none. Raises `GetNotPermittedError`, or `Poisoned` for a value that never came."""
        marked = [item for item in items if item[1][1].mark is not None]
        for _, (_, cell) in marked:
            if cell.label.shared and (cell.mark is None or cell.mark.poison is None):
                self.permit(principal, cell.label)
        still = Still([stored for _, stored in items])
        if marked and principal.role is not Role.OWNER:
            held = [item for item in marked if item[1][1].label.private]
            if held:
                with self._lock:
                    self._spend(principal, held)
        still.check()
        values: list[torch.Tensor] = []
        for tensor, cell in still.stored:
            if cell.mark is not None and cell.mark.poison is not None:
                raise Poisoned(cell.mark.poison)
            values.append(tensor)  # type: ignore[arg-type]
        return values

    def _spend(self, principal: Principal, held: Sequence[Item]) -> None:
        """Let ``held`` go, all of it, or raise; every policy of every source of each must have a way for it."""
        used: list[tuple[Release, int]] = []
        sums: list[Item] = []
        leaving = [source for _, (_, cell) in held for source in cell.label.sources]
        sources = frozenset(leaving)
        if not self.policies.open(principal, sources) or not self.policies.timely(principal, leaving, count=False):
            self._refuse(principal, sources)
        for number, stored in held:
            approval = self.requests.approved(principal, number, stored)
            parts = [part for policy in self.policies.of(stored[1].label.sources).values() for part in policy.parts()]
            if not parts or not all(part.free or part.aggregate or (part.approve and approval) for part in parts):
                self._refuse(principal, sources)
            if approval is not None:
                used.append((approval, number))
            if not all(part.free or (part.approve and approval) for part in parts):
                sums.append((number, stored))
        self._sum(principal, sources, sums)
        if not self.policies.timely(principal, leaving, count=True):
            self._refuse(principal, sources)
        record: dict[str, Any] = {"principal": principal.name, "releases": sorted({r.id for r, _ in used})}
        if sums:
            record |= {"sources": sorted(sources), "aggregates": len(sums)}
        self.journal.append("released", record)
        for release, number in used:
            self.requests.used(release, number)

    def _sum(self, principal: Principal, sources: frozenset[str], items: Sequence[Item]) -> None:
        """Let ``items`` go as aggregates, or raise. What has left already, unchanged, costs nothing again."""
        fresh = [stored for _, stored in items if not _has_left(stored)]
        if not fresh:
            return
        writes = [cell.writes for _, cell in fresh]  # before its label is looked at: another session may write to it meanwhile
        asked = [Asked(cell.label, 1 if t is None else max(t.numel(), 1), t is None or cell.poisoned) for t, cell in fresh]
        if not self.policies.aggregate(asked):
            self._refuse(principal, sources)
        for (tensor, cell), times in zip(fresh, writes, strict=True):
            if tensor is not None:
                cell.left = (times, Spec.of(tensor))

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

    def file(
        self, principal: Principal, filed: dict[int, Version], still: Still, values: Sequence[Kept], reason: str, program: list[str]
    ) -> Release:
        """File a request to release the objects ``filed`` to ``principal``: ``still`` those whose ``values`` were made by ``program``."""
        sources = frozenset[str]().union(*(cell.label.sources for _, cell in still.stored))
        digests = [self._digest(stored).hex() for stored in still.stored]
        what = [_summary(stored) for stored in still.stored]
        nbytes = sum(t.numel() * t.element_size() for t, _ in still.stored if t is not None)  # those that failed count as they would have
        still.check()
        return self.requests.file(principal, filed, values, nbytes, reason, what, sorted(sources), program, digests)

    def take(self, principal: Principal, number: str) -> list[Kept]:
        """The values of an approved request, once, to who asked, as far as the policies of now still allow it."""
        with self._lock:
            filed = self.requests.status(principal, number)
            sources, leaving = frozenset(filed.sources), list(filed.sources) * len(filed.what)
            if principal.role is not Role.OWNER:
                if not self.policies.open(principal, sources) or not self.policies.timely(principal, leaving, count=False):
                    self._refuse(principal, sources)
                self.terms(sources)
                self.requests.must_be_approved(principal, number)
                if not self.policies.timely(principal, leaving, count=True):
                    self._refuse(principal, sources)
            return self.requests.take(principal, number)


def _has_left(stored: Stored) -> bool:
    tensor, cell = stored
    return tensor is not None and cell.left == (cell.writes, Spec.of(tensor))


def speaker(session: Session, user: str | None) -> Principal:
    """Whom ``session`` asks for: its own principal or, where that is the owner, ``user``. Raises `GetNotPermittedError`."""
    if user is None or user == session.principal.name:
        return session.principal
    if session.principal.role is not Role.OWNER:
        raise GetNotPermittedError(f"this connection is {session.principal.name}, not {user}: connect with {user}'s token")
    return Principal(user, Role.SCIENTIST)


def only_owner(principal: Principal) -> None:
    """Raise `NotOwnerError` unless ``principal`` is the owner."""
    if principal.role is not Role.OWNER:
        raise NotOwnerError(f"only the owner may do this, and {principal.name} is a {principal.role.value}")


def _summary(item: Stored) -> str:
    """What it is, for who asks and who decides: of a PRIVATE value the same whether it failed."""
    tensor, cell = item
    sources = ", ".join(sorted(cell.label.sources)) or "public"
    if tensor is None or (cell.poisoned and not cell.label.private):
        return f"a failed operation, from {sources}"
    return f"{Spec.contiguous(tensor.shape, tensor.dtype)} from {sources}"
