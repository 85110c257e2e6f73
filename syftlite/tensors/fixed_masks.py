"""Which values of a FixedPrecisionTensor everybody knows to be far below all scores, for they were filled with such a number.

    scores.masked_fill(mask, -1e9)      where(mask, scores, -1e9)      scores + bias, of which some are -1e9      scores[:, mask] = -1e9

To a softmax they are nothing; their own numbers are beyond its range. They are noted (`Value.filled`), and stay so through views and
whatever else moves values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.tensors.fixed import FixedPrecisionTensor

Fixed = FixedPrecisionTensor
FAR = -1e4
"""Filled with less, a place is out of a softmax's range, which is told that it is masked."""


def masked_places(value: Any) -> torch.Tensor | None:
    """Where ``value``, of the layer or public, is known to be far below all scores; None if nowhere."""
    known = far(value)
    return None if known is None else known < 0


def far(value: Any) -> torch.Tensor | None:
    """What ``value`` is there, and 0 elsewhere; None if it is nowhere."""
    if isinstance(value, Fixed):
        return value._value.filled
    if type(value) is not torch.Tensor or not value.is_floating_point():
        return None
    return _beyond(value.detach().float())


def _beyond(known: torch.Tensor) -> torch.Tensor | None:
    below = known < FAR
    return torch.where(below, known, 0.0) if below.any() else None


def note_moved(made: Fixed, func: Any, args: Sequence[Any], values: Sequence[Any]) -> None:
    """Note what ``func``, which gives ``values`` of its operands and no others, made of them."""
    known = {id(v): far(v) for v in values if isinstance(v, torch.Tensor)}
    filling = args[2] if func is aten.constant_pad_nd.default and len(args) > 2 else 0.0
    if (all(v is None for v in known.values()) and filling >= FAR) or (func is aten.index_put.default and any(args[3:])):
        return

    def of(value: Any) -> Any:
        if isinstance(value, (list, tuple)):
            return [of(v) for v in value]
        if id(value) not in known:
            return value
        found = known[id(value)]
        return torch.zeros(value.shape) if found is None else found

    made._value.note_filled(_beyond(func(*map(of, args))))


def note_sum(made: Fixed, x: Any, y: Any, minus: bool) -> Fixed:
    """``made``, x + y or x - y, noted where one of them is; a number moves all scores alike, and is no mask."""
    if minus:
        y = -y if type(y) is torch.Tensor and y.is_floating_point() else None
    terms = [known for v in (x, y) if (known := far(v)) is not None and known.dim()]
    if terms:
        made._value.note_filled(sum(terms).expand(made.shape))  # type: ignore[union-attr]
    return made


def note_constant(made: Fixed, value: Any) -> Fixed:
    """``made``, which is the public ``value`` everywhere, noted where that is so far below."""
    known = torch.as_tensor(value)
    if type(known) is torch.Tensor:
        made._value.note_filled(_beyond(known.detach().float().expand(made.shape)))
    return made


def note_multiple(made: Fixed, x: Fixed, factor: float) -> Fixed:
    """``made``, a multiple of ``x``, noted where that is and it still is as far below."""
    known = x._value.filled
    if known is not None and factor > 0:
        made._value.note_filled(_beyond(known * factor))
    return made
