"""Links between the members of a sharing group: a stream of our own, blocking, TLS beyond loopback, for tensors whose sizes both ends know.

    dialler  -> "SYFT" ticket[43] public key[32] nonce[32]        X25519 (RFC 7748); secret = HKDF of what both then know, so that not
    acceptor -> public key[32] nonce[32] proof[16] name[96]       even the client, who made the introduction, can read or join in
    dialler  -> proof[16] name[96]                                name: the node's Ed25519 key, and its signature of the secret's "name"
    then     <- -> bytes[8] tag[8] payload ...                    rounds, corrections, errands; bytes = 2^64 - 1: the other end stops, and
                                                                  the payload says why

Both ends of a round send ahead of what they receive, as far as buffers reach: full duplex from one thread, nobody waits for ever, and a
link of 40 ms is full. A quiet link costs nothing; one that is waited for longer than its time limit is broken.
"""

from __future__ import annotations

import contextlib
import hmac
import os
import queue
import secrets
import socket
import ssl
import struct
import threading
import time
import weakref
from typing import Any

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from torch import Tensor

from syftlite.errors import SharingAbortedError
from syftlite.randomness import SECRET_BYTES, derive
from syftlite.secagg.identity import PUBLIC_BYTES, SIGNATURE_BYTES, Identity, signed

MAGIC = b"SYFT"
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
READ_AHEAD = 256 << 20
"""Bytes of corrections that wait in memory before they are used."""
TICKET_BYTES = 43
NAME_BYTES = PUBLIC_BYTES + SIGNATURE_BYTES
STRANGER_SECONDS = 5.0
MAX_STRANGERS = 256
"""How long whoever connects may take to show a ticket, and how many may be about it at once; more are turned away."""


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

    def swap(self, out: Tensor, tag: bytes) -> Tensor:
        """Send ``out``; receive a tensor like it, under the same tag."""
        got = torch.empty_like(out)
        mine, theirs = _bytes(out), _bytes(got)
        self._send(HEADER.pack(len(mine), tag), mine[:PIECE])
        for start in range(PIECE, min(self._ahead, len(mine)), PIECE):
            self._send(mine[start : start + PIECE])
        self._expect(len(mine), tag)
        for start in range(0, len(mine), PIECE):
            if (following := start + self._ahead) < len(mine):
                self._send(mine[following : following + PIECE])
            self._fill(theirs[start : start + PIECE])
        return got

    def push(self, data: Tensor, number: int) -> None:
        """Send the correction of correlation ``number``."""
        payload = _bytes(data)
        self._send(HEADER.pack(len(payload), number.to_bytes(8, "little")), payload[:PIECE])
        for start in range(PIECE, len(payload), PIECE):
            self._send(payload[start : start + PIECE])

    def pull(self, limit: int) -> tuple[int, Tensor]:
        """(correlation, its correction of at most ``limit`` bytes), whenever the provider deals the next: however long that takes."""
        nbytes, tag = self._header(patient=True)
        if nbytes > limit:
            raise SharingAbortedError(f"the provider sends a correction of {nbytes:,} bytes, of at most {limit:,}")
        data = torch.empty(nbytes, dtype=torch.uint8)
        self._fill(_bytes(data))
        return int.from_bytes(tag, "little"), data

    def corrections(self, limit: int) -> ReadAhead:
        """What the other end pushes, read ahead; each of at most ``limit`` bytes."""
        return ReadAhead(self, limit)

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
            for part in parts if isinstance(self._socket, ssl.SSLSocket) else [b"".join(parts)] if len(parts) > 1 else parts:
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
    """Corrections by number, read by a thread of its own, at most `READ_AHEAD` bytes before they are used."""

    def __init__(self, link: StreamLink, limit: int) -> None:
        self._link, self._limit = link, limit
        self._kept: dict[int, Tensor] = {}
        self._held = 0
        self._changed = threading.Condition()
        self._failed: str | None = None
        threading.Thread(target=self._read, daemon=True, name="corrections").start()

    def _read(self) -> None:
        try:
            while True:
                number, correction = self._link.pull(self._limit)
                with self._changed:
                    if self._failed is not None:
                        return
                    self._kept[number] = correction
                    self._held += len(correction)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._held < READ_AHEAD or self._failed is not None)
        except Exception as error:
            with self._changed:
                self._failed = self._failed or str(error)
                self._changed.notify_all()

    def close(self, why: str) -> None:
        """None is asked for any more: let go of those that are here, and of the thread that waits for room."""
        with self._changed:
            self._failed = self._failed or why
            self._kept.clear()
            self._changed.notify_all()

    def here(self, number: int, seconds: float) -> bool:
        """Whether correlation ``number``'s comes within ``seconds``. Raises `SharingAbortedError` once the provider is gone."""
        with self._changed:
            self._changed.wait_for(lambda: number in self._kept or self._failed is not None, seconds)
            if self._failed is not None:
                raise SharingAbortedError(f"the provider is gone: {self._failed}")
            return number in self._kept

    def __call__(self, number: int, nbytes: int) -> Tensor:
        with self._changed:
            if not self._changed.wait_for(lambda: number in self._kept or self._failed is not None, TIMEOUT):
                raise SharingAbortedError(f"the provider dealt nothing within {TIMEOUT:.0f} s")
            correction = self._kept.pop(number, None)
            if correction is None:
                raise SharingAbortedError(f"the provider is gone: {self._failed}")
            self._held -= len(correction)
            self._changed.notify_all()
            return correction


