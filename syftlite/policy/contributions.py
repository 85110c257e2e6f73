"""Whether a sum over rows is in truth the value of a few of them: looked at where the sum is made, told to nobody.

    uneven      of what lies above the mean (or below) one row adds more than `ONE`, or two more than `TWO`; or hardly any row differs
    lost        rounding took more than `LOST` of what rows differ by, so that the sum is no longer linear in them

Deviations are taken from the mean, so that adding a constant, or scaling, does not hide anything. The shares are those of
statistical disclosure control's dominance rules (Hundepool et al., "Statistical Disclosure Control", 2012, section 4.2).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

ONE, TWO = 0.5, 0.9
FEW = 10
"""Rows that must lie on either side of the mean (a quarter of all if those are fewer)."""
LOST = 2.0**-10
MAX_PRODUCTS = 1 << 26
"""Products of a contraction that are looked at; a larger one counts as uneven."""
PIECE = 1 << 22


class Looks:
    """How often a rule has looked at values: what it then says holds for no other call."""

    count = 0


def uneven(values: torch.Tensor, axis: int, dims: Sequence[int]) -> bool:
    """Whether the sum of ``values`` over ``dims``, of which ``axis`` runs over rows, is that of a few rows, for any element of it."""
    rest = [d for d in dims if d != axis]
    if rest:
        values = values.sum(rest, keepdim=True)
    return _uneven(values.movedim(axis, 0).reshape(values.shape[axis], -1))


def uneven_products(one: torch.Tensor, other: torch.Tensor) -> bool:
    """The same for ``one``^T ``other``, (n, a) and (n, b): for each of a x b elements."""
    one, other = one.reshape(len(one), -1), other.reshape(len(other), -1)
    n, b = other.shape
    if n * one.shape[1] * b > MAX_PRODUCTS:
        return True
    step = max(1, PIECE // max(1, n * b))
    return any(_uneven((one[:, start : start + step, None] * other[:, None, :]).reshape(n, -1)) for start in range(0, one.shape[1], step))


def _uneven(contributions: torch.Tensor) -> bool:
    """``contributions`` (n, elements)."""
    Looks.count += 1
    n = len(contributions)
    if n < 4 or not contributions.numel():
        return True
    deviations = contributions.to(torch.float64)
    deviations = deviations - deviations.mean(0)
    tiny = contributions.abs().amax(0).to(torch.float64) * 1e-12
    above, below = deviations.clamp_min(0), (-deviations).clamp_min(0)
    few = min(FEW, n // 4)
    for side in (above, below):
        total, (first, second) = side.sum(0), torch.topk(side, 2, dim=0).values
        right = (first <= ONE * total) & (first + second <= TWO * total) & ((side > tiny).sum(0) >= few) & torch.isfinite(total)
        if not bool(right.all()):
            return True
    return False


def spread(values: torch.Tensor, axis: int) -> torch.Tensor:
    """How much ``values`` vary along ``axis``: the mean deviation from the mean, of each column."""
    exact = values.movedim(axis, 0).reshape(values.shape[axis], -1).to(torch.float64)
    return (exact - exact.mean(0)).abs().mean(0)


def rounds(dtype: torch.dtype, reach: float, fine: float) -> bool:
    """Whether rounding may take more than `LOST` of what rows differ by, when no element that is added is larger than ``reach`` and each
    column varies by ``fine`` at least (0 if that is not known): mostly that says it, and `lost` need not look."""
    return dtype.is_floating_point and torch.finfo(dtype).eps * reach > LOST * fine


def lost(result: torch.Tensor, axis: int, reach: float, sizes: Callable[[], torch.Tensor]) -> bool:
    """Whether rounding took more than `LOST` of what the rows of ``result`` differ by along ``axis``, in any column.

    ``sizes`` gives the sum of what was added without its signs, of the result's shape; it is at most 4 ``reach``.
    """
    if not result.dtype.is_floating_point:
        return False
    Looks.count += 1
    eps = torch.finfo(result.dtype).eps
    # the mean deviation is at least the variance by the largest deviation, and that is at most 2 reach: one pass says it, mostly
    if reach < _ROOT and LOST * float(result.var(axis).amin()) >= 16 * eps * reach * reach:
        return False
    most = sizes().movedim(axis, 0).reshape(result.shape[axis], -1).to(torch.float64).amax(0)
    return not bool((spread(result, axis) * LOST >= eps * most).all())


_ROOT = 2.0**500
