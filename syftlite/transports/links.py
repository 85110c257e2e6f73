"""Links between the members of a sharing group: a stream of our own, blocking, TLS beyond loopback, for tensors whose sizes both ends know.
handshake.py makes them.

    <- -> bytes[8] tag[8] payload ...     rounds, corrections, errands; bytes = 2^64 - 1: the other end stops, and the payload says why

Both ends of a round send ahead of what they receive, as far as buffers reach: full duplex from one thread, nobody waits for ever, and a
link of 40 ms is full. A quiet link costs nothing; one that is waited for longer than its time limit is broken.
"""

from __future__ import annotations

import contextlib
import math
import os
import selectors
import socket
import ssl
import struct
import threading
import time
import weakref
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from syftlite.engine.room import Room
from syftlite.errors import SharingAbortedError
from syftlite.mpc.rounds import message_bytes
from syftlite.transports.level import Level
from syftlite.transports.read_ahead import ReadAhead
from syftlite.transports.stretches import PIECE, behind, bytes_of, pieces, split

BUFFERS = 4 << 20
"""What is asked of the kernel, which may grant less."""
HEADER = struct.Struct("<Q8s")
_LATER = (TimeoutError, BlockingIOError)
ERRAND = b"errand\0\0"
STOP = (1 << 64) - 1
TIMEOUT = 60.0
"""Seconds that a round may take: beyond them the other member is taken for gone."""
SHORTEST = 0.001
"""Seconds that receiving is limited to at least: to the kernel, 0 is no limit."""
LOOK = 500e-6 if (os.cpu_count() or 1) > 1 else 0.0
"""Seconds that who was answered soon looks for a round's message before it sleeps."""
MAX_REASON = 512
AT_ONCE = 64
"""Stretches of memory that one system call takes; of more, a copy is sent, and of any in TLS: one record in place of many."""


