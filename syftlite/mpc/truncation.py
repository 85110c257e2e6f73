"""Truncation with the provider's help: error 0 or +1 unit for every |x| < 2^(k-2), and no bias.

    open  c = x + 2^(k-2) + r,        r uniform, shares of its parts  m = msb(r),  t = m 2^(k-1-f) - floor((r mod 2^(k-1)) / 2^f)
    x / 2^f  ~  floor(c / 2^f) - 2^(k-2-f) + t - msb(c) m 2^(k-f)

If msb(c) = 0 then either r had none and nothing overflowed, or c wrapped past 2^k; m tells which, and msb(c) whether both occurred.
floor(c / 2^f) carries from the low bits with probability (x mod 2^f) / 2^f, which rounds x up just as often: that is the random
rounding of Catrina & Saxena, "Secure computation with fixed-point numbers", 2010; the correction by msb(r) and msb(c), which removes
their statistical mask and works in the full ring, is that of Escudero, Ghosh, Keller, Rachuri & Scholl, "Improved primitives for MPC over
mixed arithmetic-binary circuits" (edaBits), 2020, section 5.

What is realised, exactly: y = floor((x + u) / 2^f) with u uniform and (x + u) mod 2^f public. A holder that also learns y therefore
knows x to 2^f units instead of twice that.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from syftlite.mpc.bits import raw, tensor, wide
from syftlite.mpc.party import Party
from syftlite.mpc.ring import Ring


async def truncate(p: Party, x: Tensor, f: int) -> Tensor:
    """x / 2^f. One round, 8 bytes an element; elementwise on a vector."""
    if f == 0:
        return x.clone()
    k = p.correlated("trunc", x.numel(), f)
    c = k["r"].reshape(x.shape) + raw(x)
    if p.first:
        c += p.ring.shift
    c = await p.open(c)
    y = k["t"].reshape(x.shape)
    y -= top(p.ring, k["m"].reshape(x.shape), p.ring.msb(c), f)
    if p.first:
        y += public(p.ring, c, f)
    return tensor(y)


def public(ring: Ring, c: Any, f: int) -> Any:
    """floor(c / 2^f) - 2^(k-2-f)."""
    y = ring.shifted(c, f)
    y -= ring.shift >> f
    return y


def top(ring: Ring, m: Any, msb: Any, f: int) -> Any:
    """m 2^(k-f) where the mask ``msb`` is set."""
    y = wide(m) << (ring.bits - f)
    y &= msb
    return y
