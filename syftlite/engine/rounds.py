"""Drivers of protocols: what carries a round from a holder to the others.

    LinkedDriver   this holder alone, over a link to each other: send, receive, next
    Meeting        all holders of one process, in one thread, when the last has come to the run

A round's tag binds it to its run and its place in it: a stale, repeated, skipped or foreign message is refused before it is opened.
"""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Protocol
from weakref import WeakValueDictionary

from torch import Tensor

from syftlite.engine.groups import Run
from syftlite.engine.room import Room
from syftlite.engine.session import Cell
from syftlite.errors import EmptyCryptoPrimitiveStoreError, Misuse, QuotaExceededError, SharingAbortedError
from syftlite.mpc.bits import contiguous
from syftlite.mpc.correlations import Secrets, layout
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.party import group_keys
from syftlite.mpc.replicated import THIRD, dealer_of
from syftlite.mpc.rounds import run_local

TAG_BYTES = 8
MAX_GIVEN = 1 << 16
"""Corrections that a client which provides may bring before they are used."""


class Ended(Protocol):
    """What a member that leaves ends."""

    def close(self, why: str) -> None:
        """Tell the other end ``why``, as far as it listens, and end."""


class Link(Ended, Protocol):
    """A connection to another member, authenticated; ``secret``: 32 bytes that the two ends agreed on and nobody else knows."""

    secret: bytes
    peer: str
    """Who is at its other end, for errors."""
    member: bytes | None
    """The public key of the node at its other end, if that has proved to have one."""
    own: bytes | None
    """That of this node, as the other end has seen it proved."""

    def swap(self, parts: Sequence[Any], tag: bytes) -> Sequence[Any]:
        """Send one message of ``parts``, tensors or arrays, contiguous; receive one of parts like them; both under ``tag``. Raises
        `SharingAbortedError`, with the other end's reason."""

    def push(self, data: Tensor, number: int) -> None:
        """Send the correction of correlation ``number``."""

    def corrections(self, limit: int, room: Room) -> Corrections:
        """What the other end pushes, read ahead as far as there is ``room``; each of at most ``limit`` bytes."""

    def tell(self, errand: bytes) -> None:
        """Send a message that is no part of a round; any thread may."""

    def hear(self, limit: int) -> bytes:
        """The next such message, of at most ``limit`` bytes, however long that takes."""


class Corrections(Protocol):
    """Corrections by number, each once."""

    def __call__(self, number: int, nbytes: int) -> Tensor:
        """Correlation ``number``'s, when it is there. Raises `SharingAbortedError`."""

    def close(self, why: str) -> None:
        """None is asked for any more: let go of those that are here."""

    def here(self, number: int, seconds: float) -> bool:
        """Whether correlation ``number``'s comes within ``seconds``. Raises `SharingAbortedError` once the provider is gone."""


class Given:
    """Corrections that the client brings, being the provider: there before the run that uses them."""

    def __init__(self) -> None:
        self._kept: dict[int, tuple[Tensor, Cell]] = {}

    def keep(self, number: int, take: Callable[[], tuple[Tensor, Cell]]) -> None:
        """Take a correction in, as ``take`` gives it: in memory of its own, for a kernel may write its result there. Until it is used it
        stays on its session's account."""
        if number in self._kept:
            raise Misuse(f"correlation {number} was dealt already")
        if len(self._kept) >= MAX_GIVEN:
            raise QuotaExceededError(f"{MAX_GIVEN:,} corrections wait for the computations that use them: start those first")
        self._kept[number] = take()

    def __call__(self, number: int, nbytes: int) -> Tensor:
        if number not in self._kept:
            raise EmptyCryptoPrimitiveStoreError(f"the provider has not dealt correlation {number}")
        correction, cell = self._kept.pop(number)
        cell.let_go()
        return correction

    def forget(self) -> None:
        """Nothing more is computed: let go of what is left."""
        while self._kept:
            self._kept.popitem()[1][1].let_go()


class Pushing:
    """A provider's sink: deals at once, and pushes what the last holder needs down ``link``."""

    def __init__(self, dealer: Dealer, link: Link) -> None:
        self.dealer, self.link = dealer, link

    def __call__(self, number: int, kind: str, *args: Any, known: Secrets | None = None) -> None:
        correction = self.dealer.deal(number, kind, *args, known=known)
        if correction.numel():
            self.link.push(correction, number)


