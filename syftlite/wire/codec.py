"""Frames and bytes. A frame is one binary websocket message:

    offset  size          what
    0       4             length h of the head, little endian, at most MAX_HEAD
    4       h             MessagePack: [session, sequence, acknowledged, lease, [message, ...]]
    4 + h   the rest      raw little-endian buffers of the head's tensors and chunks, in their order, without padding

A tensor stands in the head as [dtype, shape, stream]: stream 0 means its bytes are the next of this frame, another number that they
came before as the CHUNKs of that stream. Tensor bytes never pass through MessagePack.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgpack
import torch

from syftlite.errors import FrameTooLargeError, ProtocolError
from syftlite.ops.dtypes import DTYPES, number_of
from syftlite.wire.fields import MAX_DIMS
from syftlite.wire.messages import Message

MAX_HEAD = 40 * 1024  # what this much MessagePack can grow to in memory stays below 5 MiB
SMALL_HEAD = 512
PIECE = 1024 * 1024
INLINE = 64 * 1024
MAX_FRAME = MAX_HEAD + PIECE + 4096
BEFORE_AUTH = 4096

Buffer = bytes | memoryview
_PREFIX = struct.Struct("<I")


class Head(NamedTuple):
    """What every frame says before its messages: who, how far, how far the other side got, and for how many seconds of silence
    the session's objects are to be kept (0 in this version: they go with the connection)."""

    session: int
    sequence: int
    acknowledged: int
    lease: int


def pack(head: Head, messages: Sequence[Message]) -> bytes:
    """Prefix and head of a frame; the caller appends the buffers.

    >>> unpack(pack(Head(1, 2, 3, 0), [(15, 7)]))[:2]
    (Head(session=1, sequence=2, acknowledged=3, lease=0), ((15, 7),))
    """
    body: bytes = msgpack.packb((*head, messages))
    if len(body) > MAX_HEAD:
        raise FrameTooLargeError(f"a head of {len(body)} bytes exceeds {MAX_HEAD}: send, or ask for, fewer things at once")
    return _PREFIX.pack(len(body)) + body


def packed_size(value: Any) -> int:
    """Bytes that ``value``, which has no tensors, takes in a head.

    >>> packed_size((1, "one", None))
    7
    """
    return len(msgpack.packb(value))


def unpack(frame: bytes, limit: int = MAX_HEAD) -> tuple[Head, Sequence[Any], memoryview]:
    """Head, messages (unchecked) and the remaining buffers of a frame. Raises `ProtocolError`, nothing else."""
    if len(frame) < _PREFIX.size:
        raise ProtocolError(f"a frame has at least {_PREFIX.size} bytes, got {len(frame)}")
    (length,) = _PREFIX.unpack_from(frame)
    if length > limit:
        raise FrameTooLargeError(f"a head of {length} bytes exceeds {limit}")
    view = memoryview(frame)
    if length > len(view) - _PREFIX.size:
        raise ProtocolError(f"the head says {length} bytes, the frame has {len(view) - _PREFIX.size}")
    body = view[_PREFIX.size : _PREFIX.size + length]
    try:
        if length > SMALL_HEAD:
            _walk(body)
        head = msgpack.unpackb(body, use_list=False, object_pairs_hook=_mapping)
    except (ValueError, RecursionError, msgpack.UnpackException) as error:
        raise ProtocolError(f"the head is not MessagePack as this protocol uses it: {type(error).__name__}") from None
    if type(head) is not tuple or len(head) != 5 or type(head[4]) is not tuple:
        raise ProtocolError("a head is [session, sequence, acknowledged, lease, messages]")
    session, sequence, acknowledged, lease, batch = head
    if not (type(session) is type(sequence) is type(acknowledged) is type(lease) is int) or lease < 0:
        raise ProtocolError("session, sequence, acknowledged and lease are integers from 0")
    return Head(session, sequence, acknowledged, lease), batch, view[_PREFIX.size + length :]


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise ValueError("a map names a key twice")
    return mapping


def _walk(body: memoryview) -> None:
    """Raise unless all that ``body`` announces is there: a nest of headers that announce more takes 1,000 times its size to unpack."""
    unpacker = msgpack.Unpacker(None, max_buffer_size=len(body))
    unpacker.feed(body)
    unpacker.skip()


def buffer_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of ``tensor`` in row-major order; copies only if it is not contiguous."""
    if not tensor.numel():
        return memoryview(b"")
    flat = tensor.detach().contiguous()
    if flat.dtype is torch.bfloat16:  # numpy has none
        flat = flat.view(-1).view(torch.uint8)
    return flat.numpy().data.cast("B")


def describe(tensor: torch.Tensor, stream: int = 0) -> tuple[int, tuple[int, ...], int]:
    """The head's form of ``tensor``."""
    return number_of(tensor.dtype), tuple(tensor.shape), stream


def size_of(dtype: int, shape: Sequence[int]) -> int:
    """Bytes of a tensor that a head describes. Raises `ProtocolError` for an unknown dtype or an absurd shape."""
    if type(dtype) is not int or not 0 <= dtype < len(DTYPES):
        raise ProtocolError(f"dtype {dtype!r} is unknown; this version has 0 to {len(DTYPES) - 1}")
    if type(shape) is not tuple or len(shape) > MAX_DIMS:
        raise ProtocolError(f"a shape is a list of at most {MAX_DIMS} sizes")
    nbytes = DTYPES[dtype].itemsize
    for size in shape:
        if type(size) is not int or size < 0:
            raise ProtocolError("a size is an integer from 0")
        nbytes *= max(size, 1)  # also of an empty tensor: its strides must fit a machine word
        if nbytes >= 1 << 62:
            raise ProtocolError(f"a tensor of shape {shape} has no size that a machine could hold")
    return 0 if 0 in shape else nbytes


def tensor_of(dtype: int, shape: Sequence[int], raw: bytearray | torch.Tensor) -> torch.Tensor:
    """The tensor over ``raw``, which is exactly its bytes and nobody else's."""
    kind = DTYPES[dtype]
    if isinstance(raw, torch.Tensor):
        flat = raw.view(kind)
    elif raw:
        flat = torch.frombuffer(raw, dtype=kind)
    else:
        flat = torch.empty(0, dtype=kind)
    if kind is torch.bool:  # bytes other than 0 and 1 are undefined behaviour in a bool
        flat = flat.view(torch.uint8).ne(0)
    return flat if len(shape) == 1 else flat.view(shape)
