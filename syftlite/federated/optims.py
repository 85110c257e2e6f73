"""Optims: an optimizer of its own for each worker, all for the same parameters.

One optimizer survives its model's moves: its state travels along. With `Optims`, each worker's state (momentum, Adam's moments) stays
there.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from syftlite.errors import ConfigurationError, WorkerNotFoundError
from syftlite.remote.worker import BaseWorker


class Optims:
    """A copy of ``optim``, without state, for each of ``workers`` (or their ids).

    >>> model = torch.nn.Linear(2, 1)
    >>> optims = Optims(["bob", "alice"], optim=torch.optim.Adam(model.parameters(), lr=0.1))
    >>> optims.get_optim("bob").param_groups[0]["lr"]
    0.1
    """

    def __init__(self, workers: Iterable[BaseWorker | str], optim: torch.optim.Optimizer) -> None:
        if not isinstance(optim, torch.optim.Optimizer):
            raise ConfigurationError(f"optim is a torch optimizer, such as Adam(model.parameters()), not {optim!r:.60}")
        if isinstance(workers, (str, BaseWorker)) or not isinstance(workers, Iterable):
            raise ConfigurationError(f"Optims takes a list of workers or ids, such as ['bob', 'alice'], not {workers!r}")
        self._optim = optim
        self.workers = [_id(worker) for worker in workers]
        self.optimizers = {worker: _fresh(optim) for worker in self.workers}

    def get_optim(self, worker: BaseWorker | str) -> torch.optim.Optimizer:
        """The optimizer of ``worker``. Raises `WorkerNotFoundError`."""
        if _id(worker) not in self.optimizers:
            raise WorkerNotFoundError(f"there is no optimizer for {_id(worker)!r}; there are for {', '.join(self.workers) or 'no worker'}")
        return self.optimizers[_id(worker)]

    def count(self) -> int:
        """How many optimizers there are."""
        return len(self.optimizers)

    def reset(self) -> None:
        """Forget all state: every optimizer starts anew, with the settings that the one given has now."""
        for worker in self.workers:
            self.optimizers[worker] = _fresh(self._optim)


def _id(worker: BaseWorker | str) -> str:
    return worker if isinstance(worker, str) else worker.id


def _fresh(optim: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """An optimizer of the class of ``optim``: its groups carry all its settings."""
    return type(optim)([dict(group) for group in optim.param_groups])  # type: ignore[call-arg]
