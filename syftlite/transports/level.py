"""How full the kernel's buffer of a link is: a thread may wait until a reader is needed, and is not woken while there is one."""

from __future__ import annotations

import contextlib
import select
import selectors
import socket
import ssl
from typing import Any


class Level:
    """Of ``sock``; ``high``: bytes from which on it is high.

    Linux wakes nobody, not even who waits for a single byte, below SO_RCVLOWAT. So that is lowered while somebody reads, and whoever waits
    for the level is not told of the socket meanwhile. Elsewhere, and in TLS, the level is high once anything is there.
    """

    def __init__(self, sock: Any, high: int) -> None:
        self._socket, self._high = sock, high
        self._watch: Any = None
        if hasattr(select, "epoll") and not isinstance(sock, ssl.SSLSocket):
            with contextlib.suppress(OSError):  # a kernel that has no such level
                self._least(high)
                self._watch = select.epoll()
                self._watch.register(sock, select.EPOLLIN)
        if self._watch is None:
            self._selector = selectors.DefaultSelector()
            self._selector.register(sock, selectors.EVENT_READ)

    def _least(self, nbytes: int) -> None:
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, nbytes)

    def wait(self) -> None:
        """Until it is high, or nothing more will come."""
        if self._watch is not None:
            self._watch.poll()
        elif not (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            self._selector.select()

    def lower(self) -> None:
        """Somebody begins to read."""
        if self._watch is not None:
            self._watch.modify(self._socket, 0)
            self._least(1)

    def lift(self) -> None:
        """Nobody reads any more."""
        if self._watch is not None:
            self._least(self._high)
            self._watch.modify(self._socket, select.EPOLLIN)
