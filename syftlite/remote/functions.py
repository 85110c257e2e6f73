"""`bob.remote.torch.zeros(3)`: torch's functions, run for a worker.

    bob.remote                       what can be run there: torch
    bob.remote.torch.zeros(3)        torch.zeros(3) inside `with bob:`
    bob.remote.torch.tensor([1.0])   made here, of values that you write, and sent
    bob.remote.torch.nn.Linear(2, 1) a module whose parameters begin there
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from syftlite.remote import modules
from syftlite.remote.handle import RemoteTensor
from syftlite.remote.transfer import send

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class Remote:
    """What can be run for ``worker``: ``torch``, and nothing else."""

    def __init__(self, worker: BaseWorker) -> None:
        self.torch = Functions(worker, torch)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a worker's remote has torch, and no {name}: numpy's functions run on what sy.send(array, worker) gives")


class Functions:
    """The functions of ``module``, whose results land at ``worker``. What is no function, module or layer is torch's own."""

    def __init__(self, worker: BaseWorker, module: ModuleType) -> None:
        self._worker, self._module = worker, module

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._module, name)  # AttributeError with torch's own words
        if isinstance(found, ModuleType):
            return Functions(self._worker, found)
        if callable(found) and (not isinstance(found, type) or issubclass(found, nn.Module)):
            return _landing(found, self._worker)
        return found

    def __dir__(self) -> list[str]:
        return dir(self._module)

    def __repr__(self) -> str:
        return f"<{self._module.__name__} at {self._worker.id}>"


def _landing(function: Callable[..., Any], worker: BaseWorker) -> Callable[..., Any]:
    @functools.wraps(function, updated=())
    def run(*args: Any, **kwargs: Any) -> Any:
        with worker:
            result = function(*args, **kwargs)
        return _landed(result, worker)

    return run


def _landed(result: Any, worker: BaseWorker) -> Any:
    """``result`` with its local tensors sent; those that are somewhere already stay there."""
    if isinstance(result, nn.Module):
        if any(not isinstance(t, RemoteTensor) for t in (*result.parameters(), *result.buffers())):
            modules.send(result, worker)
        return result
    if type(result) is torch.Tensor:
        return send(result, worker)
    if isinstance(result, (list, tuple)) and not isinstance(result, torch.Size):
        kind: Any = type(result)
        return kind([_landed(r, worker) for r in result])
    return result
