"""Reciprocals, roots, logarithms and quotients: find the power of four that x is near, and divide by it; the rest is a series on [1, 4).

    bins       [x < t] for every t of a list, by one opening of x: the comparisons share the bits of its mask
    scale      s = 2^(24 - 2 e) where 2^(LEAST + 2 e) <= |x| < 2^(LEAST + 2 e + 2):  a public combination of those bits
    series     x s = 2^28 u with 1 <= u < 4;  g(u) by one opening (series.py)
    back       1 / x = s g(u), and so on: one product.  log x = g(u) + (a public combination of the bits): none

Shapes of the exponent by comparisons, in place of a bit decomposition and a prefix OR (as in Aly & Smart, "Benchmarking privacy preserving
scientific operations", 2019, section 5), take as many rounds as one comparison. Ring elements of |x| < 2^30; below 2^LEAST the result is
bounded, and no more is said of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from syftlite.mpc.bits import joined, levels, raw, tensor, unpack, word_dtype
from syftlite.mpc.comparison import LEAVES, opened, sign_plane, to_arithmetic, whole_words
from syftlite.mpc.correlations import ARITHMETIC, FREE, KINDS, SENT, XOR, Fields, Q, Secrets, enter, table_fields, tree_fields
from syftlite.mpc.party import Party
from syftlite.mpc.products import product
from syftlite.mpc.ring import Ring
from syftlite.mpc.rounds import together
from syftlite.mpc.series import DEALT, SERIES, Basis, series
from syftlite.mpc.truncation import truncate

LEAST, MOST = 4, 30
"""Ring elements of 2^LEAST <= |x| < 2^MOST."""
NORMAL = 28
"""u = 1 is 2^NORMAL."""
BITS = 16
"""Of a series' public factors: of g(u) DEALT + BITS are after the point."""
WIDTH = 32
BASIS = Basis(NORMAL + 3, 6, 1)
RECIPROCAL, RSQRT, SQRT, LOG = 1, 2, 4, 8
"""What `roots` can give, as bits of a number."""


# -- which power of four


def _bins_fields(w: int, count: int, width: int) -> Fields:
    """As a comparison's: the mask and its products once; masks of the tree and of the result for each of ``count`` thresholds."""
    yield "r", (width * w,), Q, FREE, ARITHMETIC
    yield from table_fields(w, width)
    yield from tree_fields(count * w, width, LEAVES)
    yield "rho_bits", (count * w,), word_dtype(width), FREE, XOR
    yield "rho", (count * width * w,), Q, SENT, ARITHMETIC


@enter("bins", _bins_fields, arrays=True)
def _bins(ring: Ring, s: Secrets, w: int, count: int, width: int) -> None:
    KINDS["sign"].follow(ring, s, w, width, 0, LEAVES)
    s["rho"] = -unpack(s["rho_bits"], width)


async def below(p: Party, x: Tensor, thresholds: Sequence[int]) -> Tensor:
    """(len(thresholds), n) additive shares of [x < t] for a vector; |x - t| < 2^31. Five rounds."""
    width = min(WIDTH, p.ring.bits)
    count = len(thresholds)
    k = p.correlated("bins", whole_words(x, width), count, width)
    c = tensor(await opened(p, x, k))
    moved = raw((c - torch.tensor(thresholds, device=c.device)[:, None]).view(-1))
    shared = {f"{part}{h}": k[f"{part}{h}"] for h, _ in levels(width, *LEAVES) for part in "xp"}
    shared["top"], shared["table"] = joined(*[k["top"]] * count), k["table"]
    bit = await sign_plane(p, shared, p.ring.reduce(moved), width, 0, LEAVES)
    return (await to_arithmetic(p, bit, k)).view(count, -1)[:, : x.numel()]


class Bins(NamedTuple):
    """Where x lies, as shares of [x < t]; ``scales``: s of every bin, one more than thresholds; ``exponents``: e."""

    bits: Tensor
    scales: list[int]
    exponents: list[int]

    def chosen(self, p: Party, values: Sequence[int]) -> Tensor:
        """The value of x's bin, of public ``values`` of all bins: no message."""
        steps = torch.tensor([a - b for a, b in itertools.pairwise(values)], device=self.bits.device)
        out = (self.bits * steps[:, None]).sum(0)
        return out.add_(values[-1]) if p.first else out


