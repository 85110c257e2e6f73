"""Who may connect to a node, in its database: users with a role, each with tokens and keys, these with scope and expiry.

    users    name, role
    tokens   SHA-256 of 32 random bytes -> user        compared in constant time
    keys     Ed25519 public key -> user                the owner of the key proves it at every login (wire/login.py)

A running node and the commands about it share the file. Revoking closes open connections too: the node asks for `current` every second.
A `tokens.json` of earlier versions is taken in once and renamed to `tokens.json.migrated`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import secrets
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from syftlite.engine.access import SCOPES, Admission
from syftlite.engine.journal import Clock
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConfigurationError
from syftlite.storage.database import Database, Schema

log = logging.getLogger("syftlite.users")
USERS = Schema(
    "users",
    (
        "create table users (name text primary key, role text not null, added real not null) strict",
        "create table credentials (kind text not null, value text primary key,"
        " user text not null references users (name) on delete cascade, scope text,"
        " expires real, added real not null, label text not null) strict",
    ),
)
DATABASE = "node.db"
_KINDS: dict[str, tuple[type, ...]] = {"hash": (str,), "principal": (str,), "role": (str,), "expires": (float, int, type(None))}


class Grant(NamedTuple):
    """One token or key, as its owner may see it: of a token not even the hash. ``kind``: "token" or "key"; ``label``: the key's first
    digits. ``scope``: its permissions (engine/access.py), None for all of the role's. ``expires``: seconds since the epoch, or None."""

    principal: str
    role: Role
    expires: float | None
    scope: frozenset[str] | None = None
    kind: str = "token"
    label: str = ""


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()  # a token has 256 bits of entropy: no slow hash is needed


def database_at(path: Path) -> Path:
    """The database that stands for ``path``: of a `tokens.json` as earlier versions had, the one beside it."""
    return path.with_suffix(".db") if path.suffix == ".json" else path


