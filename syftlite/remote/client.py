"""WebsocketClientWorker: a node somewhere else, over a websocket."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from syftlite.errors import ConfigurationError, IdNotUniqueError
from syftlite.remote.worker import BaseWorker
from syftlite.storage.keys import load_key
from syftlite.storage.tokens import discover
from syftlite.transports.client import SocketTransport
from syftlite.transports.server import is_loopback
from syftlite.transports.socket import client_tls


def open_transport(
    uri: str,
    token: str | None = None,
    *,
    key: str | Path | None = None,
    role: str = "scientist",
    ca: str | None = None,
    timeout: float = 60.0,
) -> SocketTransport:
    """A session at the node at ``uri``. Raises `ConfigurationError` for an address that is none, or in clear beyond loopback."""
    parsed = urlsplit(uri)
    if parsed.scheme not in ("ws", "wss") or not parsed.hostname:
        raise ConfigurationError(f"{uri!r} is no node's address: it looks like wss://host:8777")
    host, port, secure = parsed.hostname, parsed.port or 8777, parsed.scheme == "wss"
    if not secure and not is_loopback(host):
        raise ConfigurationError(f"refusing to send a token to {host} in clear: beyond loopback a node has TLS: wss://, or secure=True")
    tls = client_tls(ca) if secure else None
    address = f"[{host}]" if ":" in host else host
    secret = load_key(Path(key)) if key is not None else token or discover(host, port, role)
    return SocketTransport(f"{parsed.scheme}://{address}:{port}", secret, tls=tls, timeout=timeout)


def connect(
    uri: str, token: str | None = None, *, id: str | None = None, key: str | Path | None = None, timeout: float = 60.0,
    ca: str | None = None,
) -> WebsocketClientWorker:  # fmt: skip
    """The node at ``uri``, such as "wss://hospital.example:8777"; options as of `WebsocketClientWorker`: ``id`` is the node's own, or an
    error."""
    parsed = urlsplit(uri)
    if parsed.scheme not in ("ws", "wss") or not parsed.hostname:
        raise ConfigurationError(f"{uri!r} is no node's address: it looks like wss://host:8777")
    secure = parsed.scheme == "wss"
    return WebsocketClientWorker(
        host=parsed.hostname, port=parsed.port or 8777, secure=secure, id=id, token=token, key=key, timeout=timeout, ca=ca
    )


class WebsocketClientWorker(BaseWorker):
    """A node at ``host``:``port``. ``token`` may be left out on loopback, where the node's token file is found; beyond it, TLS is needed.
    ``key``: the file of an Ed25519 key to log in with instead, which the node's owner has been told the public half of.

    ``timeout`` (s): how long the node may give no sign of life. ``ca`` names a certificate file to trust instead of the system's.
    """

    def __init__(
        self,
        hook: Any = None,
        host: str = "127.0.0.1",
        port: int = 8777,
        secure: bool = False,
        id: str | None = None,
        token: str | None = None,
        timeout: float = 60.0,
        *,
        key: str | Path | None = None,
        ca: str | None = None,
        role: str = "scientist",
        **_: Any,
    ) -> None:
        address = f"[{host}]" if ":" in host else host
        uri = f"{'wss' if secure else 'ws'}://{address}:{port}"
        transport = open_transport(uri, token, key=key, role=role, ca=ca, timeout=timeout)
        self.host, self.port, self.secure = host, port, secure
        if id is not None and id != transport.worker:
            transport.close()
            raise ConfigurationError(f"the node at {host}:{port} is {transport.worker!r}, not {id!r}: check the port, or leave out id")
        try:
            super().__init__(transport.worker, transport)
        except IdNotUniqueError:
            transport.close()
            raise

    @property
    def principal(self) -> str:
        """Who the node takes us for."""
        return self.transport.principal

    def __repr__(self) -> str:
        transport = self.transport
        assert isinstance(transport, SocketTransport)
        state = "connected" if transport.open else "closed"
        return f"<{type(self).__name__} id:{self.id} at {self.host}:{self.port}, {state} as {transport.principal} ({transport.role})>"

    def objects_count_remote(self) -> int:
        """How many objects this session can name there."""
        return self.objects_count()

    def list_objects_remote(self) -> list[tuple[int, str, tuple[str, ...]]]:
        """(id, shape and dtype, tags) of what this session can name there."""
        return self.list_objects()

    def clear_objects_remote(self) -> BaseWorker:
        """Delete all objects of this session there."""
        return self.clear_objects()
