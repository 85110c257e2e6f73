"""Ray: one actor that holds the tensors; calls are pipelined and their results stay with it.

A method declared with `num_returns=0` is a third faster, but then no error ever comes back: calls are made as Ray makes them by default.
"""

from __future__ import annotations

import os
import time
from typing import Any

from _serve import Command, serve

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")


def start() -> tuple[str, dict[str, Command]]:
    """Start Ray and the actor."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    @ray.remote
    class Holder:
        """Holds tensors by name."""

        def __init__(self) -> None:
            import torch

            torch.set_num_threads(1)
            self.store: dict[str, Any] = {"x": torch.zeros(10), "y": torch.ones(10)}

        def add(self, left: str, right: str, out: str) -> None:
            """An addition whose result stays here."""
            self.store[out] = self.store[left] + self.store[right]

        def first(self, name: str) -> float:
            """The first element of a tensor."""
            return float(self.store[name][0])

    holder = Holder.remote()
    ray.get(holder.first.remote("x"))

    def pipelined(count: int) -> float:
        """x = x + y, ``count`` times, ended by a checked get."""
        before = ray.get(holder.first.remote("x"))
        began = time.perf_counter()
        for _ in range(count):
            holder.add.remote("x", "y", "x")
        last = ray.get(holder.first.remote("x"))
        seconds = time.perf_counter() - began
        assert last == before + count, (before, count, last)
        return seconds

    return ray.__version__, {"pipelined": pipelined}


def stop() -> None:
    """End Ray."""
    import ray

    ray.shutdown()


if __name__ == "__main__":
    serve(start, stop)
