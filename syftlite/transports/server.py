"""A node's front: an asyncio shell round the `websockets` library's sans-I/O protocol, doors and lanes. It decides nothing.

It listens on loopback unless it has both TLS and tokens, answers browsers (any Origin) with 403, and drops a connection that has not
authenticated within a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import ipaddress
import logging
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

from syftlite._threads import Daemon
from syftlite.engine.access import Admission
from syftlite.engine.door import Door
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal
from syftlite.errors import ConfigurationError
from syftlite.transports.server_socket import CLOSE_SECONDS, HANDSHAKE_SECONDS, ServerSocket

log = logging.getLogger("syftlite.server")
REVIEW_SECONDS = 1.0
"""How long a connection may outlive its token."""
BACKLOG = 1024
ACCEPTING = 3
"""Turns of the event loop in which what it has accepted becomes a connection, which can be closed: a closed server's never would."""
QUIET_SECONDS = 60.0
"""After which the log is told again that there is no room for connections."""


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _why(error: BaseException) -> str:
    """Why a port was not opened, and what to do about it."""
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return f"{error.strerror or error}: stop what listens there, or take another port (0: any that is free)"
    if isinstance(error, PermissionError):
        return f"{error.strerror or error}: take a port of 1024 or more (0: any that is free)"
    return str(error)


def tls_of(cert_path: str | Path | None, key_path: str | Path | None) -> ssl.SSLContext | None:
    """A server's TLS 1.3 context, or None. Raises `ConfigurationError` for half a pair or an unreadable file."""
    if cert_path is None and key_path is None:
        return None
    if cert_path is None or key_path is None:
        raise ConfigurationError("TLS needs both a certificate and its key: cert_path= and key_path=, --cert and --key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(cert_path, key_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use certificate {cert_path} with key {key_path}: {error}") from None
    return context


def fingerprint(cert_path: str | Path) -> bytes:
    """SHA-256 of the certificate that a server shows: what logins by key are bound to."""
    text = Path(cert_path).read_text()
    begin, end = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
    first = text[text.index(begin) : text.index(end) + len(end)]
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first)).digest()


def _queue(server: asyncio.Server) -> None:
    """Have the kernel keep `BACKLOG` connections, although asyncio is told of one: it tries to accept as many at once as it is told of, and
    complains of each of them where there is no room."""
    for listening in server.sockets:
        with socket.socket(fileno=os.dup(listening.fileno())) as same:
            same.listen(BACKLOG)


class Authority(Protocol):
    """Who is let in."""

    def __call__(self, scheme: str, secret: str) -> Admission | Principal | None:
        """Who that is, or None."""

    def current(self) -> frozenset[str]:
        """The credentials that are good now: connections by others are closed."""


class NodeServer:
    """Serves ``engine`` on ``host``:``port`` (0: a free port, told by `port` once started)."""

    def __init__(
        self,
        engine: Engine,
        authority: Authority,
        host: str,
        port: int,
        *,
        tls: ssl.SSLContext | None,
        guarded: bool,
        channel: bytes = b"",
    ) -> None:
        if not is_loopback(host) and (tls is None or not guarded):
            raise ConfigurationError(
                f"refusing to listen on {host}: beyond loopback a node needs TLS (cert_path=, key_path=) and tokens (tokens=). "
                "Listen on 127.0.0.1, or give both"
            )
        self.engine, self.authority, self.host, self.port, self.tls, self.channel = engine, authority, host, port, tls, channel
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self._open: set[ServerSocket] = set()
        self._patience = CLOSE_SECONDS
        self._quiet_until = 0.0

    @property
    def uri(self) -> str:
        """Where clients connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}"

    async def serve(self, started: threading.Event | None = None) -> None:
        """Serve until `stop`."""
        loop = self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        name = self.engine.name
        with (
            ThreadPoolExecutor(1, thread_name_prefix=f"{name} closing lane") as closing,
            ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix=f"{name} lane") as pool,
        ):

            def accept() -> ServerSocket:
                return ServerSocket(Door(self.engine, self.authority, self.channel), pool, closing, loop, self._open)

            patience = HANDSHAKE_SECONDS if self.tls else None
            loop.set_exception_handler(self._trouble)
            server = await loop.create_server(accept, self.host, self.port, ssl=self.tls, backlog=1, ssl_handshake_timeout=patience)
            _queue(server)
            self.port = server.sockets[0].getsockname()[1]
            log.info("%s listens on %s", self.engine.name, self.uri)
            if started is not None:
                started.set()
            review = asyncio.create_task(self._review())
            try:
                await self._stopping.wait()
            finally:
                review.cancel()
                for listening in server.sockets:
                    loop.remove_reader(listening.fileno())
                for _ in range(ACCEPTING):
                    await asyncio.sleep(0)
                server.close()
                for connection in list(self._open):
                    connection.go_away()
                deadline = loop.time() + self._patience
                while self._open and loop.time() < deadline:
                    await asyncio.sleep(0.01)
                for connection in list(self._open):
                    connection.abort()
                await asyncio.sleep(0)

    def _trouble(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Where no descriptor is left for whoever comes, the older half of those who have not said who they are make room."""
        error = context.get("exception")
        if not isinstance(error, OSError) or error.errno not in (errno.EMFILE, errno.ENFILE):
            loop.default_exception_handler(context)
            return
        strangers = sorted((c for c in self._open if c.stranger), key=lambda c: c.since)
        for connection in strangers[: (len(strangers) + 1) // 2]:
            connection.abort()
        if loop.time() >= self._quiet_until:
            self._quiet_until = loop.time() + QUIET_SECONDS
            log.warning("no file descriptor is left for new connections; %d have not logged in: %s", len(strangers), error)

    async def _review(self) -> None:
        """Close connections whose token or key has been revoked or has expired."""
        while True:
            await asyncio.sleep(REVIEW_SECONDS)
            named = [connection for connection in self._open if connection.credential]
            try:
                current = self.authority.current() if named else frozenset()
            except Exception:  # who cannot be checked is not kept
                log.exception("cannot tell whose credentials are good: closing all connections")
                current = frozenset()
            for connection in named:
                if connection.credential not in current:
                    connection.revoke()

    def start(self) -> None:
        """Serve on a daemon thread; returns when the port is open, as it may be already. Raises what opening it raises."""
        if self._thread is not None and self._thread.is_alive():
            return
        started = threading.Event()
        failed: list[BaseException] = []

        def main() -> None:
            try:
                asyncio.run(self.serve(started))
            except BaseException as error:
                failed.append(error)
                started.set()

        self._thread = Daemon(main, f"{self.engine.name} node", self._drop)
        started.wait()
        if failed:
            raise ConfigurationError(f"{self.engine.name} cannot listen on {self.host}:{self.port}: {_why(failed[0])}") from failed[0]

    def stop(self) -> None:
        """Close all connections and stop serving; from any thread."""
        self._ask_to_stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None

    def _drop(self) -> None:
        """Have it stop without waiting until clients have said goodbye: they may be of this process, whose threads end."""
        self._patience = 0.0
        self._ask_to_stop()

    def _ask_to_stop(self) -> None:
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._stopping.set)
