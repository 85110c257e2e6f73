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

from torch import Tensor

from syftlite.mpc.party import Party
from syftlite.mpc.ring import Ring


async def truncate(p: Party, x: Tensor, f: int) -> Tensor:
    """x / 2^f. One round, 8 bytes an element; elementwise on a vector."""
    if f == 0:
        return x.clone()
    k = p.correlated("trunc", x.numel(), f)
    c = k["r"].view(x.shape) + x
    if p.first:
        c += p.ring.shift
    return truncated(p, await p.open(c), k["t"].view(x.shape), k["m"].view(x.shape), f)


def truncated(p: Party, c: Tensor, t: Tensor, m: Tensor, f: int) -> Tensor:
    """The share of x / 2^f from the opened ``c`` and shares of r's parts; ``t`` is used up."""
    y = t.sub_(top(p.ring, m, p.ring.msb(c), f))
    if p.first:
        y += public(p.ring, c, f)
    return y


def public(ring: Ring, c: Tensor, f: int) -> Tensor:
    """floor(c / 2^f) - 2^(k-2-f)."""
    return ring.shifted(c, f).sub_(ring.shift >> f)


def top(ring: Ring, m: Tensor, msb: Tensor, f: int) -> Tensor:
    """m 2^(k-f) where the mask ``msb`` is set."""
    return (m.long() << (ring.bits - f)).bitwise_and_(msb)
