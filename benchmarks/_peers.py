"""The peers: each a program of its own under peers/, run by any Python that has it, so that nothing of it lives in our process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAMS = Path(__file__).parent / "peers"
STOP_SECONDS = 20


class PeerMissing(Exception):
    """The peer cannot be measured; the text says why."""


class Peer:
    """A running peer. Use as a context manager; raises `PeerMissing` when it is not installed or ends unasked."""

    def __init__(self, python: str, program: str) -> None:
        self.program = program
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in __exit__
        self._process = subprocess.Popen(
            [python, str(PROGRAMS / program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            start_new_session=True,
        )
        try:
            greeting = self._read()
            if "missing" in greeting:
                raise PeerMissing(f"{greeting['missing']} is not installed")
        except BaseException:
            self.close()
            raise
        self.version: str = greeting["ready"]

    def run(self, do: str, **arguments: Any) -> float:
        """Seconds that the peer's command took, or what it counted."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _read tells why it ended
        value: float = self._read()["value"]
        return value

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            last = self._errors.read().strip().rsplit("\n", 1)[-1]
            raise PeerMissing(f"{self.program} ended with code {self._process.wait()}: {last}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the peer and whatever it started."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass
class Settings:
    """``scale`` divides every count; ``python`` runs the peers, None for none of them."""

    repeats: int = 7
    scale: int = 1
    python: str | None = sys.executable
    long: bool = False

    def count(self, full: int, least: int = 1) -> int:
        """How often to do what a full run does ``full`` times."""
        return max(least, full // self.scale)

    def peer(self, program: str) -> Peer:
        """The peer ``program``, started. Raises `PeerMissing`."""
        if self.python is None:
            raise PeerMissing("peers are turned off")
        return Peer(self.python, program)
