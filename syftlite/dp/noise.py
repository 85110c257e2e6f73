"""Noise on integers: what a statistic on a grid becomes before anybody sees it.

    values --/ step, rounded--> integers --sum--> statistic + noise --* step--> answer

The statistic is an integer vector whose sensitivity is an integer; the noise is an integer of the same grid. Every answer is a multiple of
the step whatever the data: floating point rounds nothing after the noise is drawn, so its gaps tell nothing (Mironov 2012).
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import torch

import syftlite.dp.exact as exact
import syftlite.dp.gaussians as gaussians
import syftlite.dp.tables as tables
from syftlite.dp.accountant import Event, gaussian, pure
from syftlite.errors import ConfigurationError

FEW = 64
"""Up to so many values are drawn one by one with rational arithmetic; more come from tables, whose error is charged."""
FINE = 1 << 16
"""A step is so chosen that the largest contribution is about this many of them."""


MOST = 1 << 54
"""Steps that the noise of one value may have. To draw 2^63 of them has a chance below exp(-500)."""


class Statistic(NamedTuple):
    """Integer sums on a grid. ``sensitivity``: how much one privacy unit changes them, in steps, in L1 and L2 norm alike or less."""

    sums: torch.Tensor
    sensitivity: int
    step: float


class Noise(NamedTuple):
    """What is asked of the noise: pure ``epsilon``, or, where ``multiplier`` is above 0, Gaussian of that many sensitivities."""

    epsilon: float
    multiplier: float = 0.0

    def share(self, part: float) -> Noise:
        """The noise of a release that costs ``part`` of this one."""
        return Noise(self.epsilon * part, self.multiplier / part**0.5)

    @property
    def event(self) -> Event:
        """What it costs."""
        return gaussian(self.multiplier) if self.multiplier else pure(self.epsilon)


@lru_cache(maxsize=64)
def step_for(largest: float) -> float:
    """The power of two of which ``largest`` is 2^16 to 2^17."""
    if largest == 0:
        return 1.0
    exponent = Fraction(largest).numerator.bit_length() - Fraction(largest).denominator.bit_length() - FINE.bit_length() + 1
    if not -900 < exponent < 900:
        raise ConfigurationError(f"bounds of {largest} are beyond what a grid covers: give numbers between 1e-260 and 1e260")
    return 2.0**exponent


def noised(statistic: Statistic, noise: Noise) -> torch.Tensor:
    """The statistic with noise, float64, multiples of its step."""
    sums, sensitivity, step = statistic
    if sensitivity == 0:
        return sums.double() * step
    flat = sums.flatten()
    if noise.multiplier:
        drawn = gaussian_integers(Fraction(noise.multiplier) * sensitivity, flat.numel())
    else:
        drawn = laplace_integers(sensitivity / Fraction(noise.epsilon), flat.numel())
    return (flat + drawn).view(sums.shape).double() * step


def gaussian_integers(sigma: Fraction, numel: int, narrow: torch.dtype = torch.int32) -> torch.Tensor:
    """(numel,) discrete Gaussian integers. ``narrow``: int32, or float32, which holds those of a law below `gaussians.NARROW` exactly."""
    if numel > FEW:
        return gaussians.gaussian(sigma * sigma, numel, narrow)
    bits = _must_hold(sigma)
    return torch.tensor([exact.discrete_gaussian(sigma * sigma, bits) for _ in range(numel)], dtype=torch.int64)


def laplace_integers(scale: Fraction, numel: int) -> torch.Tensor:
    """(numel,) discrete Laplace integers."""
    if numel > FEW:
        return tables.laplace(scale, numel)
    bits = _must_hold(scale)
    return torch.tensor([exact.discrete_laplace(scale, bits) for _ in range(numel)], dtype=torch.int64)


def _must_hold(steps: Fraction) -> exact.Bits:
    """A source of bits for a law of ``steps``, whose draws 64 bits hold."""
    if steps > MOST:
        raise tables.too_wide(steps, MOST)
    return exact.sampler()


def variation(numel: int) -> float:
    """The total variation between ``numel`` values drawn together and the law that is accounted for."""
    return numel * tables.TABLE_ERROR if numel > FEW else 0.0
