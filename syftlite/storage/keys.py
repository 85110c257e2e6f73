"""Ed25519 keys in files (RFC 8032): a node's, which signs its audit trail, and those that people log in with.

    private    PKCS8 PEM, readable by its user alone
    public     32 bytes, written as 64 hexadecimal digits
"""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat, load_pem_private_key

from syftlite.errors import ConfigurationError
from syftlite.storage.home import private_folder, write_private
from syftlite.wire.login import unhex
from syftlite.wire.signatures import has_owner

PrivateKey = Ed25519PrivateKey


def new_key(path: Path) -> PrivateKey:
    """A fresh key, kept in ``path``. Raises `ConfigurationError` if something is there: a key is not overwritten."""
    if path.exists():
        raise ConfigurationError(f"{path} is there already: choose another file, or remove it if nothing needs that key any more")
    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode())
    return key


def load_key(path: Path) -> PrivateKey:
    """The key in ``path``. Raises `ConfigurationError` unless it is an Ed25519 key that its user alone can read."""
    try:
        if os.stat(path).st_mode & 0o077:
            raise ConfigurationError(f"{path} can be read by others: chmod 600 it, or make another key if they may have")
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} is no private key: {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds another kind of key: make one with `syftlite user key new FILE`")
    return key


def key_of(path: Path) -> PrivateKey:
    """The key in ``path``, made when missing."""
    private_folder(path.parent)
    return load_key(path) if path.exists() else new_key(path)


def public_of(key: PrivateKey) -> bytes:
    """The 32 bytes that others know ``key`` by."""
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def derived(key: PrivateKey, purpose: bytes) -> bytes:
    """32 bytes that only who has ``key`` can make: for keyed digests."""
    raw = key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
    return blake2b(purpose, key=raw, digest_size=32).digest()


def parse_public(text: str) -> bytes:
    """The public key written as 64 hexadecimal digits. Raises `ConfigurationError`."""
    raw = unhex(text, 32)
    if raw is None:
        made = "`syftlite user key new FILE` or `syftlite worker identity`"
        raise ConfigurationError(f"a public key is 64 hexadecimal digits, as {made} prints, not {text[:80]!r}")
    if not has_owner(raw):
        raise ConfigurationError(f"{text} is a key for which everybody can sign: ask its owner for one that is made as keys are")
    return raw