def _bytes(tensor: Tensor) -> memoryview:
    """Its memory; it is contiguous."""
    return tensor.numpy().data.cast("B") if tensor.numel() else memoryview(b"")


# -- making links


def dial(host: str, port: int, ticket: str, tls: ssl.SSLContext | None, identity: Identity | None = None) -> StreamLink:
    """A link to whoever invited with ``ticket``. ``identity``: this node's key; a fresh one if left out. Raises `SharingAbortedError`."""
    identity = identity or Identity()
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((host, port), TIMEOUT)
        sock = _tuned(tls.wrap_socket(sock, server_hostname=host) if tls else sock)
        private, nonce = X25519PrivateKey.generate(), secrets.token_bytes(32)
        public = private.public_key().public_bytes_raw()
        sock.sendall(MAGIC + ticket.encode() + public + nonce)
        answer = _exactly(sock, 80 + NAME_BYTES, TIMEOUT)
        secret = _agree(private, answer[:32], ticket, public + nonce + answer[:64])
        if not hmac.compare_digest(answer[64:80], _proof(secret, "acceptor")):
            raise ConnectionRefusedError("its proof is wrong: something stands between")
        member = _named(secret, "acceptor", answer[80:])
        sock.sendall(_proof(secret, "dialler") + _name(secret, "dialler", identity))
    except (OSError, ValueError) as error:
        if sock is not None:
            sock.close()
        raise SharingAbortedError(f"cannot link to the group's member at {host}:{port}: {error}") from None
    return _linked(sock, secret, member, identity)