class StreamLink:
    """One link. ``secret``: what its two ends agreed on."""

    def __init__(self, sock: socket.socket, secret: bytes) -> None:
        self._socket, self.secret = sock, secret
        self._quarter = min(sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF)) // 4
        self._ahead = max(self._quarter // PIECE, 1) * PIECE  # a piece either end's buffers have room for, so no send waits for a reader
        self._limit = TIMEOUT  # of receiving
        self._secure = isinstance(sock, ssl.SSLSocket)
        self._limits_both = self._secure or os.name != "posix"
        self._looks = LOOK > 0 and hasattr(socket, "MSG_DONTWAIT") and not self._secure
        self._prompt = False  # whether what was waited for last came within `LOOK`
        self._closing = threading.Lock()
        self._telling = threading.Lock()
        self._closed = False
        self.why: str | None = None
        self.peer = "another member"
        self.member: bytes | None = None
        """The public key of the node at the other end, which it has proved to have."""
        self.own: bytes | None = None
        """That of this node, which it has proved to have there."""
        weakref.finalize(self, sock.close)

    # -- rounds

    def swap(self, parts: Sequence[Any], tag: bytes) -> list[Any]:
        """Send one message of ``parts``, tensors or arrays, contiguous; receive one of parts like them, under the same tag."""
        nbytes = message_bytes(parts)
        mine, theirs = pieces(parts), np.empty(nbytes, np.uint8)
        underway = self._ahead // PIECE
        header = HEADER.pack(nbytes, tag)
        self._send(header, *mine[0])
        for piece in mine[1:underway]:
            self._send(*piece)
        self._expect(header)
        for place, target in enumerate(range(0, nbytes, PIECE), start=underway):
            if place < len(mine):
                self._send(*mine[place])
            self._fill(theirs.data[target : target + PIECE])
        return split(theirs, parts)

    def push(self, data: Tensor, number: int) -> None:
        """Send the correction of correlation ``number``."""
        whole = bytes_of(data)
        self._send(HEADER.pack(data.nbytes, number.to_bytes(8, "little")), whole[:PIECE])
        for start in range(PIECE, len(whole), PIECE):  # each has its own time: TLS counts that of a whole call
            self._send(whole[start : start + PIECE])

    def announced(self, limit: int, seconds: float) -> tuple[int, int] | None:
        """(correlation, bytes of its correction, at most ``limit``) of the next that the provider deals, if it does within ``seconds``. The
        `body` follows."""
        found = self._header(seconds)
        if found is None:
            return None
        nbytes, tag = found
        if nbytes > limit:
            raise SharingAbortedError(f"the provider sends a correction of {nbytes:,} bytes, of at most {limit:,}")
        return int.from_bytes(tag, "little"), nbytes

    def body(self, nbytes: int) -> Tensor:
        """The correction that was announced."""
        data = torch.empty(nbytes, dtype=torch.uint8)
        self._fill(bytes_of(data))
        return data

    def corrections(self, limit: int, room: Room) -> ReadAhead:
        """What the other end pushes, read ahead as far as there is ``room``; each of at most ``limit`` bytes."""
        return ReadAhead(self, Level(self._socket, self._quarter), limit, room, TIMEOUT)

    # -- errands

    def tell(self, errand: bytes) -> None:
        """Send a message that is no part of a round; any thread may, on a link that carries only these in its direction."""
        with self._telling:
            self._send(HEADER.pack(len(errand), ERRAND), memoryview(errand))

    def hear(self, limit: int) -> bytes:
        """The next such message, of at most ``limit`` bytes, however long that takes."""
        nbytes, tag = self._header(math.inf) or (0, b"")
        if nbytes > limit or tag != ERRAND:
            raise SharingAbortedError(f"{self.peer} sends {nbytes:,} bytes where a message of at most {limit:,} was expected")
        errand = bytearray(nbytes)
        self._fill(memoryview(errand))
        return bytes(errand)

    def _expect(self, header: bytes) -> None:
        """Receive the header of a round's message, which is to be as ours."""
        given = bytearray(HEADER.size)
        target = memoryview(given)
        try:
            came = self._soon(target)
        except OSError as error:
            raise self._lost(error) from None
        if came < len(target):
            self._fill(target[came:])
        if given != header:
            self._read(given)
            raise SharingAbortedError("a holder's message is of another run or round: the group is out of step, and nothing was opened")

    def _header(self, within: float) -> tuple[int, bytes] | None:
        """(bytes, tag) of the next message; None if it does not begin ``within`` so many seconds."""
        given = bytearray(HEADER.size)
        target = memoryview(given)
        came = self._begun(target, within)
        if not came:
            return None
        if came < len(target):
            self._fill(target[came:])
        return self._read(given)

    def _read(self, header: bytes | bytearray) -> tuple[int, bytes]:
        """(bytes, tag) of a header. Raises `SharingAbortedError`, with the reason, if the other end has stopped."""
        nbytes, tag = HEADER.unpack(header)
        if nbytes == STOP:
            reason = bytearray(min(int.from_bytes(tag, "little"), MAX_REASON))
            self._fill(memoryview(reason))
            self.why = reason.decode(errors="replace")
            raise SharingAbortedError(f"{self.peer} stopped: {self.why}")
        return nbytes, tag

    # -- bytes

    def _send(self, *parts: bytes | memoryview) -> None:
        try:
            if len(parts) > AT_ONCE or self._secure:
                parts = (b"".join(parts),)
            sent = self._socket.sendmsg(parts) if len(parts) > 1 else 0
            if sent < sum(map(len, parts)):
                for part in behind(parts, sent):
                    self._socket.sendall(part)
        except OSError as error:
            self._read_reason()
            raise self._lost(error) from None

    def _fill(self, target: memoryview) -> None:
        """Receive all of ``target``."""
        try:
            while target:
                count = self._socket.recv_into(target)
                target = target[count or _ended() :]
        except OSError as error:
            raise self._lost(error) from None

    def _begun(self, target: memoryview, within: float) -> int:
        """How many bytes of ``target``, a message's first, came at first; 0 if none did ``within`` so many seconds."""
        until = time.monotonic() + within
        try:
            while (left := until - time.monotonic()) > 0:
                if self._comes(left):
                    try:
                        return self._socket.recv_into(target) or _ended()
                    except OSError as error:
                        if not isinstance(error, _LATER) or self._closed:
                            raise self._lost(error) from None
            return 0
        finally:
            self._limit_to(TIMEOUT)

    def _soon(self, target: memoryview) -> int:
        """Receive the beginning of ``target``, in a round. Who was answered soon the last time looks for a while before it sleeps: to be
        woken takes longer than what it waits for, and a core that is idle longer still."""
        until = time.monotonic() + LOOK
        if self._prompt:
            while True:
                try:
                    return self._socket.recv_into(target, HEADER.size, socket.MSG_DONTWAIT) or _ended()
                except BlockingIOError:
                    os.sched_yield()
                if time.monotonic() >= until:
                    break
            self._prompt = False
        count = self._socket.recv_into(target) or _ended()
        self._prompt = self._looks and time.monotonic() < until
        return count

    def _comes(self, seconds: float) -> bool:
        """Have receiving take no longer than that. Where it is the limit of sending, too, as in TLS: whether anything came by then."""
        if not self._limits_both:
            self._limit_to(seconds)
            return True
        if seconds > TIMEOUT / 2 or (isinstance(self._socket, ssl.SSLSocket) and self._socket.pending()):
            return True
        with selectors.DefaultSelector() as selector:
            selector.register(self._socket, selectors.EVENT_READ)
            return bool(selector.select(seconds))

    def _limit_to(self, seconds: float) -> None:
        """Let receiving take no longer than that, or than `TIMEOUT`, to within a fiftieth."""
        seconds = min(max(seconds, SHORTEST), TIMEOUT)
        if not self._limits_both and abs(seconds - self._limit) > seconds / 50:
            _limit(self._socket, seconds, socket.SO_RCVTIMEO)
            self._limit = seconds

    def _read_reason(self) -> None:
        """The other end may have said why before it went."""
        with contextlib.suppress(OSError, SharingAbortedError):
            while self.why is None and self._header(TIMEOUT):
                pass

    def _lost(self, error: OSError) -> SharingAbortedError:
        if self.why is not None:
            return SharingAbortedError(f"{self.peer} stopped: {self.why}")
        told = f"no sign of life within {TIMEOUT:.0f} s" if isinstance(error, _LATER) else str(error)
        return SharingAbortedError(f"the link to {self.peer} of the group broke: {told}. The next computation joins the group anew")

    def close(self, why: str) -> None:
        """Tell the other end ``why``, as far as it listens, and end."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        reason = why.encode()[:MAX_REASON]
        with contextlib.suppress(OSError, ValueError):
            if not self._secure:  # another thread may be inside TLS: it is just cut off
                self._socket.send(HEADER.pack(STOP, len(reason).to_bytes(8, "little")) + reason, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in it; what was sent still arrives


def _ended() -> NoReturn:
    raise ConnectionResetError("it closed the link")


def tuned(sock: socket.socket) -> socket.socket:
    """With room for a round, and nothing kept back."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFERS)
    return sock


def ready(sock: Any) -> Any:
    """Blocking, for `TIMEOUT` at most."""
    _limit(sock, TIMEOUT, socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
    return sock


def _limit(sock: Any, seconds: float, *options: int) -> None:
    """Have the kernel keep the time: no second system call a message. TLS would go on waiting then, so Python keeps it."""
    if isinstance(sock, ssl.SSLSocket) or os.name != "posix":
        sock.settimeout(seconds)
    else:
        sock.settimeout(None)
        for option in options:
            sock.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", int(seconds), int(seconds % 1 * 1e6)))
