"""The parts of a module and their tensors: what torch's own iterators find, in its order, in a tenth of their time."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import nn

_ITERATORS = (
    "parameters", "named_parameters", "buffers", "named_buffers", "modules", "named_modules", "children", "named_children", "_named_members"
)  # fmt: skip


def parts(module: nn.Module) -> list[nn.Module]:
    """``module`` and all below it, each once, as `modules()` gives them."""
    found = _found(module)
    return list(module.modules()) if found is None else found


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """Its parameters, then its buffers, and those of all below it, each once."""
    found = _found(module)
    if found is None:
        return list({id(t): t for t in (*module.parameters(), *module.buffers())}.values())
    tables: list[dict[str, Any]] = [*[part._parameters for part in found], *[part._buffers for part in found]]
    return list({id(tensor): tensor for table in tables for tensor in table.values() if tensor is not None}.values())


def _found(module: nn.Module) -> list[nn.Module] | None:
    """The same by its parts' tables; None where a class says by itself what there is to find."""
    found: dict[int, nn.Module] = {}
    return list(found.values()) if _enter(module, found) else None


def _enter(module: nn.Module, found: dict[int, nn.Module]) -> bool:
    found[id(module)] = module
    kind: Any = type(module)
    children = [child for child in module._modules.values() if child is not None]
    return _as_torch(kind) and all(id(child) in found or _enter(child, found) for child in children)


@lru_cache(maxsize=1024)
def _as_torch(kind: Any) -> bool:
    """Whether a class leaves torch's iterators as they are."""
    return all(getattr(kind, name) is getattr(nn.Module, name) for name in _ITERATORS)
