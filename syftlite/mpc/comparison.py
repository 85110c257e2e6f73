"""Signs and equality from one opening and a halving tree over bits, without an adder.

    open c = x + r, r uniform with XOR shares of its bits; then
        msb(x) = c_(k-1) ^ r_(k-1) ^ [c mod 2^(k-1) < r mod 2^(k-1)]                (the borrow of c - r)
        x = 0  iff  all bits of c and r are equal

[c < r] compares a public number with a secret one by a tree over segments, each with (lt, eq), as in Garay, Schoenmakers & Villegas,
"Practical and secure solutions for integer comparison", 2007; opening x + r with bits of r dealt in advance is Damgard, Fitzi, Kiltz,
Nielsen & Toft, 2006, and in Z_2^k with the borrow in place of a prime field, Makri, Rotaru, Vercauteren & Wagh, "Rabbit", 2021:
        lt = lt_hi ^ eq_hi lt_lo        eq = eq_hi eq_lo
The leaves need no message: of 2 bits, their products are of bits of r (the provider's) with public bits of c; of 4, they are looked up in
tables of r's that the provider deals, at places that c tells. At every level above the factors are masked by fresh bits whose products the
provider deals: two segments at a time or, as products of any number of factors can be dealt, four. The lowest segment's eq is never used,
so it is not computed.

64 bits, to XOR shares, rounds and bytes an element each way: 6 and 8 + (3 (31) - 5) / 8 = 19 in pairs; 5 and 18.9 with four at the root; 3
and 12.1 in fours, for 25 bytes more from the provider than in pairs. 32 bits: 5 and 13.1, 4 and 13, 3 and 10.1. A window of 32 bits looks
at bits low ... low + 31 of c alone: right wherever -2^(low+31) <= x <= 2^(low+31) - 2^low, but for -2^low < x < 0, which it calls
non-negative with probability (x mod 2^low) / 2^low. x is the compared value: for a maximum, the difference.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from syftlite.mpc.bits import Tree, digits, joined, levels, msb_and_rest, pack, planes, raw, tensor, unpack, window
from syftlite.mpc.party import Party

Correlated = dict[str, Any]
PAIRS, FOURS, LEAVES, ROOT = (2, 2), (4, 4), (4, 2), (2, 4, 2)
"""Pairs of pairs; fours of fours; pairs above leaves of four; four at the root, pairs below."""
FEW = 1 << 10
"""Words up to which rounds count more than what the provider sends."""


def words_of(p: Party, low: int) -> tuple[int, int]:
    """(width, low) of a comparison: the whole ring if ``low`` < 0, else 32 bits from ``low`` on."""
    return (p.ring.bits, 0) if low < 0 else (32, low)


def tree_of(width: int, words: int, many: Tree = PAIRS) -> Tree:
    """The tree of a comparison of so many words: of the fewest rounds up to `FEW` of them, ``many`` beyond."""
    return PAIRS if width < 8 else FOURS if words <= FEW else many


async def sign_plane(p: Party, k: Correlated, c: Any, width: int, low: int, tree: Tree) -> Any:
    """XOR shares of msb(x), one plane, from the opened c = x + r, (n,)."""
    top, lt, eq = (_leaves_of_four if tree[0] == 4 else _leaves_of_two)(p, k, window(c, width, low), width)
    for h, size in levels(width, *tree):
        lt, eq = await (_merge_four if size == 4 else _merge)(p, k[f"x{h}"], k[f"p{h}"], lt, eq, h)
    return lt[0] ^ top


def _leaves_of_two(p: Party, k: Correlated, c: Any, width: int) -> tuple[Any, Any, Any]:
    """Shares of c's top bit against r's, lt of every pair of bits below, eq of all but the lowest."""
    cp = planes(~c, width)  # all uses want ~c; its top bit is flipped back
    half, r = width // 2, k["bits"]
    top = ~cp[-1] ^ r[-1] if p.first else r[-1] + 0
    cp[-1], r[-1] = -1, 0  # the top bit takes no part in the tree: equal on both sides
    lo, hi, r_lo, r_hi = cp[:half], cp[half:], r[:half], r[half:]
    u = k["prod"]  # r_lo (r_hi ^ ~c_hi): with it lt = r_hi ~c_hi ^ ~c_lo u, eq = (r_hi ^ ~c_hi)(r_lo ^ ~c_lo)
    u ^= r_lo & hi
    lt = r_hi & hi
    lt ^= u & lo
    eq = r_hi[1:] & lo[1:]  # the lowest segment's is not needed
    eq ^= u[1:]
    if p.first:
        eq ^= hi[1:] & lo[1:]
    return top, lt, eq


def _leaves_of_four(p: Party, k: Correlated, c: Any, width: int) -> tuple[Any, Any, Any]:
    """The same of digits of four bits, looked up in tables that say whether r's is at least c's. It is above c's if it is at least c's + 1,
    which is the bit before, and equal if these two differ: the sum with 1 has the second bit set then."""
    seen, rest = msb_and_rest(c, width)
    found = looked_up(k["table"], rest)
    top = k["top"] ^ seen if p.first else k["top"]
    return top, pack(found & 2, width), pack((found[1:] + 1) & 2, width)


def looked_up(table: Any, places: Any) -> Any:
    """(rows, n) uint8: ``table``'s entries (rows, n'), shifted so that the bit whose number is in ``places`` comes last. n' divides n: the
    values of one entry lie n' apart. ``places`` are written over."""
    if isinstance(table, Tensor):
        return places.byte()
    each = places.reshape(len(table), -1, table.shape[1])
    return np.right_shift(table.view(np.uint16)[:, None], each, out=each).astype(np.uint8).reshape(places.shape)


