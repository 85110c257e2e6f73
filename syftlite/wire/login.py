"""Logging in with an Ed25519 key: what is signed, so that a signature is good for one connection to one node.

    client   AUTH "key", PUBLIC:NONCE      ->
             <-  CHALLENGE nonce
    client   AUTH "proof", SIGNATURE       ->      over this node's name, this channel, these nonces, this key, these versions

The channel is the node's TLS certificate (its SHA-256), as each end sees it: who stands between with a certificate of his own cannot pass a
signature on. Without TLS, on loopback, it is empty, and the nonces and the node's name remain.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

NONCE_BYTES = 32
PURPOSE = b"syftlite login 1"


def nonce() -> str:
    """A fresh one, in hexadecimal."""
    return secrets.token_hex(NONCE_BYTES)


def transcript(node: str, channel: bytes, client_nonce: str, node_nonce: str, public: bytes, offered: Sequence[int], chosen: int) -> bytes:
    """The bytes that are signed. ``offered`` and ``chosen``: protocol versions, so that nobody between talks the two down to an old one."""
    versions = ",".join(map(str, offered)) + f":{chosen}"
    parts = (PURPOSE, node.encode(), channel, client_nonce.encode(), node_nonce.encode(), public, versions.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def parse(text: str) -> tuple[bytes, str] | None:
    """(public key, the client's nonce) of PUBLIC:NONCE; None for anything else."""
    public, colon, given = text.partition(":")
    raw, sent = unhex(public, 32), unhex(given, NONCE_BYTES)
    return (raw, given) if colon and raw is not None and sent is not None else None


def unhex(text: str, size: int) -> bytes | None:
    """The ``size`` bytes that ``text`` writes in hexadecimal; None if it does not."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        return None
    return raw if len(raw) == size and len(text) == 2 * size else None
