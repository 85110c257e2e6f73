"""What chooses by a sign among FixedPrecisionTensors, or asks whether two are near. Fixed precision has one zero, which is positive.

    fmin fmax             minimum and maximum: there is no NaN
    signbit copysign      x < 0; |x| with another's sign
    isclose               |x - y| <= atol + rtol |y|, to a unit
    hypot                 sqrt(x^2 + y^2), as `norm`
"""

from __future__ import annotations

from typing import Any

import torch

from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import applied
from syftlite.tensors.fixed_nn import needs_history

Fixed = FixedPrecisionTensor


@Fixed.reexpresses(torch.fmax, torch.Tensor.fmax)
def fmax(x: Any, other: Any) -> Any:
    """The greater of two."""
    return torch.maximum(x, other)


@Fixed.reexpresses(torch.fmin, torch.Tensor.fmin)
def fmin(x: Any, other: Any) -> Any:
    """The smaller of two."""
    return torch.minimum(x, other)


@Fixed.reexpresses(torch.signbit, torch.Tensor.signbit)
def signbit(x: Any) -> Any:
    """Whether x is below 0."""
    return x.detach() < 0


@Fixed.reexpresses(torch.copysign, torch.Tensor.copysign)
def copysign(x: Any, other: Any) -> Any:
    """|x|, negative where ``other`` is."""
    if not isinstance(other, torch.Tensor):
        other = torch.tensor(float(other))
    negative = signbit(other) if isinstance(other, Fixed) else torch.signbit(other).float()
    made = torch.abs(x) * (1 - negative * 2)
    return made + other * 0 if needs_history(other) else made  # whose gradient is 0, and not none


@Fixed.reexpresses(torch.isclose, torch.Tensor.isclose)
def isclose(x: Any, other: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False) -> Any:
    """Whether x is as near to ``other`` as that, to a unit."""
    x, other = (v.detach() for v in (x, other))
    return torch.abs(x - other) <= torch.abs(other) * rtol + atol


@Fixed.reexpresses(torch.hypot, torch.Tensor.hypot)
def hypot(x: Any, other: Any) -> Any:
    """The length of (x, other)."""
    return applied("sqrt", x * x + other * other)
