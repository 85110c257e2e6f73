"""Where things are kept: $SYFTLITE_HOME, or ~/.syftlite. Readable by its user alone.

    run/HOST-PORT.json     the tokens of a node that listens on loopback
    nodes/NAME/            a node's tokens, datasets and journal
"""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The base folder, made with mode 0700 when missing."""
    return private_folder(Path(os.environ.get("SYFTLITE_HOME") or Path.home() / ".syftlite"))


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
