"""Secret sharing in a few lines, to teach it: numbers modulo a prime, in n shares that add up.

    shares = encrypt(77777)            three shares modulo `Q`; each alone, and any two together, are random
    decrypt(add(shares, encrypt(1)))   77778: each party adds what it has
    share(5, 2, modulus=10, r=7)       (7, 8): the randomness named, to follow by hand

This is for reading. Tensors are shared by ``tensor.fix_precision().share(alice, bob, crypto_provider=carol)``.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

Q = 78090573363827
"""The prime of the first lesson."""
Shares = tuple[int, ...]


def share(x: int, n: int = 3, modulus: int = Q, r: int | Sequence[int] | None = None) -> Shares:
    """``x`` as ``n`` shares that add up to it modulo ``modulus``. All but the last are random; or ``r``, which is for following by hand.

    >>> share(5, 2, modulus=10, r=7)
    (7, 8)
    >>> share(5, 3, modulus=10, r=(7, 4))
    (7, 4, 4)
    """
    if n < 2 or modulus < 2:
        raise ValueError(f"{n} shares modulo {modulus}: there are two shares at least, and two numbers")
    if r is None:
        first = tuple(secrets.randbelow(modulus) for _ in range(n - 1))
    else:
        first = tuple(v % modulus for v in ((r,) if isinstance(r, int) else r))
    if len(first) != n - 1:
        raise ValueError(f"{n} shares need {n - 1} random numbers, and r has {len(first)}: the last share follows from them")
    return (*first, (x - sum(first)) % modulus)


def reconstruct(shares: Sequence[int], modulus: int = Q) -> int:
    """The number that all ``shares`` together stand for, from 0 to modulus - 1. Of fewer it tells nothing.

    >>> reconstruct((463355, 2676, 35313), modulus=501337)
    7
    >>> reconstruct((463355, 2676), modulus=501337)
    466031
    """
    return sum(shares) % modulus


encrypt = share
decrypt = reconstruct


def add(x: Sequence[int], y: Sequence[int], modulus: int = Q) -> Shares:
    """Shares of x + y: each party adds its own two.

    >>> decrypt(add(encrypt(11), encrypt(122)))
    133
    """
    if len(x) != len(y):
        raise ValueError(f"{len(x)} shares and {len(y)}: both numbers are shared among the same parties")
    return tuple((a + b) % modulus for a, b in zip(x, y, strict=True))


def scale(x: Sequence[int], factor: int, modulus: int = Q) -> Shares:
    """Shares of factor * x, for a factor that everybody knows: each party multiplies its own.

    >>> decrypt(scale(encrypt(11), 3))
    33
    """
    return tuple(a * factor % modulus for a in x)


__all__ = ["Q", "add", "decrypt", "encrypt", "reconstruct", "scale", "share"]
