"""The one operator of our own, beside ATen's: real numbers as ring elements, refused where they do not fit, wherever they are.

    encode(x, base, precision)      round(x * base ** precision) as int64, for a real x of any shape and dtype; strides as x's
"""

from __future__ import annotations

import math
from typing import Any

import torch

HEADROOM = 62
"""A value times the scale twice stays below 2^62."""
MOST = 30
"""Bits of the largest scale."""


def fits(base: int, precision: int) -> bool:
    """Whether there is such a scale."""
    return base >= 2 and 0 <= precision <= MOST and base**precision <= 1 << MOST


def largest(scale: int) -> float:
    """Where values end whose product still fits: 2^62 / scale^2."""
    return float(2.0 ** (HEADROOM - 2 * math.log2(scale)))


def _shaped(x: torch.Tensor, base: int, precision: int) -> torch.Tensor:
    if not fits(base, precision):
        raise ValueError(f"base {base} and precision {precision}: whole numbers from 2 and 0, and base ** precision at most 2^{MOST}")
    if x.is_complex():
        raise TypeError("complex numbers have no fixed precision: torch.view_as_real() gives their parts")
    return torch.empty_like(x, dtype=torch.int64)


def _encode(x: torch.Tensor, base: int, precision: int) -> torch.Tensor:
    if not fits(base, precision) or x.is_complex():
        return _shaped(x, base, precision)  # which says why not
    scale = base**precision
    limit, values = largest(scale), x.to(torch.float64, copy=True)
    low, high = values.aminmax() if values.numel() else (values.new_zeros(()), values.new_zeros(()))
    worst = max(-float(low), float(high))
    if not worst < limit:
        raise ValueError(
            f"a value of magnitude {worst:g} does not fit: products of scale {base}**{precision} stay below {limit:g}. "
            "Use less precision, or smaller numbers"
        )
    return values.mul_(scale).round_().long()


_library = torch.library.Library("syftlite", "FRAGMENT")
_library.define("encode(Tensor self, int base, int precision) -> Tensor")
_library.impl("encode", _encode, "CompositeExplicitAutograd")
_library.impl("encode", _shaped, "Meta")

encode: Any = torch.ops.syftlite.encode.default
