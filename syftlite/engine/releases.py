"""The messages about releases: a scientist files a request and asks how it stands, the owner looks and decides (requests.py).

    FILE, STATUS, TAKE        who asks
    PENDING                   owner and auditor: all; others: their own
    INSPECT, DECIDE           the owner
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine.answers import PAGE, afford, room_of
from syftlite.engine.executor import Poisoned
from syftlite.engine.gate import only_owner
from syftlite.engine.marks import Poison
from syftlite.engine.provenance import gathered, program
from syftlite.engine.requests import Kept, Release, Version
from syftlite.engine.session import Principal, Session, Still, Stored
from syftlite.wire import messages as m
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine

MAX_WHAT = 20
"""How many of a request's values are described one by one, and with how many characters: a row must fit a page."""
MAX_WHAT_TEXT = 200


class Releases:
    """Handlers of the messages about releases at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.gate, self.requests = engine, engine.gate, engine.gate.requests
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.FILE: self._file,
            m.STATUS: self._status,
            m.PENDING: self._pending,
            m.DECIDE: self._decide,
            m.INSPECT: self._inspect,
            m.TAKE: self._take,
        }

    def _file(self, session: Session, request: int, numbers: Sequence[int], reason: str) -> Message:
        return _state(request, self.file(session, session.principal, numbers, reason))

    def file(self, session: Session, principal: Principal, numbers: Sequence[int], reason: str) -> Release:
        """File ``principal``'s request for objects of ``session``."""
        stored = [session.look_up(number) for number in numbers]
        afford(session, stored)
        for _, cell in stored:
            if cell.label.shared:
                self.gate.permit(principal, cell.label)
        versions = {number: Version.of(*item) for number, item in zip(numbers, stored, strict=True)}
        still = Still(stored)
        names = {number: name for name, number in self.engine.names.copy().items()}
        made = program(gathered(self._trails(session), session.prefix, numbers), numbers, names)
        values = [self._kept(item) for item in still.stored]
        return self.gate.file(principal, versions, still, values, reason, made)

    def _trails(self, session: Session) -> dict[int, list[Any]]:
        """What the sessions of this principal did, by their prefixes: what one has made, another may have found."""
        mine = [other for other in list(self.engine.sessions.values()) if other.principal == session.principal]
        return {other.prefix: list(other.trail.steps.copy()) for other in mine if other.trail is not None}

    def _kept(self, item: Stored) -> Kept:
        tensor, cell = item
        if cell.mark is not None and cell.mark.poison is not None:
            return cell.mark.poison
        assert tensor is not None
        return self.engine.leave(tensor)

    def _status(self, session: Session, request: int, release: str) -> Message:
        return _state(request, self.requests.status(session.principal, release))

    def _take(self, session: Session, request: int, release: str) -> Message:
        return (m.VALUES, request, _values(self.gate.take(session.principal, release)))

    def _inspect(self, session: Session, request: int, release: str, values: bool) -> Message:
        only_owner(session.principal)
        if values:
            return (m.VALUES, request, _values(self.requests.inspect(session.principal, release)))
        found = self.requests.status(session.principal, release)
        what, room = _what(found), PAGE - 8192
        lines: list[str] = []
        for line in reversed(found.program):
            room -= room_of((line,))
            if room < 0:
                lines.append("# earlier lines left out")
                break
            lines.append(line)
        votes = (found.expires_at, found.quorum, tuple(found.votes[:20]))
        return (m.REPORT, request, _row(found, what), lines[::-1], *votes)

    def _pending(self, session: Session, request: int, skip: int) -> Message:
        releases = self.requests.seen_by(session.principal)
        rows: list[tuple[Any, ...]] = []
        room = PAGE
        for r in releases[skip:]:
            what = _what(r)
            room -= 64 + room_of((r.principal, r.reason, *what))
            if rows and room < 0:
                break
            rows.append(_row(r, what))
        return (m.RELEASES, request, len(releases), tuple(rows))

    def _decide(self, session: Session, request: int, release: str, approve: bool, note: str) -> Message:
        only_owner(session.principal)
        return _state(request, self.requests.decide(session.principal, release, approve, note))


def _what(release: Release) -> tuple[str, ...]:
    what = tuple(text[:MAX_WHAT_TEXT] for text in release.what[:MAX_WHAT])
    return what if len(release.what) <= MAX_WHAT else (*what, f"and {len(release.what) - MAX_WHAT} more")


def _row(release: Release, what: tuple[str, ...]) -> tuple[Any, ...]:
    return (release.id, release.principal, release.reason, what, release.state, release.filed_at)


def _values(kept: Sequence[Kept]) -> list[torch.Tensor]:
    for value in kept:
        if isinstance(value, Poison):
            raise Poisoned(value)
    return [value for value in kept if isinstance(value, torch.Tensor)]


def _state(request: int, release: Release) -> Message:
    note = release.note
    if release.state == "pending" and release.votes:
        note = f"{len(release.votes)} of {release.quorum} owners have approved"
    return (m.STATE, request, release.id, release.state, note)
