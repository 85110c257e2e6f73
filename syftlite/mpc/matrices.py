"""Products of matrices over Z_2^64, exact: by digits where the processor multiplies bytes in tiles (Intel's AMX), by int64 elsewhere.

    x = sum of x_i 256^i, digits -128 <= x_i < 128          the bytes of x + 0x80..80, each less 128
    x @ y = sum over s < 8 of 256^s [x_s .. x_0] @ [y_0; ..; y_s]      digits with i + j >= 8 vanish modulo 2^64

Sums of 8 k products of digits are below k 2^17, so that int32 holds them for k < 2^14. No vector unit multiplies int64 in one step: 36
products of bytes take half its time, once all sides are so long that cutting and putting together takes less; sums of products are
cut and put together once.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor]
"""(m, k) and (k, n)."""
_DIGITS = 8
_SIGNS = -0x7F7F7F7F7F7F7F80
"""0x8080808080808080 as int64."""
_SMALLEST, _LONGEST = 768, (1 << 14) - 1
"""Shortest side by digits, and longest sum."""


@cache
def has_tiles() -> bool:
    """Whether products of bytes run in tiles here. Older torch does not tell."""
    told = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return told is not None and hasattr(torch, "_int_mm") and torch.backends.mkldnn.is_available() and bool(told())


def add_products(out: Tensor, *products: Factors) -> None:
    """out (m, n) += x @ y for every (x, y), all int64."""
    long = sum(x.shape[1] for x, _ in products)
    if min(*out.shape, long) >= _SMALLEST and long <= _LONGEST and not out.is_meta and has_tiles():
        add_by_digits(out, *products)
    else:
        for x, y in products:
            out.addmm_(x, y)


def add_by_digits(out: Tensor, *products: Factors) -> None:
    """The same by products of digits."""
    (m, n), k = out.shape, sum(x.shape[1] for x, _ in products)
    rows, columns, at = torch.empty(m, _DIGITS, k, dtype=torch.int8), torch.empty(_DIGITS, k, n, dtype=torch.int8), 0
    for x, y in products:
        to = at + x.shape[1]
        rows[:, :, at:to] = _digits(x, highest_first=True).permute(0, 2, 1)
        columns[:, at:to] = _digits(y).permute(2, 0, 1)
        at = to
    left, right = rows.view(m, -1), columns.view(-1, n)
    high: Tensor | None = None  # of the upper four only 32 bits count
    for s in reversed(range(_DIGITS)):
        part = torch._int_mm(left[:, (_DIGITS - 1 - s) * k :], right[: (s + 1) * k])
        if s < 4:
            out.add_(part, alpha=1 << 8 * s)
        else:
            high = part if high is None else high.bitwise_left_shift_(8).add_(part)
    assert high is not None
    out.add_(high, alpha=1 << 32)


def _digits(x: Tensor, *, highest_first: bool = False) -> Tensor:
    """(rows, columns) int64 -> (rows, columns, 8) int8."""
    digits = torch.add(x, _SIGNS, out=x.new_empty(x.shape)).bitwise_xor_(_SIGNS)
    if highest_first:
        digits.numpy().byteswap(inplace=True)
    return digits.view(torch.int8).view(*x.shape, _DIGITS)
