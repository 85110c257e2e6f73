"""Norms that are told never too small, but for a few roundings: what is clipped by them is within the clip, whatever was computed.

Squares of small elements are zero, so each element may be `_UNSEEN` larger; where several terms of one example are added up and cancel,
rounding leaves something of their sizes; and a factor of an outer product that is beyond 2^64, so that its square is infinite, would
magnify what is lost below the smallest numbers: then so is the norm. They are short, so they are in NumPy, which begins an operation in a
third of torch's time. What is infinite or NaN here is so for the caller to see, under `np.errstate`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from syftlite.errors import ConfigurationError

LEAST, LARGEST = 2.0**-40, 2.0**60
"""What norms may be clipped to: what single precision loses is far below, and what it adds up far above."""
_UNSEEN = {torch.float32: 2.0**-60, torch.float64: 2.0**-480}
_ROUNDED = 2.0**-22


Norms = np.ndarray[Any, np.dtype[np.floating[Any]]]


def size(values: torch.Tensor) -> Norms:
    """(groups,) norms of ``values`` (groups, ...)."""
    if values.dtype not in _UNSEEN:
        values = values.float()
    flat = values.flatten(1) if values.dim() > 1 else values[:, None]
    norms: Norms = torch.linalg.vector_norm(flat, dim=1).numpy(force=True)
    norms += _UNSEEN[values.dtype] * math.sqrt(flat.shape[1])
    return norms


def outer(one: Norms, other: Norms, biased: bool) -> Norms:
    """The norms of the outer product of what has these; together with ``one``'s own if ``biased``."""
    square = other * other
    return one * np.sqrt(square + 1 if biased else square)


def summed(found: Norms, terms: Norms, count: int) -> Norms:
    """``found``, of a sum of ``count`` terms, each example's; ``terms``: (groups x count,) norms of theirs."""
    return found if count < 2 else found + _ROUNDED * count * terms.reshape(-1, count).sum(1)


def together(parts: Sequence[Norms]) -> Norms:
    """The norms of ``parts`` taken together, float64."""
    total: Norms = np.sqrt(sum(np.square(part, dtype=np.float64) for part in parts))
    return total


def inner(g: torch.Tensor, x: torch.Tensor, biased: bool) -> Norms:
    """The norms of G_i^T x_i, (groups, positions, ...) each, from inner products: sum over positions s, t of (g_s g_t)(x_s x_t), and for a
    bias (g_s g_t)."""
    count = g.shape[1]
    terms = outer(size(g.flatten(0, 1)), size(x.flatten(0, 1)), biased)
    (g, by), (x, of) = _scaled(g, torch.finfo(torch.float64).tiny), _scaled(x, 1.0 if biased else torch.finfo(torch.float64).tiny)
    products = torch.bmm(x, x.mT) + of.square().reciprocal()[:, None, None] if biased else torch.bmm(x, x.mT)
    norms = (products * torch.bmm(g, g.mT)).sum((1, 2)).clamp(min=0).sqrt() * by * of
    return summed(norms.numpy(force=True), terms, count)


def _scaled(values: torch.Tensor, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """In float64, the largest of each group 1, and what that was, ``least`` or more."""
    exact = values.double()
    largest = exact.abs().amax((1, 2)).clamp(min=least)
    return exact / largest[:, None, None], largest


def norms_of(rows: torch.Tensor) -> torch.Tensor:
    """(n,) norms of ``rows`` (n, d) float64, right however small or large they are; a row of zeros has 1e-300."""
    largest = rows.abs().amax(1).clamp(min=1e-300)
    norms: torch.Tensor = largest * torch.linalg.vector_norm(rows / largest[:, None], dim=1).clamp(min=1)
    return norms


def check_clip(clip: float) -> None:
    """Raise `ConfigurationError` for a norm that gradients are not clipped to."""
    if not LEAST <= clip <= LARGEST:
        raise ConfigurationError(f"gradients are clipped to norms from {LEAST:.0e} to {LARGEST:.0e}, not {clip}: scale the loss")
