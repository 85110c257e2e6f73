"""Exact samplers over the integers: rational arithmetic and coin flips, no floating point (Canonne, Kamath, Steinke 2020, section 5).

    below(n)                     uniform on 0 ... n - 1
    bernoulli_exp(gamma)         True with probability exp(-gamma)                                       algorithm 1
    discrete_laplace(scale)      P(x) ~ exp(-|x| / scale)                                                algorithm 2
    discrete_gaussian(variance)  P(x) ~ exp(-x^2 / 2 variance)                                           algorithm 3

A draw takes some tens of microseconds: what a single answer costs. Vectors come from `tables`.
"""

from __future__ import annotations

from fractions import Fraction
from math import floor, isqrt

import torch

from syftlite.randomness import random_like

_BUFFER = 4096


class Bits:
    """Secret random bits, some kilobytes at a time; never shared with a forked child, nor between threads that race for one buffer."""

    def __init__(self) -> None:
        self.left = b""

    def below(self, n: int) -> int:
        """Uniform on 0 ... n - 1, by rejection."""
        bits = (n - 1).bit_length()
        size = (bits + 7) // 8
        while True:
            if len(self.left) < size:
                self.left = random_like((max(_BUFFER, size),), torch.uint8).numpy().tobytes()
            taken, self.left = self.left[:size], self.left[size:]
            value = int.from_bytes(taken, "little") & ((1 << bits) - 1)
            if value < n:
                return value


def sampler() -> Bits:
    """A fresh source of bits: one a mechanism's run, so that nothing is shared."""
    return Bits()


def bernoulli(p: Fraction, bits: Bits) -> bool:
    """True with probability ``p`` in [0, 1]."""
    return bits.below(p.denominator) < p.numerator


def bernoulli_exp(gamma: Fraction, bits: Bits) -> bool:
    """True with probability exp(-gamma), for gamma >= 0."""
    while gamma > 1:
        if not _bernoulli_exp_below_one(Fraction(1), bits):
            return False
        gamma -= 1
    return _bernoulli_exp_below_one(gamma, bits)


def _bernoulli_exp_below_one(gamma: Fraction, bits: Bits) -> bool:
    k = 1
    while bernoulli(gamma / k, bits):
        k += 1
    return k % 2 == 1


def discrete_laplace(scale: Fraction, bits: Bits) -> int:
    """An integer x with probability proportional to exp(-|x| / scale)."""
    s, t = scale.denominator, scale.numerator
    while True:
        u = bits.below(t)
        if not bernoulli_exp(Fraction(u, t), bits):
            continue
        v = 0
        while bernoulli_exp(Fraction(1), bits):
            v += 1
        magnitude = (u + t * v) // s
        negative = bits.below(2) == 1
        if not (negative and magnitude == 0):
            return -magnitude if negative else magnitude


def discrete_gaussian(variance: Fraction, bits: Bits) -> int:
    """An integer x with probability proportional to exp(-x^2 / 2 variance)."""
    t = isqrt(floor(variance)) + 1
    while True:
        candidate = discrete_laplace(Fraction(t), bits)
        gap = abs(candidate) - variance / t
        if bernoulli_exp(gap * gap / (2 * variance), bits):
            return candidate
