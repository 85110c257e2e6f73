"""Secret bytes: streams that two parties derive alike, and local randomness.

    session secret --derive (HKDF-SHA256, RFC 5869)--> key of one purpose, 32 bytes
                   --Source.take(n, *purpose): keyed BLAKE2b (RFC 7693) of the purpose--> 16 bytes --AES-128-CTR (SP 800-38A, D)--> n bytes

    Stream       AES-128 in counter mode under one key, consumed in order
    Source       every (purpose) its own stream: what is masked for one purpose can never meet the bytes of another
    derive       a key for one purpose from a secret
    random_like  local secret randomness, keyed by the operating system and keyed anew in a forked child

A `Source` is shared with somebody else, so it refuses to go on in a forked child: two processes would mask with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Sequence
from typing import Union

import numpy as np
import numpy.typing as npt
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from syftlite.errors import ForkedConnectionError

Purpose = Union[str, int, bytes, "tuple[Purpose, ...]"]
Bytes = npt.NDArray[np.uint8]

KEY_BYTES = 16
SECRET_BYTES = 32
_CHUNK = 1 << 18
"""256 KiB at a time stay in the second-level cache while they are written."""
_AT_ONCE = 1 << 20
"""Bytes up to which a purpose's are written in one call."""
_ZEROS = memoryview(bytes(_AT_ONCE))
_NONCE = bytes(12)
SLACK = 16
"""Room behind what a stream writes: ``encrypt_into`` adds a tag of 16 bytes, ``update_into`` asks for 15 more."""
_A_KEY = 1 << 35
"""Bytes of local randomness from one key: half of what counters of 32 bits can number."""


class Stream:
    """AES-128 in counter mode under ``key``, from the block ``nonce`` 2 on, as GCM counts; consumed in order and never twice.

    It is made by GCM, whose tag nobody asks for: OpenSSL runs that in wide registers, where there are any at up to twice CTR's pace.
    """

    __slots__ = ("_encryptor",)

    def __init__(self, key: bytes, nonce: bytes = _NONCE) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a stream's key has {KEY_BYTES} bytes, not {len(key)}: make one with derive()")
        self._encryptor = Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor()

    def take(self, nbytes: int) -> torch.Tensor:
        """The next ``nbytes`` bytes, (nbytes,) uint8."""
        return torch.from_numpy(self.array(nbytes))

    def array(self, nbytes: int) -> Bytes:
        """The same as an array: NumPy begins with a third of torch's work."""
        return self._written(np.empty(nbytes + SLACK, np.uint8))

    def fill(self, buffer: torch.Tensor) -> torch.Tensor:
        """The next n bytes, written to ``buffer``, (n + `SLACK`,) uint8, whose first n they are."""
        return torch.from_numpy(self._written(buffer.numpy()))

    def _written(self, buffer: Bytes) -> Bytes:
        nbytes, memory = len(buffer) - SLACK, buffer.data
        for start in range(0, nbytes, _CHUNK):
            size = min(_CHUNK, nbytes - start)
            self._encryptor.update_into(_ZEROS[:size], memory[start : start + size + SLACK])
        return buffer[:nbytes]


class Source:
    """Streams from one shared ``secret`` (32 bytes), one for each purpose, in any order."""

    __slots__ = ("_pid", "_secret")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"a source's secret has {SECRET_BYTES} bytes, not {len(secret)}: make one with derive(..., length=32)")
        self._secret = secret
        self._pid = os.getpid()

    def take(self, nbytes: int, *purpose: Purpose) -> torch.Tensor:
        """``nbytes`` bytes that depend on the secret and on every part of ``purpose``, (nbytes,) uint8."""
        found = self.array(nbytes, *purpose)
        return torch.from_numpy(found) if nbytes else torch.empty(0, dtype=torch.uint8)  # whose stride would be 0

    def array(self, nbytes: int, *purpose: Purpose) -> Bytes:
        """The same as an array."""
        if os.getpid() != self._pid:
            raise ForkedConnectionError("this process is a fork of the one that agreed on these keys: connect and share again in the child")
        if nbytes == 0:
            return np.empty(0, np.uint8)
        key = hashlib.blake2b(_encoded(purpose), key=self._secret, digest_size=KEY_BYTES).digest()
        return _beginning(key, nbytes) if nbytes <= _AT_ONCE else Stream(key).array(nbytes)


def _beginning(key: bytes, nbytes: int) -> Bytes:
    """What `Stream` begins with, in one call: less than half the time for a few KiB."""
    buffer = np.empty(nbytes + SLACK, np.uint8)
    AESGCM(key).encrypt_into(_NONCE, _ZEROS[:nbytes], None, buffer.data)
    return buffer[:nbytes]


def derive(secret: bytes, *purpose: Purpose, length: int = KEY_BYTES) -> bytes:
    """A key of ``length`` bytes for one purpose; keys of different purposes say nothing about each other."""
    return HKDF(SHA256(), length, salt=None, info=_encoded(purpose)).derive(secret)


def digest(*purpose: Purpose) -> bytes:
    """32 bytes that stand for a long purpose inside another one: BLAKE2b, so no two purposes share them."""
    return hashlib.blake2b(_encoded(purpose), digest_size=32).digest()


def _encoded(purpose: tuple[Purpose, ...]) -> bytes:
    """``purpose`` as bytes, no two alike: the literal of nested tuples of str, bytes and int reads back as itself."""
    _check(purpose)
    return repr(purpose).encode()


def _check(parts: tuple[Purpose, ...]) -> None:
    for part in parts:
        kind = type(part)
        if kind is tuple:
            _check(part)  # type: ignore[arg-type]
        elif kind is not int and kind is not str and kind is not bytes:
            raise TypeError(f"a purpose consists of str, int, bytes and tuples of them, not {kind.__name__}")


class _Local(threading.local):
    """This thread's stream, keyed by the operating system; keyed again in a forked child."""

    pid = -1
    taken = 0
    stream: Stream

    def take(self, nbytes: int) -> torch.Tensor:
        self.taken += nbytes
        if self.pid != os.getpid() or self.taken > _A_KEY:
            self.stream, self.pid, self.taken = Stream(os.urandom(KEY_BYTES)), os.getpid(), nbytes
        return self.stream.take(nbytes)


_local = _Local()


def random_like(shape: Sequence[int], dtype: torch.dtype = torch.int64) -> torch.Tensor:
    """A tensor of uniform secret bits, for one use as a mask or a share. Never repeatable."""
    if dtype not in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64):
        raise TypeError(f"random bits make integers, not {dtype}")
    numel = 1
    for size in shape:
        numel *= size
    return _local.take(numel * dtype.itemsize).view(dtype).view(tuple(shape))


def random_bits(numel: int) -> torch.Tensor:
    """(numel,) int64 of secret 0 and 1."""
    return random_like((numel,), torch.uint8).bitwise_and_(1).long()
