"""What everybody knows of the values of a secret tensor: that it is a comparison, or that some were filled with a public number.

What is done with it may depend on that: so a plan is recorded for inputs of which the same is known, and its results are known to be alike.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from syftlite.remote.sharing import AdditiveSharingTensor
from syftlite.tensors.fixed import FixedPrecisionTensor


class Known(NamedTuple):
    """Of one tensor; see `Value` (tensors/waiting.py) and `Held` (custody.py)."""

    truths: bool = False
    filled: torch.Tensor | None = None

    @classmethod
    def of(cls, tensor: Any) -> Known:
        """What is known of ``tensor``, in fixed precision or of whole numbers."""
        if isinstance(tensor, FixedPrecisionTensor):
            return cls(tensor._value.truths, tensor._value.filled)
        return cls(isinstance(tensor, AdditiveSharingTensor) and tensor.held.truths)

    def note(self, tensor: Any) -> Any:
        """``tensor``, noted to be so."""
        if isinstance(tensor, FixedPrecisionTensor):
            tensor._value.note_filled(self.filled)
        if self.truths:
            (tensor._value if isinstance(tensor, FixedPrecisionTensor) else tensor.held).note_truths()
        return tensor


def writes(tensor: Any) -> int:
    """How often it was written to, in place."""
    return int((tensor._memory if isinstance(tensor, FixedPrecisionTensor) else tensor.held).writes)
