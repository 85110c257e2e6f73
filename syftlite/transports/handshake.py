"""How a link between two members of a sharing group begins: by a ticket, and so that nobody else can read or join in.

    dialler  -> "SYFT" ticket[43] public key[32] nonce[32]        X25519 (RFC 7748); secret = HKDF of what both then know, so that not
    acceptor -> public key[32] nonce[32] proof[16] name[96]       even the client, who made the introduction, can read or join in
    dialler  -> proof[16] name[96]                                name: the node's Ed25519 key, and its signature of the secret's "name"
    then     the link (links.py)
"""

from __future__ import annotations

import contextlib
import hmac
import math
import queue
import secrets
import socket
import ssl
import threading
import time
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey

from syftlite.errors import SharingAbortedError
from syftlite.randomness import SECRET_BYTES, derive
from syftlite.secagg.identity import Identity
from syftlite.transports import links
from syftlite.transports.links import StreamLink, ready, tuned
from syftlite.wire.signatures import PUBLIC_BYTES, SIGNATURE_BYTES, signed_by

MAGIC = b"SYFT"
TICKET_BYTES = 43
NAME_BYTES = PUBLIC_BYTES + SIGNATURE_BYTES
AGAIN_SECONDS = 0.1
"""After which a node that could not take somebody's connection tries again."""
STRANGER_SECONDS = 5.0
ASKED_SECONDS = 300.0
"""After which a link that nobody has asked for is closed, and its ticket no good any more."""
MAX_STRANGERS = 256
"""How long whoever connects may take to show a ticket, and how many may be about it at once; more are turned away."""


def dial(host: str, port: int, ticket: str, tls: ssl.SSLContext | None, identity: Identity | None = None) -> StreamLink:
    """A link to whoever invited with ``ticket``. ``identity``: this node's key; a fresh one if left out. Raises `SharingAbortedError`."""
    identity = identity or Identity()
    sock: socket.socket | None = None
    try:
        sock = socket.create_connection((host, port), links.TIMEOUT)
        sock = tuned(tls.wrap_socket(sock, server_hostname=host) if tls else sock)
        private, nonce = X25519PrivateKey.generate(), secrets.token_bytes(32)
        public = private.public_key().public_bytes_raw()
        sock.sendall(MAGIC + ticket.encode() + public + nonce)
        answer = _exactly(sock, 80 + NAME_BYTES, links.TIMEOUT)
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


class _Place:
    """Where the one link of a ticket is waited for."""

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[StreamLink] = queue.SimpleQueue()
        self.taken = threading.Lock()
        self.until = time.monotonic() + ASKED_SECONDS
        """Infinity once it is asked for."""

    def put(self, link: StreamLink) -> None:
        """Raises ConnectionRefusedError if one has come already."""
        if not self.taken.acquire(blocking=False):
            raise ConnectionRefusedError("the ticket has been used")
        self.came.put(link)

    def forget(self) -> None:
        """Nobody waits any more: whoever has come, or comes, is told so."""
        if not self.taken.acquire(blocking=False):
            with contextlib.suppress(queue.Empty):
                self.came.get_nowait().close("nobody waits for it any more")


class LinkServer:
    """Accepts links at ``host`` on a port of its own, for tickets that it gave out. Its thread starts with the first invitation.
    ``identity``: this node's key; a fresh one if left out."""

    def __init__(self, host: str, tls: ssl.SSLContext | None, identity: Identity | None = None) -> None:
        self.host, self.tls, self.identity = host, tls, identity or Identity()
        self._listener: socket.socket | None = None
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._open: dict[str, _Place] = {}
        self._strangers = threading.BoundedSemaphore(MAX_STRANGERS)

    def invite(self) -> tuple[str, int]:
        """(a ticket for one link, the port)."""
        with self._lock:
            self._expire()
            if self._listener is None:
                family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
                self._listener = socket.create_server((self.host, 0), backlog=64, family=family)
                self._listener.settimeout(ASKED_SECONDS / 2)
                threading.Thread(target=self._serve, args=(self._listener,), daemon=True, name="links").start()
            ticket = secrets.token_urlsafe(32)
            if len(self._open) >= 1000:  # whoever asked for the oldest never came
                self._open.pop(next(iter(self._open))).forget()
            self._open[ticket] = _Place()
            return ticket, self._listener.getsockname()[1]

    def accept(self, ticket: str) -> StreamLink:
        """The link of whoever comes with ``ticket``, once."""
        with self._lock:
            self._expire()
            waiting = self._open.get(ticket)
            if waiting is None:
                raise SharingAbortedError("the ticket is unknown, used or too old: invite again")
            waiting.until = math.inf
        try:
            return waiting.came.get(timeout=links.TIMEOUT)
        except queue.Empty:
            raise SharingAbortedError(f"a member of the group did not come within {links.TIMEOUT:.0f} s") from None
        finally:
            self._open.pop(ticket, None)

    def _expire(self) -> None:
        """Forget whom nobody has asked for in time. The lock is held."""
        now = time.monotonic()
        for ticket in [ticket for ticket, place in self._open.items() if place.until < now]:
            self._open.pop(ticket).forget()

    def close(self) -> None:
        """Accept no more."""
        self._closed.set()
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except TimeoutError:
                with self._lock:
                    self._expire()
                continue
            except OSError:  # while strangers hold all descriptors there is none for this one
                if self._closed.wait(AGAIN_SECONDS):
                    return
                continue
            if self._strangers.acquire(blocking=False):
                threading.Thread(target=self._shake, args=(raw,), daemon=True, name="link handshake").start()
            else:
                raw.close()

    def _shake(self, raw: socket.socket) -> None:
        sock = raw
        try:
            raw.settimeout(STRANGER_SECONDS)
            sock = tuned(self.tls.wrap_socket(raw, server_side=True) if self.tls else raw)
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
    if not signed_by(name[:PUBLIC_BYTES], name[PUBLIC_BYTES:], _to_sign(secret, role)):
        raise ConnectionRefusedError("it does not have the key that it names")
    return name[:PUBLIC_BYTES]


def _linked(sock: Any, secret: bytes, member: bytes, identity: Identity) -> StreamLink:
    link = StreamLink(ready(sock), secret)
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
