"""A machine as its user sees it: commands typed, nodes started by them in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from click.testing import CliRunner, Result

import syftlite as sy
from syftlite.cli.app import cli
from syftlite.remote import registry

STOP_SECONDS = 30


@contextmanager
def as_another_process() -> Iterator[None]:
    """Know no worker, as the process of a command does not: a process has one connection to a node."""
    known, registry.known = registry.known, weakref.WeakValueDictionary()
    try:
        yield
    finally:
        registry.known = known


class Machine:
    """A user's account on one machine: a home folder, the commands typed there, the nodes started there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.processes: list[subprocess.Popen[str]] = []

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("SYFTLITE")}
        return {**kept, "SYFTLITE_HOME": str(self.home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}

    def start(self, *words: str) -> Node:
        """`syftlite worker start WORDS` on a free port, once it listens."""
        return self.spawn([sys.executable, "-m", "syftlite.cli", "worker", "start", "--port", "0", *words])

    def spawn(self, command: list[str]) -> Node:
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        assert process.stdout is not None and process.stderr is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Ctrl-C" in line:
                return Node(self, process, said)
        raise AssertionError(f"ended with {process.wait()}: {said}{process.stderr.read()}")

    def run(self, *words: str | Path, code: int = 0, token: str | None = None) -> Result:
        """`syftlite WORDS` in this process; it must end with ``code``."""
        environment = {"SYFTLITE_HOME": str(self.home), "COLUMNS": "200", "SYFTLITE_TOKEN": token}
        with as_another_process():
            result = CliRunner().invoke(cli, [str(word) for word in words], env=environment, prog_name="syftlite")
        assert result.exit_code == code, result.output
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def kill(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


class Node:
    """A running node: what it ``said`` when it started, where it listens."""

    def __init__(self, machine: Machine, process: subprocess.Popen[str], said: str) -> None:
        self.machine, self.process, self.said = machine, process, said
        self.uri = next(word for word in said.split() if word.startswith(("ws://", "wss://")))
        self.port = int(self.uri.rsplit(":", 1)[1])

    def run(self, *words: str | Path, code: int = 0, token: str | None = None) -> Result:
        """A command that talks to this node."""
        return self.machine.run(*words, "--node", self.uri, code=code, token=token)

    def connect(self, token: str) -> sy.WebsocketClientWorker:
        """A scientist's connection."""
        return sy.connect(self.uri, token=token)

    def token(self, name: str, *options: str) -> str:
        """A fresh token of ``name``."""
        return self.machine.run("token", "new", name, "--node", "hospital", *options).stdout.strip()

    def signal(self, number: signal.Signals) -> tuple[int, str, str]:
        """Send a signal; (exit code, the rest of its output, its errors)."""
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=STOP_SECONDS)
        return self.process.returncode, output, errors
