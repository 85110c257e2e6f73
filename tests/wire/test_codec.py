"""Frames and bytes: round trips, and what hostile bytes cost."""

import contextlib
import struct
import tracemalloc

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from syftlite.errors import FrameTooLargeError, ProtocolError
from syftlite.ops.dtypes import DTYPES
from syftlite.wire import codec
from syftlite.wire.codec import MAX_HEAD, Head

SHAPES = [(), (0,), (1,), (3,), (2, 3), (0, 5), (2, 0, 3), (1, 1, 1, 1), (2, 3, 4, 5)]


def framed(body):
    return struct.pack("<I", len(body)) + body


def head(rest):
    """A head whose messages are the MessagePack ``rest``."""
    return b"\x95\x00\x00\x00\x00" + rest


def filled(shape, dtype):
    raw = torch.randint(0, 256, (max(1, torch.Size(shape).numel()) * 16,), dtype=torch.uint8)
    if dtype is torch.bool:
        return raw[: torch.Size(shape).numel()].remainder(2).bool().reshape(shape)
    return raw.view(dtype)[: torch.Size(shape).numel()].reshape(shape)


def same(a, b):
    """Equal in dtype, shape and bits."""
    return a.dtype is b.dtype and a.shape == b.shape and bytes(codec.buffer_of(a)) == bytes(codec.buffer_of(b))


scalars = st.none() | st.booleans() | st.integers(0, (1 << 63) - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
values = st.recursive(
    scalars,
    lambda v: st.lists(v, max_size=5).map(tuple) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    max_leaves=20,
)
numbers = st.integers(0, (1 << 63) - 1)


@given(numbers, numbers, numbers, numbers, st.lists(values, max_size=8), st.binary(max_size=30))
def test_heads_round_trip_and_leave_the_buffers(session, sequence, acknowledged, lease, batch, rest):
    packed = codec.pack(Head(session, sequence, acknowledged, lease), batch)
    back, messages, buffers = codec.unpack(packed + rest)
    assert (back, messages, bytes(buffers)) == (Head(session, sequence, acknowledged, lease), tuple(batch), rest)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_dtype_and_shape_round_trips_bit_by_bit(dtype, shape):
    tensor = filled(shape, dtype)
    for given_ in (tensor, tensor.t() if tensor.dim() == 2 else tensor, tensor.expand(2, *shape)):
        number, sizes, stream = codec.describe(given_)
        raw = bytes(codec.buffer_of(given_))
        assert len(raw) == codec.size_of(number, sizes) and stream == 0
        for owned in (bytearray(raw), torch.tensor(list(raw), dtype=torch.uint8)):
            assert same(codec.tensor_of(number, sizes, owned), given_.contiguous())


def test_bytes_are_row_major_and_little_endian():
    tensor = torch.arange(6, dtype=torch.int32).reshape(2, 3)
    assert bytes(codec.buffer_of(tensor)) == np.arange(6, dtype="<i4").tobytes()
    assert bytes(codec.buffer_of(tensor.t())) == np.arange(6, dtype="<i4").reshape(2, 3).T.tobytes()
    assert bytes(codec.buffer_of(torch.tensor([1.0], dtype=torch.bfloat16))) == b"\x80\x3f"


def test_a_contiguous_tensor_is_not_copied():
    tensor = torch.zeros(4)
    view = codec.buffer_of(tensor)
    tensor[0] = 1.0
    assert bytes(view[:4]) == struct.pack("<f", 1.0)


def test_a_bool_is_0_or_1_whatever_came():
    got = codec.tensor_of(codec.describe(torch.tensor([True]))[0], (4,), bytearray([0, 1, 2, 255]))
    assert got.view(torch.uint8).tolist() == [0, 1, 1, 1]


def test_a_received_tensor_is_writable_and_its_own():
    raw = bytearray(8)
    tensor = codec.tensor_of(0, (2,), raw)
    tensor += 1.0
    assert tensor.tolist() == [1.0, 1.0]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    [
        (12, (1,)),
        (-1, (1,)),
        (True, (1,)),
        ("float32", (1,)),
        (None, (1,)),
        (1 << 63, (1,)),
        (0, [1]),
        (0, 1),
        (0, (1,) * 65),
        (0, (-1,)),
        (0, (True,)),
        (0, (1.0,)),
        (0, (1 << 62,)),
        (0, (1 << 31, 1 << 31)),
        (0, (0, (1 << 64) - 1)),
        (0, (0, 1 << 40, 1 << 40)),
    ],
)
def test_a_tensor_that_cannot_be_is_refused(dtype, shape):
    with pytest.raises(ProtocolError):
        codec.size_of(dtype, shape)


