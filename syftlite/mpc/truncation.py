"""Truncation with the provider's help: error 0 or +1 unit for every |x| < 2^(k-2), and no bias.

    open  c = x + r  in [-2^(k-1), 2^(k-1)),        r uniform in [0, 2^k), shares of  m = msb(r)  and  t = -floor(r / 2^f)
    x / 2^f  ~  floor(c / 2^f) + t + 2^(k-f) w,     w = m [-2^(k-2) <= c < 2^(k-2)] + [c < -2^(k-2)]

w says whether x + r left the numbers that c can be: beyond 2^(k-1) by less than half of them, whatever r is; or so far that c is small
again, which tells a large r from a small one only with m. It counts from bit k - f on, so only f bits of m are dealt, and are added to the
words that hold an element's highest bits (`ring.heads`).
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


async def truncate(p: Party, x: Tensor, f: int) -> Tensor:
    """x / 2^f. One round, 8 bytes an element; elementwise on a vector."""
    if f == 0:
        return x.clone()
    k = p.correlated("trunc", x.numel(), f)
    masked = k["r"]
    masked += raw(x.reshape(-1))
    c = await p.open(masked)
    y, m = k["t"], k["m"]
    wraps = Wraps(p.ring, c, m, f)
    wraps.add(y, m)
    if p.first:
        y += wraps.public(c)
    return tensor(y.reshape(x.shape))


class Wraps:
    """What the opened ``c`` says of w, for ``m`` of ``f`` bits; on meta tensors, nothing."""

    def __init__(self, ring: Ring, c: Any, m: Any, f: int) -> None:
        self._ring, self._f, self._dry = ring, f, isinstance(c, Tensor)
        if not self._dry:
            self._quarter = 1 << (8 * m.itemsize - 2)
            self._heads = ring.heads(c, m.dtype)
            self._small = ~((self._heads + self._quarter) >> (8 * m.itemsize - 1))

    def add(self, y: Any, m: Any) -> None:
        """y += 2^(k-f) m where c is small."""
        if not self._dry:
            self._ring.add_heads(y, m & self._small, self._f)

    def public(self, c: Any) -> Any:
        """floor(c / 2^f), and 2^(k-f) where c < -2^(k-2). Written over ``c``."""
        y = self._ring.signed(c)
        y >>= self._f
        if not self._dry:
            self._ring.add_heads(y, (self._heads < -self._quarter).astype(self._heads.dtype), self._f)
        return y
