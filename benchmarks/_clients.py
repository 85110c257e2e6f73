"""A process with many clients of one node, one thread and one connection each: the program behind the figure `clients`.

    stdin   {"uri", "token", "clients", "first"}   then, when all processes are ready, {"begin", "end"} in `time.monotonic` seconds
    stdout  "ready"                                then {"completed": [operations of each client], "errors": [...], "foreign": n}

Every client works on values that no other has, and compares every answer with what it must be.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import torch
from _node import client


class Client(threading.Thread):
    """Client ``number``: adds its own tensor and a running count, gets the sum, checks it; counts what it completed from begin to end."""

    def __init__(self, number: int, uri: str, token: str) -> None:
        super().__init__(daemon=True)
        self.own = torch.full((10,), 1000.0 * (number + 1))
        self.worker = client(uri, token)
        self.remote, self.one = self.own.send(self.worker), torch.ones(10).send(self.worker)
        self.completed = self.foreign = 0
        self.error = ""
        self.begin = self.end = 0.0

    def run(self) -> None:
        """Work from now until ``end``; what is done before ``begin`` warms up."""
        try:
            self._work()
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def once(self, step: int) -> None:
        """One round trip."""
        answer = (self.remote + self.one * float(step)).get()
        if not torch.equal(answer, self.own + step):
            self.foreign += 1

    def _work(self) -> None:
        step = 0
        while (now := time.monotonic()) < self.end:
            step = (step + 1) % 500
            self.once(step)
            if now >= self.begin:
                self.completed += 1


def main() -> None:
    """Connect, wait for the others, work, report."""
    torch.set_num_threads(1)
    order = json.loads(sys.stdin.readline())
    clients = [Client(order["first"] + i, order["uri"], order["token"]) for i in range(order["clients"])]
    clients[0].once(1)  # a process's first operation loads what torch loads late
    print("ready", flush=True)
    window = json.loads(sys.stdin.readline())
    for each in clients:
        each.begin, each.end = window["begin"], window["end"]
        each.start()
    for each in clients:
        each.join()
    report: dict[str, Any] = {
        "completed": [c.completed for c in clients],
        "errors": [c.error for c in clients if c.error],
        "foreign": sum(c.foreign for c in clients),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
