"""Samples at a worker: the same values, shapes and strides, and what to do with the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from samples import Local, Sample, clone, plain

import syftlite as sy


def tensors(value: Any) -> list[torch.Tensor]:
    """The operands at the worker in ``value``, lists included."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, Local):
        return []
    return [t for v in value for t in tensors(v)] if isinstance(value, (list, tuple)) else []


def mapped(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """``value`` with each tensor changed; the caller's own 0-dim tensors stay."""
    if isinstance(value, Local):
        return value.tensor
    if isinstance(value, torch.Tensor):
        return change(value)
    return [mapped(v, change) for v in value] if isinstance(value, list) else value


def operands(sample: Sample, change: Callable[[torch.Tensor], Any] = lambda t: t) -> tuple[list[Any], dict[str, Any]]:
    """``sample``'s positional and named operands, each tensor changed."""
    return [mapped(a, change) for a in sample.args], {name: mapped(v, change) for name, v in sample.kwargs.items()}


def local(sample: Sample) -> tuple[list[Any], dict[str, Any]]:
    """``sample`` for a local call, on tensors of its own."""
    return [clone(plain(a)) for a in sample.args], {name: clone(plain(v)) for name, v in sample.kwargs.items()}


def strided(tensor: torch.Tensor, send: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """``send`` of a row-major copy of ``tensor``, then seen with the strides that ``tensor`` has."""
    base = tensor
    for dim, (size, step) in enumerate(zip(tensor.shape, tensor.stride(), strict=True)):
        if step == 0 and size > 1:
            base = base.narrow(dim, 0, 1)
    order = sorted(range(base.dim()), key=lambda d: (-base.stride(d), d))
    placed = send(base.permute(order).contiguous())
    inverse = [order.index(d) for d in range(base.dim())]
    return placed.permute(inverse).expand(tensor.shape) if order != sorted(order) or base.shape != tensor.shape else placed


def sent_to(worker: sy.BaseWorker) -> Callable[[torch.Tensor], torch.Tensor]:
    """Places tensors at ``worker``."""
    return lambda tensor: strided(tensor, worker.send)


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal, to the last bit of each number, NaN included."""
    if isinstance(one, torch.Tensor):
        if not isinstance(other, torch.Tensor) or one.shape != other.shape or one.dtype != other.dtype:
            return False
        return torch.equal(bits(one), bits(other)) or torch.allclose(one, other, rtol=0, atol=0, equal_nan=True)
    if isinstance(one, (list, tuple)):
        return isinstance(other, (list, tuple)) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of ``tensor``'s elements, in row-major order."""
    tensor = tensor.detach().resolve_conj()
    return tensor.contiguous().view(-1).view(torch.uint8) if tensor.dim() else tensor.reshape(1).view(torch.uint8)


def walk(*values: Any) -> Iterator[torch.Tensor]:
    """The tensors in all of ``values``."""
    for value in values:
        yield from tensors(list(value.values()) if isinstance(value, dict) else value)
