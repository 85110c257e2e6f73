"""What of a plan's state is no tensor, and yet part of a program: it was a number, or decided which way the function went.

A learning rate that a scheduler lowers, a layer's training mode, a frozen parameter: with other settings a plan has another program.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

Settings = tuple[Any, ...]
FORMS = 16
"""For how many of them programs are kept, those of the oldest going first; over shares, how many programs are."""
_NUMBERS = (bool, int, float, complex, str)


def settings(sources: Iterable[Any], tensors: Sequence[torch.Tensor]) -> Settings:
    """Of the optimizers and modules among ``sources``, and of the state's ``tensors``."""
    found: list[Any] = []
    for source in sources:
        if isinstance(source, torch.optim.Optimizer):
            found += [_plain(value) for group in source.param_groups for name, value in group.items() if name != "params"]
        elif isinstance(source, nn.Module):
            found += [value for module in source.modules() for value in vars(module).values() if type(value) in _NUMBERS]
    return (*found, *[tensor.requires_grad for tensor in tensors])


def _plain(value: Any) -> Any:
    """An option of an optimizer: a number, whatever it is kept in."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.dim() == 0 else tuple(value.tolist())
    return tuple(map(_plain, value)) if isinstance(value, (tuple, list)) else value
