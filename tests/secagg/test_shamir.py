import os
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from syftlite.errors import AggregationError
from syftlite.secagg import shamir
from syftlite.secagg.shamir import PRIME, join, split


@given(st.binary(min_size=32, max_size=32), st.integers(1, 9), st.randoms())
def test_any_threshold_of_shares_gives_the_secret(secret, threshold, rng):
    shares = split(secret, threshold, range(3, 12))
    some = dict(rng.sample(sorted(shares.items()), threshold))
    assert join(some, threshold) == secret


def test_one_share_too_few_fits_every_secret():
    """For t - 1 shares and any other secret there is a polynomial: the view is the same."""
    threshold, places = 4, [0, 1, 2]
    shares = split(os.urandom(32), threshold, range(6))
    for other in (bytes(32), b"\xff" * 32, os.urandom(32)):
        points = {place: int.from_bytes(shares[place], "big") for place in places} | {-1: int.from_bytes(other, "big")}
        value = 0
        for x in points:  # the value at place 5 of the polynomial through these points: one more share, and all of them give `other`
            term = points[x]
            for y in points:
                if y != x:
                    term = term * (5 - y) * pow(x - y, -1, PRIME) % PRIME
            value = (value + term) % PRIME
        assert join({place: shares[place] for place in places} | {5: value.to_bytes(33, "big")}, threshold) == other


def test_too_few_and_malformed_shares_are_refused():
    shares = split(os.urandom(32), 3, range(5))
    with pytest.raises(AggregationError, match="2 of the 3 shares"):
        join({0: shares[0], 1: shares[1]}, 3)
    with pytest.raises(AggregationError, match="client 1 sent no share"):
        join({0: shares[0], 1: b"\xff" * 33, 2: shares[2]}, 3)
    with pytest.raises(ValueError, match="threshold of 6"):
        split(os.urandom(32), 6, range(5))
    with pytest.raises(ValueError, match="32 bytes"):
        split(b"short", 2, range(5))


def test_the_prime_is_one():
    assert PRIME > 1 << 256 and all(pow(a, PRIME - 1, PRIME) == 1 for a in (2, 3, 5, 7, 11, 13))


def test_coefficients_are_uniform(monkeypatch):
    monkeypatch.setattr(shamir, "PRIME", 3 * (1 << 255))
    tops = Counter(shamir._element() >> 255 for _ in range(3000))
    assert set(tops) == {0, 1, 2} and max(tops.values()) - min(tops.values()) < 250
