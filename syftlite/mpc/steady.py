"""exp and the circle as doubles that are the same on every machine.

    turns(c, bits)    cos and sin of 2 pi c / 2^bits
    growth(c, ...)    e^(c / 2^f)

Holders multiply shares by public numbers that each of them computes. A share is uniform in 2^64 values, so if one holder's factor were
off by the last bit, the product would be garbage; and cos, sin and exp of two processors' vector units differ in the last bit. So tables
are made in whole numbers of any size, and everything after them is a single multiplication, addition or rounding at a time, which
IEEE 754 fixes to the bit.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

HALF = 11
"""Bits of each of two tables: 2^22 places on the circle."""
DIGITS = 160
"""Bits of the tables' arithmetic."""
ONE = 1 << DIGITS


def _series(x: int) -> int:
    """e^x of 0 <= x < 1 in units of 2^-DIGITS, by Taylor's series."""
    total = term = ONE
    n = 0
    while term:
        n += 1
        term = (term * x >> DIGITS) // n
        total += term
    return total


def _arctangent(inverse: int) -> int:
    """arctan(1 / inverse)."""
    term, total, n = ONE // inverse, 0, 1
    while term:
        total += term // n if n % 4 == 1 else -(term // n)
        term, n = term // (inverse * inverse), n + 2
    return total


@cache
def pi() -> int:
    """Machin's: 16 arctan(1/5) - 4 arctan(1/239)."""
    return 16 * _arctangent(5) - 4 * _arctangent(239)


def _turned(angle: int) -> tuple[int, int]:
    """(cos, sin) of a small angle."""
    cosine = sine = 0
    term, n = ONE, 0
    while term:
        part = term if n % 4 < 2 else -term
        cosine, sine = (cosine + part, sine) if n % 2 == 0 else (cosine, sine + part)
        n += 1
        term = (term * angle >> DIGITS) // n
    return cosine, sine


@cache
def _circle(step: int) -> Tensor:
    """(2, 2^HALF) doubles: cos and sin of j steps; 2^22 steps make a turn."""
    by_cosine, by_sine = _turned(2 * pi() * step >> (2 * HALF))
    cosine, sine, rows = ONE, 0, []
    for _ in range(1 << HALF):
        rows.append((cosine / ONE, sine / ONE))
        cosine, sine = (cosine * by_cosine - sine * by_sine) >> DIGITS, (cosine * by_sine + sine * by_cosine) >> DIGITS
    return torch.tensor(rows, dtype=torch.float64).t().contiguous()


def turns(c: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """cos and sin of 2 pi c / 2^bits, 0 <= c < 2^bits; of more than 22 bits the highest count."""
    if c.is_meta:
        return c.double(), c.double()
    place = c >> (bits - 2 * HALF) if bits > 2 * HALF else c << (2 * HALF - bits)
    high, low = _circle(1 << HALF)[:, place >> HALF], _circle(1)[:, place & ((1 << HALF) - 1)]
    return high[0] * low[0] - high[1] * low[1], high[0] * low[1] + high[1] * low[0]


@cache
def _powers(f: int, step: int, count: int) -> Tensor:
    """(count,) doubles: e^(j step / 2^f). Below 2^53 alike everywhere, beyond it no longer needed."""
    whole = (step << DIGITS) >> f
    by, value, found = ONE, ONE, []
    for _ in range(whole >> DIGITS):
        by = by * _e() >> DIGITS
    by = by * _series(whole & (ONE - 1)) >> DIGITS
    for _ in range(count):
        found.append(value / ONE)
        value = value * by >> DIGITS
    return torch.tensor(found, dtype=torch.float64)


@cache
def _e() -> int:
    half = _series(ONE >> 1)
    return half * half >> DIGITS


def growth(c: Tensor, f: int, bits: int) -> Tensor:
    """e^(c / 2^f) for 0 <= c < 2^bits."""
    if c.is_meta:
        return c.double()
    low = bits // 2
    return _powers(f, 1 << low, 1 << (bits - low))[c >> low] * _powers(f, 1, 1 << low)[c & ((1 << low) - 1)]
