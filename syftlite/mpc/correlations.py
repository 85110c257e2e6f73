"""Correlations: what the provider deals, as lists of fields.

A field is *free* (every holder expands its own share from its own key; the secret is what they add up to) or *sent* (a function of free
fields: all holders but the last expand their shares, the last is sent secret - their sum). Only sent fields cost traffic. Shares are
additive, or XOR shares of words of bits.

    kind      arguments                      free                           sent
    trunc     n, f                           r                              t, m: r's parts (truncation.py)
    square    n                              a                              aa
    product   map, x, y, parameters          a, b                           ab = B(a, b)
    weight    shape                          b                              nothing; the provider keeps b under the correlation's number
    fixed     map, x, number, y, params      a                              ab = B(a, b of that weight)
    sign      w, width, low, tree            r, x*: masks of the tree       r's bits or tables, p*: products of masks (comparison.py)
    bit       w, width, low, tree            ... and rho_bits               ... and rho: the same bits, additive
    relu      w, f, width, low, tree         ... as bit                     ... and t_rho = (r or t) rho; t, m, m_rho if f
    equal     w, width                       r, x*, rho_bits                table, p*, rho

and those that functions need, each beside its protocol: wave (series.py), growth (exponential.py), place (ranking.py), bins (roots.py).

Beaver, "Efficient multiparty protocols using circuit randomization", 1991; deriving all but one holder's shares from keys is folklore.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch

from syftlite.mpc.bilinear import MAPS, Params
from syftlite.mpc.bits import Tree, digits, joined, levels, masks_at, msb_and_rest, planes, unpack, window, word_dtype
from syftlite.mpc.convolution import Shape
from syftlite.mpc.ring import Ring, head_dtype
from syftlite.randomness import digest

Secrets = dict[str, Any]
"""By field: arrays or tensors."""
Parts = dict[str, Any]
"""Memory of each part, an array of bytes."""
Fields = Iterator[tuple[str, Shape, torch.dtype, str, bool]]
Q = torch.int64
FREE, SENT, ARITHMETIC, XOR = "free", "sent", False, True


class Field(NamedTuple):
    """Where one field lies in its part, and whether it is computed with as an array, or as a tensor."""

    name: str
    shape: Shape
    dtype: torch.dtype
    part: str
    xor: bool
    kind: Any
    """``dtype`` as numpy's."""
    start: int
    stop: int
    array: bool

    def memory(self, parts: Parts) -> Any:
        """The field in the memory of its part, as an array."""
        return np.ndarray(self.shape, self.kind, parts[self.part], self.start)

    def view(self, parts: Parts) -> Any:
        """The same as what it is computed with."""
        found = self.memory(parts)
        return found if self.array else torch.from_numpy(found)


class Layout(NamedTuple):
    """A correlation's fields and its bytes in each part; ``pads`` are the bytes of the sent part that no field uses.

    ``label`` names kind and arguments in the correlation's keys.
    """

    fields: tuple[Field, ...]
    free: int
    sent: int
    pads: tuple[slice, ...]
    label: bytes


