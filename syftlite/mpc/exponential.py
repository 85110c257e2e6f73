"""e^x by one opening.

    open c = x + start + r (mod 2^window);       digits of 2^digit: c = h_c 2^digit + l_c, r = h_r 2^digit + l_r
    e^x = e^(l_c) e^(2^digit (h_c - h_r mod H) - l_r - start),      H = 2^(window - digit)

The first factor is public. The second is one of H numbers, dealt for every h_c that c may have: holders take those of the one it has. So
what is dealt spans only what the result spans, and 64 bits are enough; with all of r in one dealt factor they would not be.
Right from x = -start to 2^window - 2^digit - start; above, the window begins again at its bottom.

The additive mask that becomes a factor: Bar-Ilan & Beaver, "Non-cryptographic fault-tolerant computing in constant number of rounds", 1989;
a table for the part that wraps: Ishai, Kushilevitz, Meldgaard, Orlandi & Paskin-Cherniavsky, "On the power of correlated randomness", 2013.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from syftlite.mpc.correlations import ARITHMETIC, FREE, SENT, Fields, Q, Secrets, enter
from syftlite.mpc.party import Party
from syftlite.mpc.ring import Ring
from syftlite.mpc.steady import growth
from syftlite.mpc.truncation import truncate

CAP = 2.0**61


class Range(NamedTuple):
    """Of the argument, in real numbers: the window's size and the digit's, powers of two, and where it ends; the bits after the point of
    the public factor, which is at least 1, and of the dealt one, which may be as small as the result over e^digit."""

    window: int
    digit: int
    end: int
    public: int
    dealt: int


ANY = Range(window=128, digit=8, end=11, public=17, dealt=29)
"""Right for -109 <= x <= 10 to 2^-18 of the value and 2^-18: the products stay below 2^62."""
NEGATIVE = Range(window=512, digit=16, end=1, public=17, dealt=42)
"""Right for -495 <= x <= 0 to 2^-18 of the value and 2^-19."""


def _growth_fields(n: int, window: int, digit: int, start: int, f: int, bits: int) -> Fields:
    yield "r", (n,), torch.int32, FREE, ARITHMETIC
    yield "powers", (n, 1 << (window - digit)), Q, SENT, ARITHMETIC


@enter("growth", _growth_fields)
def _growth(ring: Ring, s: Secrets, n: int, window: int, digit: int, start: int, f: int, bits: int) -> None:
    """Of every h_c: 2^bits e^(2^digit (h_c - h_r mod H) - l_r - start)."""
    count = 1 << (window - digit)
    r = s["r"].long().bitwise_and_((1 << window) - 1)
    own = (r & ((1 << digit) - 1)).double().mul_(-(2.0**-f)).exp_()
    steps = (torch.arange(count, dtype=torch.float64) * (1 << digit) - start) * 2.0**-f
    whole = torch.exp(steps).mul_(2.0**bits).clamp_(max=CAP)
    places = torch.arange(count)
    turned = whole[(places - places[:, None]) & (count - 1)]  # row h_r: of every h_c
    s["powers"] = turned.index_select(0, r >> digit).mul_(own[:, None]).round_().long()


async def exponential(p: Party, x: Tensor, f: int, within: Range = ANY) -> Tensor:
    """e^x of a vector, both with f bits after the point: two rounds, 12 bytes an element each way."""
    window, digit = ((size.bit_length() - 1) + f for size in (within.window, within.digit))
    start = (within.window - within.digit - within.end) << f
    k = p.correlated("growth", x.numel(), window, digit, start, f, within.dealt)
    c = k["r"] + x.to(torch.int32)
    if p.first:
        c += start
    c = (await p.open(c)).long() & ((1 << window) - 1)
    factor = growth(c & ((1 << digit) - 1), f, digit).mul_(1 << within.public).round_().long()
    powers = k["powers"]
    chosen = powers[:, 0] if c.is_meta else powers.view(-1).index_select(0, (c >> digit).add_(torch.arange(len(c)), alpha=powers.shape[1]))
    return await truncate(p, chosen * factor, within.public + within.dealt - f)
