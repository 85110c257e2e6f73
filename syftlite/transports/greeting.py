"""The handshake of a session as its client sees it, whatever carries the messages: which protocol both speak, and who each is.

    HELLO  ->  GREETING     the protocol; the worker's name and the version of its table of operators
    AUTH   ->  WELCOME      the session: its prefix, whom the worker takes us for, in what role
    AUTH   ->  CHALLENGE    ... with a key, which signs what is asked and never leaves (wire/login.py)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from syftlite.errors import ProtocolError, ProtocolVersionError
from syftlite.ops.table import VERSION
from syftlite.transports.base import Transport
from syftlite.wire import login
from syftlite.wire import messages as m
from syftlite.wire.connection import Connection, State
from syftlite.wire.messages import Message


def greet(
    transport: Transport,
    connection: Connection,
    exchange: Callable[[Message], Message],
    scheme: str,
    secret: str | Ed25519PrivateKey,
    channel: Callable[[], bytes] = bytes,
) -> int:
    """Open ``transport``'s session over ``connection``. ``exchange``: sends a message and returns what answers it; ``channel``: what both
    ends see of it alike. Returns the version of the worker's table; raises what the worker refuses, as its own class."""

    def ask(message: Message, expected: int) -> Message:
        answer = transport.unwrap(exchange(message))
        if answer[0] != expected:
            raise ProtocolError(f"{transport.worker} answered {answer[0]} where the handshake has {expected}")
        return answer

    def signed(key: Ed25519PrivateKey, chosen: int) -> str:
        public, mine = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw), login.nonce()
        _, theirs = ask((m.AUTH, "key", f"{public.hex()}:{mine}"), m.CHALLENGE)
        return key.sign(login.transcript(transport.worker, channel(), mine, theirs, public, m.PROTOCOLS, chosen)).hex()

    asked = transport.worker
    _, chosen, transport.worker, table, _ = ask((m.HELLO, m.PROTOCOLS, VERSION, str(torch.__version__)), m.GREETING)
    if chosen not in m.PROTOCOLS:
        raise ProtocolVersionError(f"{asked} chose protocol {chosen}, which was not offered: {m.PROTOCOLS} were")
    if not isinstance(secret, str):
        scheme, secret = "proof", signed(secret, chosen)
    _, transport.prefix, transport.principal, transport.role, _ = ask((m.AUTH, scheme, secret), m.WELCOME)
    connection.state, connection.session = State.OPEN, transport.prefix
    return int(table)
