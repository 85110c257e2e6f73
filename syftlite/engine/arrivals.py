"""Values that come from another worker: expected under a ticket, delivered by whoever holds it, taken in by the session that expects them.

    client -> receiver   EXPECT ids           TICKET         a secret for one delivery
    client -> sender     SHIP ids, to, ticket                the sender's gate decides as for a get: all or none
    sender -> receiver   AUTH ticket, PUTs, SYNC             a connection that may do nothing else
    client -> receiver   ARRIVED id, of each                 in the session's own lane: from now on it is an object like any other

The client never sees the values. A ticket is 32 random bytes, works once, and expires; what it opened takes as long as it takes. What is
expected is on its session's account until it is taken in, given up (DROP) or cannot come any more.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch

from syftlite.engine.journal import Clock
from syftlite.engine.session import Session
from syftlite.errors import ObjectNotFoundError, QuotaExceededError

TICKET_SECONDS = 120.0
MAX_EXPECTED = 1000
"""Values that a session may expect at once."""


class Expected(NamedTuple):
    """A value that ``session`` expects under id ``number``, of at most ``nbytes``, which its account holds until the value is taken in."""

    session: Session
    number: int
    nbytes: int
    expires: float

    @property
    def place(self) -> Place:
        """Where it is to be stored."""
        return self.session.prefix, self.number


Place = tuple[int, int]


class Arrivals:
    """Tickets that are out, and what came for them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.RLock()  # a session that has no room asks for what is held for nothing
        self._tickets: dict[str, tuple[Expected, ...]] = {}
        self._expected: dict[Place, Expected] = {}  # until it is taken in
        self._underway: set[Place] = set()
        self._arrived: dict[Place, tuple[torch.Tensor, bool]] = {}

    def expect(self, session: Session, parcels: Sequence[tuple[int, int]]) -> str:
        """A ticket for one delivery of ``parcels`` to ``session``: the number to store each under, and its bytes at most. What is expected
        anew is not expected by an earlier ticket any more."""
        with self._lock:
            self.expire()
            mine, sizes = {e.number: e for e in self._expected.values() if e.session is session}, dict(parcels)
            if len(mine.keys() | sizes.keys()) > MAX_EXPECTED:
                raise QuotaExceededError(f"{len(mine)} values are expected already, of {MAX_EXPECTED:,} at most: let some arrive first")
            again = [mine[number] for number in sizes if number in mine]
            _take(session, sum(sizes.values()), sum(e.nbytes for e in again))
            self._end(again)
            ticket, expires = secrets.token_urlsafe(32), self.clock() + TICKET_SECONDS
            awaited = self._tickets[_hash(ticket)] = tuple(Expected(session, *parcel, expires) for parcel in sizes.items())
            self._expected.update((each.place, each) for each in awaited)
            return ticket

    def redeem(self, ticket: str) -> tuple[Expected, ...] | None:
        """The values that ``ticket`` stands for, once; None if nothing is expected by it."""
        with self._lock:
            self.expire()
            found = tuple(e for e in self._tickets.pop(_hash(ticket), ()) if self._awaits(e))
            self._underway.update(each.place for each in found)
            return found or None

    def deliver(self, expected: Expected, tensor: torch.Tensor, *, shared: bool = False) -> None:
        """Keep what came until its session takes it in. ``shared``: it is a share. Raises `QuotaExceededError` if it is too large."""
        nbytes = tensor.numel() * tensor.element_size()
        if nbytes > expected.nbytes:
            raise QuotaExceededError(f"{nbytes:,} bytes were delivered where {expected.nbytes:,} were expected")
        with self._lock:
            if not self._awaits(expected) or expected.place not in self._underway:
                raise ObjectNotFoundError("the delivery came twice, too late, or after its session had ended")
            self._underway.discard(expected.place)
            self._arrived[expected.place] = (tensor, shared)

    def abandon(self, expected: Iterable[Expected]) -> None:
        """Whoever was to deliver these is gone; what has come stays."""
        with self._lock:
            self._end([e for e in expected if self._awaits(e) and e.place in self._underway])

    def take_in(self, session: Session, number: int) -> tuple[torch.Tensor, bool]:
        """What came for ``number``, which is expected no longer, and whether it is a share. Raises `ObjectNotFoundError`."""
        place = (session.prefix, number)
        with self._lock:
            self.expire()
            found, expected = self._arrived.get(place), self._expected.get(place)
            if expected is not None:
                self._end([expected])
        if found is None:
            raise ObjectNotFoundError(f"nothing has arrived for object {number}")
        return found

    def give_up(self, session: Session, numbers: Iterable[int]) -> None:
        """Expect no longer what is to be stored under ``numbers``, if anything is."""
        if not self._expected:
            return
        with self._lock:
            places = ((session.prefix, number) for number in dict.fromkeys(numbers))
            self._end([self._expected[place] for place in places if place in self._expected])

    def forget(self, session: Session) -> None:
        """The session has ended: nothing more is expected for it."""
        with self._lock:
            self._tickets = {k: mine for k, mine in self._tickets.items() if mine[0].session is not session}
            self._end([e for e in self._expected.values() if e.session is session])

    def expire(self) -> None:
        """Expect no longer what nobody came with in time."""
        with self._lock:
            now = self.clock()
            self._tickets = {k: mine for k, mine in self._tickets.items() if mine[0].expires > now}
            begun = self._underway | self._arrived.keys()
            self._end([e for e in self._expected.values() if e.expires <= now and e.place not in begun])

    def _awaits(self, expected: Expected) -> bool:
        return self._expected.get(expected.place) is expected

    def _end(self, ended: Sequence[Expected]) -> None:
        """``ended`` are not expected any more; their room is their sessions' again."""
        for expected in ended:
            del self._expected[expected.place]
            self._underway.discard(expected.place)
            self._arrived.pop(expected.place, None)
            expected.session.charge(-expected.nbytes)


def _take(session: Session, nbytes: int, instead: int) -> None:
    """Put ``nbytes`` on the session's account, in place of ``instead`` that go, or raise `QuotaExceededError`. They are on it before it is
    looked at whether they fit beside uploads; so are those of an upload that begins in another thread: one of the two sees the other."""
    while True:
        session.reserve(nbytes - instead + session.coming())
        session.charge(nbytes)
        if session.used - instead + session.coming() <= session.max_bytes:
            return
        session.charge(-nbytes)


def _hash(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()