@lru_cache(maxsize=4096)
def layout(kind: str, args: Params) -> Layout:
    """The layout of one kind; every field starts at a multiple of 16 bytes."""
    at, fields, pads = {FREE: 0, SENT: 0}, [], []
    for name, shape, dtype, part, xor in KINDS[kind].fields(*args):
        start = at[part]
        stop = start + math.prod(shape) * dtype.itemsize
        at[part] = -(-stop // 16) * 16
        if part == SENT and at[part] > stop:
            pads.append(slice(stop, at[part]))
        array = xor or KINDS[kind].arrays
        fields.append(Field(name, shape, dtype, part, xor, torch.empty(0, dtype=dtype).numpy().dtype, start, stop, array))
    return Layout(tuple(fields), at[FREE], at[SENT], tuple(pads), digest(kind, args))


class Kind(NamedTuple):
    """One kind: its fields, and how the sent secrets follow from the free ones (added to the dictionary). ``arrays``: all fields are,
    where most of the work is on small ones: NumPy begins an operator in a third of the time that torch takes. Fields of bits always are."""

    fields: Callable[..., Fields]
    follow: Callable[..., None]
    arrays: bool = False


def _trunc_fields(n: int, f: int) -> Fields:
    yield "r", (n,), Q, FREE, ARITHMETIC
    yield "t", (n,), Q, SENT, ARITHMETIC
    yield "m", (n,), head_dtype(f), SENT, ARITHMETIC


def _trunc(ring: Ring, s: Secrets, n: int, f: int) -> None:
    """m = msb(r), t = -floor(r / 2^f)."""
    heads = ring.heads(f)
    s["m"] = -(heads.of(s["r"]) >> heads.sign)
    t = ring.shifted(s["r"], f)
    s["t"] = np.negative(t, out=t)


def _square_fields(n: int) -> Fields:
    yield "a", (n,), Q, FREE, ARITHMETIC
    yield "aa", (n,), Q, SENT, ARITHMETIC


def _square(ring: Ring, s: Secrets, n: int) -> None:
    s["aa"] = s["a"] * s["a"]


def _product_fields(name: str, x: Shape, y: Shape, params: Params) -> Fields:
    yield "a", x, Q, FREE, ARITHMETIC
    yield "b", y, Q, FREE, ARITHMETIC
    yield "ab", MAPS[name].shape(x, y, params), Q, SENT, ARITHMETIC


def _product(ring: Ring, s: Secrets, name: str, x: Shape, y: Shape, params: Params) -> None:
    s["ab"] = MAPS[name](s["a"], s["b"], params)


def _weight_fields(shape: Shape) -> Fields:
    yield "b", shape, Q, FREE, ARITHMETIC


def _weight(ring: Ring, s: Secrets, shape: Shape) -> None:
    """Nothing follows: the dealer keeps b."""


def _fixed_fields(name: str, x: Shape, number: int, y: Shape, params: Params) -> Fields:
    yield "a", x, Q, FREE, ARITHMETIC
    yield "ab", MAPS[name].shape(x, y, params), Q, SENT, ARITHMETIC


def _fixed(ring: Ring, s: Secrets, name: str, x: Shape, number: int, y: Shape, params: Params) -> None:
    """``s["b"]`` is what the dealer kept of the weight, prepared."""
    s["ab"] = out = torch.zeros(MAPS[name].shape(x, y, params), dtype=Q)
    MAPS[name].add(out, s["a"], s["b"], y, params)


def tree_fields(w: int, width: int, tree: Tree) -> Fields:
    """x{h}, masks of what a level of h groups opens, and p{h}, their products. Of pairs, (eq_hi: h rows, lt_lo: h, eq_lo: h - 1), for the
    lowest segment's eq is never used, and h + h - 1; of fours, (eq_1, eq_2, eq_3, lt_2, lt_1, lt_0: h each, eq_0: h - 1)."""
    dtype = word_dtype(width)
    for h, size in levels(width, *tree):
        yield f"x{h}", (masks_at(h, size), w), dtype, FREE, XOR
        yield f"p{h}", (22 * h - 7 if size == 4 else 2 * h - 1, w), dtype, SENT, XOR


def table_fields(w: int, width: int) -> Fields:
    """r's most significant bit, and a table of 16 bits for each of its digits: bit c says whether the digit is at least c."""
    yield "top", (w,), word_dtype(width), SENT, XOR
    yield "table", (width // min(width, 4), width * w), torch.int16, SENT, XOR


def _sign_fields(w: int, width: int, low: int, tree: Tree) -> Fields:
    dtype = word_dtype(width)
    yield "r", (width * w,), Q, FREE, ARITHMETIC
    if tree[0] == 4:
        yield from table_fields(w, width)
    else:
        yield "bits", (width, w), dtype, SENT, XOR
        yield "prod", (width // 2, w), dtype, SENT, XOR
    yield from tree_fields(w, width, tree)


def _sign(ring: Ring, s: Secrets, w: int, width: int, low: int, tree: Tree) -> None:
    half, seen = width // 2, window(s["r"], width, low)
    if tree[0] == 4:
        s["top"], rest = msb_and_rest(seen, width)
        table = np.left_shift(np.uint16(2), rest, out=rest)
        table -= 1
        s["table"] = table.view(np.int16)
    else:
        s["bits"] = bits = planes(seen, width)
        s["prod"] = bits[:half] & bits[half:]
        s["prod"][-1] = 0  # the most significant bit takes no part in the tree
    for h, size in levels(width, *tree):
        x = s[f"x{h}"]
        s[f"p{h}"] = level_of_four(x, h) if size == 4 else joined(x[:h] & x[h : 2 * h], x[1:h] & x[2 * h :])


def level_of_four(x: Any, h: int) -> Any:
    """The products of a level's masks ``x``: of those of eq_1, eq_2, eq_3 with each other, 4h; all products of these with the masks of lt_0
    and eq_0, 7 (2h - 1); those without eq_1 with lt_1, 3h; eq_3 with lt_2, h."""
    w, n = x.shape[1], 2 * h - 1
    masks, out = _monomials(x[: 3 * h].reshape(3, h, w)), np.empty((22 * h - 7, w), x.dtype)
    out[: 4 * h].reshape(4, h, w)[...] = masks[[2, 4, 5, 6]]
    np.bitwise_and(joined(masks, masks[:, 1:], axis=1), x[5 * h :], out=out[4 * h : -4 * h].reshape(7, n, w))
    np.bitwise_and(masks[1::2], x[4 * h : 5 * h], out=out[-4 * h : -h].reshape(3, h, w))
    np.bitwise_and(masks[3], x[3 * h : 4 * h], out=out[-h:])
    return out


def _monomials(bits: Sequence[Any]) -> Any:
    """All products of n rows of bits, (2^n - 1, ...): number m has row i as a factor where bit i of m + 1 is set."""
    out = np.empty(((1 << len(bits)) - 1, *bits[0].shape), bits[0].dtype)
    for i, bit in enumerate(bits):
        at = (1 << i) - 1
        out[at] = bit
        np.bitwise_and(out[:at], bit, out=out[at + 1 : 2 * at + 1])
    return out


def _bit_fields(w: int, width: int, low: int, tree: Tree) -> Fields:
    yield from _sign_fields(w, width, low, tree)
    yield "rho_bits", (w,), word_dtype(width), FREE, XOR
    yield "rho", (width * w,), Q, SENT, ARITHMETIC


def _bit(ring: Ring, s: Secrets, w: int, width: int, low: int, tree: Tree) -> None:
    _sign(ring, s, w, width, low, tree)
    s["rho"] = -unpack(s["rho_bits"], width)


def _relu_fields(w: int, f: int, width: int, low: int, tree: Tree) -> Fields:
    yield from _bit_fields(w, width, low, tree)
    n = (width * w,)
    yield "t_rho", n, Q, SENT, ARITHMETIC
    if f:
        yield "t", n, Q, SENT, ARITHMETIC
        yield "m", n, head_dtype(f), SENT, ARITHMETIC
        yield "m_rho", n, head_dtype(f), SENT, ARITHMETIC


def _relu(ring: Ring, s: Secrets, w: int, f: int, width: int, low: int, tree: Tree) -> None:
    _sign(ring, s, w, width, low, tree)
    keep = unpack(s["rho_bits"], width)
    s["rho"] = -keep
    if f:
        _trunc(ring, s, width * w, f)
        s["m_rho"] = s["m"] & keep
    s["t_rho"] = s["t" if f else "r"] & keep


def _equal_fields(w: int, width: int) -> Fields:
    """table: bit c says whether the digit is c. x{h}: masks of a level's factors; p{h}: all their products, of a group's two or more."""
    dtype = word_dtype(width)
    yield "r", (width * w,), Q, FREE, ARITHMETIC
    yield "table", (width // min(width, 4), width * w), torch.int16, SENT, XOR
    for h, size in levels(width, 4, 4):
        yield f"x{h}", (size * h, w), dtype, FREE, XOR
        yield f"p{h}", (((1 << size) - 1 - size) * h, w), dtype, SENT, XOR
    yield "rho_bits", (w,), dtype, FREE, XOR
    yield "rho", (width * w,), Q, SENT, ARITHMETIC


def _equal(ring: Ring, s: Secrets, w: int, width: int) -> None:
    table = digits(window(s["r"], width, 0), width)
    s["table"] = np.left_shift(np.uint16(1), table, out=table).view(np.int16)
    for h, size in levels(width, 4, 4):
        products = _monomials(s[f"x{h}"].reshape(size, h, w))
        s[f"p{h}"] = products[[m - 1 for m in range(1, 1 << size) if m & (m - 1)]].reshape(-1, w)
    s["rho"] = -unpack(s["rho_bits"], width)


KINDS: dict[str, Kind] = {
    "trunc": Kind(_trunc_fields, _trunc, arrays=True),
    "square": Kind(_square_fields, _square, arrays=True),
    "product": Kind(_product_fields, _product),
    "weight": Kind(_weight_fields, _weight),
    "fixed": Kind(_fixed_fields, _fixed),
    "sign": Kind(_sign_fields, _sign, arrays=True),
    "bit": Kind(_bit_fields, _bit, arrays=True),
    "relu": Kind(_relu_fields, _relu, arrays=True),
    "equal": Kind(_equal_fields, _equal, arrays=True),
}


def size(kind: str, args: Params) -> tuple[int, int]:
    """(bytes that each holder expands of free fields, bytes of the correction) of one correlation."""
    found = layout(kind, args)
    return found.free, found.sent


def enter(name: str, fields: Callable[..., Fields], arrays: bool = False) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Enter a kind that stands next to its protocol: the decorated function has its sent secrets follow."""

    def entered(follow: Callable[..., None]) -> Callable[..., None]:
        assert name not in KINDS
        KINDS[name] = Kind(fields, follow, arrays)
        return follow

    return entered


Request = tuple[str, tuple[Any, ...]]
"""(kind, arguments): what the provider is asked for."""
