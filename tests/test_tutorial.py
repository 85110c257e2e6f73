"""The teaching functions: the numbers of the lessons that they come from, and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import syftlite as sy
from syftlite import tutorial

XOR = [
    (227361, 106917, 167163), (44123, 289723, 167588), (165513, 231191, 104745), (478016, 430732, 94038),
    (312810, 257243, 432742), (19638, 239579, 242152), (235418, 28417, 237603), (410735, 485411, 106638),
    (115624, 38923, 346889), (500014, 163171, 339603), (169683, 396997, 436115), (108180, 449757, 444849),
    (225167, 471257, 306366), (47789, 254175, 199478), (179954, 40895, 280598), (357183, 274943, 370651),
]  # fmt: skip
"""What the encrypted XOR demo of 2017 ends with, modulo 501337."""


def test_the_first_lesson():
    assert sy.tutorial is tutorial and tutorial.Q == 78090573363827
    shares = tutorial.encrypt(77777)
    assert len(shares) == 3 and all(0 <= s < tutorial.Q for s in shares)
    assert tutorial.decrypt(shares) == 77777 == sum(shares) % 78090573363827
    assert tutorial.decrypt(tutorial.add(tutorial.encrypt(11), tutorial.encrypt(122))) == 133


def test_the_numbers_of_the_lessons():
    assert tutorial.share(5, 2, modulus=10, r=7) == (7, 8)
    two, five = tutorial.share(2, modulus=501337), tutorial.share(5, modulus=501337)
    assert tutorial.reconstruct(tutorial.add(two, five, modulus=501337), modulus=501337) == 7
    assert tutorial.reconstruct((463355, 2676, 35313), modulus=501337) == 7
    assert tutorial.reconstruct((463355, 2676), modulus=501337) == 466031


def test_what_the_xor_demo_ends_with():
    """Sixteen letters."""
    assert bytes(tutorial.reconstruct(triple, modulus=501337) for triple in XOR).decode("ascii") == "happy encrypting"


@given(st.integers(0, 10**6 - 1), st.integers(0, 10**6 - 1), st.integers(2, 9), st.integers(-50, 50))
def test_sums_and_multiples(x, y, n, factor):
    modulus = 10**6 + 3
    a, b = tutorial.share(x, n, modulus), tutorial.share(y, n, modulus)
    assert len(a) == n and tutorial.reconstruct(a, modulus) == x
    assert tutorial.reconstruct(tutorial.add(a, b, modulus), modulus) == (x + y) % modulus
    assert tutorial.reconstruct(tutorial.scale(a, factor, modulus), modulus) == x * factor % modulus


@given(st.integers(0, 96), st.integers(0, 96), st.integers(0, 96))
def test_two_shares_of_three_are_compatible_with_every_number(first, second, x):
    third = (x - first - second) % 97
    assert tutorial.share(x, 3, 97, r=(first, second)) == (first, second, third)


def test_randomness_is_secret_and_fresh():
    assert len({tutorial.encrypt(5) for _ in range(50)}) == 50
    assert {s for _ in range(400) for s in tutorial.share(1, 2, modulus=4)} == {0, 1, 2, 3}


@pytest.mark.parametrize("call", [
    lambda: tutorial.share(1, 1), lambda: tutorial.share(1, 3, r=7), lambda: tutorial.share(1, 2, modulus=1), lambda: tutorial.add((1, 2), (1, 2, 3)),
])  # fmt: skip
def test_misuse_is_named(call):
    with pytest.raises(ValueError, match="shares"):
        call()
