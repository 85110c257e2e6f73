"""How many items MessagePack has, counted in its headers alone: an empty array is one byte, and 56 once it is made."""

from __future__ import annotations

import struct

_LENGTHS = {1: struct.Struct(">B"), 2: struct.Struct(">H"), 4: struct.Struct(">I")}
_LONG = {
    **{0xC4 + i: (1 << i, 1, 0) for i in range(3)},  # bin
    **{0xC7 + i: (1 << i, 1, 1) for i in range(3)},  # ext
    **{0xD9 + i: (1 << i, 1, 0) for i in range(3)},  # str
    0xDC: (2, 0, 1), 0xDD: (4, 0, 1), 0xDE: (2, 0, 2), 0xDF: (4, 0, 2),  # arrays, maps
}  # fmt: skip
"""By first byte: bytes of a length; whether it is of what follows; or how many items each stands for (of ext, bytes more)."""
_FIXED = {
    0xCA: 4, 0xCB: 8,
    **{first + i: 1 << i for first in (0xCC, 0xD0) for i in range(4)},
    **{0xD4 + i: (1 << i) + 1 for i in range(5)},
}  # fmt: skip
"""Bytes that follow a first byte: of numbers, and of ext."""


def must_be_few(packed: bytes, most: int) -> None:
    """Raise ValueError if ``packed`` has, or announces, more than ``most`` items. Whether it is MessagePack at all is not looked at."""
    at, announced = 0, 1
    for _ in range(most + 1):
        if at >= len(packed):
            return
        first, at = packed[at], at + 1
        if first in _LONG:
            size, skips, per = _LONG[first]
            if at + size > len(packed):
                return
            (length,) = _LENGTHS[size].unpack_from(packed, at)
            at += size + (length + per if skips else 0)
            announced += 0 if skips else per * length
        elif first < 0xA0:
            announced += 0 if first < 0x80 else 2 * (first & 15) if first < 0x90 else first & 15
        else:
            at += first & 31 if first < 0xC0 else _FIXED.get(first, 0)
        if announced > most:
            break
    raise ValueError(f"more than {most:,} items")