@given(st.integers(0, 11), st.lists(st.integers(0, 1 << 63), max_size=6).map(tuple))
def test_every_accepted_empty_shape_can_be_made(dtype, shape):
    try:
        nbytes = codec.size_of(dtype, shape)
    except ProtocolError:
        return
    if not nbytes:
        assert codec.tensor_of(dtype, shape, bytearray()).shape == shape


def test_a_head_too_large_is_refused_by_both_ends():
    with pytest.raises(FrameTooLargeError, match="fewer things"):
        codec.pack(Head(0, 0, 0, 0), ["x" * MAX_HEAD])
    with pytest.raises(FrameTooLargeError):
        codec.unpack(struct.pack("<I", MAX_HEAD + 1) + bytes(MAX_HEAD + 1))
    with pytest.raises(FrameTooLargeError):
        codec.unpack(struct.pack("<I", 0xFFFFFFFF))
    with pytest.raises(FrameTooLargeError):
        codec.unpack(codec.pack(Head(0, 0, 0, 0), ["x" * 100]), limit=50)


EMPTY = msgpack.packb((0, 0, 0, 0, ()))
BROKEN = {
    "nothing": b"",
    "half a length": b"\x01\x00",
    "shorter than said": struct.pack("<I", 20) + EMPTY,
    "an empty head": framed(b""),
    "no array": framed(b"\xc0"),
    "an int": framed(b"\x07"),
    "a map": framed(msgpack.packb({"a": 1})),
    "four fields": framed(msgpack.packb((0, 0, 0, ()))),
    "six fields": framed(msgpack.packb((0, 0, 0, 0, (), 0))),
    "messages that are none": framed(msgpack.packb((0, 0, 0, 0, 0))),
    "a float session": framed(msgpack.packb((0.0, 0, 0, 0, ()))),
    "a bool sequence": framed(msgpack.packb((0, False, 0, 0, ()))),
    "a nil": framed(msgpack.packb((0, 0, None, 0, ()))),
    "a negative lease": framed(msgpack.packb((0, 0, 0, -1, ()))),
    "two objects": framed(EMPTY + EMPTY),
    "UTF-8 garbage": framed(head(b"\x91\xa2\xff\xfe")),
    "half a character": framed(head(b"\x91\xa1\xc3")),
    "a surrogate": framed(head(b"\x91\xa3\xed\xa0\x80")),
    "a reserved byte": framed(head(b"\x91\xc1")),
    "a key twice": framed(head(b"\x91\x82\xa1a\x01\xa1a\x02")),
    "an int as key": framed(head(b"\x91\x81\x01\x02")),
    "a list as key": framed(head(b"\x91\x81\x90\x02")),
    "a bad timestamp": framed(head(b"\x91\xc7\x03\xff\x00\x00\x00")),
    "nanoseconds beyond a second": framed(head(b"\x91\xd7\xff" + b"\xff" * 8)),
    "depth": framed(head(b"\x91" * 3000 + b"\xc0")),
    "depth of maps": framed(head(b"\x81\xa0" * 3000 + b"\xc0")),
}


