"""Recurrent layers one after another, with dropout between them: what torch's decomposition of such a stack leaves out.

    x (length, batch, features) --layer--> dropout --layer--> dropout --layer--> outputs        last states of all, side by side
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

Run = Callable[..., tuple[torch.Tensor, ...]]


def by_layers(
    run: Run, x: torch.Tensor, hx: Any, params: Sequence[torch.Tensor], has_biases: bool, num_layers: int, dropout: float, train: bool,
    bidirectional: bool, batch_first: bool = False,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """(outputs, last states...). ``run``: a stack of any number of layers, such as `torch.gru`, given these arguments. ``hx``: a tensor
    (layers, batch, hidden), or a list of some."""
    if not dropout or not train or num_layers == 1:
        return run(x, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first)
    x = x.transpose(0, 1) if batch_first else x
    ways = 2 if bidirectional else 1
    each = len(params) // num_layers
    lasts = []
    for layer in range(num_layers):
        at = slice(layer * ways, (layer + 1) * ways)
        state = [h[at] for h in hx] if isinstance(hx, (list, tuple)) else hx[at]
        own = params[layer * each : (layer + 1) * each]
        x, *last = run(F.dropout(x, dropout) if layer else x, state, own, has_biases, 1, 0.0, train, bidirectional, False)
        lasts.append(last)
    return x.transpose(0, 1) if batch_first else x, *[torch.cat(states) for states in zip(*lasts, strict=True)]
