"""The gate: the one place through which a value leaves, whatever the message was.

    PUBLIC            leaves
    PRIVATE           leaves to the owner; to anyone else only what the owner approved: this content, to this principal, once

An approval is bound to a keyed digest of the content, so a value that changed after it was filed is refused again. Every decision is
in the journal before it takes effect. A failed value keeps its label: whether it failed is told to whom the value could be told.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b

import torch

from syftlite.engine.executor import Poisoned
from syftlite.engine.journal import Clock, Journal
from syftlite.engine.session import Principal, Role, Stored
from syftlite.errors import GetNotPermittedError, NotOwnerError, QuotaExceededError, RequestNotFoundError
from syftlite.ops.spec import Spec
from syftlite.policy.labels import Label

MAX_PENDING = 100
REMEDY = "ask its owner: .request(reason='...') or .get(reason='...')"


@dataclass
class Release:
    """A request to let values go. ``state`` is pending, approved, denied or released."""

    id: str
    principal: str
    reason: str
    what: list[str]
    digests: list[bytes]
    filed_at: float
    state: str = "pending"
    note: str = ""
    outstanding: set[bytes] = field(default_factory=set)


class Gate:
    """Decides what leaves worker ``name``."""

    def __init__(self, name: str, journal: Journal, clock: Clock) -> None:
        self.name, self.journal, self.clock = name, journal, clock
        self.releases: dict[str, Release] = {}
        self._key = secrets.token_bytes(32)
        self._lock = threading.RLock()

    def permit(self, principal: Principal, label: Label) -> None:
        """Raise `GetNotPermittedError` unless anything with ``label`` may be told to ``principal`` without approval."""
        if label.private and principal.role is not Role.OWNER:
            self.journal.append("refused", {"principal": principal.name, "sources": sorted(label.sources)})
            raise GetNotPermittedError(f"it derives from PRIVATE data of {self.name} ({', '.join(sorted(label.sources))}); {REMEDY}")

    def release(self, principal: Principal, stored: Sequence[Stored]) -> list[torch.Tensor]:
        """The values of ``stored``, all or none. Raises `GetNotPermittedError`, or `Poisoned` for a value that never came."""
        held = [item for item in stored if item[1].label.private and principal.role is not Role.OWNER]
        if held:
            with self._lock:
                self._spend(principal, held)
        values: list[torch.Tensor] = []
        for tensor, cell in stored:
            if cell.mark is not None and cell.mark.poison is not None:
                raise Poisoned(cell.mark.poison)
            values.append(tensor)  # type: ignore[arg-type]
        return values

    def _spend(self, principal: Principal, held: Sequence[Stored]) -> None:
        used: list[tuple[Release, bytes]] = []
        for item in held:
            approval = self._approval(principal, item)
            if approval is None:
                self.permit(principal, item[1].label)
            else:
                used.append(approval)
        self.journal.append("released", {"principal": principal.name, "releases": sorted({r.id for r, _ in used})})
        for release, digest in used:
            release.outstanding.discard(digest)
            if not release.outstanding:
                release.state = "released"

    def _approval(self, principal: Principal, item: Stored) -> tuple[Release, bytes] | None:
        candidates = [r for r in list(self.releases.values()) if r.state == "approved" and r.principal == principal.name]
        if not candidates:
            return None
        digest = self._digest(item)
        return next(((r, digest) for r in candidates if digest in r.outstanding), None)

    def _digest(self, item: Stored) -> bytes:
        tensor, cell = item
        digest = blake2b(key=self._key, digest_size=32)
        if tensor is None or (cell.mark is not None and cell.mark.poison is not None):
            digest.update(repr(cell.mark and cell.mark.poison).encode())
        else:
            digest.update(repr(Spec.contiguous(tensor.shape, tensor.dtype)).encode())
            flat = tensor.contiguous().view(-1)
            if flat.numel():
                digest.update(flat.view(torch.uint8).numpy().data)
        return digest.digest()

    def file(self, principal: Principal, stored: Sequence[Stored], reason: str) -> Release:
        """File a request to release ``stored`` to ``principal``."""
        pending = sum(r.state == "pending" and r.principal == principal.name for r in list(self.releases.values()))
        if pending >= MAX_PENDING:
            raise QuotaExceededError(f"{pending} requests of {principal.name} are pending: wait for the owner's decisions")
        digests = [self._digest(item) for item in stored]
        what = [_summary(item) for item in stored]
        release = Release(secrets.token_hex(4), principal.name, reason, what, digests, self.clock())
        self.journal.append("filed", {"release": release.id, "principal": principal.name, "reason": reason, "what": what})
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
            release.outstanding = set(release.digests) if approve else set()
            return release

    def status(self, principal: Principal, number: str) -> Release:
        """The request, if it is ``principal``'s (or the owner asks)."""
        release = self.releases.get(number)
        if release is None or (principal.role is not Role.OWNER and release.principal != principal.name):
            raise RequestNotFoundError(f"you have no request {number}")
        return release


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
