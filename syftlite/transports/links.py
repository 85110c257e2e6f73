"""Links between the members of a sharing group: a stream of our own, blocking, TLS beyond loopback, for tensors whose sizes both ends know.
handshake.py makes them.

    <- -> bytes[8] tag[8] payload ...     rounds, corrections, errands; bytes = 2^64 - 1: the other end stops, and the payload says why

Both ends of a round send ahead of what they receive, as far as buffers reach: full duplex from one thread, nobody waits for ever, and a
link of 40 ms is full. A quiet link costs nothing; one that is waited for longer than its time limit is broken.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from syftlite._threads import ENDED, Daemon
from syftlite.engine.room import Room
from syftlite.errors import SharingAbortedError
from syftlite.mpc.bits import raw, tensor
from syftlite.mpc.rounds import message_bytes

PIECE = 1 << 18
BUFFERS = 4 << 20
"""What is asked of the kernel, which may grant less."""
HEADER = struct.Struct("<Q8s")
_LATER = (TimeoutError, BlockingIOError)
ERRAND = b"errand\0\0"
STOP = (1 << 64) - 1
TIMEOUT = 60.0
"""Seconds that a round may take: beyond them the other member is taken for gone."""
MAX_REASON = 512
AT_ONCE = 64
"""Stretches of memory that one system call takes; of more, a copy is sent, and of any in TLS: one record in place of many."""
_PADDING = memoryview(bytes(8))


class StreamLink:
    """One link. ``secret``: what its two ends agreed on."""

    def __init__(self, sock: socket.socket, secret: bytes) -> None:
        self._socket, self.secret = sock, secret
        granted = min(sock.getsockopt(socket.SOL_SOCKET, option) for option in (socket.SO_SNDBUF, socket.SO_RCVBUF))
        self._ahead = max(granted // 4 // PIECE, 1) * PIECE  # a piece either end's buffers have room for, so no send waits for a reader
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
        mine, theirs = _pieces(parts), np.empty(nbytes, np.uint8)
        underway = self._ahead // PIECE
        self._send(HEADER.pack(nbytes, tag), *mine[0])
        for piece in mine[1:underway]:
            self._send(*piece)
        self._expect(nbytes, tag)
        for place, target in enumerate(range(0, nbytes, PIECE), start=underway):
            if place < len(mine):
                self._send(*mine[place])
            self._fill(theirs.data[target : target + PIECE])
        return _split(theirs, parts)

    def push(self, data: Tensor, number: int) -> None:
        """Send the correction of correlation ``number``."""
        first, *others = _pieces([data])
        self._send(HEADER.pack(data.nbytes, number.to_bytes(8, "little")), *first)
        for piece in others:
            self._send(*piece)

    def pull(self, limit: int, admit: Callable[[int], None] = lambda nbytes: None) -> tuple[int, Tensor]:
        """(correlation, its correction of at most ``limit`` bytes), whenever the provider deals the next: however long that takes.
        ``admit`` is told how many bytes there will be before there is a place for them."""
        nbytes, tag = self._header(patient=True)
        if nbytes > limit:
            raise SharingAbortedError(f"the provider sends a correction of {nbytes:,} bytes, of at most {limit:,}")
        admit(nbytes)
        data = torch.empty(nbytes, dtype=torch.uint8)
        self._fill(_bytes(data))
        return int.from_bytes(tag, "little"), data

    def corrections(self, limit: int, room: Room) -> ReadAhead:
        """What the other end pushes, read ahead as far as there is ``room``; each of at most ``limit`` bytes."""
        return ReadAhead(self, limit, room)

    # -- errands

    def tell(self, errand: bytes) -> None:
        """Send a message that is no part of a round; any thread may, on a link that carries only these in its direction."""
        with self._telling:
            self._send(HEADER.pack(len(errand), ERRAND), memoryview(errand))

    def hear(self, limit: int) -> bytes:
        """The next such message, of at most ``limit`` bytes, however long that takes."""
        nbytes, tag = self._header(patient=True)
        if nbytes > limit or tag != ERRAND:
            raise SharingAbortedError(f"{self.peer} sends {nbytes:,} bytes where a message of at most {limit:,} was expected")
        errand = bytearray(nbytes)
        self._fill(memoryview(errand))
        return bytes(errand)

    def _expect(self, nbytes: int, tag: bytes) -> None:
        told, given = self._header()
        if told != nbytes or given != tag:
            raise SharingAbortedError("a holder's message is of another run or round: the group is out of step, and nothing was opened")

    def _header(self, *, patient: bool = False) -> tuple[int, bytes]:
        header = bytearray(HEADER.size)
        self._fill(memoryview(header), patient=patient)
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
            if len(parts) > AT_ONCE or isinstance(self._socket, ssl.SSLSocket):
                parts = (b"".join(parts),)
            if len(parts) > 1:
                parts = _behind(parts, self._socket.sendmsg(parts))
            for part in parts:
                self._socket.sendall(part)
        except OSError as error:
            self._read_reason()
            raise self._lost(error) from None

    def _fill(self, target: memoryview, *, patient: bool = False) -> None:
        """Receive all of ``target``; if ``patient``, wait for its first byte as long as the link lasts."""
        while target:
            try:
                count = self._socket.recv_into(target)
                if not count:
                    raise ConnectionResetError("it closed the link")
            except OSError as error:
                if patient and isinstance(error, _LATER) and not self._closed:
                    continue
                raise self._lost(error) from None
            target, patient = target[count:], False

    def _read_reason(self) -> None:
        """The other end may have said why before it went."""
        with contextlib.suppress(OSError, SharingAbortedError):
            while self.why is None:
                self._header()

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
            if not isinstance(self._socket, ssl.SSLSocket):  # another thread may be inside TLS: it is just cut off
                self._socket.send(HEADER.pack(STOP, len(reason).to_bytes(8, "little")) + reason, socket.MSG_DONTWAIT)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in it; what was sent still arrives


class ReadAhead:
    """Corrections by number, read by a thread of its own as far as there is ``room``; while one is waited for, as far as there would be if
    nobody else kept any."""

    def __init__(self, link: StreamLink, limit: int, room: Room) -> None:
        self._link, self._limit, self._room = link, limit, room
        self._kept: dict[int, Tensor] = {}
        self._held = 0
        self._waiting = self._wanted = 0  # how many wait, and for at most how many bytes
        self._changed = room.changed
        self._failed: str | None = None
        Daemon(self._read, "corrections", self._end)

    def _end(self) -> None:
        self._link.close(ENDED)
        self.close(ENDED)

    def _read(self) -> None:
        try:
            while True:
                number, correction = self._link.pull(self._limit, self._admit)
                with self._changed:
                    if self._failed is None:
                        self._kept[number] = correction
                    self._changed.notify_all()
        except Exception as error:
            self.close(str(error), keep=True)

    def _admit(self, nbytes: int) -> None:
        """Wait until there is room for ``nbytes``, and take it."""
        with self._changed:
            self._changed.wait_for(lambda: self._failed is not None or self._room.fits(nbytes) or self._is_urgent(nbytes))
            if self._failed is not None:
                raise SharingAbortedError(self._failed)
            self._hold(nbytes)

    def _is_urgent(self, nbytes: int) -> bool:
        """Whether somebody waits for what comes: one of more than all the room only if it is as large as what is waited for."""
        return self._waiting > 0 and self._held < self._room.most and nbytes <= max(self._room.most, self._wanted)

    def _hold(self, nbytes: int) -> None:
        self._held += nbytes
        self._room.held += nbytes
        self._changed.notify_all()

    def close(self, why: str, keep: bool = False) -> None:
        """None comes any more: let go of those that are here, unless ``keep``, and of the thread that waits for room."""
        with self._changed:
            self._failed = self._failed or why
            if not keep:
                self._kept.clear()
            self._hold(sum(map(len, self._kept.values())) - self._held)

    def _wait_for(self, number: int, seconds: float, nbytes: int = 0) -> bool:
        """Whether correlation ``number``'s, or the end, came within ``seconds``; until then this link's are urgent."""
        self._waiting += 1
        self._wanted = max(self._wanted, nbytes)
        self._changed.notify_all()
        try:
            return self._changed.wait_for(lambda: number in self._kept or self._failed is not None, seconds)
        finally:
            self._waiting -= 1
            self._wanted = self._wanted if self._waiting else 0

    def here(self, number: int, seconds: float) -> bool:
        """Whether correlation ``number``'s comes within ``seconds``. Raises `SharingAbortedError` once the provider is gone."""
        with self._changed:
            self._wait_for(number, seconds)
            if self._failed is not None:
                raise SharingAbortedError(f"the provider is gone: {self._failed}")
            return number in self._kept

    def __call__(self, number: int, nbytes: int) -> Tensor:
        with self._changed:
            if not self._wait_for(number, TIMEOUT, nbytes):
                raise SharingAbortedError(f"the provider dealt nothing within {TIMEOUT:.0f} s")
            correction = self._kept.pop(number, None)
            if correction is None:
                raise SharingAbortedError(f"the provider is gone: {self._failed}")
            self._hold(-len(correction))
            return correction


