"""What is where: the tags of objects, finding them by tags, listing and clearing a session.

A session is told of its own objects, of the owner's datasets, of what the same principal keeps in other sessions, and of what others
lend it; not of what a policy hides from it. Lists come by the page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine.answers import PAGE, room_of, spec_of
from syftlite.engine.session import FINDING, Card, Cell, Principal, Reference, Session, Stored
from syftlite.errors import NotOwnerError, SendNotPermittedError
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_TEXT
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine


class Catalogue:
    """The handlers at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.FIND: self._find,
            m.DESCRIBE: self._describe,
            m.LEND: self._lend,
            m.LIST: self._list,
            m.CLEAR: self._clear,
        }

    def _describe(self, session: Session, number: int, tags: Sequence[str], description: str) -> None:
        _, cell = session.look_up(number)
        if cell.owner is session:
            session.describe(number, Card(tuple(tags), description))

    def _lend(self, session: Session, request: int, number: int, readers: Sequence[str]) -> Message:
        """What was made of PRIVATE data is for that one's owner to show."""
        _, cell = session.look_up(number)
        if cell.owner is not session:
            raise NotOwnerError("it was found here, and is shown to others by the session that it is of")
        if cell.label.sources:
            raise SendNotPermittedError("what was made of PRIVATE data is not shown to other users: they find it where its owner lets them")
        if number not in session.cards:
            session.describe(number, Card((), ""))
        session.lent[number] = frozenset(readers)
        return (m.DONE, request)

    def _find(self, session: Session, request: int, tags: Sequence[str], skip: int) -> Message:
        wanted = set(tags)
        for other in list(self.engine.sessions.values()):
            for number in () if other is session else self._offered(other, session.principal):
                card = other.cards.get(number)
                if card is not None and wanted <= {*card.tags, str(number)}:
                    with FINDING:  # for one object: others wait for it on the event loop's thread
                        self._alias(session, other, number)
        found = {
            n: stored for n, stored in self._shown(session).items() if wanted <= {*self._card(session, n, stored[1]).tags, str(n)}
        }
        return self._page(session, request, found, skip)

    def _alias(self, session: Session, other: Session, number: int) -> None:
        """Have ``session`` name object ``number`` of ``other``, if it may know of it."""
        known, offered = session.objects.get(number), other.objects.get(number)
        if offered is None or offered[1].closing:  # its lane has just dropped it, or is about to label it
            return
        if offered[1].label.sources and number in other.lent and other.principal != session.principal:
            return
        if not self.engine.policies.finds(session.principal, offered[1].label.sources):
            return
        if known is None or known[1] is not offered[1]:
            session.drop(number)  # a name that a refused write had spoilt
            session.alias(number, *offered)
            offered[1].found = True

    def _offered(self, other: Session, principal: Principal) -> list[int]:
        """What of ``other`` somebody else's session may be told of, if its policies let it."""
        if other is self.engine.vault or other.principal == principal:
            return list(other.cards)
        return [number for number, readers in list(other.lent.items()) if principal.name in readers]

    def _shown(self, session: Session) -> dict[int, Stored]:
        """What ``session`` may be told of: all that is there now, but for found objects that a policy hides by now."""
        finds, stored = self.engine.policies.finds, session.stored()
        return {n: s for n, s in stored.items() if s[1].owner is session or finds(session.principal, s[1].label.sources)}

    def _page(self, session: Session, request: int, found: dict[int, Stored], skip: int) -> Message:
        rows: list[tuple[Any, ...]] = []
        room = PAGE
        for number in list(found)[skip:]:
            row = self._listed(session, number, *found[number])
            room -= 64 + 18 * len(row[1][1]) + room_of(row[2]) + room_of(row[3:4])
            if rows and room < 0:
                break
            rows.append(row)
        return (m.FOUND, request, len(found), tuple(rows))

    def _card(self, session: Session, number: int, cell: Cell) -> Card:
        return cell.owner.cards.get(number) or session.cards.get(number) or Card((), "")

    def _listed(self, session: Session, number: int, tensor: torch.Tensor | None, cell: Cell) -> tuple[Any, ...]:
        card = self._card(session, number, cell)
        spec = (0, (), (), 0) if tensor is None else spec_of(tensor)
        if isinstance(cell, Reference):
            card = Card(card.tags, f"a pointer to an object at {cell.at}"[: MAX_TEXT])
        return (number, spec, card.tags, card.description, cell.label.private, cell.owner is not session)

    def _list(self, session: Session, request: int, skip: int) -> Message:
        return self._page(session, request, self._shown(session), skip)

    def _clear(self, session: Session, request: int) -> Message:
        for number in list(session.objects):
            session.drop(number)
        return (m.DONE, request)
