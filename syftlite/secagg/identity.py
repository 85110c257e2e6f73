"""Who takes part: an Ed25519 key for each worker (RFC 8032). Owners register each other's public keys; nobody else's are accepted."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


class Identity:
    """A signing key. ``secret``: its 32 bytes; a fresh one if left out."""

    __slots__ = ("_key", "public")

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.generate() if secret is None else Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()
        """32 bytes: what others register."""

    def secret(self) -> bytes:
        """The 32 bytes to keep on disk, readable by their owner alone."""
        return self._key.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"<Identity {self.public.hex()[:16]}...>"
