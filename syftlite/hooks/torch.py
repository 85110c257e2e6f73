"""TorchHook: the classic first line of a program. Making a worker does the same. And two names for torch's own, from the same programs."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import Dataset

from syftlite.federated.datasets import federate
from syftlite.remote import methods, registry
from syftlite.remote.virtual import LocalWorker


class TorchHook:
    """Adds the method names of pointers and modules to torch, and `Dataset.federate`, once, however often it is made. ``local_worker`` is
    the worker of this process. ``is_client`` and ``verbose`` are PySyft's, and tell it nothing.

    >>> import torch
    >>> hook = TorchHook(torch)
    >>> hook.local_worker.id
    'me'
    """

    def __init__(
        self, torch: Any = None, local_worker: LocalWorker | None = None, seed: int | None = None, *, is_client: bool = True,
        verbose: bool = False,
    ) -> None:  # fmt: skip
        methods.install()
        Dataset.federate = federate  # type: ignore[attr-defined]
        if seed is not None and torch is not None:
            torch.manual_seed(seed)

    @property
    def local_worker(self) -> LocalWorker:
        """The worker of this process, "me"."""
        return registry.local_worker()


def FloatTensor(values: Any) -> torch.Tensor:
    """A float32 tensor of ``values``: a list, a number or a NumPy array, which is copied.

    >>> FloatTensor([[1, 0.5]])
    tensor([[1.0000, 0.5000]])
    """
    methods.install()
    return torch.tensor(values, dtype=torch.float32)


def zeros(*size: Any, **options: Any) -> torch.Tensor:
    """`torch.zeros`.

    >>> zeros(2, 1)
    tensor([[0.],
            [0.]])
    """
    methods.install()
    return torch.zeros(*size, **options)
