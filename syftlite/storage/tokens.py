"""Tokens: 32 random bytes that say who a connection is. A node stores their hashes, compares in constant time, and lets them expire."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from pathlib import Path
from typing import Any, Mapping

from syftlite.engine.journal import Clock
from syftlite.engine.session import Principal, Role
from syftlite.errors import AuthenticationError, ConfigurationError
from syftlite.storage.home import home, write_private


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()  # a token has 256 bits of entropy: no slow hash is needed


class Tokens:
    """The tokens that a node accepts, kept in ``path`` if one is given. `syftlite token new` and a running node may share the file."""

    def __init__(self, path: Path | None = None, clock: Clock = time.time) -> None:
        self.path, self.clock = path, clock
        self._rows: list[dict[str, Any]] = []
        self._stamp: tuple[int, int] | None = None
        self._refresh()

    @classmethod
    def of(cls, tokens: Mapping[str, str]) -> Tokens:
        """Tokens given in a program: {principal: token}, all scientists."""
        made = cls()
        for principal, token in tokens.items():
            if len(token) < 32:
                raise ConfigurationError(f"the token of {principal} has {len(token)} characters: make one with secrets.token_urlsafe(32)")
            made.add(principal, token)
        return made

    def new(self, principal: str, role: Role = Role.SCIENTIST, days: float | None = None) -> str:
        """A fresh token for ``principal``, valid for ``days`` (None: until it is revoked). Only its hash is kept."""
        token = secrets.token_urlsafe(32)
        self.add(principal, token, role, days)
        return token

    def add(self, principal: str, token: str, role: Role = Role.SCIENTIST, days: float | None = None) -> None:
        """Accept ``token`` for ``principal``."""
        self._refresh()
        expires = None if days is None else self.clock() + days * 86_400
        self._rows.append({"hash": _hash(token), "principal": principal, "role": role.value, "expires": expires})
        self._save()

    def revoke(self, principal: str) -> int:
        """Accept no token of ``principal`` any more. Returns how many there were."""
        self._refresh()
        kept = [row for row in self._rows if row["principal"] != principal]
        gone, self._rows = len(self._rows) - len(kept), kept
        self._save()
        return gone

    def authenticate(self, scheme: str, secret: str) -> Principal | None:
        """Who holds ``secret``, if it is a token that is still valid."""
        self._refresh()
        given, found = _hash(secret), None
        for row in self._rows:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(row["hash"], given) and scheme == "token":
                found = row
        if found is None or (found["expires"] is not None and found["expires"] <= self.clock()):
            return None
        return Principal(found["principal"], Role(found["role"]))

    def _refresh(self) -> None:
        if self.path is None or not self.path.exists():
            return
        status = self.path.stat()
        stamp = (status.st_mtime_ns, status.st_ino)
        if stamp != self._stamp:
            try:
                self._rows = json.loads(self.path.read_text())
            except ValueError as error:
                raise ConfigurationError(f"{self.path} is not a token file: {error}") from None
            self._stamp = stamp

    def _save(self) -> None:
        if self.path is not None:
            write_private(self.path, json.dumps(self._rows, indent=1))


# -- a node on loopback, and its own user's clients


def _announcement(host: str, port: int) -> Path:
    name = "127.0.0.1" if host == "localhost" else host.replace(":", "_")
    return home() / "run" / f"{name}-{port}.json"


def announce(host: str, port: int, tokens: Mapping[str, str]) -> Path:
    """Leave {role: token} where only this user's clients find it."""
    path = _announcement(host, port)
    write_private(path, json.dumps(dict(tokens)))
    return path


def discover(host: str, port: int, role: str) -> str:
    """The token that a node at ``host``:``port`` left for ``role``. Raises `AuthenticationError`."""
    path = _announcement(host, port)
    try:
        token: str = json.loads(path.read_text())[role]
        return token
    except (OSError, ValueError, KeyError):
        raise AuthenticationError(
            f"no token was given, and the node at {host}:{port} left none for this user: pass token=... (the owner makes one with "
            "`syftlite token new NAME`)"
        ) from None
