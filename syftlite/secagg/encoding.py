"""Real vectors as ring elements: clip, scale by 2^f, round; sums never wrap, because the bound that they stay in is checked first.

    x -> round(w clip(x, -c, c) 2^f)        |sum over n clients| <= n w_max max(c, 1) 2^f + n / 2 < 2^31 or 2^63

With weights, a vector travels as [w x, w], both inside the mask: the mean is sum(w x) / sum(w), and nobody's weight is seen.
With noise, c bounds the norm of a whole vector instead, and each client adds its part of the noise (noise.py).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

import syftlite.secagg.noise as noise
from syftlite.dp.tables import WIDEST
from syftlite.errors import AggregationError, ConfigurationError

PIECE = 1 << 20
"""Values that are encoded at a time; see masks.py."""


@dataclass(frozen=True)
class Encoding:
    """How values become ring elements. ``clip``: the largest |x| that passes unchanged. ``fraction_bits``: f. ``max_weight``: the largest
    weight of a client; None for sums without weights. ``clients``: how many there may be. ``sigma``: the deviation of the noise that each
    client adds, in ring elements; 0 for none, and then ``clip`` is of each value, not of a vector's norm."""

    clients: int
    clip: float = 8.0
    fraction_bits: int = 16
    max_weight: float | None = None
    sigma: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.clip < 2**40 or not 0 <= self.fraction_bits <= 40 or not 0 < (self.max_weight or 1) < 2**40 or self.clients < 1:
            raise ConfigurationError(f"{self}: clip and max_weight are positive and below 2^40, fraction_bits 0 to 40")
        if self.sigma and not noise.LEAST <= self.sigma < WIDEST:
            told = f"noise of deviation {self.sigma:.3g} on a grid of 2^-{self.fraction_bits}"
            raise ConfigurationError(f"{told}: it is to be {noise.LEAST:g} to 2^40, so choose other fraction_bits")
        if self.sigma and self.max_weight is not None:
            raise ConfigurationError("noise bounds what a client adds, and a weight would multiply that: average without weights")
        if self._bound() >= 1 << 63:
            raise ConfigurationError(f"{self}: a sum may reach {self._bound():.1e}, beyond 64 bits: lower clip, fraction_bits or weights")

    def _bound(self) -> float:
        """The largest absolute value of a sum of ring elements."""
        largest = self.clip if self.max_weight is None else self.max_weight * max(self.clip, 1.0)
        return self.clients * (largest * (1 << self.fraction_bits) + 0.5) + noise.TAILS * self.sigma * math.sqrt(self.clients)

    @property
    def dtype(self) -> torch.dtype:
        """int32 where every sum fits, else int64."""
        return torch.int32 if self._bound() < 1 << 31 else torch.int64

    def length(self, values: int) -> int:
        """Ring elements of a vector of ``values`` numbers."""
        return values + (self.max_weight is not None)

    def encode(self, vector: torch.Tensor, weight: float | None = None) -> tuple[torch.Tensor, float]:
        """((n,) floats as ring elements, the share of them that was clipped). Raises `AggregationError` for NaN, infinity or a weight
        out of bounds: a sum that contained them would be lost for everybody. With noise, which is added here, none of this is told."""
        if (weight is None) != (self.max_weight is None):
            raise AggregationError("this round is weighted: give each vector its weight" if weight is None else "this round has no weights")
        if weight is not None and not 0 < weight <= (self.max_weight or 0):
            raise AggregationError(f"a weight of {weight}: it is above 0 and at most {self.max_weight}; agree on a larger max_weight")
        flat = vector.detach().reshape(-1)
        if self.sigma:
            flat = noise.shrunk(flat, self.clip)
        ring = torch.empty(self.length(flat.numel()), dtype=self.dtype)
        scale = (1.0 if weight is None else weight) * (1 << self.fraction_bits)
        clipped, room = 0, torch.empty(min(PIECE, flat.numel()), dtype=torch.float64)
        for values, places in zip(flat.split(PIECE), ring.split(PIECE), strict=False):
            low, high = map(float, torch.aminmax(values))
            if not (math.isfinite(low) and math.isfinite(high)):
                raise AggregationError("the vector has NaN or infinity: train with a lower learning rate, or leave this client out")
            scaled = room[: len(values)].copy_(values)
            if low < -self.clip or high > self.clip:
                clipped += int(torch.count_nonzero(values.abs() > self.clip))
                scaled.clamp_(-self.clip, self.clip)
            places[: len(values)] = scaled.mul_(scale).round_()
        if weight is not None:
            ring[-1] = round(scale)
        if self.sigma:
            ring += noise.drawn(self.sigma, len(ring))
        return ring, clipped / max(1, flat.numel())

    def decode(self, total: torch.Tensor) -> tuple[torch.Tensor, float | None]:
        """((n,) float64 sum, or mean where the round is weighted; the sum of weights or None) of a sum of ring elements."""
        real = total.double().div_(1 << self.fraction_bits)
        if self.max_weight is None:
            return real, None
        weight = float(real[-1])
        if weight <= 0:
            raise AggregationError("the weights of this round sum to nothing: its clients did not encode what it asks for")
        return real[:-1].div_(weight), weight