class Users:
    """The users that a node accepts, in ``database`` or in the file ``path``; without either, in memory."""

    def __init__(self, path: Path | None = None, clock: Clock = time.time, *, database: Database | None = None) -> None:
        self.clock = clock
        self.database = database or Database(None if path is None else database_at(path))
        self.database.adopt(USERS)
        if path is not None and path.suffix == ".json":
            self.take_in(path)

    @classmethod
    def of(cls, tokens: Mapping[str, str]) -> Users:
        """Tokens given in a program: {principal: token}, all scientists."""
        made = cls()
        for principal, token in tokens.items():
            if len(token) < 32:
                raise ConfigurationError(f"the token of {principal} has {len(token)} characters: make one with secrets.token_urlsafe(32)")
            made.add(principal, token)
        return made

    # -- what the owner does

    def user(self, name: str, role: Role = Role.SCIENTIST) -> None:
        """Make ``name`` known, with ``role``. Raises `ConfigurationError` if it has another: a role is not changed in passing."""
        with self.database.transaction() as run:
            known = run("select role from users where name = ?", name)
            if known and known[0][0] != role.value:
                raise ConfigurationError(f"{name!r} is a {known[0][0]} already: revoke that user first, or choose another name")
            if not known:
                run("insert into users values (?, ?, ?)", name, role.value, self.clock())

    def new(
        self, principal: str, role: Role = Role.SCIENTIST, days: float | None = None, scope: Iterable[str] | None = None
    ) -> str:
        """A fresh token for ``principal``, valid for ``days`` (None: until it is revoked). Only its hash is kept."""
        token = secrets.token_urlsafe(32)
        self.add(principal, token, role, days, scope)
        return token

    def add(
        self,
        principal: str,
        token: str,
        role: Role = Role.SCIENTIST,
        days: float | None = None,
        scope: Iterable[str] | None = None,
    ) -> None:
        """Accept ``token`` for ``principal``."""
        self._accept("token", _hash(token), principal, role, days, scope, "")

    def add_key(
        self, principal: str, public: bytes, role: Role | None = None, days: float | None = None, scope: Iterable[str] | None = None
    ) -> None:
        """Accept who proves to own the Ed25519 key ``public`` as ``principal``."""
        known = self.database.rows("select role from users where name = ?", principal)
        role = role or (Role(known[0][0]) if known else Role.SCIENTIST)
        self._accept("key", public.hex(), principal, role, days, scope, public.hex()[:16])

    def _accept(
        self, kind: str, value: str, principal: str, role: Role, days: float | None, scope: Iterable[str] | None, label: str
    ) -> None:
        expires = None if days is None else self.clock() + days * 86_400
        with self.database.transaction() as run:
            self.user(principal, role)
            taken = run("select user from credentials where value = ?", value)
            if taken and taken[0][0] != principal:
                raise ConfigurationError(f"this {kind} is {taken[0][0]}'s: revoke it there first")
            row = (kind, value, principal, scope_text(scope), expires, self.clock(), label)
            run("insert or replace into credentials values (?, ?, ?, ?, ?, ?, ?)", *row)

    def revoke(self, principal: str) -> int:
        """Accept ``principal`` no more: all tokens and keys go, and open connections within a second. Returns how many there were."""
        with self.database.transaction() as run:
            ((count,),) = run("select count(*) from credentials where user = ?", principal)
            run("delete from users where name = ?", principal)
        return int(count)

    def revoke_key(self, label: str) -> str | None:
        """Accept the key whose digits begin with ``label`` no more. Returns whose it was, None if there is none, or several."""
        with self.database.transaction() as run:
            rows = run("select value, user from credentials where kind = 'key' and substr(value, 1, ?) = ?", len(label), label)
            if len(rows) != 1 or len(label) < 8:
                return None
            run("delete from credentials where value = ?", rows[0][0])
            return str(rows[0][1])

    def grants(self) -> list[Grant]:
        """Who has a token or a key, oldest first."""
        rows = self.database.rows(
            "select user, role, expires, scope, kind, label from credentials join users on name = user order by credentials.rowid"
        )
        return [Grant(user, Role(role), expires, _scope(scope), kind, label) for user, role, expires, scope, kind, label in rows]

    def users(self) -> list[tuple[str, Role]]:
        """Names and roles, by name."""
        return [(name, Role(role)) for name, role in self.database.rows("select name, role from users order by name")]

    # -- what the node asks

    def authenticate(self, scheme: str, secret: str) -> Admission | None:
        """Who holds the token ``secret``, or proved to own that key, if it is still valid."""
        given, found = _hash(secret) if scheme == "token" else secret, None
        try:
            rows = self._valid()
        except OSError as error:  # who knocks is told nothing of this node's files
            log.error("nobody can connect: %s", error)
            return None
        for row in rows:  # all of them, so that the time taken tells nothing
            if hmac.compare_digest(row[1].encode(), given.encode()) and row[0] == scheme:
                found = row
        if found is None:
            return None
        kind, value, user, role, scope = found
        return Admission(Principal(user, Role(role)), _scope(scope), f"{kind}:{value}")

    def current(self) -> frozenset[str]:
        """The credentials that are good now."""
        return frozenset(f"{kind}:{value}" for kind, value, *_ in self._valid())

    def _valid(self) -> list[tuple[Any, ...]]:
        return self.database.rows(
            "select kind, value, user, role, scope from credentials join users on name = user where expires is null or expires > ?",
            self.clock(),
        )

    # -- what earlier versions left

    def take_in(self, path: Path) -> None:
        """Take in the token file at ``path``, if there is one, and rename it. Raises `ConfigurationError` for one that is none."""
        try:
            rows = _rows_of(path.read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path} is not a token file: {error}") from None
        with self.database.transaction() as run:
            for row in rows:
                role = Role(row["role"]).value
                run("insert or ignore into users values (?, ?, ?)", row["principal"], role, self.clock())
                run(
                    "insert or ignore into credentials values ('token', ?, ?, null, ?, ?, '')",
                    row["hash"], row["principal"], row["expires"], self.clock(),
                )  # fmt: skip
        path.replace(path.with_name(path.name + ".migrated"))


def scope_text(scope: Iterable[str] | None) -> str | None:
    """How ``scope`` is kept. Raises `ConfigurationError` for a permission that does not exist."""
    if scope is None:
        return None
    names = sorted(set(scope))
    unknown = [name for name in names if name not in SCOPES]
    if unknown or not names:
        raise ConfigurationError(f"{', '.join(unknown) or 'an empty scope'} is no permission; there are {', '.join(sorted(SCOPES))}")
    return " ".join(names)


def _scope(text: str | None) -> frozenset[str] | None:
    return None if text is None else frozenset(text.split())


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
