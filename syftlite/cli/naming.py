"""What --node names, in every command alike.

    NAME                     a node of this machine, by its id
    HOST, HOST:PORT, URI     the node that listens there

Commands that talk to a node need its address, and find it by the name of one that runs on loopback here. Commands that read or write a
node's folder need its name, and find it by the address at which one listens here. A name that a node of this machine has is that node's.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import urlsplit

import click

from syftlite.errors import ConfigurationError
from syftlite.storage.home import has_node
from syftlite.storage.tokens import address_of, node_at
from syftlite.transports.server import is_loopback

PORT = 8777
HERE = f"127.0.0.1:{PORT}"
"""The node that is meant when none is named."""
NODE = "NAME|HOST:PORT"
NAMELESS = "node"
"""The name of a node that was given none."""


class Address(NamedTuple):
    """Where a node listens."""

    host: str
    port: int
    secure: bool


def address(text: str) -> Address:
    """Parse HOST, HOST:PORT, [IPV6]:PORT, or one of them after ws:// or wss://. Beyond loopback a node always has TLS.

    >>> address("127.0.0.1"), address("hospital.example:9000").secure, address("ws://[::1]:9000")
    (Address(host='127.0.0.1', port=8777, secure=False), True, Address(host='::1', port=9000, secure=False))
    """
    scheme = text.split("://")[0] if "://" in text else ""
    try:
        parsed = urlsplit(text if scheme else f"//{text}")
        host, port = parsed.hostname, parsed.port or PORT
    except ValueError as error:
        raise click.BadParameter(f"{text!r} is no node's address: {error}") from None
    if not host or scheme not in ("", "ws", "wss") or parsed.path.strip("/"):
        raise click.BadParameter(f"{text!r} is no node's address: it looks like 127.0.0.1:{PORT} or wss://hospital.example:{PORT}")
    return Address(host, port, scheme == "wss" or (not scheme and not is_loopback(host)))


def listening(text: str) -> Address:
    """Where the node that ``text`` names listens. Raises `ConfigurationError` for one of this machine that does not."""
    if _is_name(text):
        found = address_of(text)
        if found is not None:
            return Address(*found)
        if has_node(text):
            told = f"start it (syftlite worker start --id {text}), or, where it listens beyond loopback, give its address"
            raise ConfigurationError(f"node {text!r} of this machine does not run, as far as this user can tell: {told}: --node HOST:PORT")
    return address(text)


def named(text: str) -> str:
    """The name of the node of this machine that ``text`` names. Raises `ConfigurationError` for an address where none listens."""
    if _is_name(text) and (has_node(text) or not is_loopback(text)):
        return text
    where = address(text)
    name = node_at(where.host, where.port)
    if name is None:
        if text == HERE:
            return NAMELESS
        told = f"the record and the users of a node are in its folder, on its own machine: give its name there, --node NAME, not {text!r}"
        raise ConfigurationError(f"no node of this user runs at {where.host}:{where.port}: {told}")
    return name


def _is_name(text: str) -> bool:
    return ":" not in text


def of_this_machine(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """A callback of `--node`: see `named`."""
    return named(value)
