"""A blocking websocket of our own round the `websockets` library's sans-I/O protocol: what everything that waits for an answer uses.

A small round trip takes a third of what `websockets.sync` takes, because no second thread stands between the caller and the socket, and
two ends that both send large messages cannot stop each other: writers never hold what a reader needs, and where nobody reads a writer
that has to wait takes in what comes.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import select
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Iterable
from pathlib import Path

from websockets.client import ClientProtocol
from websockets.exceptions import WebSocketException
from websockets.frames import Frame as WebsocketFrame
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from syftlite.errors import ConfigurationError, ConnectionLostError
from syftlite.transports.interrupts import Held
from syftlite.wire.codec import INLINE, MAX_FRAME

BUFFER = 1 << 18
STALLED = 100
"""Milliseconds for which a writer that has to wait keeps others from reading."""
SPIN = 150e-6 if (os.cpu_count() or 1) > 1 else 0.0
"""Seconds to look for an answer before sleeping for it, if the last two came that soon: waking a thread costs 15-30 us an end."""

_OTHER_NAMES = (62, 64)
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""
_LATER = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def client_tls(ca: str | Path | None) -> ssl.SSLContext:
    """TLS 1.3 to nodes whose certificate is in the file ``ca``, or signed by an authority that the system knows."""
    try:
        tls = ssl.create_default_context(cafile=ca)
    except OSError as error:
        raise ConfigurationError(f"cannot read the certificate {ca}: {error.strerror or error}") from None
    tls.minimum_version = ssl.TLSVersion.TLSv1_3
    return tls


def _advice(error: Exception) -> str:
    """What to do where nobody could be connected to."""
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _OTHER_NAMES:
            return "Use an address that its certificate names"
        return "If no public authority signed the node's certificate, name the file of it: ca=, --ca"
    if isinstance(error, ssl.SSLError):
        return "Has the node TLS? Without, its address begins with ws://"
    return "Is the node running, and the address right?"


class WebsocketClient:
    """A websocket connection to ``uri``. Any number of threads may `send`; one at a time may `receive`.

    ``timeout`` seconds without a sign of life end it; a third of that without traffic asks for one (a ping).
    """

    def __init__(self, uri: str, *, tls: ssl.SSLContext | None = None, timeout: float = 60.0) -> None:
        self.uri, self.timeout = uri, timeout
        parsed = parse_uri(uri)
        try:
            raw = socket.create_connection((parsed.host, parsed.port), timeout)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket = tls.wrap_socket(raw, server_hostname=parsed.host) if tls else raw
        except (OSError, ValueError) as error:
            raise ConnectionLostError(f"cannot connect to {uri}: {error}. {_advice(error)}") from None
        self._socket.setblocking(False)
        self._io = threading.Lock()  # TLS: one call into the socket at a time
        self._writing = threading.Lock()  # order of bytes on the wire
        self._protocol = ClientProtocol(parsed, max_size=MAX_FRAME)
        self._state = threading.Lock()  # the protocol object
        self._reading = threading.Lock()
        self._reader = False  # whether somebody reads, or waits for who does
        self._readable = select.poll()
        self._readable.register(self._socket.fileno(), select.POLLIN)
        self._writable = select.poll()
        self._writable.register(self._socket.fileno(), select.POLLOUT)
        self._either = select.poll()
        self._either.register(self._socket.fileno(), select.POLLIN | select.POLLOUT)
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self._fragments: list[bytes | bytearray | memoryview] = []
        self._ready: list[bytes] = []
        self._prompt = 0  # answers in a row that came within SPIN
        weakref.finalize(self, self._socket.close).atexit = False  # of a connection that broke, and that nobody closed
        self.held = Held()  # of the thread that reads: Ctrl-C breaks into a wait, not into what came
        self.pulled = 0  # times that bytes of any kind came: signs of life
        try:
            self._handshake()
        except BaseException:
            self.close()
            raise

    def _handshake(self) -> None:
        with self._state:
            self._protocol.send_request(self._protocol.connect())
        self._flush()
        deadline = time.monotonic() + self.timeout
        while self._protocol.state is State.CONNECTING:
            try:
                came = time.monotonic() <= deadline and self._pull(self.timeout)
            except ConnectionLostError as error:
                secure = isinstance(self._socket, ssl.SSLSocket)
                raise error if secure else ConnectionLostError(f"{error}. If the node has TLS, its address begins with wss://") from None
            if not came:
                raise ConnectionLostError(f"{self.uri} did not complete the websocket handshake within {self.timeout} s")
        if self._protocol.handshake_exc is not None:
            raise ConnectionLostError(f"{self.uri} refused the websocket handshake: {self._protocol.handshake_exc}")

    # -- out

    def send(self, frame: Iterable[bytes | memoryview]) -> None:
        """Send one message, given in pieces that are joined on the way. Blocks until the kernel has it."""
        self.send_all((frame,))

    def send_all(self, frames: Iterable[Iterable[bytes | memoryview]]) -> None:
        """Send messages, which may be made as they are drawn. Small ones go together: each write wakes the other end."""
        with self._writing:
            together: list[bytes] = []
            try:
                for frame in frames:
                    together += self._framed(list(frame))
                    if sum(map(len, together)) > INLINE:
                        ready, together = together, []
                        self._write(ready)
            except BaseException:  # those before one that cannot be made go
                with contextlib.suppress(ConnectionLostError):
                    self._write(together)
                raise
            self._write([b"".join(together)] if len(together) > 1 else together)

    def _framed(self, parts: list[bytes | memoryview]) -> list[bytes]:
        with self._state:
            if self._protocol.state is not State.OPEN:
                raise ConnectionLostError(f"{self.uri} closed the connection{self._reason()}")
            if len(parts) == 1:
                self._protocol.send_binary(parts[0])
            elif sum(map(len, parts)) <= INLINE:
                self._protocol.send_binary(b"".join(parts))
            else:
                self._protocol.send_binary(parts[0], fin=False)
                for part in parts[1:]:
                    self._protocol.send_continuation(part, fin=part is parts[-1])
            return self._protocol.data_to_send()

    def ping(self) -> None:
        """Ask the other end for a sign of life."""
        with self._state:
            if self._protocol.state is State.OPEN:
                self._protocol.send_ping(b"")
        self._flush()

    def _flush(self) -> None:
        with self._writing:
            with self._state:
                data = self._protocol.data_to_send()
            self._write(data)

    def _write(self, chunks: list[bytes]) -> None:
        for chunk in chunks:
            view = memoryview(chunk)
            since: float | None = None
            while view:
                try:
                    with self._io:
                        sent = self._socket.send(view)
                    view, since = view[sent:], None
                except _LATER:
                    pulled, since = self.pulled, since or time.monotonic()
                    ready = self._stall()
                    if self.pulled != pulled:  # it lives, and takes nothing while it computes
                        since = time.monotonic()
                    elif not ready and time.monotonic() - since > self.timeout:
                        raise ConnectionLostError(f"{self.uri} took no bytes for {self.timeout} s") from None
                except OSError as error:
                    raise ConnectionLostError(f"the connection to {self.uri} broke: {error}") from None

    def _stall(self) -> bool:
        """Wait a while until the socket takes more. Unless somebody reads, what comes is taken in: the other end may wait for that, and it
        is a sign of life. Whether anything happened."""
        if self._reader or not self._reading.acquire(blocking=False):
            return bool(self._writable.poll(STALLED))
        try:
            ready = self._either.poll(STALLED)
            while self._pull(0):
                pass
            return bool(ready)
        finally:
            self._reading.release()

    # -- in

    def receive(self, wait: float) -> list[bytes]:
        """Complete messages, in order; empty if none came within ``wait`` seconds. Raises `ConnectionLostError` at the end."""
        self._reader = True
        try:
            with self._reading:
                if not self._ready:
                    self._pull(wait)
                ready, self._ready = self._ready, []
                return ready
        finally:
            self._reader = False

    def _pull(self, wait: float) -> bool:
        """Take in what the socket has, waiting for it at most ``wait`` seconds. Whether anything came."""
        count = self._recv(wait)
        if count is None:
            return False
        self.pulled += 1
        with self._state:
            if count:
                self._protocol.receive_data(self._view[:count])  # type: ignore[arg-type]  # it copies what it keeps
            else:
                self._protocol.receive_eof()
            events = self._protocol.events_received()
        for event in events:
            if isinstance(event, WebsocketFrame) and event.opcode in (Opcode.BINARY, Opcode.CONT, Opcode.TEXT):
                self._take(event)
            elif isinstance(event, WebsocketFrame) and event.opcode is Opcode.PING:
                self._pong()
        if not self._ready and (not count or self._protocol.state is State.CLOSED or self._protocol.close_expected()):
            raise ConnectionLostError(f"{self.uri} closed the connection{self._reason()}")
        return True

    def _pong(self) -> None:
        """Send what is owed, if that need not wait: else it goes with what is sent next. The other end may take nothing until we do."""
        if self._protocol.state is State.OPEN and self._writing.acquire(blocking=False):
            try:
                if self._writable.poll(0):
                    with self._state:
                        owed = self._protocol.data_to_send()
                    self._write(owed)
            finally:
                self._writing.release()

    def _recv(self, wait: float) -> int | None:
        """Bytes that came into the buffer within ``wait`` seconds: 0 at the end of the stream, None if there were none."""
        began = time.monotonic()
        while True:
            try:
                with self._io:
                    count = self._socket.recv_into(self._buffer)
            except _LATER:
                waited = time.monotonic() - began
                if waited >= wait:
                    return None
                if self._prompt > 1 and waited < SPIN:
                    os.sched_yield()
                else:
                    self.held.waiting = True
                    self._readable.poll((wait - waited) * 1000)
                    self.held.waiting = False
                    self._prompt = self._prompt + 1 if time.monotonic() - began < SPIN else 0
            except OSError as error:
                raise ConnectionLostError(f"the connection to {self.uri} broke: {error}") from None
            else:
                return count

    def _take(self, frame: WebsocketFrame) -> None:
        if frame.fin and not self._fragments:
            self._ready.append(bytes(frame.data))
            return
        self._fragments.append(frame.data)
        if frame.fin:
            self._ready.append(b"".join(self._fragments))
            self._fragments.clear()

    def _reason(self) -> str:
        received = self._protocol.close_rcvd
        return f": {received.code} {received.reason}" if received is not None else ""

    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate that the other end shows; empty without TLS."""
        if not isinstance(self._socket, ssl.SSLSocket):
            return b""
        return hashlib.sha256(self._socket.getpeercert(binary_form=True) or b"").digest()

    # -- end

    def say_goodbye(self) -> None:
        """Tell the other end, as far as it still listens."""
        with contextlib.suppress(ConnectionLostError, WebSocketException):
            with self._state:
                if self._protocol.state is State.OPEN:
                    self._protocol.send_close(1000)
            self._flush()

    def shut(self) -> None:
        """End the traffic, and wake whoever waits for it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close this process's end without a word."""
        with contextlib.suppress(OSError):
            self._socket.close()
