"""Values that come from another worker: expected under a ticket, delivered by whoever holds it, taken in by the session that expects them.

    client -> receiver   EXPECT ids           TICKET         a secret for one delivery
    client -> sender     SHIP ids, to, ticket                the sender's gate decides as for a get: all or none
    sender -> receiver   AUTH ticket, PUTs, SYNC             a connection that may do nothing else
    client -> receiver   ARRIVED id, of each                 in the session's own lane: from now on it is an object like any other

The client never sees the values. A ticket is 32 random bytes, works once, and expires.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

import torch

from syftlite.engine.journal import Clock
from syftlite.engine.session import Session
from syftlite.errors import ObjectNotFoundError, QuotaExceededError

TICKET_SECONDS = 120.0
MAX_EXPECTED = 1000
"""Values that a session may expect at once."""


class Expected(NamedTuple):
    """A value that ``session`` expects under id ``number``, of at most ``nbytes``."""

    session: Session
    number: int
    nbytes: int
    expires: float


class Arrivals:
    """Tickets that are out, and what came for them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._tickets: dict[str, tuple[Expected, ...]] = {}
        self._underway: dict[tuple[int, int], Expected] = {}
        self._arrived: dict[tuple[int, int], tuple[Expected, torch.Tensor, bool]] = {}

    def expect(self, session: Session, parcels: Sequence[tuple[int, int]]) -> str:
        """A ticket for one delivery of ``parcels`` to ``session``: the number to store each under, and its bytes at most."""
        with self._lock:
            self._expire()
            mine = self._of(session)
            if len(mine) + len(parcels) > MAX_EXPECTED:
                raise QuotaExceededError(f"{len(mine)} values are expected already, of {MAX_EXPECTED:,} at most: let some arrive first")
            session.reserve(sum(nbytes for _, nbytes in parcels) + sum(e.nbytes for e in mine))
            ticket, expires = secrets.token_urlsafe(32), self.clock() + TICKET_SECONDS
            self._tickets[_hash(ticket)] = tuple(Expected(session, *parcel, expires) for parcel in parcels)
            return ticket

    def redeem(self, ticket: str) -> tuple[Expected, ...] | None:
        """The values that ``ticket`` stands for, once."""
        with self._lock:
            self._expire()
            found = self._tickets.pop(_hash(ticket), None)
            for expected in found or ():
                self._underway[(expected.session.prefix, expected.number)] = expected
            return found

    def deliver(self, expected: Expected, tensor: torch.Tensor, *, shared: bool = False) -> None:
        """Keep what came until its session takes it in. ``shared``: it is a share. Raises `QuotaExceededError` if it is too large."""
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes > expected.nbytes:
            raise QuotaExceededError(f"{nbytes:,} bytes were delivered where {expected.nbytes:,} were expected")
        place = (expected.session.prefix, expected.number)
        with self._lock:
            if self._underway.pop(place, None) is None:
                raise ObjectNotFoundError("the delivery came twice, too late, or after its session had ended")
            self._arrived[place] = (expected, tensor, shared)

    def take_in(self, session: Session, number: int) -> tuple[torch.Tensor, bool]:
        """What came for ``number``, and whether it is a share. Raises `ObjectNotFoundError`."""
        with self._lock:
            self._expire()
            found = self._arrived.pop((session.prefix, number), None)
        if found is None:
            raise ObjectNotFoundError(f"nothing has arrived for object {number}")
        return found[1:]

    def forget(self, session: Session) -> None:
        """The session has ended: nothing more is expected for it."""
        with self._lock:
            self._tickets = {k: mine for k, mine in self._tickets.items() if mine[0].session is not session}
            self._underway = {k: e for k, e in self._underway.items() if e.session is not session}
            self._arrived = {k: v for k, v in self._arrived.items() if k[0] != session.prefix}

    def _of(self, session: Session) -> list[Expected]:
        """What ``session`` expects, is being sent, or has not taken in: all of it counts towards its quota."""
        awaited, arrived = chain.from_iterable(self._tickets.values()), (expected for expected, *_ in self._arrived.values())
        return [e for e in chain(awaited, self._underway.values(), arrived) if e.session is session]

    def _expire(self) -> None:
        now = self.clock()
        self._tickets = {k: mine for k, mine in self._tickets.items() if mine[0].expires > now}
        self._underway = {k: e for k, e in self._underway.items() if e.expires > now}
        self._arrived = {k: v for k, v in self._arrived.items() if v[0].expires > now}


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
