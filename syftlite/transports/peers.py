"""Links from this node to others: what a move uses, so that no value passes through the client."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

from syftlite.engine.journal import Parcels
from syftlite.errors import SendNotPermittedError
from syftlite.secagg.identity import Identity
from syftlite.transports.client import SocketTransport
from syftlite.transports.handshake import LinkServer, dial
from syftlite.transports.links import StreamLink
from syftlite.transports.server import is_loopback
from syftlite.transports.socket import client_tls
from syftlite.wire.messages import SYNC

TIMEOUT = 60.0


class PeerLinks:
    """Delivers values to nodes at ``allowed`` addresses; ``local``: also to any on this machine. The scientist names the address, so an
    owner who allows none is never made to call anyone.

    ``identity``: this node's key, by which other owners know it.
    ``ca``: a certificate file to trust instead of the system's. ``host`` and ``tls``: where and how this node accepts links itself.
    """

    in_process = False

    def __init__(
        self,
        allowed: Iterable[str] = (),
        *,
        local: bool = False,
        ca: str | None = None,
        host: str = "127.0.0.1",
        tls: ssl.SSLContext | None = None,
        identity: Identity | None = None,
    ) -> None:
        self.allowed = frozenset(uri.rstrip("/") for uri in allowed)
        self.local, self.ca = local, ca
        self.server = LinkServer(host, tls, identity)
        self.invite, self.accept, self.close = self.server.invite, self.server.accept, self.server.close

    def deliver(self, uri: str, ticket: str, parcels: Parcels, tags: tuple[str, ...] = ()) -> None:
        """Hand ``parcels`` to the node at ``uri`` under ``ticket``; returns when it has them. Raises `SendNotPermittedError`."""
        link = SocketTransport(uri, ticket, scheme="ticket", tls=self._permit(uri), timeout=TIMEOUT)
        try:
            for number, tensor in parcels:
                link.put(number, tensor, tags, "")
            link.ask(SYNC)
        finally:
            link.close()

    def dial(self, uri: str, port: int, ticket: str) -> StreamLink:
        """A link to the node at ``uri``, at its ``port`` for links. Raises `SendNotPermittedError`, `SharingAbortedError`."""
        tls = self._permit(uri)
        return dial(urlsplit(uri).hostname or "", port, ticket, tls, self.server.identity)

    def _permit(self, uri: str) -> ssl.SSLContext | None:
        """How to call the node at ``uri``. Raises `SendNotPermittedError` if its owner does not let this node."""
        parsed = urlsplit(uri)
        host = parsed.hostname or ""
        if uri.rstrip("/") not in self.allowed and not (self.local and is_loopback(host)):
            raise SendNotPermittedError(f"this node may not call {uri}: its owner lists the nodes that it may (peers=[...])")
        if parsed.scheme != "wss" and not is_loopback(host):
            raise SendNotPermittedError(f"this node sends nothing to {uri} in clear: beyond loopback a node has TLS (wss://)")
        if parsed.scheme != "wss":
            return None
        return client_tls(self.ca)
