"""The messages about values that move between workers (arrivals.py), and the pointers that stay where they pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch

from syftlite.engine.answers import afford
from syftlite.engine.arrivals import Expected
from syftlite.engine.groups import SHARED
from syftlite.engine.marks import Mark, Poison
from syftlite.engine.session import REFERENCE_BYTES, Cell, Principal, Role, Session
from syftlite.engine.sharing import SHARE
from syftlite.errors import ProtocolError, SyftliteError, code_of
from syftlite.policy.labels import PUBLIC
from syftlite.wire import messages as m
from syftlite.wire.messages import Message

if TYPE_CHECKING:
    from syftlite.engine.engine import Engine


class Deliveries:
    """Handlers of the messages about moving values at ``engine``."""

    def __init__(self, engine: Engine) -> None:
        self.engine, self.arrivals = engine, engine.arrivals
        self.handlers: dict[int, Callable[..., Message | None]] = {
            m.EXPECT: self._expect,
            m.SHIP: self._ship,
            m.ARRIVED: self._arrived,
            m.REFER: self._refer,
        }

    def open(self, expected: Sequence[Expected]) -> Session:
        """The session of a peer that delivers what is ``expected``, one value at least."""
        session = self.engine.open_session(Principal(f"a peer of {expected[0].session.principal.name}", Role.PEER))
        session.delivers, session.max_bytes = {each.number: each for each in expected}, sum(each.nbytes for each in expected)
        return session

    def take(self, expected: Mapping[int, Expected], message: Message) -> Message | None:
        """Carry out a message of such a session."""
        if message[0] == m.PUT and message[1] in expected and isinstance(message[2], torch.Tensor):
            self.arrivals.deliver(expected[message[1]], message[2], shared=message[3] == SHARE)
            return None
        if message[0] == m.SYNC:
            return (m.DONE, message[1])
        raise ProtocolError("a ticket is for one delivery: PUT under each expected id, then SYNC")

    def _expect(self, session: Session, request: int, parcels: Sequence[tuple[int, int]]) -> Message:
        return (m.TICKET, request, self.arrivals.expect(session, [(session.claim(number), nbytes) for number, nbytes in parcels]))

    def _ship(self, session: Session, request: int, parcels: Sequence[tuple[int, int]], uri: str, ticket: str) -> Message:
        items = [(number, session.look_up(number)) for number, _ in parcels]
        afford(session, [stored for _, stored in items])
        values = self.engine.gate.release(session.principal, items)
        self.engine.peers.deliver(uri, ticket, ((to, self.engine.leave(value)) for (_, to), value in zip(parcels, values, strict=True)))
        return (m.DONE, request)

    def _arrived(self, session: Session, number: int) -> None:
        session.claim(number)
        try:
            tensor, shared = self.arrivals.take_in(session, number)
            session.put(number, self.engine.arrive(tensor), Mark(SHARED, None) if shared else None)
        except SyftliteError as error:
            session.objects[number] = (None, Cell(session, Mark(PUBLIC, Poison(code_of(error), str(error), 0, session.executed)), 0))

    def _refer(self, session: Session, number: int, worker: str, to: int) -> None:
        session.claim(number)
        try:
            session.reserve(REFERENCE_BYTES + len(worker))
        except SyftliteError as error:
            session.objects[number] = (None, Cell(session, Mark(PUBLIC, Poison(code_of(error), str(error), 0, session.executed)), 0))
            return
        session.refer(number, worker, to)
