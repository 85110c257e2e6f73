"""NodeProcess: a node in a process of its own on this machine, for as long as this one wants it and lives."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from syftlite.errors import ConfigurationError, ConnectionLostError
from syftlite.secagg.identity import Identity

STOP_SECONDS = 10


class NodeProcess:
    """The node ``id`` on loopback ``port`` (0: a free one), started at once; `port` waits until it listens.

    ``tokens``: {role: token} that it accepts; None: it leaves some where this user's clients find them. ``threads``: torch's, there; None
    leaves torch's default. ``device``: where it keeps tensors; main memory if left out. ``folder``: where it keeps what must outlive it.
    ``identity``, ``aggregates_with``: its key in sums, and those of the workers that it adds PRIVATE data with.
    """

    def __init__(
        self,
        id: str,
        tokens: Mapping[str, str] | None = None,
        port: int = 0,
        threads: int | None = None,
        device: str | None = None,
        folder: Path | None = None,
        identity: Identity | None = None,
        aggregates_with: Mapping[str, bytes] | None = None,
    ) -> None:
        self.id = id
        self._port: int | None = None
        command = [sys.executable, "-m", "syftlite.remote.child"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        given = None if tokens is None else dict(tokens)
        kept = None if folder is None else str(folder.resolve())
        settings = {"id": id, "tokens": given, "port": port, "threads": threads, "device": device, "folder": kept}
        secret = None if identity is None else identity.secret().hex()
        settings |= {"identity": secret, "aggregates_with": {name: key.hex() for name, key in (aggregates_with or {}).items()}}
        self.process.stdin.write(json.dumps(settings) + "\n")
        self.process.stdin.flush()

    @property
    def port(self) -> int:
        """Where it listens. Raises `ConfigurationError` if it cannot, `ConnectionLostError` if it ended."""
        if self._port is None:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            if not line:
                raise ConnectionLostError(f"node {self.id} ended while starting, with code {self.process.wait()}: its messages are above")
            answer = json.loads(line)
            if "error" in answer:
                raise ConfigurationError(answer["error"])
            self._port = int(answer["port"])
        return self._port

    def ask_to_stop(self) -> None:
        """Tell it to end; `stop` waits."""
        if self.process.stdin is not None:
            self.process.stdin.close()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self.ask_to_stop()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
