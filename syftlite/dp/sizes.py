"""Norms that are told never too small: what is clipped by them is within the clip, whatever was computed.

    plain    as torch computes it, in the values' precision
    most     not less than the norm of what will be added up, float64

Squares of small elements are zero, so each element may be `_UNSEEN` larger; where several terms of one example are added up and cancel,
rounding leaves something of their sizes; and a factor beyond `FAR` would magnify what is lost below the smallest numbers.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from syftlite.errors import ConfigurationError

LEAST, LARGEST = 2.0**-40, 2.0**60
"""What norms may be clipped to: what single precision loses is far below, and what it adds up far above."""
FAR = 2.0**64
_UNSEEN = {torch.float32: 2.0**-60, torch.float64: 2.0**-480}
_ROUNDED = 2.0**-22


class Size(NamedTuple):
    """(groups,) norms."""

    plain: torch.Tensor
    most: torch.Tensor


def size(values: torch.Tensor) -> Size:
    """Of ``values`` (groups, ...)."""
    if values.dtype not in _UNSEEN:
        values = values.float()
    flat = values.flatten(1)
    norms = torch.linalg.vector_norm(flat, dim=1)
    return Size(norms, norms.double() + _UNSEEN[values.dtype] * math.sqrt(flat.shape[1]))


def outer(one: Size, other: Size, biased: bool) -> Size:
    """Of the outer product of what has these; of ``one``'s as well if ``biased``."""
    far = torch.where(other.most > FAR, torch.inf, other.most)
    if biased:
        return Size(one.plain * (other.plain.square() + 1).sqrt(), one.most * (far.square() + 1).sqrt())
    return Size(one.plain * other.plain, one.most * far)


def summed(found: Size, terms: Size, count: int) -> Size:
    """``found``, of a sum of ``count`` terms, each example's; ``terms``: (groups x count,) of theirs."""
    if count < 2:
        return found
    return Size(found.plain, found.most + _ROUNDED * count * terms.most.view(-1, count).sum(1))


def inner(g: torch.Tensor, x: torch.Tensor, biased: bool) -> Size:
    """Of G_i^T x_i, (groups, positions, ...) each, from inner products: sum over positions s, t of (g_s g_t)(x_s x_t), and for a bias
    (g_s g_t)."""
    count = g.shape[1]
    terms = outer(size(g.flatten(0, 1)), size(x.flatten(0, 1)), biased)
    (g, by), (x, of) = _scaled(g, torch.finfo(torch.float64).tiny), _scaled(x, 1.0 if biased else torch.finfo(torch.float64).tiny)
    products = torch.bmm(x, x.mT) + of.square().reciprocal()[:, None, None] if biased else torch.bmm(x, x.mT)
    norms = (products * torch.bmm(g, g.mT)).sum((1, 2)).clamp(min=0).sqrt() * by * of
    return summed(Size(norms.to(terms.plain.dtype), norms), terms, count)


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
