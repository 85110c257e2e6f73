"""What a training step over shares writes to tensors that are here, such as a batch norm's count of batches: a replay writes it too.

    recorded twice, from where the first time has left them: what both times add, each call adds; they are back where they were meanwhile
    anything else is refused: it would be a computation here, and a program has those of its members alone
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch

from syftlite._torch import is_plain
from syftlite.errors import PlanError

Advances = tuple[tuple[torch.Tensor, torch.Tensor], ...]
"""Tensors, and what each call adds to them."""


class Counters:
    """The local tensors among ``state``, watched while a function is recorded."""

    def __init__(self, state: Iterable[torch.Tensor]) -> None:
        self.tensors = [tensor for tensor in state if is_plain(tensor)]
        self.seen: list[Sequence[torch.Tensor]] = []
        self.look()

    def look(self) -> None:
        """Note what they are now."""
        self.seen.append([tensor.detach().clone() for tensor in self.tensors])

    def back(self) -> None:
        """Have them be what they were at first."""
        with torch.no_grad():
            for tensor, before in zip(self.tensors, self.seen[0], strict=True):
                if not torch.equal(tensor, before):
                    tensor.copy_(before)

    def advances(self, name: str) -> Advances:
        """What each call adds. Raises `PlanError` where that is not the same each time."""
        found = []
        for tensor, *values in zip(self.tensors, *self.seen, strict=True):
            if all(torch.equal(values[0], value) for value in values):
                continue
            steps = [] if tensor.dtype == torch.bool else [after - before for before, after in pairwise(values)]
            if not steps or not all(torch.equal(steps[0], step) for step in steps):
                raise PlanError(
                    f"{name} writes to a tensor of its state that is not shared, {tensor.dtype} of shape {list(tensor.shape)}, and a "
                    "replay adds a constant to those at most: share() it, or write to it outside"
                )
            found.append((tensor, steps[0]))
        return tuple(found)


def advance(advances: Advances) -> None:
    """What one call adds."""
    with torch.no_grad():
        for tensor, step in advances:
            tensor.add_(step)
