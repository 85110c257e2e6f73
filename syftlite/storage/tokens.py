"""A node on loopback leaves tokens where only its own user's clients find them: no unauthenticated mode, and nothing to type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from syftlite.errors import AuthenticationError
from syftlite.storage.home import home, write_private


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
