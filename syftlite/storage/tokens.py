"""Tokens: 32 random bytes that say who a connection is. A node stores their hashes, compares in constant time, and lets them expire."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from syftlite.engine.journal import Clock
from syftlite.engine.session import Principal, Role
from syftlite.errors import AuthenticationError, ConfigurationError
from syftlite.storage.home import home, private_folder, write_private

log = logging.getLogger("syftlite.tokens")
_KINDS: dict[str, tuple[type, ...]] = {"hash": (str,), "principal": (str,), "role": (str,), "expires": (float, int, type(None))}


class Grant(NamedTuple):
    """One token, as its owner may see it: not the token itself. ``expires`` is in seconds since the epoch, None for never."""

    principal: str
    role: Role
    expires: float | None


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
        expires = None if days is None else self.clock() + days * 86_400
        with self._changing():
            self._rows.append({"hash": _hash(token), "principal": principal, "role": role.value, "expires": expires})

    def revoke(self, principal: str) -> int:
        """Accept no token of ``principal`` any more. Returns how many there were. Open connections stay open."""
        with self._changing():
            kept = [row for row in self._rows if row["principal"] != principal]
            gone, self._rows = len(self._rows) - len(kept), kept
        return gone

    def grants(self) -> list[Grant]:
        """Who has a token, oldest first."""
        self._refresh()
        return [Grant(row["principal"], Role(row["role"]), row["expires"]) for row in self._rows]

    def authenticate(self, scheme: str, secret: str) -> Principal | None:
        """Who holds ``secret``, if it is a token that is still valid."""
        try:
            self._refresh()
        except ConfigurationError as error:  # who knocks is told nothing of this node's files
            log.error("nobody can connect: %s", error)
            return None
        given, found = _hash(secret), None
        for row in self._rows:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(row["hash"], given) and scheme == "token":
                found = row
        if found is None or (found["expires"] is not None and found["expires"] <= self.clock()):
            return None
        return Principal(found["principal"], Role(found["role"]))

    @contextlib.contextmanager
    def _changing(self) -> Iterator[None]:
        """Change the rows: one process at a time, starting from what the file holds now."""
        if self.path is None:
            yield
            return
        private_folder(self.path.parent)
        with self.path.with_name(self.path.name + ".lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            self._refresh()
            yield
            write_private(self.path, json.dumps(self._rows, indent=1))

    def _refresh(self) -> None:
        if self.path is None:
            return
        try:
            status = self.path.stat()
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                self._rows = _rows_of(self.path.read_text())
                self._stamp = stamp
        except FileNotFoundError:  # not made yet, or removed: then its tokens are too
            self._rows, self._stamp = [], None
        except (OSError, ValueError) as error:
            self._rows, self._stamp = [], None
            raise ConfigurationError(f"{self.path} is not a token file: {error}") from None


def _rows_of(text: str) -> list[dict[str, Any]]:
    """The rows of a token file. Raises ValueError."""
    rows = json.loads(text)
    if type(rows) is not list:
        raise ValueError("it holds no list")
    for row in rows:
        if type(row) is not dict or set(row) != set(_KINDS) or not all(type(row[key]) in kinds for key, kinds in _KINDS.items()):
            raise ValueError(f"a row has {', '.join(_KINDS)}")
        if row["role"] not in {role.value for role in Role} or not row["hash"].isascii():
            raise ValueError(f"{row['principal']} has no role or no hash")
    return rows


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
            f"no token was given, and the node at {host}:{port} left none for this user: if it is this user's and on this machine, is it "
            "running? Otherwise pass a token, which its owner makes with `syftlite token new NAME`"
        ) from None
