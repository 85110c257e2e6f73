"""A node on loopback leaves tokens where only its own user's clients find them: no unauthenticated mode, and nothing to type."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from syftlite.errors import AuthenticationError
from syftlite.storage.home import home, write_private


def _announcement(host: str, port: int) -> Path:
    name = "127.0.0.1" if host == "localhost" else host.replace(":", "_")
    return home() / "run" / f"{name}-{port}.json"


def announce(host: str, port: int, tokens: Mapping[str, str], node: str = "", secure: bool = False) -> Path:
    """Leave {role: token} where only this user's clients find it, with whose they are."""
    path = _announcement(host, port)
    told = {"node": node, "host": host, "port": port, "secure": secure} if node else {}
    write_private(path, json.dumps({**tokens, **told}))
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


def node_at(host: str, port: int) -> str | None:
    """Whose announcement is of ``host``:``port``: the node that listens there, or did last."""
    name = _read(_announcement(host, port)).get("node")
    return name if isinstance(name, str) else None


def address_of(node: str) -> tuple[str, int, bool] | None:
    """(host, port, whether by TLS) where ``node`` of this user listens on loopback, or listened last; None if it has announced neither."""
    folder = home() / "run"
    newest = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True) if folder.is_dir() else []
    for told in map(_read, newest):
        if told.get("node") == node:
            return str(told["host"]), int(told["port"]), bool(told["secure"])
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return told if isinstance(told, dict) else {}
