"""Shamir's sharing of 32-byte secrets (Shamir, "How to share a secret", 1979): f of degree t - 1 with f(0) = secret, share x is f(x).

    p = 2^256 + 297, the least prime above 2^256, so that every 32-byte secret is an element
    f(0) = sum_i y_i prod_{j != i} x_j / (x_j - x_i)      from any t points
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

import torch

from syftlite.errors import AggregationError
from syftlite.randomness import random_like

PRIME = (1 << 256) + 297
SECRET_BYTES = 32
SHARE_BYTES = 33


def split(secret: bytes, threshold: int, places: Iterable[int]) -> dict[int, bytes]:
    """A share (33 bytes) for each of ``places`` (distinct, >= 0; the point is place + 1); any ``threshold`` of them give ``secret``."""
    points = list(places)
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes, not {len(secret)}")
    if not 1 <= threshold <= len(points) or len(set(points)) != len(points) or min(points) < 0:
        raise ValueError(f"a threshold of {threshold} among {len(points)} places: at least 1, at most as many as there are places")
    coefficients = [int.from_bytes(secret, "big"), *[_element() for _ in range(threshold - 1)]]
    return {place: _at(coefficients, place + 1).to_bytes(SHARE_BYTES, "big") for place in points}


def join(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret of ``shares`` by place, of which ``threshold`` are used. Raises `AggregationError` for too few, or for nonsense."""
    if len(shares) < threshold:
        gone = "too many clients are gone; start the round anew"
        raise AggregationError(f"{len(shares)} of the {threshold} shares that are needed came: {gone}")
    places = tuple(sorted(shares)[:threshold])
    total = 0
    for place, weight in zip(places, _weights(places), strict=True):
        value = int.from_bytes(shares[place], "big")
        if len(shares[place]) != SHARE_BYTES or value >= PRIME:
            raise AggregationError(f"client {place} sent no share: leave it out and start the round anew")
        total += value * weight
    secret = total % PRIME
    if secret >> 256:
        raise AggregationError("the shares are of no common secret: a client lies; start the round anew with others")
    return secret.to_bytes(SECRET_BYTES, "big")


def _element() -> int:
    """Uniform below p, which has 257 bits: of those drawn, about half are kept."""
    while True:
        value = int.from_bytes(random_like((SHARE_BYTES,), torch.uint8).numpy().tobytes(), "big") >> 7
        if value < PRIME:
            return value


def _at(coefficients: list[int], x: int) -> int:
    value = 0
    for coefficient in reversed(coefficients):
        value = (value * x + coefficient) % PRIME
    return value


@lru_cache(maxsize=256)
def _weights(places: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at 0."""
    weights = []
    for place in places:
        numerator = denominator = 1
        for other in places:
            if other != place:
                numerator = numerator * (other + 1) % PRIME
                denominator = denominator * (other - place) % PRIME
        weights.append(numerator * pow(denominator, -1, PRIME) % PRIME)
    return tuple(weights)