@pytest.mark.parametrize("frame", BROKEN.values(), ids=BROKEN)
def test_broken_frames_are_protocol_errors(frame):
    with pytest.raises(ProtocolError):
        codec.unpack(frame)


@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(raw):
    for frame in (raw, framed(raw), framed(head(raw))):
        with contextlib.suppress(ProtocolError):
            codec.unpack(frame)


def _worst(unit, count):
    """``count`` times ``unit`` in one array of messages, and as many as fit."""
    room = (MAX_HEAD - 10) // len(unit)
    return head(b"\xdd" + struct.pack(">I", min(count, room)) + unit * min(count, room))


def _padded(body):
    return body + b"\x00" * (MAX_HEAD - len(body))


MANY = 1 << 20
WORST = {
    "empty maps": _worst(b"\x80", MANY),
    "empty arrays": _worst(b"\x90", MANY),
    "one-item maps": _worst(b"\x81\xa0\xc0", MANY),
    "chains of maps": _worst(b"\x81\xa0" * 900 + b"\xc0", MANY),
    "chains of arrays": _worst(b"\x91" * 900 + b"\xc0", MANY),
    "chains of maps with keys": _worst(b"\x81\xa1a" * 900 + b"\xc0", MANY),
    "2-character strings": head(
        b"\xdd" + struct.pack(">I", 13000) + b"".join(b"\xa2" + bytes([33 + i % 90, 33 + i // 90 % 90]) for i in range(13000))
    ),
    "wide characters": _worst(b"\xa4\xf0\x9f\x98\x80", MANY),
    "nil": _worst(b"\xc0", MANY),
    "floats": _worst(b"\xca\x3f\x80\x00\x01", MANY),
    "ints": _worst(b"\xcd\x7f\xff", MANY),
    "extensions": _worst(b"\xd4\x05\x00", MANY),
    "timestamps": _worst(b"\xd6\xff\x00\x00\x00\x01", MANY),
    "a wide map": head(
        b"\xde" + struct.pack(">H", 8000) + b"".join(b"\xa3" + f"{i:03x}"[-3:].encode() + b"\xc0" for i in range(8000))
    ),
    "arrays that announce 40,000": _padded(head((b"\xdd" + struct.pack(">I", MAX_HEAD - 2000)) * 500)),
    "arrays that announce 65,535": _padded(head(b"\xdc\xff\xff" * 900)),
    "maps that announce 20,000": _padded(head((b"\xdf" + struct.pack(">I", MAX_HEAD // 2 - 100) + b"\xa0") * 500)),
    "an array of 4 GiB": _padded(head(b"\xdd\xff\xff\xff\xff")),
    "a map of 4 GiB": _padded(head(b"\xdf\xff\xff\xff\xff")),
    "a string of 4 GiB": _padded(head(b"\x91\xdb\xff\xff\xff\xff")),
    "binary of 4 GiB": _padded(head(b"\x91\xc6\xff\xff\xff\xff")),
    "an extension of 4 GiB": _padded(head(b"\x91\xc9\xff\xff\xff\xff\x05")),
}
SMALL = {name: body[: codec.SMALL_HEAD] for name, body in WORST.items()}


@pytest.mark.parametrize("body", [*WORST.values(), *SMALL.values()], ids=[*WORST, *(f"small: {name}" for name in SMALL)])
def test_no_head_grows_beyond_5_mib(body):
    frame = framed(body[:MAX_HEAD])

    def grown():
        tracemalloc.start()
        try:
            with contextlib.suppress(ProtocolError):
                codec.unpack(frame)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert any(grown() <= 5 << 20 for _ in range(3))  # another thread of this process may take memory meanwhile


def test_what_a_head_announces_must_be_there_before_memory_is_taken_for_it():
    """Without that walk, headers alone cost gigabytes: this shows that the test above would notice."""
    body = WORST["arrays that announce 40,000"]
    tracemalloc.start()
    try:
        with pytest.raises(ValueError):
            msgpack.unpackb(body)
        grown = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert grown > 20 << 20
