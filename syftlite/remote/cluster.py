"""LocalCluster: real nodes in processes of their own on free loopback ports, for as long as a `with` block lasts."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from syftlite._torch import ready
from syftlite.engine.device import named
from syftlite.engine.session import Role
from syftlite.errors import ConfigurationError
from syftlite.remote.client import WebsocketClientWorker
from syftlite.remote.process import NodeProcess
from syftlite.secagg.identity import Identity


class LocalCluster:
    """Nodes named ``names`` (or a number of them), authenticated, gone on exit.

    >>> import torch
    >>> with LocalCluster("alice", "bob", threads=1) as (alice, bob):
    ...     (torch.ones(3).send(alice).move(bob) + 1).get()
    tensor([2., 2., 2.])

    ``threads``: torch threads of each node; None leaves torch's default. ``timeout`` (s): as of `WebsocketClientWorker`.
    ``device``: where each node keeps its tensors, such as "cuda"; main memory if left out.
    The nodes know each other's keys: they may add up PRIVATE data among themselves, and with nobody else.
    ``folder``: where each node keeps, in a folder of its name, what it stores, its requests and its audit trail; else in memory.
    """

    def __init__(
        self,
        *names: str | int,
        threads: int | None = None,
        timeout: float = 60.0,
        device: str | None = None,
        folder: str | Path | None = None,
    ) -> None:
        if len(names) == 1 and isinstance(names[0], int):
            names = tuple(f"worker{i}" for i in range(names[0]))
        if not names or not all(isinstance(n, str) for n in names) or len(set(names)) != len(names):
            raise ConfigurationError(f"a cluster needs a number or distinct names, got {names}")
        self.names = [str(n) for n in names]
        if device is not None:
            named(device)  # here, where who started it sees the error
        self.threads, self.timeout, self.device = threads, timeout, device
        self.folder = None if folder is None else Path(folder)
        self.workers: tuple[WebsocketClientWorker, ...] = ()
        self._processes: dict[str, NodeProcess] = {}
        self._tokens = {role.value: secrets.token_urlsafe(32) for role in Role}

    def start(self, *, connect: bool = True) -> tuple[WebsocketClientWorker, ...]:
        """Start the nodes and, with ``connect``, connect to each as a scientist."""
        identities = {name: Identity() for name in self.names}
        known = {name: identity.public for name, identity in identities.items()}
        try:
            for name in self.names:
                folder = None if self.folder is None else self.folder / name
                self._processes[name] = NodeProcess(
                    name, self._tokens, threads=self.threads, device=self.device, folder=folder,
                    identity=identities[name], aggregates_with=known,
                )  # fmt: skip
            ready()  # while they start
            self.workers = tuple(self.connect(name) for name in self.names) if connect else ()
        except BaseException:
            self.stop()
            raise
        return self.workers

    def connect(self, name: str, role: str = "scientist") -> WebsocketClientWorker:
        """Another connection to node ``name``. The one before must be closed: a program has one worker of an id."""
        port, token = self._processes[name].port, self._tokens[role]
        return WebsocketClientWorker(host="127.0.0.1", port=port, token=token, timeout=self.timeout, id=name)

    @contextmanager
    def session(self, name: str, role: str = "scientist") -> Iterator[WebsocketClientWorker]:
        """A connection to node ``name`` for as long as a `with` block lasts."""
        worker = self.connect(name, role)
        try:
            yield worker
        finally:
            worker.close()

    def process(self, name: str) -> subprocess.Popen[str]:
        """The operating system's process of node ``name``."""
        return self._processes[name].process

    def stop(self) -> None:
        """Close the connections and end the nodes."""
        for worker in self.workers:
            worker.close()
        self.workers = ()
        for process in self._processes.values():
            process.ask_to_stop()
        for process in self._processes.values():
            process.stop()
        self._processes.clear()

    close = stop

    def __repr__(self) -> str:
        state = f"{len(self.workers)} running" if self.workers else "not started: use it in a with statement, or start() it"
        return f"<LocalCluster {', '.join(self.names)}: {state}>"

    def __enter__(self) -> tuple[WebsocketClientWorker, ...]:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> Any:
        self.stop()
