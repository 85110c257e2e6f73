"""Truncation with the provider's help: error 0 or +1 unit for every |x| < 2^(k-2), and no bias.

    open  c = x + r  in [-2^(k-1), 2^(k-1)),        r uniform in [0, 2^k), shares of  m = msb(r)  and  t = -floor(r / 2^f)
    x / 2^f  ~  floor(c / 2^f) + t + 2^(k-f) w,     w = m [-2^(k-2) <= c < 2^(k-2)] + [c < -2^(k-2)]

x + r lies in [-2^(k-2), 5 2^(k-2)), and c is that less w 2^k. A low c has lost 2^k and a high one nothing; a small one has if r is large,
which m says. w counts from bit k - f on, so only f bits of m are dealt, and are added to the words that hold an element's highest bits
(`Ring.heads`).
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

from syftlite.mpc.bits import raw, tensor
from syftlite.mpc.party import Party
from syftlite.mpc.ring import Ring

FACTOR = 17
"""Bits of the factor that stands for 1 / divisor."""


async def truncate(p: Party, x: Tensor, f: int) -> Tensor:
    """x / 2^f. One round, 8 bytes an element; elementwise on a vector."""
    if f == 0:
        return x.clone()
    k = p.correlated("trunc", x.numel(), f)
    masked = k["r"]
    masked += raw(x.reshape(-1))
    c = await p.open(masked)
    y = k["t"]
    add_wraps(p.ring, y, k["m"], small(p.ring, c, f), f)
    if p.first:
        y += public(p.ring, c, f)
    return tensor(y.reshape(x.shape))


async def quotient(p: Party, x: Tensor, divisor: int) -> Tensor:
    """x / divisor, which is no power of two, of |x| < 2^(k-2) however large: what a first division leaves is divided once more, so that the
    error is 2^-36 of the value, and two units. Three rounds, 24 bytes an element; elementwise on a vector."""
    bits = divisor.bit_length()
    by = round((1 << (FACTOR + bits)) / divisor)
    found = await truncate(p, await truncate(p, x, FACTOR + 1) * by, bits - 1)
    return found + await truncate(p, (x - found * divisor) * by, FACTOR + bits)


def small(ring: Ring, c: Any, f: int) -> Any:
    """Masks as narrow as m is: -1 where -2^(k-2) <= c < 2^(k-2), else 0."""
    if isinstance(c, Tensor):
        return c
    heads = ring.heads(f)
    return (-heads.quarter - 1 - heads.of(c)) >> heads.sign


def add_wraps(ring: Ring, y: Any, m: Any, where: Any, f: int) -> None:
    """y += 2^(k-f) m where the mask is set; on meta tensors, nothing."""
    if not isinstance(y, Tensor):
        ring.heads(f).add(y, m & where)


def public(ring: Ring, c: Any, f: int) -> Any:
    """floor(c / 2^f) + 2^(k-f) [c < -2^(k-2)], written over ``c``."""
    if isinstance(c, Tensor):
        return c
    c += ring.shift
    y = ring.reduce(c)
    y = ring.shifted(y, f, out=y)
    y -= ring.shift >> f
    return y