async def _merge(p: Party, x: Any, products: Any, lt: Any, eq: Any, h: int) -> tuple[Any, Any]:
    """One level: lt of 2h segments and eq of all but the lowest -> of h. One opening masked by ``x``."""
    hidden = joined(eq[h - 1 :], lt[:h], eq[: h - 1])
    hidden ^= x
    seen = await p.open_bits(hidden)
    mask, d, e = x[:h], seen[:h], seen[h:]  # d of eq_hi; e of lt_lo and eq_lo, each to be multiplied by eq_hi
    products ^= x[h:] & (joined(d, d[1:]) if h > 1 else d)
    if p.first:
        mask ^= d
    products ^= e & (joined(mask, mask[1:]) if h > 1 else mask)
    low = products[:h]
    low ^= lt[h:]
    return low, products[h:]


async def _merge_four(p: Party, x: Any, products: Any, lt: Any, eq: Any, h: int) -> tuple[Any, Any]:
    """Two levels in one: lt of 4h segments and eq of all but the lowest -> of h. Of a group's segments, 0 the lowest,

        lt = lt_3 ^ e_3 (lt_2 ^ e_2 (lt_1 ^ e_1 lt_0))        eq = e_3 e_2 e_1 e_0

    from the inside out. e_i = E_i ^ a_i, E_i opened: so what is multiplied by e_i must be known times a_i too, and before that, times every
    product of the masks that are still to come. ``products``: of masks of e_1, e_2, e_3; these with that of (lt_0, e_0), of lt_1, of lt_2
    (`correlations.level_of_four`)."""
    w, n = lt.shape[1], 2 * h - 1
    low, lt_1, lt_2 = joined(lt[:h], eq[: h - 1]) if h > 1 else lt[:1], lt[2 * h : 3 * h], lt[h : 2 * h]
    hidden = joined(eq[n : n + h], eq[h - 1 : n], eq[n + h :], lt_2, lt_1, low)
    hidden ^= x
    seen = await p.open_bits(hidden)
    of_low, of_1, of_2 = products[4 * h : -4 * h].reshape(7, n, w), products[-4 * h : -h].reshape(3, h, w), products[-h:]
    masks = all_products(x[: 3 * h], products[: 4 * h], h, 3)  # a_1 a_2 a_12 a_3 a_13 a_23 a_123
    e, open_2, open_1 = seen[: 3 * h].reshape(3, h, w), seen[3 * h : 4 * h], seen[4 * h : 5 * h]
    both = e if h == 1 else joined(e, e[:, 1:], axis=1)  # for lt_0 of all groups, and e_0 of all but the lowest
    of_low ^= (masks if h == 1 else joined(masks, masks[:, 1:], axis=1)) & seen[5 * h :]
    # times e_1: known alone and times a_2, a_3, a_23
    inner = of_low[0::2]
    inner[0] ^= low & both[0]
    inner[1:] ^= of_low[1::2] & both[0]
    inner[0, :h] ^= lt_1
    of_1 ^= masks[1::2] & open_1
    inner[1:, :h] ^= of_1
    # times e_2: alone and times a_3
    outer = inner[1::2]
    outer ^= inner[0::2] & both[1]
    outer[0, :h] ^= lt_2
    of_2 ^= masks[3] & open_2
    outer[1, :h] ^= of_2
    # times e_3
    out = outer[1]
    out ^= outer[0] & both[2]
    less = out[:h]
    less ^= lt[3 * h :]
    return less, out[h:]


