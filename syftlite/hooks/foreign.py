"""What other libraries' arrays at a worker have in common: each stands on a pointer of torch's."""

from __future__ import annotations

from typing import Any

import torch

from syftlite.remote.pointer import PointerTensor


class ForeignPointer:
    """An array whose value is at ``location``. ``tensor`` is the pointer that it stands on, for torch's functions."""

    def __init__(self, tensor: PointerTensor) -> None:
        self.tensor = tensor

    @property
    def location(self) -> Any:
        """The worker that holds the value."""
        return self.tensor.location

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.tensor.dim()

    def __len__(self) -> int:
        return len(self.tensor)

    def get(self, user: str | None = None, reason: str = "") -> Any:
        """The library's own array, moved here; refused where a pointer's `get` would be."""
        return self._here(self.tensor.get(user=user, reason=reason))

    def get_copy(self, user: str | None = None, reason: str = "") -> Any:
        """A copy of it; the worker keeps its own."""
        return self._here(self.tensor.get_copy(user=user, reason=reason))

    @staticmethod
    def _here(tensor: torch.Tensor) -> Any:
        """``tensor``, which is here, as the library has it."""
        raise NotImplementedError
