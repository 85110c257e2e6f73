"""What chooses by a secret bit: relu, maximum, select, and the greatest of several.

    relu      b = [x >= 0] = rho ^ flip: rho secret and dealt, flip = ([x >= 0] ^ rho) opened
              y rho needs no message, because y = g(c) - (r's part) is linear in what the provider knew: y rho = g(c) rho - (r's part) rho
              relu = y rho where flip = 0, y - y rho where flip = 1;     y = x, or x / 2^f from the same opening
    max       b + relu(a - b)
    select    y + bit (x - y)
    greatest  a knockout: pairs, then pairs of winners; one-hot shares follow by products of the bits along each path

The opening that compares also truncates, so a truncating relu costs no more rounds and bytes between holders than a plain one: 4 rounds
and 12.3 bytes an element each way; 7 and 19.1 of more than `comparison.FEW` words. Multiplying a dealt random bit's conversion into the
comparison follows daBits (Rotaru & Wood, 2019).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from syftlite.mpc.bits import add_to, difference, raw, tensor, unpack
from syftlite.mpc.comparison import Correlated, flipped, opened, sign_plane, tree_of, whole_words, words_of
from syftlite.mpc.party import Party
from syftlite.mpc.pieces import elementwise
from syftlite.mpc.products import product
from syftlite.mpc.rounds import together
from syftlite.mpc.truncation import add_wraps, public, small


async def relu(p: Party, x: Tensor, f: int = 0, low: int = -1) -> Tensor:
    """max(x, 0), divided by 2^f, for a vector."""
    k, c, flips = await _signed(p, x, f, low)
    return _selected(p, x, k, c, ~flips, f)


async def relu_and_mask(p: Party, x: Tensor, f: int = 0, low: int = -1) -> tuple[Tensor, Tensor]:
    """(max(x, 0) / 2^f, [x >= 0] as additive shares of 0 or 1) for a vector: the mask costs no message."""
    k, c, flips = await _signed(p, x, f, low)
    keep = ~flips
    y = _selected(p, x, k, c, keep, f)
    return y, tensor(flipped(p, k["rho"], keep))[: x.numel()]  # rho is the sign's mask: [x >= 0] = 1 - (rho ^ flip)


async def _signed(p: Party, x: Tensor, f: int, low: int) -> tuple[Correlated, Any, Any]:
    """(the correlation, the opened c, the opened [x < 0] ^ rho as masks)."""
    width, low = words_of(p, low)
    w = whole_words(x, width)
    tree = tree_of(width, w)
    k = p.correlated("relu", w, f, width, low, tree)
    c = await opened(p, x, k)
    bit = await sign_plane(p, k, c, width, low, tree)
    return k, c, unpack(await p.open_bits(bit ^ k["rho_bits"]), width)


def _selected(p: Party, x: Tensor, k: Correlated, c: Any, keep: Any, f: int) -> Tensor:
    """y rho where the mask ``keep`` is 0, y - y rho where it is -1; selecting by mask costs a third of torch.where."""
    if f:
        near, part, y = small(p.ring, c, f), k["t_rho"], k["t"]
        g = public(p.ring, c, f)
        part += g * k["rho"]
        add_wraps(p.ring, part, k["m_rho"], near, f)
        add_wraps(p.ring, y, k["m"], near, f)
        if p.first:
            y += g
        y -= part
    else:
        part = c * k["rho"]
        part -= k["t_rho"]
        y = -part
        y[: x.numel()] += raw(x)
    y ^= part
    y &= keep
    y ^= part
    return tensor(y)[: x.numel()]


async def maximum(p: Party, x: Tensor, y: Tensor, low: int = -1) -> Tensor:
    """max(x, y) for vectors: y + relu(x - y)."""
    return add_to(await relu(p, difference(x, y), 0, low), y)


async def minimum(p: Party, x: Tensor, y: Tensor, low: int = -1) -> Tensor:
    """min(x, y) for vectors: x - relu(x - y)."""
    return difference(x, await relu(p, difference(x, y), 0, low))


async def select(p: Party, bit: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """x where ``bit`` is 1, y where it is 0: one round."""
    return (await product(p, "mul", bit, x - y)) + y


async def greatest(p: Party, rows: list[Tensor], low: int) -> Tensor:
    """The elementwise maximum of tensors of one shape: 4 or 7 rounds for each halving of their number."""
    while len(rows) > 1:
        differences, carried = _paired(rows)
        (best,) = await elementwise(p, relu, differences, low=low)
        rows = [add_to(b, right) for b, right in zip(best.unbind(0), rows[1::2])] + carried
    return rows[0]


async def greatest_and_mask(p: Party, rows: list[Tensor], low: int) -> tuple[Tensor, Tensor]:
    """(the maximum, one-hot (len(rows), ...) of where it is); a tie goes to the first. A round more for each halving but the first."""
    one = torch.ones_like(rows[0]) if p.first else torch.zeros_like(rows[0])
    masks = [one[None] for _ in rows]
    while len(rows) > 1:
        differences, carried = _paired(rows)
        best, bits = await elementwise(p, relu_and_mask, differences, outputs=2, low=low)
        pairs = list(zip(bits.unbind(0), masks[0::2], masks[1::2]))
        masks = await together(p, *[_joined(p, *pair) for pair in pairs]) + masks[2 * len(pairs) :]
        rows = [add_to(b, right) for b, right in zip(best.unbind(0), rows[1::2])] + carried
    return rows[0], masks[0]


def _paired(rows: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """(differences of neighbours (len(rows) // 2, ...), the odd one out)."""
    pairs = len(rows) // 2
    out = rows[0].new_empty(pairs, *rows[0].shape)
    for i in range(pairs):
        difference(rows[2 * i], rows[2 * i + 1], out=out[i])
    return out, rows[2 * pairs :]


async def _joined(p: Party, bit: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """One-hot over both groups: left where ``bit``, right where not. Leaves need no product."""
    one = bit[None]
    if len(left) == len(right) == 1:
        return torch.cat([one, left - one])
    product_of = await product(p, "mul", one, torch.cat([left, right]))
    return torch.cat([product_of[: len(left)], right - product_of[len(left) :]])