class LinkServer:
    """Accepts links at ``host`` on a port of its own, for tickets that it gave out. Its thread starts with the first invitation.
    ``identity``: this node's key; a fresh one if left out."""

    def __init__(self, host: str, tls: ssl.SSLContext | None, identity: Identity | None = None) -> None:
        self.host, self.tls, self.identity = host, tls, identity or Identity()
        self._listener: socket.socket | None = None
        self._lock = threading.Lock()
        self._open: dict[str, queue.SimpleQueue[StreamLink]] = {}
        self._strangers = threading.BoundedSemaphore(MAX_STRANGERS)

    def invite(self) -> tuple[str, int]:
        """(a ticket for one link, the port)."""
        with self._lock:
            if self._listener is None:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                self._listener = socket.create_server((self.host, 0), backlog=64, family=family)
                threading.Thread(target=self._serve, args=(self._listener,), daemon=True, name="links").start()
            ticket = secrets.token_urlsafe(32)
            if len(self._open) >= 1000:  # whoever asked for the oldest never came
                self._open.pop(next(iter(self._open)))
            self._open[ticket] = queue.SimpleQueue()
            return ticket, self._listener.getsockname()[1]

    def accept(self, ticket: str) -> StreamLink:
        """The link of whoever comes with ``ticket``, once."""
        waiting = self._open.get(ticket)
        if waiting is None:
            raise SharingAbortedError("the ticket is unknown, used or too old: invite again")
        try:
            return waiting.get(timeout=TIMEOUT)
        except queue.Empty:
            raise SharingAbortedError(f"a member of the group did not come within {TIMEOUT:.0f} s") from None
        finally:
            self._open.pop(ticket, None)

    def close(self) -> None:
        """Accept no more."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            if self._strangers.acquire(blocking=False):
                threading.Thread(target=self._shake, args=(raw,), daemon=True, name="link handshake").start()
            else:
                raw.close()

    def _shake(self, raw: socket.socket) -> None:
        sock = raw
        try:
            raw.settimeout(STRANGER_SECONDS)
            sock = _tuned(self.tls.wrap_socket(raw, server_side=True) if self.tls else raw)
            hello = _exactly(sock, len(MAGIC) + TICKET_BYTES + 64, STRANGER_SECONDS)
            ticket = hello[len(MAGIC) : len(MAGIC) + TICKET_BYTES].decode("ascii")
            waiting = self._open.get(ticket)
            if hello[: len(MAGIC)] != MAGIC or waiting is None:
                raise ConnectionRefusedError("unknown ticket")
            private, nonce = X25519PrivateKey.generate(), secrets.token_bytes(32)
            mine = private.public_key().public_bytes_raw() + nonce
            theirs = hello[-64:]
            secret = _agree(private, theirs[:32], ticket, theirs + mine)
            sock.sendall(mine + _proof(secret, "acceptor") + _name(secret, "acceptor", self.identity))
            answer = _exactly(sock, 16 + NAME_BYTES, STRANGER_SECONDS)
            if not hmac.compare_digest(answer[:16], _proof(secret, "dialler")):
                raise ConnectionRefusedError("wrong proof")
            waiting.put(_linked(sock, secret, _named(secret, "dialler", answer[16:]), self.identity))
        except (OSError, ValueError):
            sock.close()
        finally:
            self._strangers.release()


def _agree(private: X25519PrivateKey, public: bytes, ticket: str, transcript: bytes) -> bytes:
    shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    return derive(shared, "link", ticket, transcript, length=SECRET_BYTES)


def _proof(secret: bytes, role: str) -> bytes:
    return derive(secret, "proof", role)


def _to_sign(secret: bytes, role: str) -> bytes:
    return b"syftlite link " + derive(secret, "name", role, length=32)


def _name(secret: bytes, role: str, identity: Identity) -> bytes:
    """Who is at this end, for whoever is at the other and nobody else: the secret is theirs alone."""
    return identity.public + identity.sign(_to_sign(secret, role))


def _named(secret: bytes, role: str, name: bytes) -> bytes:
    """The key that the other end has proved to have. Raises ConnectionRefusedError."""
    if not signed(name[:PUBLIC_BYTES], name[PUBLIC_BYTES:], _to_sign(secret, role)):
        raise ConnectionRefusedError("it does not have the key that it names")
    return name[:PUBLIC_BYTES]


def _linked(sock: Any, secret: bytes, member: bytes, identity: Identity) -> StreamLink:
    link = StreamLink(_ready(sock), secret)
    link.member, link.own = member, identity.public
    return link


def _exactly(sock: socket.socket, count: int, seconds: float) -> bytes:
    """``count`` bytes, all of them within ``seconds``: whoever sends one now and then is not waited for."""
    data, deadline = b"", time.monotonic() + seconds
    while len(data) < count:
        sock.settimeout(max(deadline - time.monotonic(), 0.001))
        part = sock.recv(count - len(data))
        if not part:
            raise ConnectionResetError("it closed the link")
        data += part
    return data


def _tuned(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFERS)
    return sock


def _ready(sock: Any) -> Any:
    """Blocking, with the kernel keeping the time: no second system call a message. TLS would go on waiting then, so Python keeps it."""
    if isinstance(sock, ssl.SSLSocket) or os.name != "posix":
        sock.settimeout(TIMEOUT)
    else:
        sock.settimeout(None)
        limit = struct.pack("ll", int(TIMEOUT), int(TIMEOUT % 1 * 1e6))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
    return sock
