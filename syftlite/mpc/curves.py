"""Curves that end in a constant: sigmoid, the normal distribution, and the derivatives of what is made of them.

    inside     -end <= x < end: a series (series.py), two rounds
    outside    0 or 1: two comparisons, at the same time, four rounds or six
    y = inside series + [x >= end],      one product more: five rounds or seven, right for every |x| < 2^46 units

    sigmoid(x), tanh(x) = 2 sigmoid(2x) - 1, silu(x) = x sigmoid(x), gelu(x) = x normal(x); their derivatives are series of the same opening
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from syftlite.mpc.comparison import negative
from syftlite.mpc.party import Party
from syftlite.mpc.products import product
from syftlite.mpc.rounds import together
from syftlite.mpc.series import DEALT, SERIES, Basis, series
from syftlite.mpc.truncation import truncate

BITS = 20
"""Of a series' public factors."""


class Curve(NamedTuple):
    """2^``period`` is the series' period in real numbers; ``end`` is in quarters; two series; what the slope ends in."""

    name: str
    period: int
    terms: int
    end: int
    value: str
    slope: str
    slope_after: int
    times: bool
    """Whether the function is x times the curve; the slope is the whole function's."""


CURVES = (
    Curve("sigmoid", 6, 16, 48, "sigmoid", "sigmoid'", 0, False),
    Curve("tanh", 6, 16, 48, "sigmoid", "sigmoid'", 0, False),
    Curve("silu", 6, 16, 48, "sigmoid", "silu'", 1, True),
    Curve("gelu", 5, 10, 22, "normal", "gelu'", 1, True),
)
NUMBERS = {curve.name: number for number, curve in enumerate(CURVES)}


async def curve(p: Party, x: Tensor, number: int, f: int, slope: bool) -> tuple[Tensor, ...]:
    """The function of a vector and, if asked for, its derivative."""
    which = CURVES[number]
    double = which.name == "tanh"
    values, inside, after = await _inside(p, x, which, f - double, f, slope)
    both = (await product(p, "mul", inside.expand(len(values), -1).contiguous(), values)).unbind(0)
    y = both[0] + (after << f)
    if double:
        y = y + y
        if p.first:
            y -= 1 << f
    if which.times:
        y = await truncate(p, await product(p, "mul", x, y), f)
    if not slope:
        return (y,)
    d = both[1] << 2 if double else both[1]
    return y, d + (after << f) if which.slope_after else d


async def _inside(p: Party, x: Tensor, which: Curve, unit: int, f: int, slope: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(the series there, [-end <= x < end], [x >= end]); x has ``unit`` bits after the point."""
    end = which.end << unit >> 2
    bounds = torch.cat([x + end, x - end]) if p.first else torch.cat([x, x])
    values, signs = await together(p, _series(p, x, which, unit, f, slope), negative(p, bounds))
    before, not_after = signs.view(2, -1).unbind(0)
    return values, not_after - before, 1 - not_after if p.first else -not_after


async def _series(p: Party, x: Tensor, which: Curve, unit: int, f: int, slope: bool) -> Tensor:
    names = [which.value, which.slope] if slope else [which.value]
    found = await series(p, x, Basis(which.period + unit, which.terms, 2), [SERIES[n] for n in names], [2.0**BITS] * len(names))
    stacked = torch.stack(found)
    return (await truncate(p, stacked.reshape(-1), DEALT + BITS - f)).view(stacked.shape)
