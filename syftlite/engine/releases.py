"""The messages about releases: a scientist files a request and asks how it stands, the owner lists them and decides (gate.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from syftlite.engine.answers import PAGE, afford, room_of
from syftlite.engine.gate import Release, only_owner
from syftlite.engine.session import Session
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
        self.engine, self.gate = engine, engine.gate
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.FILE: self._file,
            m.STATUS: self._status,
            m.PENDING: self._pending,
            m.DECIDE: self._decide,
        }

    def _file(self, session: Session, request: int, numbers: Sequence[int], reason: str) -> Message:
        stored = [session.look_up(number) for number in numbers]
        afford(session, stored)
        return _state(request, self.gate.file(session.principal, list(zip(numbers, stored, strict=True)), reason))

    def _status(self, session: Session, request: int, release: str) -> Message:
        return _state(request, self.gate.status(session.principal, release))

    def _pending(self, session: Session, request: int, skip: int) -> Message:
        only_owner(session.principal)
        releases = sorted(self.gate.releases.values(), key=lambda r: (r.state != "pending", r.filed_at))
        rows: list[tuple[Any, ...]] = []
        room = PAGE
        for r in releases[skip:]:
            what = tuple(text[:MAX_WHAT_TEXT] for text in r.what[:MAX_WHAT])
            if len(r.what) > MAX_WHAT:
                what += (f"and {len(r.what) - MAX_WHAT} more",)
            room -= 64 + room_of((r.principal, r.reason, *what))
            if rows and room < 0:
                break
            rows.append((r.id, r.principal, r.reason, what, r.state, r.filed_at))
        return (m.RELEASES, request, len(releases), tuple(rows))

    def _decide(self, session: Session, request: int, release: str, approve: bool, note: str) -> Message:
        return _state(request, self.gate.decide(session.principal, release, approve, note))


def _state(request: int, release: Release) -> Message:
    return (m.STATE, request, release.id, release.state, release.note)
