"""Order by comparing every pair at once, and places by one opening.

    rank      of x_i: the number of x_j before it, all n (n - 1) / 2 comparisons in one batch; of equal ones the first is before
    one-hot   of 0 <= x < size, a power of two:  open c = x + r;  a one-hot of -r mod size is dealt, and turned by c
    sort      the ranks' one-hots are a permutation P:  x P;  1 round after the comparisons and the one-hot
    greatest  of up to GROUP, by one entry of the last rank's one-hot; of more, by a tournament of groups

The turned one-hot is the one-time truth table of Ishai, Kushilevitz, Meldgaard, Orlandi & Paskin-Cherniavsky, "On the power of correlated
randomness in secure computation", 2013.
"""

from __future__ import annotations

import torch
from torch import Tensor

from syftlite.mpc.comparison import negative
from syftlite.mpc.correlations import ARITHMETIC, FREE, SENT, Fields, Q, Secrets, enter
from syftlite.mpc.party import Party
from syftlite.mpc.products import product
from syftlite.mpc.ring import Ring

GROUP = 16
"""Of so many the greatest is found by comparing all pairs at once."""
TOURNAMENT = 8
"""Of more, in groups of so many: 3.5 comparisons an element."""


def _place_fields(n: int, size: int) -> Fields:
    yield "r", (n,), torch.int32, FREE, ARITHMETIC
    yield "hot", (n, size), Q, SENT, ARITHMETIC


@enter("place", _place_fields)
def _place(ring: Ring, s: Secrets, n: int, size: int) -> None:
    """One-hot of -r mod size."""
    s["hot"] = torch.zeros(n, size, dtype=Q).scatter_(1, (-s["r"].long() & (size - 1))[:, None], 1)


async def one_hot(p: Party, x: Tensor, size: int) -> Tensor:
    """(n, size) shares of [x = 0], [x = 1], ... for a vector of 0 <= x < size, a power of two. One round, 4 bytes an element each way."""
    k = p.correlated("place", x.numel(), size)
    c = await p.open(k["r"] + x.to(torch.int32))
    return _turned(k["hot"], torch.arange(size, device=x.device) - c.long()[:, None], size)


async def _is(p: Party, x: Tensor, value: int, size: int) -> Tensor:
    """[x = value] for a vector of 0 <= x < size."""
    k = p.correlated("place", x.numel(), size)
    c = await p.open(k["r"] + x.to(torch.int32))
    return _turned(k["hot"], value - c.long()[:, None], size)[:, 0]


def _turned(hot: Tensor, place: Tensor, size: int) -> Tensor:
    return hot.new_empty(place.shape) if hot.is_meta else hot.gather(1, place & (size - 1))


def power_of_two(n: int) -> int:
    """The least power of two from n on."""
    return 1 << max(n - 1, 0).bit_length()


async def ranks(p: Party, x: Tensor, low: int) -> Tensor:
    """(rows, n) -> how many of its row are before each: 0 ... n - 1, each once."""
    rows, n = x.shape
    first, second = torch.triu_indices(n, n, 1)
    if n == 1 or rows == 0:
        return torch.zeros_like(x)
    after = (await negative(p, (x[:, second] - x[:, first]).reshape(-1), low)).view(rows, -1)  # the second is before the first
    out = torch.zeros_like(x)
    if x.is_meta:
        return out
    out.index_add_(1, first, after)
    out.index_add_(1, second, 1 - after if p.first else -after)
    return out


async def permutation(p: Party, x: Tensor, low: int) -> Tensor:
    """(rows, n) -> (rows, n, n): element i of the row stands at place j of the sorted one where entry (i, j) is 1."""
    rows, n = x.shape
    hot = await one_hot(p, (await ranks(p, x, low)).reshape(-1), power_of_two(n))
    return hot.view(rows, n, -1)[..., :n]


async def greatest_of(p: Party, x: Tensor, low: int) -> Tensor:
    """(rows, n) -> (rows,): the greatest of each row."""
    while x.shape[1] > 1:
        rows, n = x.shape
        size = n if n <= GROUP else TOURNAMENT
        whole = n - n % size
        grouped = x[:, :whole].reshape(-1, size)
        hit = await _is(p, (await ranks(p, grouped, low)).reshape(-1), size - 1, power_of_two(size))
        best = (await product(p, "mul", hit.view(grouped.shape), grouped.contiguous())).sum(1).view(rows, -1)
        x = torch.cat([best, x[:, whole:]], 1)
    return x[:, 0]
