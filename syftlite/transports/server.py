"""A node's front: the asyncio shell of the `websockets` library round doors and lanes. It decides nothing about messages.

It listens on loopback unless it has both TLS and tokens, answers browsers (any Origin) with 403, and drops a connection that has not
authenticated within a few seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from syftlite.engine.door import Authenticate, Door
from syftlite.engine.engine import Engine
from syftlite.errors import ConfigurationError
from syftlite.transports.lanes import Lane
from syftlite.wire.codec import MAX_FRAME
from syftlite.wire.connection import State

log = logging.getLogger("syftlite.server")
HANDSHAKE_SECONDS = 10.0
PING_SECONDS = 20.0


def is_loopback(host: str) -> bool:
    """Whether ``host`` can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def tls_of(cert_path: str | None, key_path: str | None) -> ssl.SSLContext | None:
    """A server's TLS 1.3 context, or None. Raises `ConfigurationError` for half a pair or an unreadable file."""
    if cert_path is None and key_path is None:
        return None
    if cert_path is None or key_path is None:
        raise ConfigurationError("TLS needs both cert_path and key_path")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(cert_path, key_path)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"cannot use certificate {cert_path} with key {key_path}: {error}") from None
    return context


class NodeServer:
    """Serves ``engine`` on ``host``:``port`` (0: a free port, told by `port` once started)."""

    def __init__(
        self, engine: Engine, authenticate: Authenticate, host: str, port: int, *, tls: ssl.SSLContext | None, guarded: bool
    ) -> None:
        if not is_loopback(host) and (tls is None or not guarded):
            raise ConfigurationError(
                f"refusing to listen on {host}: beyond loopback a node needs TLS (cert_path=, key_path=) and tokens (tokens=). "
                "Listen on 127.0.0.1, or give both"
            )
        self.engine, self.authenticate, self.host, self.port, self.tls = engine, authenticate, host, port, tls
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._thread: threading.Thread | None = None
        self.sessions = 0

    @property
    def uri(self) -> str:
        """Where clients connect."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'wss' if self.tls else 'ws'}://{host}:{self.port}"

    async def serve(self, started: threading.Event | None = None) -> None:
        """Serve until `stop`."""
        self._loop, self._stopping = asyncio.get_running_loop(), asyncio.Event()
        with ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix=f"{self.engine.name} lane") as pool:
            self._pool = pool
            async with self._listen() as server:
                self.port = next(iter(server.sockets)).getsockname()[1]
                log.info("%s listens on %s", self.engine.name, self.uri)
                if started is not None:
                    started.set()
                await self._stopping.wait()

    def _listen(self) -> Any:
        return serve(
            self._attend,
            self.host,
            self.port,
            ssl=self.tls,
            origins=[None],
            compression=None,
            max_size=MAX_FRAME,
            max_queue=64,
            open_timeout=HANDSHAKE_SECONDS,
            ping_interval=PING_SECONDS,
            ping_timeout=None,  # a lane may be busy for long; the kernel's keepalive finds dead peers
            close_timeout=5,
            logger=log,
        )

    async def _attend(self, connection: ServerConnection) -> None:
        _keep_alive(connection)
        door = Door(self.engine, self.authenticate)
        lane = Lane(door, connection, self._pool)
        self.sessions += 1
        try:
            await asyncio.wait_for(_handshake(connection, lane), HANDSHAKE_SECONDS)
            while door.closing is None:
                await lane.feed(await _binary(connection))
        except (ConnectionClosed, asyncio.TimeoutError):
            pass
        finally:
            self.sessions -= 1
            await lane.stop()

    def start(self) -> None:
        """Serve on a daemon thread; returns when the port is open. Raises what opening it raises."""
        started = threading.Event()
        failed: list[BaseException] = []

        def main() -> None:
            try:
                asyncio.run(self.serve(started))
            except BaseException as error:
                failed.append(error)
                started.set()

        self._thread = threading.Thread(target=main, daemon=True, name=f"{self.engine.name} node")
        self._thread.start()
        started.wait()
        if failed:
            raise ConfigurationError(f"{self.engine.name} cannot listen on {self.host}:{self.port}: {failed[0]}") from failed[0]

    def stop(self) -> None:
        """Close all connections and stop serving; from any thread."""
        if self._loop is not None and self._stopping is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stopping.set)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
            self._thread = None


async def _handshake(connection: ServerConnection, lane: Lane) -> None:
    while lane.door.connection.state is not State.OPEN and lane.door.closing is None:
        await lane.feed(await _binary(connection))


async def _binary(connection: ServerConnection) -> bytes:
    frame = await connection.recv(decode=False)
    return bytes(frame)


def _keep_alive(connection: ServerConnection) -> None:
    raw: socket.socket | None = connection.transport.get_extra_info("socket")
    if raw is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            raw.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
