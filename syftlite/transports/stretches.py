"""Messages of links in the memory of their parts: nothing is copied to be sent, and what is received lies in one piece."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from syftlite.mpc.bits import raw, tensor

PIECE = 1 << 18
"""Bytes that are sent in one go."""
_PADDING = memoryview(bytes(8))


def behind(parts: Sequence[bytes | memoryview], sent: int) -> tuple[memoryview, ...]:
    """What of ``parts`` is left when ``sent`` bytes are gone."""
    left = []
    for part in parts:
        if sent < len(part):
            left.append(memoryview(part)[sent:])
        sent = max(sent - len(part), 0)
    return tuple(left)


def bytes_of(x: Any) -> memoryview:
    """The memory of a tensor or an array; it is contiguous."""
    array = raw(x)
    return array.data.cast("B") if array.nbytes else memoryview(b"")


def pieces(parts: Sequence[Any]) -> list[list[memoryview]]:
    """The message of ``parts``, where they lie: `PIECE` bytes each time, what is left in the end."""
    if len(parts) == 1:
        whole = bytes_of(parts[0])
        return [[whole[start : start + PIECE]] for start in range(0, len(whole) or 1, PIECE)]
    found: list[list[memoryview]] = [[]]
    room = PIECE
    for part in map(bytes_of, parts):
        for stretch in (part, _PADDING[: -len(part) % 8]):
            while stretch:
                if not room:
                    found.append([])
                    room = PIECE
                found[-1].append(stretch[:room])
                stretch, room = stretch[room:], max(room - len(stretch), 0)
    return found


def split(message: Any, parts: Sequence[Any]) -> list[Any]:
    """Parts like ``parts`` in the memory of ``message``."""
    found, at = [], 0
    for part in parts:
        like = raw(part)
        own = message[at : at + like.nbytes].view(like.dtype).reshape(like.shape)
        found.append(tensor(own) if isinstance(part, Tensor) else own)
        at += -(-like.nbytes // 8) * 8
    return found