async def sign_bits(p: Party, x: Tensor, low: int = -1) -> Tensor:
    """XOR shares of x < 0 for a vector, one plane."""
    width, low = words_of(p, low)
    w = whole_words(x, width)
    tree = tree_of(width, w)
    k = p.correlated("sign", w, width, low, tree)
    return tensor(await sign_plane(p, k, await opened(p, x, k), width, low, tree))


def whole_words(x: Tensor, width: int) -> int:
    """Words in a plane of a bit for each element."""
    return -(-x.numel() // width)


async def opened(p: Party, x: Tensor, k: Correlated) -> Any:
    """c = x + r, a whole number of words, with zeros for x at their end. The share is written over that of r."""
    c = k["r"]
    c[: x.numel()] += raw(x)
    return await p.open(c)


async def to_arithmetic(p: Party, bit: Any, k: Correlated) -> Tensor:
    """A plane of XOR shares -> additive shares of the bits, (n,). One round, a bit an element."""
    flips = unpack(await p.open_bits(bit ^ k["rho_bits"]), len(k["rho"]) // len(bit))
    return tensor(flipped(p, k["rho"], flips))


def flipped(p: Party, rho: Any, flips: Any) -> Any:
    """Additive shares of rho ^ flip, written over those of ``rho``: rho where ``flips`` is 0 and 1 - rho where it is -1."""
    rho ^= flips
    rho -= flips
    if p.first:
        rho -= flips
    return rho


async def negative(p: Party, x: Tensor, low: int = -1) -> Tensor:
    """Additive shares of [x < 0] for a vector: 4 rounds and 12.25 bytes an element each way; 6 and 19 beyond `FEW` words."""
    width, low = words_of(p, low)
    w = whole_words(x, width)
    tree = tree_of(width, w, many=ROOT)
    k = p.correlated("bit", w, width, low, tree)
    bit = await sign_plane(p, k, await opened(p, x, k), width, low, tree)
    return (await to_arithmetic(p, bit, k))[: x.numel()]


async def equal_zero(p: Party, x: Tensor) -> Tensor:
    """Additive shares of [x = 0] for a vector: 4 rounds, 10.7 bytes an element each way."""
    width = p.ring.bits
    k = p.correlated("equal", whole_words(x, width), width)
    c = await opened(p, x, k)
    equal = pack(looked_up(k["table"], digits(window(c, width, 0), width)) & 1, width)
    for h, size in levels(width, 4, 4):
        equal = await _product(p, k[f"x{h}"], k[f"p{h}"], equal, h, size)
    return (await to_arithmetic(p, equal[0], k))[: x.numel()]


async def _product(p: Party, x: Any, products: Any, factors: Any, h: int, size: int) -> Any:
    """(size h, w) factors, group by group -> of h. One opening masked by ``x``; ``products``: of two or more of a group's masks."""
    seen = (await p.open_bits(factors ^ x)).reshape(size, h, -1)
    masks = all_products(x, products, h, size)
    out = masks[0::2]  # times the first factor: alone, and times every product of the masks of those to come
    out[1:] ^= masks[1::2] & seen[0]
    if p.first:
        out[0] ^= seen[0]
    for factor in seen[1:]:
        times_mask, out = out[1::2], out[0::2] & factor
        out[: len(times_mask)] ^= times_mask
    return out[0]


def all_products(x: Any, products: Any, h: int, size: int) -> Any:
    """(2^size - 1, h, w): of masks ``x`` (size h, w) and ``products`` of two or more of a group's; number m - 1 has mask i as a factor
    where bit i of m is set."""
    parts, at = [], 0
    for i in range(size):
        parts += [x[i * h : (i + 1) * h], products[at : (at := at + ((1 << i) - 1) * h)]]
    return joined(*parts).reshape((1 << size) - 1, h, -1)