async def bins(p: Party, x: Tensor, signed: bool, least: int = LEAST, most: int = MOST) -> Bins:
    """The bin of each element of a vector: of positive ones alone, or of either sign."""
    count = -(-(most - least) // 2)
    edges = [1 << (least + 2 * e) for e in range(1, count)]
    exponents = list(range(count))
    scales = [1 << (NORMAL - least - 2 * e) for e in exponents]
    if signed:
        edges = [*[-t for t in reversed(edges)], 0, *edges]
        scales = [*[-s for s in reversed(scales)], *scales]
        exponents = [*reversed(exponents), *exponents]
    return Bins(await below(p, x, edges), scales, exponents)


# -- what is near it


async def roots(p: Party, x: Tensor, f: int, what: int, signed: bool = False) -> tuple[Tensor, ...]:
    """1 / x, x^(-1/2), x^(1/2) and log x of a vector, those whose bits are in ``what``; f bits after the point, of all. Nine rounds."""
    near = await bins(p, x, signed)
    normal = await product(p, "mul", x, near.chosen(p, near.scales))
    names = [name for bit, name in enumerate(_BACK) if what >> bit & 1]
    # of a half in an exponent of two: into the coefficients, whose unit need not be a power of two
    backs = [_BACK[name](f, near.exponents, near.scales) for name in names]
    found = await series(p, normal, BASIS, [SERIES[f"{name} 4"] for name in names], [back.unit * (1 << BITS) for back in backs])
    factors = [near.chosen(p, back.values) for back in backs]
    multiplied = [i for i, back in enumerate(backs) if back.times]
    if multiplied:
        products = await product(p, "mul", torch.stack([found[i] for i in multiplied]), torch.stack([factors[i] for i in multiplied]))
        for i, z in zip(multiplied, products.unbind(0)):
            found[i] = z
    for i, back in enumerate(backs):
        if not back.times:
            found[i] = found[i] + factors[i]
    return tuple(await together(p, *[truncate(p, z, back.shift) for z, back in zip(found, backs)]))


class Back(NamedTuple):
    """How f(x) follows from g(u): times (or plus) the bin's value; g's unit besides 2^(DEALT + BITS); bits to divide by."""

    times: bool
    values: list[int]
    unit: float
    shift: int


def _reciprocal(f: int, exponents: list[int], scales: list[int]) -> Back:
    """2^2f / x = 2^(2f - 28) s / u."""
    return _shifted([*scales], 2 * f - NORMAL)


def _rsqrt(f: int, exponents: list[int], scales: list[int]) -> Back:
    """2^(3f / 2) x^(-1/2) = 2^(3f / 2 - 14) s^(1/2) u^(-1/2)."""
    return _shifted([math.isqrt(abs(s)) for s in scales], 1.5 * f - NORMAL // 2)


def _sqrt(f: int, exponents: list[int], scales: list[int]) -> Back:
    """2^(f / 2) x^(1/2) = 2^(f / 2 + LEAST / 2) 2^e u^(1/2)."""
    return _shifted([1 << e for e in exponents], 0.5 * f + LEAST // 2)


def _log(f: int, exponents: list[int], scales: list[int]) -> Back:
    """2^f log(x / 2^f) = 2^f (log u + (LEAST + 2e - f) log 2)."""
    one = 1 << (DEALT + BITS)
    return Back(False, [times_log_2((LEAST + 2 * e - f) * one) for e in exponents], 1.0, DEALT + BITS - f)


_BACK = {"reciprocal": _reciprocal, "rsqrt": _rsqrt, "sqrt": _sqrt, "log": _log}
LOG_2 = 12786308645202655660
"""2^64 log 2: the same whole number everywhere."""


def times_log_2(x: int) -> int:
    """x log 2."""
    return x * LOG_2 >> 64


def _shifted(values: list[int], power: float) -> Back:
    """A product times 2^power: the whole part is a shift, a half is in g's unit."""
    whole = math.floor(power)
    return Back(True, values, math.sqrt(2) if power != whole else 1.0, DEALT + BITS - whole)


# -- quotients

AHEAD = 14
"""Bits that the numerator's product loses before the reciprocal's."""
KEPT = 30
"""Bits of g after the point: with 14 + 16 of the quotient they fill the ring."""


async def quotient(p: Party, x: Tensor, y: Tensor, f: int, signed: bool = True) -> Tensor:
    """x / y of tensors that broadcast: as exact as 1 / u, not as 1 / y. Ten rounds."""
    flat = y.reshape(-1)
    near = await bins(p, flat, signed)
    s = near.chosen(p, near.scales)
    normal, above = await together(p, product(p, "mul", flat, s), product(p, "mul", x, s.view(y.shape)))
    g, above = await together(p, _inverse(p, normal), _cut(p, above, AHEAD))
    z = await product(p, "mul", above, g.view(y.shape))
    return await _cut(p, z, KEPT + NORMAL - AHEAD - f)


async def _inverse(p: Party, normal: Tensor) -> Tensor:
    """2^KEPT / u."""
    (g,) = await series(p, normal, BASIS, [SERIES["reciprocal 4"]], [float(1 << 20)])
    return await truncate(p, g, DEALT + 20 - KEPT)


async def _cut(p: Party, x: Tensor, f: int) -> Tensor:
    return (await truncate(p, x.reshape(-1), f)).view(x.shape)
