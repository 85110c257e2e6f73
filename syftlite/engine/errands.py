"""Errands of served models over links: desks in different processes, and the provider that deals for the last holder (wire/errands.py)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from syftlite._threads import ENDED, Daemon
from syftlite.engine.batches import Key
from syftlite.engine.follower import Follower
from syftlite.engine.leader import Leader
from syftlite.engine.rounds import Link
from syftlite.engine.session import Session
from syftlite.engine.streams import Dealing
from syftlite.errors import ProtocolError
from syftlite.wire.errands import DEAL, FORGET, GONE, HAVE, MAX_ERRAND, ORDER, REFUSE, pack, unpack


class Provision:
    """A model at its provider: it deals what the last holder asks for."""

    def __init__(self, dealings: dict[int, Dealing], close: Callable[[str], None]) -> None:
        self.dealings, self._close = dealings, close
        self.broken: str | None = None

    def deal_for(self, link: Link) -> None:
        """Deal down ``link`` on a thread of its own, until that ends."""
        Daemon(partial(self._serve, link), "dealing", partial(link.close, ENDED))

    def _serve(self, link: Link) -> None:
        try:
            while True:
                kind, *fields = unpack(link.hear(MAX_ERRAND))
                if kind != DEAL or fields[0] not in self.dealings:
                    raise ProtocolError("the last holder asks for rows that the model does not have")
                self.dealings[fields[0]].push(fields[0], link)
        except Exception as error:
            self.stop(f"the provider stopped: {error}")

    def stop(self, why: str) -> None:
        """Deal no more."""
        self.broken = self.broken or why
        self._close(why)

    def leave(self, session: Session) -> None:
        """A client's connection is gone: no client is known here."""


class Errands:
    """The way to another desk over ``link``."""

    def __init__(self, link: Link) -> None:
        self.link = link

    def have(self, holder: int, key: Key, rows: int) -> None:
        """HAVE."""
        self.link.tell(pack(HAVE, *key, rows))

    def gone(self, holder: int, channel: str) -> None:
        """GONE."""
        self.link.tell(pack(GONE, channel))

    def order(self, rows: int, keys: Sequence[Key]) -> Callable[[], None]:
        """ORDER: the other desk runs it on a thread of its own."""
        self.link.tell(pack(ORDER, rows, tuple(keys)))
        return _nothing

    def refuse(self, key: Key, code: int, text: str) -> None:
        """REFUSE."""
        self.link.tell(pack(REFUSE, *key, code, text))

    def forget(self, channel: str) -> None:
        """FORGET."""
        self.link.tell(pack(FORGET, channel))

    def carry_out(self, desk: Leader | Follower, index: int) -> None:
        """Do what comes from holder ``index``, on a thread of its own, until the link ends."""
        Daemon(partial(self._listen, desk, index), f"errands of {desk.name}", partial(self.link.close, ENDED))

    def _listen(self, desk: Leader | Follower, index: int) -> None:
        try:
            while True:
                kind, *fields = unpack(self.link.hear(MAX_ERRAND))
                if isinstance(desk, Leader) and kind == HAVE:
                    desk.have(index, (fields[0], fields[1]), fields[2])
                elif isinstance(desk, Leader) and kind == GONE:
                    desk.gone(index, fields[0])
                elif isinstance(desk, Follower) and kind == ORDER:
                    desk.order(*fields)()
                elif isinstance(desk, Follower) and kind == REFUSE:
                    desk.refuse((fields[0], fields[1]), fields[2], fields[3])
                elif isinstance(desk, Follower) and kind == FORGET:
                    desk.forget(fields[0])
                else:
                    raise ProtocolError(f"{self.link.peer} sends an errand that is not for this holder")
        except Exception as error:
            desk.stop(str(error))


def _nothing() -> None:
    pass
