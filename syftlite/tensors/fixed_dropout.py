"""Dropout of FixedPrecisionTensors, whose places are public, and padding.

    dropout                   of elements;   dropout1d, 2d, 3d    of whole channels
    pad(mode="circular")      the other end's elements; other modes: fixed_moves.py
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_moves import padded

Fixed = FixedPrecisionTensor


@Fixed.reexpresses(F.dropout)
def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zeros at random, public, places."""
    return _dropped("dropout", x, x.shape, p, training, inplace)


@Fixed.reexpresses(torch.dropout)
def _dropout(x: Any, p: float, train: bool) -> Any:
    return dropout(x, p, train)


def _dropped(name: str, x: Any, shape: Any, p: float, training: bool, inplace: bool) -> Any:
    """``x`` with a factor for each place of ``shape``."""
    if not 0 <= p <= 1:
        raise ValueError(f"{name}: p is a probability, 0 ... 1, and not {p}")
    if not training or not p:
        return x
    kept = x * 0 if p == 1 else x * ((torch.rand(shape) >= p).float() / (1 - p))
    return x.copy_(kept) if inplace else kept


def _dropping_channels(function: Any, batched: int) -> None:
    """Register ``function`` of torch, of (N, C, ...) with ``batched`` axes."""

    def channels(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        if training and x.dim() != batched:
            raise NotImplementedError(
                f"FixedPrecisionTensor knows {function.__name__} of (N, C, ...), {batched} axes, and not of {tuple(x.shape)}: unsqueeze()"
            )
        return _dropped(function.__name__, x, [*x.shape[:2], *[1] * (batched - 2)], p, training, inplace)

    channels.__name__, channels.__doc__ = function.__name__, "Zeros of whole channels."
    Fixed.reexpresses(function)(channels)


for _axes, _function in enumerate((F.dropout1d, F.dropout2d, F.dropout3d), 3):
    _dropping_channels(_function, _axes)


@Fixed.reexpresses(F.alpha_dropout, F.feature_alpha_dropout)
def alpha_dropout(x: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Nothing, once training is over. Raises NotImplementedError before."""
    if training and p:
        raise NotImplementedError("FixedPrecisionTensor knows alpha_dropout after training, where it is nothing: use dropout() in training")
    return x


# -- padding


@Fixed.reexpresses(F.pad)
def pad(x: Any, pad: Any, mode: str = "constant", value: Any = None) -> Any:
    """More elements at the ends; circular ones are those of the other end."""
    if mode != "circular":
        return padded(x, pad, mode, value)
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = x.dim() - 1 - i
        size = x.shape[axis]
        if not (0 <= before <= size and 0 <= after <= size):
            raise ValueError(f"pad: circular padding of axis {axis} of {tuple(x.shape)} is 0 ... {size} at an end, and not {before, after}")
        x = torch.cat([x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)], axis)
    return x
