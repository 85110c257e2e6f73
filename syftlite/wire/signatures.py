"""Signatures: Ed25519 (RFC 8032), by keys that have an owner.

A point of small order is a key for which everybody can sign: such a key is nobody's, and nothing is signed by it.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

PUBLIC_BYTES, SIGNATURE_BYTES = 32, 64
_PRIME = 2**255 - 19
_ORDER_EIGHT = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
"""The second coordinate of points of order 8: it, or what it lacks of the prime."""
_SMALL = frozenset({0, 1, _PRIME - 1, _ORDER_EIGHT, _PRIME - _ORDER_EIGHT})


def has_owner(public: bytes) -> bool:
    """Whether the 32 bytes ``public`` are no point of small order (1, 2, 4 or 8)."""
    return (int.from_bytes(public, "little") & (1 << 255) - 1) % _PRIME not in _SMALL


def signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the owner of the Ed25519 key ``public`` signed ``message``."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return has_owner(public)