def _behind(parts: Sequence[bytes | memoryview], sent: int) -> tuple[memoryview, ...]:
    """What of ``parts`` is left when ``sent`` bytes are gone."""
    left = []
    for part in parts:
        if sent < len(part):
            left.append(memoryview(part)[sent:])
        sent = max(sent - len(part), 0)
    return tuple(left)


def _bytes(x: Any) -> memoryview:
    """The memory of a tensor or an array; it is contiguous."""
    array = raw(x)
    return array.data.cast("B") if array.size else memoryview(b"")


def _pieces(parts: Sequence[Any]) -> list[list[memoryview]]:
    """The message of ``parts``, where they lie: `PIECE` bytes each time, what is left in the end."""
    if len(parts) == 1:
        whole = _bytes(parts[0])
        return [[whole[start : start + PIECE]] for start in range(0, len(whole) or 1, PIECE)]
    pieces: list[list[memoryview]] = [[]]
    room = PIECE
    for part in map(_bytes, parts):
        for stretch in (part, _PADDING[: -len(part) % 8]):
            while stretch:
                if not room:
                    pieces.append([])
                    room = PIECE
                pieces[-1].append(stretch[:room])
                stretch, room = stretch[room:], max(room - len(stretch), 0)
    return pieces


def _split(message: Any, parts: Sequence[Any]) -> list[Any]:
    """Parts like ``parts`` in the memory of ``message``."""
    found, at = [], 0
    for part in parts:
        like = raw(part)
        own = message[at : at + like.nbytes].view(like.dtype).reshape(like.shape)
        found.append(tensor(own) if isinstance(part, Tensor) else own)
        at += -(-like.nbytes // 8) * 8
    return found


def tuned(sock: socket.socket) -> socket.socket:
    """With room for a round, and nothing kept back."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFERS)
    return sock


def ready(sock: Any) -> Any:
    """Blocking, with the kernel keeping the time: no second system call a message. TLS would go on waiting then, so Python keeps it."""
    if isinstance(sock, ssl.SSLSocket) or os.name != "posix":
        sock.settimeout(TIMEOUT)
    else:
        sock.settimeout(None)
        limit = struct.pack("ll", int(TIMEOUT), int(TIMEOUT % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock
