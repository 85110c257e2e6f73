"""PrivateGridNetwork: a search over several workers at once."""

from __future__ import annotations

from typing import Any

from syftlite.remote import registry
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.worker import BaseWorker


class PrivateGridNetwork:
    """Several ``workers``, which are asked together."""

    def __init__(self, *workers: BaseWorker | str) -> None:
        self.workers: list[BaseWorker] = [registry.find(worker) for worker in workers]

    def search(self, *query: Any) -> dict[str, list[PointerTensor]]:
        """Pointers to all that carries every tag of ``query``, by the id of the worker that has it; no entry for one that has nothing."""
        found = {worker.id: worker.search(*query) for worker in self.workers}
        return {worker: pointers for worker, pointers in found.items() if pointers}

    def __repr__(self) -> str:
        return f"<PrivateGridNetwork of {', '.join(worker.id for worker in self.workers) or 'no workers'}>"
