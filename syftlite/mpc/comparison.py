"""Signs and equality from one opening and a halving tree over bits, without an adder.

    open c = x + r, r uniform with XOR shares of its bits; then
        msb(x) = c_(k-1) ^ r_(k-1) ^ [c mod 2^(k-1) < r mod 2^(k-1)]                (the borrow of c - r)
        x = 0  iff  all bits of c and r are equal

[c < r] compares a public number with a secret one by a tree over segments, each with (lt, eq), as in Garay, Schoenmakers & Villegas,
"Practical and secure solutions for integer comparison", 2007; opening x + r with bits of r dealt in advance is Damgard, Fitzi, Kiltz,
Nielsen & Toft, 2006, and in Z_2^k with the borrow in place of a prime field, Makri, Rotaru, Vercauteren & Wagh, "Rabbit", 2021:
        lt = lt_hi ^ eq_hi lt_lo        eq = eq_hi eq_lo
The leaves, of 2 or 4 bits, need no message: their products are of bits of r (the provider's) with public bits of c. At every level above
the factors are masked by fresh bits whose products the provider deals: two segments at a time or, as products of any number of factors
can be dealt, four. The lowest segment's eq is never used, so it is not computed.

64 bits, to XOR shares, rounds and bytes an element each way: 6 and 8 + (3 (31) - 5) / 8 = 19 in pairs; 5 and 18.9 with four at the root; 3
and 12.1 in fours, for 22 bytes more from the provider than in pairs. 32 bits: 5 and 13.1, 4 and 13, 3 and 10.1. A window of 32 bits looks
at bits low ... low + 31 of c alone: right wherever -2^(low+31) <= x <= 2^(low+31) - 2^low, but for -2^low < x < 0, which it calls
non-negative with probability (x mod 2^low) / 2^low. x is the compared value: for a maximum, the difference.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from syftlite.mpc.bits import Tree, joined, levels, padded, planes, quarters, raw, tensor, unpack, window
from syftlite.mpc.party import Party

Correlated = dict[str, Tensor]
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


async def sign_plane(p: Party, k: Correlated, c: Tensor, width: int, low: int, tree: Tree) -> Tensor:
    """XOR shares of msb(x), one plane (w,), from the opened c = x + r, (width, w)."""
    cp = raw(planes(window(~c, width, low)))  # all uses want ~c; its top bit is flipped back in `top`
    four = tree[0] == 4
    r_top = raw(k["top"] if four else k["bits"][-1])
    top = ~cp[-1] ^ r_top if p.first else r_top + 0  # leaves of two write to it
    cp[-1] = -1  # the top bit takes no part in the tree: equal on both sides
    lt, eq = (_leaves_of_four if four else _leaves_of_two)(p, k, cp)
    for h, size in levels(width, *tree):
        lt, eq = await (_merge_four if size == 4 else _merge)(p, raw(k[f"x{h}"]), raw(k[f"p{h}"]), lt, eq, h)
    return tensor(lt[0] ^ top)


def _leaves_of_two(p: Party, k: Correlated, cp: Any) -> tuple[Any, Any]:
    """lt of every pair of bits, eq of all but the lowest."""
    half, r = len(cp) // 2, raw(k["bits"])
    r[-1] = 0
    lo, hi, r_lo, r_hi = cp[:half], cp[half:], r[:half], r[half:]
    u = raw(k["prod"])  # r_lo (r_hi ^ ~c_hi): with it lt = r_hi ~c_hi ^ ~c_lo u, eq = (r_hi ^ ~c_hi)(r_lo ^ ~c_lo)
    u ^= r_lo & hi
    lt = r_hi & hi
    lt ^= u & lo
    eq = r_hi[1:] & lo[1:]  # the lowest segment's is not needed
    eq ^= u[1:]
    if p.first:
        eq ^= hi[1:] & lo[1:]
    return lt, eq


def _leaves_of_four(p: Party, k: Correlated, cp: Any) -> tuple[Any, Any]:
    """The same of four bits: e_i = r_i ^ ~c_i, eq = e_3 e_2 e_1 e_0, lt_i = r_i ~c_i ^ e_i lt_(i-1), bit by bit from the lowest, for every
    product of higher bits of r at once: those that have the next bit as a factor stand at odd places, the others at even ones."""
    first, *others = quarters(cp)
    free = raw(k["mono"])
    with_bit, free = free[0::2], free[1::2]
    lt = with_bit & first
    eq = with_bit + 0
    eq[1:] ^= free & first
    if p.first:
        eq[0] ^= first
    for c in others:
        with_bit, free = free[0::2], free[1::2]
        below, lt = lt, with_bit ^ lt[0::2]
        lt &= c
        lt ^= below[1::2]
        below, eq = eq, eq[0::2] & c
        eq ^= below[1::2]
    return lt[0], eq[0, 1:]


async def _merge(p: Party, x: Any, products: Any, lt: Any, eq: Any, h: int) -> tuple[Any, Any]:
    """One level: lt of 2h segments and eq of all but the lowest -> of h. One opening masked by ``x``."""
    masked = joined(eq[h - 1 :], lt[:h], eq[: h - 1])
    masked ^= x
    opened = raw(await p.open_bits(tensor(masked)))
    mask, d, e = x[:h], opened[:h], opened[h:]  # d of eq_hi; e of lt_lo and eq_lo, each to be multiplied by eq_hi
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
    masked = joined(eq[n : n + h], eq[h - 1 : n], eq[n + h :], lt_2, lt_1, low)
    masked ^= x
    opened = raw(await p.open_bits(tensor(masked)))
    of_low, of_1, of_2 = products[4 * h : -4 * h].reshape(7, n, w), products[-4 * h : -h].reshape(3, h, w), products[-h:]
    masks = joined(x[: 2 * h], products[:h], x[2 * h : 3 * h], products[h : 4 * h]).reshape(7, h, w)  # a_1 a_2 a_12 a_3 a_13 a_23 a_123
    e, open_2, open_1 = opened[: 3 * h].reshape(3, h, w), opened[3 * h : 4 * h], opened[4 * h : 5 * h]
    both = e if h == 1 else joined(e, e[:, 1:], axis=1)  # for lt_0 of all groups, and e_0 of all but the lowest
    of_low ^= (masks if h == 1 else joined(masks, masks[:, 1:], axis=1)) & opened[5 * h :]
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
    """XOR shares of x < 0 for a vector, one plane: bit j of word i, bits reversed, is element (j, i) of x's (width, w) words."""
    width, low = words_of(p, low)
    words = padded(x, width)
    tree = tree_of(width, words.shape[1])
    k = p.correlated("sign", words.shape[1], width, low, tree)
    return await sign_plane(p, k, await p.open(words + k["r"]), width, low, tree)


