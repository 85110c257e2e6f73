"""Where things are kept: $SYFTLITE_HOME, or ~/.syftlite. Readable by its user alone.

    run/HOST-PORT.json     the tokens of a node that listens on loopback
    nodes/NAME/            a node's node.db, node.key, datasets/ and journal.jsonl
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from syftlite.errors import ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def home() -> Path:
    """The base folder, made with mode 0700 when missing."""
    return private_folder(Path(os.environ.get("SYFTLITE_HOME") or Path.home() / ".syftlite"))


def node_folder(node: str, *, make: bool = True) -> Path:
    """The folder of the node named ``node``, made when missing. Not ``make``: raises `ConfigurationError` if it is."""
    path = home() / "nodes" / file_name(node, "a node's id")
    if make:
        private_folder(path.parent)
        return private_folder(path)
    if not path.is_dir():
        raise ConfigurationError(f"no node of this machine is called {node!r}: {path} does not exist")
    return path


def has_node(node: str) -> bool:
    """Whether a node of this machine has that name."""
    return _NAME.fullmatch(node) is not None and (home() / "nodes" / node).is_dir()


def file_name(name: str, what: str) -> str:
    """``name``, if it can be a file's on every system and leads nowhere else. Raises `ConfigurationError`, calling it ``what``."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(f"{what} is 1 to 100 letters, digits, '.', '_' or '-' and begins with a letter or digit, not {name!r}")
    return name


def private_folder(path: Path) -> Path:
    """``path`` as a folder that only its user can enter."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_private(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, whole or not at all, readable by its user alone."""
    private_folder(path.parent)
    draft = path.with_name(path.name + f".{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(draft, path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in ``path`` as durable as their files."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
