"""What two clients agree on, and what it hides.

    agree    X25519 (RFC 7748), then HKDF-SHA256 with protocol, round, both clients and purpose
    seal     ChaCha20-Poly1305 (RFC 8439); associated data: round, from, to, and the tags of what is sealed
    tag      BLAKE2b of a share, which says nothing of it (257 random bits) and lets it be known again when it is given out
    committed    HKDF-SHA256 of a client's own mask, for a purpose of its own: 32 bytes that no other mask has
    spread   AES-128-CTR under a key of its own: as many ring elements as a vector has
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TypeAlias

import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from syftlite.errors import AggregationError
from syftlite.randomness import SLACK, Stream, derive, digest

NONCE_BYTES = 12
TAG_BYTES = 32
KEY, OWN = "key", "own"
"""Which of a client's two secrets a share is of."""
PIECE = 1 << 20
"""Elements of a vector at a time, and of one mask, in the same memory. In shorter ones clients of one process hand the interpreter's lock
to and fro, with each addition, for longer than is spared in the cache."""

Mask: TypeAlias = tuple[bytes, int]
"""(32 bytes that are for one vector, 1 to add what they stand for or -1 to take it away)"""


def agree(private: X25519PrivateKey, public: bytes, terms: bytes, a: int, b: int, purpose: str) -> bytes:
    """32 bytes that clients ``a`` and ``b`` alone know, the same for both. Raises `AggregationError` for a public key of small order."""
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise AggregationError(f"clients {a} and {b}: one's key gives no secret; leave it out and start the round anew") from None
    return derive(shared, "secagg", purpose, terms, min(a, b), max(a, b), length=32)


def seal(key: bytes, text: bytes, terms: bytes, sender: int, receiver: int, tags: bytes) -> bytes:
    """``text`` for ``receiver`` alone, bound to its ``tags``."""
    nonce = os.urandom(NONCE_BYTES)
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, text, _context(terms, sender, receiver) + tags)


def unseal(key: bytes, box: bytes, terms: bytes, sender: int, receiver: int, tags: bytes) -> bytes:
    """What ``sender`` sealed. Raises `AggregationError` if anybody else did, or for another round, receiver or tags."""
    try:
        return ChaCha20Poly1305(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], _context(terms, sender, receiver) + tags)
    except (InvalidTag, ValueError):
        raise AggregationError(f"what client {sender} sealed for client {receiver} was changed: the server or the network lies") from None


def tag(share: bytes, terms: bytes, sender: int, receiver: int, secret: str) -> bytes:
    """By which the share of ``sender``'s ``secret`` that ``receiver`` has is known again."""
    return digest("secagg share", terms, sender, receiver, secret, share)


def committed(own: bytes, terms: bytes, place: int) -> bytes:
    """What a client is committed to by its own mask."""
    return derive(own, "secagg commitment", terms, place, length=32)


def _context(terms: bytes, sender: int, receiver: int) -> bytes:
    return terms + sender.to_bytes(4, "big") + receiver.to_bytes(4, "big")


def spread(total: torch.Tensor, masks: Sequence[Mask]) -> None:
    """Add ``masks`` to ``total`` in place: wrapping ring arithmetic."""
    streams = [(Stream(derive(secret, "secagg mask")), sign) for secret, sign in masks]
    room = torch.empty(min(PIECE, len(total)) * total.element_size() + SLACK, dtype=torch.uint8)
    for piece in total.split(PIECE):
        part = room[: piece.numel() * piece.element_size() + SLACK]
        for stream, sign in streams:
            mask = stream.fill(part).view(total.dtype)
            piece.add_(mask) if sign > 0 else piece.sub_(mask)


def pair_sign(u: int, v: int) -> int:
    """The sign of the mask of u and v in u's vector: opposite in v's."""
    return 1 if u < v else -1