async def to_arithmetic(p: Party, bit: Tensor, k: Correlated) -> Tensor:
    """A plane of XOR shares -> additive shares of the bits, (width, w). One round, a bit an element."""
    flips = unpack(await p.open_bits(bit ^ k["rho_bits"]), k["rho"].shape[0])
    return flipped(p, k["rho"], flips)


def flipped(p: Party, rho: Tensor, flips: Tensor) -> Tensor:
    """Additive shares of rho ^ flip: rho where ``flips`` is 0 and 1 - rho where it is -1."""
    out = (rho ^ flips).sub_(flips)
    return out.sub_(flips) if p.first else out


async def negative(p: Party, x: Tensor, low: int = -1) -> Tensor:
    """Additive shares of [x < 0] for a vector: 4 rounds and 12.25 bytes an element each way; 6 and 19 beyond `FEW` words."""
    width, low = words_of(p, low)
    words = padded(x, width)
    tree = tree_of(width, words.shape[1], many=ROOT)
    k = p.correlated("bit", words.shape[1], width, low, tree)
    bit = await sign_plane(p, k, await p.open(words + k["r"]), width, low, tree)
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
    for h, _ in levels(width):
        mask, products = k[f"x{h}"], k[f"p{h}"]
        opened = await p.open_bits(all_equal ^ mask)
        d, e = opened[:h], opened[h:]
        products ^= (mask[h:] & d).bitwise_xor_(e & (mask[:h] ^ d if p.first else mask[:h]))
        all_equal = products
    return (await to_arithmetic(p, all_equal[0], k)).view(-1)[: x.numel()]
