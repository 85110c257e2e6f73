"""Links from this node to others: what a move uses, so that no value passes through the client."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from urllib.parse import urlsplit

import torch

from syftlite.errors import SendNotPermittedError
from syftlite.transports.client import SocketTransport
from syftlite.transports.server import is_loopback
from syftlite.wire.messages import SYNC

TIMEOUT = 60.0


class PeerLinks:
    """Delivers values to nodes at ``allowed`` addresses; ``local``: also to any on this machine. The scientist names the address, so an
    owner who allows none is never made to call anyone.

    ``ca``: a certificate file to trust instead of the system's.
    """

    def __init__(self, allowed: Iterable[str] = (), *, local: bool = False, ca: str | None = None) -> None:
        self.allowed = frozenset(uri.rstrip("/") for uri in allowed)
        self.local, self.ca = local, ca

    def deliver(self, uri: str, ticket: str, number: int, tensor: torch.Tensor) -> None:
        """Hand ``tensor`` to the node at ``uri`` under ``ticket``; returns when it has it. Raises `SendNotPermittedError`."""
        parsed = urlsplit(uri)
        host = parsed.hostname or ""
        if uri.rstrip("/") not in self.allowed and not (self.local and is_loopback(host)):
            raise SendNotPermittedError(f"this node may not call {uri}: its owner lists the nodes that it may (peers=[...])")
        if parsed.scheme != "wss" and not is_loopback(host):
            raise SendNotPermittedError(f"this node sends nothing to {uri} in clear: beyond loopback a node has TLS (wss://)")
        tls = None
        if parsed.scheme == "wss":
            tls = ssl.create_default_context(cafile=self.ca)
            tls.minimum_version = ssl.TLSVersion.TLSv1_3
        link = SocketTransport(uri, ticket, scheme="ticket", tls=tls, timeout=TIMEOUT)
        try:
            link.put(number, tensor, (), "")
            link.ask(SYNC)
        finally:
            link.close()
