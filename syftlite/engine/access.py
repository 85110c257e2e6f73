"""Who may send what. What is not in these tables is refused, whatever it is and whoever sends it.

    a role has permissions        ROLES
    a token may have fewer        its scope
    a permission is messages      PERMISSIONS

    owner       everything
    scientist   finds, computes, takes what the gate lets go, moves, shares
    peer        another node: takes part in moves and in sharing, reads nothing
    provider    deals randomness for sharing groups, reads nothing
    auditor     sees who asked for what and how it was decided, and no value
"""

from __future__ import annotations

from typing import NamedTuple

from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import NotOwnerError
from syftlite.wire import messages as m

PERMISSIONS: dict[str, frozenset[int]] = {
    "session": frozenset({m.DROP, m.CLEAR, m.SYNC}),
    "find": frozenset({m.FIND, m.LIST, m.DESCRIBE, m.REFER}),
    "compute": frozenset({m.OP, m.PUT, m.ASK, m.PLAN, m.RUN, m.SCAN, m.PROTECT}),
    "release": frozenset({m.GET, m.FILE, m.STATUS, m.TAKE, m.AGGREGATE, m.EXPLAIN, m.MEASURE, m.MAP, m.BUDGET}),
    "requests": frozenset({m.PENDING}),
    "move": frozenset({m.EXPECT, m.SHIP, m.ARRIVED}),
    "share": frozenset({m.INVITE, m.JOIN, m.REPLICATE, m.JOINED, m.COMPUTE, m.REVEAL, m.SPLIT, m.SPREAD, m.LEND, m.LEAVE, m.REPLAY}),
    "provide": frozenset({m.DEAL, m.CORRECT}),
    "serve": frozenset({m.SERVE, m.ADMIT, m.WATCH, m.RETIRE}),
    "query": frozenset({m.ATTACH, m.QUERY}),
    "store": frozenset({m.STORE, m.POLICY}),
    "decide": frozenset({m.DECIDE, m.INSPECT}),
}
"""What each permission covers."""

SCIENTIST = frozenset({"session", "find", "compute", "release", "requests", "move", "share", "provide", "serve", "query"})
ROLES: dict[Role, frozenset[str]] = {
    Role.OWNER: frozenset(PERMISSIONS),
    Role.SCIENTIST: SCIENTIST,
    Role.PEER: frozenset({"session", "move", "share"}),
    Role.PROVIDER: frozenset({"session", "share", "provide", "serve"}),
    Role.AUDITOR: frozenset({"session", "requests"}),
}
"""What each role may do."""
SCOPES = frozenset(PERMISSIONS) - {"session"}
"""Permissions that a token's scope may name; "session" is everybody's."""

_PERMISSION_OF = {kind: name for name, kinds in PERMISSIONS.items() for kind in kinds}


class Admission(NamedTuple):
    """Who a connection is, what it may do (None: all that its role may), and by which credential it came, so that this can be revoked."""

    principal: Principal
    scope: frozenset[str] | None = None
    credential: str = ""


def kinds_of(role: Role, scope: frozenset[str] | None = None) -> frozenset[int]:
    """The messages that ``role`` may send within ``scope``."""
    allowed = ROLES[role] if scope is None else ROLES[role] & (scope | {"session"})
    return frozenset().union(*(PERMISSIONS[name] for name in allowed))


def refusal(session: Session, kind: int) -> NotOwnerError:
    """Why ``session`` may not send messages of ``kind``."""
    principal, permission = session.principal, _PERMISSION_OF.get(kind)
    if permission is None or permission in ROLES[principal.role]:
        return NotOwnerError(f"{principal.name}'s token does not cover {permission!r}: ask the owner for one that does")
    others = [role.value for role, allowed in ROLES.items() if permission in allowed]
    who = "only the owner may do this" if others == ["owner"] else f"this takes a role that may {permission!r} ({', '.join(others)})"
    return NotOwnerError(f"{who}, and {principal.name} is a {principal.role.value}")
