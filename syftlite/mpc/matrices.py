"""Products of matrices over Z_2^64, exact: by digits where the processor multiplies bytes in tiles (Intel's AMX), by int64 elsewhere.

    x = sum of x_i 256^i, digits -128 <= x_i < 128          the bytes of x + 0x80..80, each less 128
    x @ y = sum over s < 8 of 256^s [x_s .. x_0] @ [y_0; ..; y_s]      digits with i + j >= 8 vanish modulo 2^64

Sums of 8 k products of digits are below k 2^17, so that int32 holds them for k < 2^14. No vector unit multiplies int64 in one step: 36
products of bytes take half its time, once all sides are so long that cutting and putting together takes less (`pays`); sums of products
are cut and put together once. Bytes are moved, and sums widened, by numpy, which takes less time for either.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Factors = tuple[Tensor, Tensor]
"""(m, k) and (k, n)."""
_DIGITS = 8
_SIGNS = np.int64(-0x7F7F7F7F7F7F7F80)
"""0x8080808080808080 as int64."""
_LONGEST = (1 << 14) - 1
"""Of a sum."""
_CUT, _JOIN, _GAIN = 6.0, 14.0, 0.06
"""Nanoseconds to cut an element of a factor, to put one of the result together, and that a product of two elements gains: measured."""


@cache
def has_tiles() -> bool:
    """Whether products of bytes run in tiles here. Older torch does not tell."""
    told = getattr(torch.cpu, "_is_amx_tile_supported", None)
    return told is not None and hasattr(torch, "_int_mm") and torch.backends.mkldnn.is_available() and bool(told())


def pays(m: int, k: int, n: int) -> bool:
    """Whether digits are the faster way to an (m, n) sum of (m, k) @ (k, n)."""
    return k <= _LONGEST and _CUT * k * (m + n) + _JOIN * m * n < _GAIN * m * k * n


def add_products(out: Tensor, *products: Factors) -> None:
    """out (m, n) += x @ y for every (x, y), all int64."""
    if pays(out.shape[0], sum(x.shape[1] for x, _ in products), out.shape[1]) and not out.is_meta and has_tiles():
        add_by_digits(out, *products)
    else:
        for x, y in products:
            out.addmm_(x, y)


def add_by_digits(out: Tensor, *products: Factors) -> None:
    """The same by products of digits; ``out`` is contiguous."""
    (m, n), k = out.shape, sum(x.shape[1] for x, _ in products)
    left, right = np.empty((m, _DIGITS, k), np.int8), np.empty((_DIGITS, k, n), np.int8)
    at = 0
    for x, y in products:
        to = at + x.shape[1]
        rows, columns = _digits(x), _digits(y)
        for s in range(_DIGITS):
            left[:, _DIGITS - 1 - s, at:to] = rows[:, :, s]
            right[s, at:to] = columns[:, :, s]
        at = to
    highest_first, lowest_first = torch.from_numpy(left).view(m, -1), torch.from_numpy(right).view(-1, n)

    room = torch.empty(m, n, dtype=torch.int32)
    part = room.numpy()

    def sums(powers: range, dtype: type[np.signedinteger[Any]]) -> Any:
        """sum over s in ``powers`` of 256^(s - the least of them) (the products of digits i and j with i + j = s), by Horner's rule."""
        total: Any = None
        for s in reversed(powers):
            torch._int_mm(highest_first[:, (_DIGITS - 1 - s) * k :], lowest_first[: (s + 1) * k], out=room)
            total = part.astype(dtype) if total is None else np.add(np.left_shift(total, 8, out=total), part, out=total)
        return total

    low, high = sums(range(4), np.int64), sums(range(4, _DIGITS), np.int32)  # of the upper four only 32 bits count
    whole = out.numpy()
    whole += low
    whole.view(np.int32)[:, 1::2] += high


def _digits(x: Tensor) -> np.ndarray[Any, Any]:
    """(rows, columns) int64 -> (rows, columns, 8) int8, the lowest first."""
    digits = np.add(x.numpy(), _SIGNS, out=np.empty(tuple(x.shape), np.int64))
    digits ^= _SIGNS
    cut: np.ndarray[Any, Any] = digits.view(np.int8).reshape(*x.shape, _DIGITS)
    return cut