class LinkedDriver:
    """One holder of a group whose members are elsewhere."""

    def __init__(self, links: Sequence[Link], others: Sequence[Ended] = (), corrections: Corrections | None = None) -> None:
        self.links, self.others, self.all = links, others, (*links, *others)
        self.corrections = corrections
        """What the provider pushes, at the last holder."""

    def drive(self, run: Run) -> None:
        """Bring ``run`` to its end: this thread waits for the other holders."""
        got, place = None, 0
        try:
            while True:
                parts = [contiguous(part) for part in run.coroutine.send(got).count()]
                tag = blake2b(run.digest + place.to_bytes(4, "little"), digest_size=TAG_BYTES).digest()
                answers = []
                for link in self.links:
                    answers.append(link.swap(parts, tag))
                got = [*map(list, zip(*answers, strict=True))]
                place += 1
        except StopIteration as done:
            run.finish(done.value)
        except Exception as error:
            run.coroutine.close()
            run.fail(error)

    def close(self, why: str) -> None:
        """End the links."""
        for link in self.all:
            link.close(why)
        if self.corrections is not None:
            self.corrections.close(why)


class Meeting:
    """A group whose members are all in this process: ``holders``, and a provider. With ``replicated`` shares the provider holds, too."""

    def __init__(self, holders: int, replicated: bool = False) -> None:
        self.holders, self.replicated = holders, replicated
        self.keys = group_keys(secrets.token_bytes(32), holders + replicated)
        self.dealer = dealer_of(self.keys[THIRD].peers) if replicated else Dealer([keys.provider for keys in self.keys])
        self._asked: dict[int, tuple[tuple[Any, ...], Secrets | None]] = {}
        self.models: dict[str, dict[str, Any]] = {}
        """Served models: what each member is to one, by their names (engine/serving.py)."""
        self.broken: str | None = None
        self._runs: dict[int, list[Run]] = {}
        self._lock = threading.Lock()

    def ask_for(self, number: int, kind: str, *args: Any, known: Secrets | None = None) -> None:
        """The provider is told of a correlation: it deals when the last holder takes its part, unless nothing is sent of it."""
        if layout(kind, args).sent:
            self._asked[number] = (kind, *args), known
        else:
            self.dealer.deal(number, kind, *args, known=known)

    def corrections(self, number: int, nbytes: int) -> Tensor:
        """The last holder's part of correlation ``number``."""
        asked = self._asked.pop(number, None)
        if asked is None:
            raise EmptyCryptoPrimitiveStoreError(f"the provider has not dealt correlation {number}")
        request, known = asked
        return self.dealer.deal(number, *request, known=known)

    def drive(self, run: Run) -> None:
        """Note ``run``; when every holder has come to it, step them all."""
        with self._lock:
            here = self._runs.setdefault(run.number, []) if self.broken is None else []
            here.append(run)
            if self.broken is None and len(here) < self.holders:
                return
            self._runs.pop(run.number, None)
        here.sort(key=lambda r: r.holder.party.index)
        try:
            if self.broken is not None:
                raise SharingAbortedError(self.broken)
            if any(r.digest != here[0].digest for r in here):
                raise SharingAbortedError("the holders were told different things: nothing was opened")
            results = run_local([r.coroutine for r in here])
        except Exception as error:
            for r in here:
                with contextlib.suppress(RuntimeError):
                    r.coroutine.close()
                r.fail(error)
            return
        for r, result in zip(here, results, strict=True):
            r.finish(result)

    def close(self, why: str) -> None:
        """Break it for all its members."""
        with self._lock:
            self.broken = self.broken or why
            runs, self._runs = self._runs, {}
        self._asked.clear()
        for run in [r for waiting in runs.values() for r in waiting]:
            run.coroutine.close()
            run.fail(SharingAbortedError(why))


_meetings: WeakValueDictionary[str, Meeting] = WeakValueDictionary()
_lock = threading.Lock()


def meeting(name: str, holders: int, replicated: bool = False) -> Meeting:
    """The meeting of that name in this process; its members keep it."""
    with _lock:
        found = _meetings.get(name)
        if found is None:
            found = _meetings[name] = Meeting(holders, replicated)
        elif (found.holders, found.replicated) != (holders, replicated):
            raise Misuse(f"other members of the group that meets at {name!r} were told of other holders, or of another kind of shares")
        return found
