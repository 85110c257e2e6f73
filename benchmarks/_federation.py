"""Ours beside Flower's simulation, as a program of its own that takes the same commands as peers/flower_simulation.py: clients that give
back the weights that they got, on virtual workers. What is timed begins with the call that a user writes: `Federation(...)`, `fit(1)`.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from _serve import Command, serve

SECURE = {"max_weight": 400.0}
"""The most rows with which sums of ten clients fit a ring of 32 bits, which is what SecAgg+ has too."""


def start() -> tuple[str, dict[str, Command]]:
    """Our commands."""
    import torch
    from torch import nn

    import syftlite as sy
    from syftlite.federated import Federation, Trained

    torch.set_num_threads(1)

    class Weights(nn.Module):
        """So many of them."""

        def __init__(self, count: int) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(count))

    class Nothing:
        """Clients that give back what they got."""

        def record(self, worker: sy.BaseWorker, data: torch.Tensor, target: torch.Tensor) -> None:
            """Nothing to prepare."""

        def start(
            self, worker: sy.BaseWorker, data: torch.Tensor, target: torch.Tensor, values: Sequence[torch.Tensor], random: torch.Generator
        ) -> Trained:
            """The weights, there."""
            return Trained([worker.send(value) for value in values], None, len(data))

    running: list[tuple[list[sy.VirtualWorker], sy.FederatedDataset, bool]] = []
    federations: dict[int, Federation] = {}

    def begin(clients: int, parameters: int, secure: bool = False) -> float:
        """Seconds until a federation has done its first round; it goes on until `end`."""
        began = time.perf_counter()
        workers = [sy.VirtualWorker(id=f"client-{number}") for number in range(clients)]
        rows = torch.zeros(2 * clients, 1)
        running.append((workers, sy.BaseDataset(rows, rows).federate(workers), secure))
        round(parameters)
        return time.perf_counter() - began

    def round(parameters: int) -> float:
        """Seconds of a round of the federation that was begun last."""
        _, data, secure = running[-1]
        if parameters not in federations:
            federations[parameters] = Federation(
                data, lambda: Weights(parameters), training=Nothing(), aggregation="secure" if secure else "plain",
                secure=SECURE if secure else None,
            )  # fmt: skip
        federation = federations[parameters]
        began = time.perf_counter()
        history = federation.fit(1)
        seconds = time.perf_counter() - began
        assert len(history[-1].clients) == len(data.workers) and float((federation.model.w.detach() - 1).abs().max()) < 1e-3
        return seconds

    def end() -> float:
        """End it."""
        federations.clear()
        workers, _, _ = running.pop()
        for worker in workers:
            worker.close()
        return 0.0

    def memory() -> float:
        """The most memory that this process has had, MB."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

    return sy.__version__, {"begin": begin, "round": round, "end": end, "memory": memory}


if __name__ == "__main__":
    serve(start)
