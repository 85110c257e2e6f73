"""Noise that clients add before they mask: nobody, the server included, sees the sum without all of it.

    x  ->  round(2^f x min(1, c / |x|))  +  discrete Gaussian of deviation s      s = noise_multiplier sensitivity / sqrt(minimum)

A sum has ``minimum`` clients or more, so its noise has the deviation noise_multiplier * sensitivity at least: what a trusted server would
add (Kairouz, Liu & Steinke, "The distributed discrete Gaussian mechanism for federated learning with secure aggregation", 2021).

    sensitivity     c 2^f + sqrt(d) / 2: the norm of one client's vector of d values, each of which is rounded by 1/2 at most
    a sum of discrete Gaussians is none; of deviation `LEAST` and above, within exp(-2 pi^2 s^2 / 2) < 2^-200 of one (their theorem 1)

Whether a vector was clipped, or had NaN (it counts as zero then), is not told: that would be about one client.
"""

from __future__ import annotations

import math
from fractions import Fraction

import torch

from syftlite.dp.noise import gaussian_integers

LEAST = 4.0
"""The smallest deviation that one client may add, in units of the grid."""
MARGIN = 1 - 2.0**-40
"""Norms are computed in float64: what is clipped is clipped by so much more."""
TAILS = 16
"""Deviations of the sum's noise that never wrap around: but for 2^-180."""


def sensitivity(clip: float, fraction_bits: int, values: int) -> int:
    """The norm of what one client adds, noise apart, on the grid."""
    return math.ceil(clip * (1 << fraction_bits) + math.sqrt(values) / 2)


def deviation(noise_multiplier: float, clip: float, fraction_bits: int, values: int, minimum: int) -> float:
    """What each client adds, so that a sum of ``minimum`` has ``noise_multiplier`` times the sensitivity."""
    return noise_multiplier * sensitivity(clip, fraction_bits, values) / math.sqrt(minimum)


def shrunk(vector: torch.Tensor, clip: float) -> torch.Tensor:
    """``vector`` (n,) in float64 with a norm of at most ``clip``; zeros if it is not finite."""
    wide = vector.double()
    norm = float(torch.linalg.vector_norm(wide))
    if not math.isfinite(norm):
        return torch.zeros_like(wide)
    return wide * (MARGIN * clip / norm) if norm > MARGIN * clip else wide


def drawn(sigma: float, values: int) -> torch.Tensor:
    """(values,) discrete Gaussian integers of deviation ``sigma``."""
    return gaussian_integers(Fraction(sigma), values)
