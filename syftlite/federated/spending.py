"""What private training is about to spend, on disk before it is spent: a crash may only leave too much in the count, never too little.

    run.safetensors          steps up to the last checkpoint
    run.safetensors.spent    a line for each client that has begun since: its steps so far, as if all of its round's were done

The second file goes as soon as a checkpoint has all that is in it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from pathlib import Path

from syftlite.dp.accountant import Event, gaussian

Counts = dict[str, dict[Event, int]]
"""How often, by client."""


class Spending:
    """Beside the checkpoint at ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = beside(path)
        self._noted: Counts = {}
        self._lock = threading.Lock()

    def note(self, client: str, event: Event, count: int) -> None:
        """``client`` will have spent ``event`` ``count`` times. On disk when this returns."""
        with self._lock:
            self._noted.setdefault(client, {})[event] = count
            self._write("ab", "\n" + _line(client, event, count))  # a line that a crash has cut stays by itself

    def kept(self, counts: Mapping[str, Mapping[Event, int]]) -> None:
        """A checkpoint has these: only what goes beyond them stays."""
        with self._lock:
            left = {(c, e): n for c, noted in self._noted.items() for e, n in noted.items() if n > counts.get(c, {}).get(e, 0)}
            self._noted = {}
            for (client, event), count in left.items():
                self._noted.setdefault(client, {})[event] = count
            if left:
                self._write("wb", "".join(_line(client, event, count) for (client, event), count in left.items()))
            else:
                self._path.unlink(missing_ok=True)

    def _write(self, mode: str, text: str) -> None:
        path = self._path if mode == "ab" else self._path.with_name(self._path.name + ".new")
        with path.open(mode) as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        if path != self._path:
            path.replace(self._path)


def beside(path: Path) -> Path:
    """Where that of the checkpoint at ``path`` is."""
    return path.with_name(path.name + ".spent")


def noted(path: Path) -> Counts:
    """What was about to be spent after the checkpoint at ``path``."""
    found: Counts = {}
    file = beside(path)
    for line in file.read_text(errors="replace").splitlines() if file.exists() else ():
        try:
            client, noise, rate, count = json.loads(line)
        except ValueError:
            continue  # empty, or cut: the steps of a line begin when all of it is there
        counts, event = found.setdefault(client, {}), gaussian(noise, rate)
        counts[event] = max(count, counts.get(event, 0))
    return found


def _line(client: str, event: Event, count: int) -> str:
    return json.dumps([client, event.noise, event.rate, count]) + "\n"
