"""Signs and equality from one opening and a halving tree over bits, without an adder.

    open c = x + r, r uniform with XOR shares of its bits; then
        msb(x) = c_(k-1) ^ r_(k-1) ^ [c mod 2^(k-1) < r mod 2^(k-1)]                (the borrow of c - r)
        x = 0  iff  all bits of c and r are equal

[c < r] compares a public number with a secret one by a tree over segments, each with (lt, eq), as in Garay, Schoenmakers & Villegas,
"Practical and secure solutions for integer comparison", 2007; opening x + r with bits of r dealt in advance is Damgard, Fitzi, Kiltz,
Nielsen & Toft, 2006, and in Z_2^k with the borrow in place of a prime field, Makri, Rotaru, Vercauteren & Wagh, "Rabbit", 2021:
        lt = lt_hi ^ eq_hi lt_lo        eq = eq_hi eq_lo
The first level needs no message: its products are of two bits of r (the provider's) with public bits of c. At every other level the
factors are masked by fresh bits whose products the provider deals. The lowest segment's eq is never used, so it is not computed.

64 bits: 6 rounds and 8 + (2 + 3 (31) - 5) / 8 = 19 bytes an element each way; 32 bits: 5 rounds and 13.1 bytes. A window of 32
bits looks at bits low ... low + 31 of c alone: right wherever -2^(low+31) <= x <= 2^(low+31) - 2^low, but for -2^low < x < 0, which it
calls non-negative with probability (x mod 2^low) / 2^low. x is the compared value: for a maximum, the difference.
"""

from __future__ import annotations

import torch
from torch import Tensor

from syftlite.mpc.bits import levels, padded, planes, unpack, window
from syftlite.mpc.party import Party

Correlated = dict[str, Tensor]


def words_of(p: Party, low: int) -> tuple[int, int]:
    """(width, low) of a comparison: the whole ring if ``low`` < 0, else 32 bits from ``low`` on."""
    return (p.ring.bits, 0) if low < 0 else (32, low)


async def sign_plane(p: Party, k: Correlated, c: Tensor, width: int, low: int) -> Tensor:
    """XOR shares of msb(x), one plane (w,), from the opened c = x + r, (width, w)."""
    cp, r = planes(window(~c, width, low)), k["bits"]  # all uses want ~c; its top bit is flipped back in `top`
    half = width // 2
    top = ~cp[-1] ^ r[-1] if p.first else r[-1].clone()
    cp[-1], r[-1] = -1, 0  # the top bit takes no part in the tree: equal on both sides
    lo, hi, r_lo, r_hi = cp[:half], cp[half:], r[:half], r[half:]
    u = k["prod"].bitwise_xor_(r_lo & hi)  # r_lo (r_hi ^ ~c_hi): with it lt = r_hi ~c_hi ^ ~c_lo u, eq = (r_hi ^ ~c_hi)(r_lo ^ ~c_lo)
    lt = (r_hi & hi).bitwise_xor_(u & lo)
    eq = (r_hi[1:] & lo[1:]).bitwise_xor_(u[1:])  # the lowest segment's is not needed
    if p.first:
        eq ^= hi[1:] & lo[1:]
    for h in levels(width):
        lt, eq = await _merge(p, k[f"x{h}"], k[f"p{h}"], lt, eq, h)
    return lt[0] ^ top


async def _merge(p: Party, x: Tensor, products: Tensor, lt: Tensor, eq: Tensor, h: int) -> tuple[Tensor, Tensor]:
    """One level: lt of 2h segments and eq of all but the lowest -> of h. One opening masked by ``x``."""
    opened = await p.open_bits(torch.cat([eq[h - 1 :], lt[:h], eq[: h - 1]]).bitwise_xor_(x))
    mask, d, e = x[:h], opened[:h], opened[h:]  # d of eq_hi; e of lt_lo and eq_lo, each to be multiplied by eq_hi
    products ^= x[h:].bitwise_and_(torch.cat([d, d[1:]]) if h > 1 else d)
    if p.first:
        mask ^= d
    products ^= e.bitwise_and(torch.cat([mask, mask[1:]]) if h > 1 else mask)
    low = products[:h]
    low ^= lt[h:]
    return low, products[h:]


async def sign_bits(p: Party, x: Tensor, low: int = -1) -> Tensor:
    """XOR shares of x < 0 for a vector, one plane: bit j of word i, bits reversed, is element (j, i) of x's (width, w) words."""
    width, low = words_of(p, low)
    words = padded(x, width)
    k = p.correlated("sign", words.shape[1], width, low)
    return await sign_plane(p, k, await p.open(words + k["r"]), width, low)


async def to_arithmetic(p: Party, bit: Tensor, k: Correlated) -> Tensor:
    """A plane of XOR shares -> additive shares of the bits, (width, w). One round, a bit an element."""
    flips = unpack(await p.open_bits(bit ^ k["rho_bits"]), k["rho"].shape[0])
    return flipped(p, k["rho"], flips)


def flipped(p: Party, rho: Tensor, flips: Tensor) -> Tensor:
    """Additive shares of rho ^ flip: rho where ``flips`` is 0 and 1 - rho where it is -1."""
    out = (rho ^ flips).sub_(flips)
    return out.sub_(flips) if p.first else out


async def negative(p: Party, x: Tensor, low: int = -1) -> Tensor:
    """Additive shares of [x < 0] for a vector: 7 rounds, 19.1 bytes an element each way."""
    width, low = words_of(p, low)
    words = padded(x, width)
    k = p.correlated("bit", words.shape[1], width, low)
    bit = await sign_plane(p, k, await p.open(words + k["r"]), width, low)
    return (await to_arithmetic(p, bit, k)).view(-1)[: x.numel()]


async def equal_zero(p: Party, x: Tensor) -> Tensor:
    """Additive shares of [x = 0] for a vector: 7 rounds, 16 bytes an element each way."""
    width = p.ring.bits
    words = padded(x, width)
    k = p.correlated("equal", words.shape[1], width)
    same, r, half = planes(window(~await p.open(words + k["r"]), width, 0)), k["bits"], width // 2
    lo, hi = same[:half], same[half:]
    all_equal = k["prod"].bitwise_xor_(r[:half] & hi).bitwise_xor_(r[half:] & lo)  # (r_lo ^ ~c_lo)(r_hi ^ ~c_hi)
    if p.first:
        all_equal ^= lo & hi
    for h in levels(width):
        mask, products = k[f"x{h}"], k[f"p{h}"]
        opened = await p.open_bits(all_equal ^ mask)
        d, e = opened[:h], opened[h:]
        products ^= (mask[h:] & d).bitwise_xor_(e & (mask[:h] ^ d if p.first else mask[:h]))
        all_equal = products
    return (await to_arithmetic(p, all_equal[0], k)).view(-1)[: x.numel()]
