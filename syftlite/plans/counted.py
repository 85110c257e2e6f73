"""Batch norm with ``momentum=None`` while it is recorded: its averages weigh all batches alike, by a count that no recording can read.

    m_n = m_n-1 + (x_n - m_n-1) / n      of a batch's mean or variance x_n

The layer runs with momentum 1, which leaves the batch's own; the average is taken by the count as a tensor.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

NAMES = ("running_mean", "running_var")


@contextlib.contextmanager
def counted(sources: Iterable[Any]) -> Iterator[None]:
    """Have the batch norms of ``sources`` average so meanwhile."""
    layers = [layer for source in sources if isinstance(source, nn.Module) for layer in source.modules() if _counts(layer)]
    if not layers:
        yield
        return
    held: dict[nn.Module, dict[str, Any]] = {}

    def enter(layer: nn.Module, inputs: Any) -> None:
        if layer in layers and layer.training:
            held[layer] = {name: layer._buffers[name] for name in NAMES}
            layer._buffers.update({name: average.clone() for name, average in held[layer].items()})
            layer.momentum = 1.0  # type: ignore[assignment]

    def restore(layer: nn.Module) -> None:
        layer._buffers.update(held.pop(layer))
        layer.momentum = None  # type: ignore[assignment]

    def leave(layer: nn.Module, inputs: Any, output: Any) -> None:
        if layer in held:
            batch = [layer._buffers[name] for name in NAMES]
            restore(layer)
            with torch.no_grad():
                _average(layer, batch)

    hooks = [register_module_forward_pre_hook(enter), register_module_forward_hook(leave)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer in list(held):
            restore(layer)


def _average(layer: Any, batch: list[Any]) -> None:
    for name, latest in zip(NAMES, batch, strict=True):
        average = layer._buffers[name]
        average.copy_(torch.lerp(average, latest, layer.num_batches_tracked.to(average.dtype).reciprocal()))


def _counts(layer: nn.Module) -> bool:
    counting = isinstance(layer, _BatchNorm) and layer.momentum is None and layer.num_batches_tracked is not None
    return counting and layer.running_mean is not None
