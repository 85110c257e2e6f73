"""Planes of bits, and digits, against bits taken one by one; sums and differences."""

import pytest
import torch

from syftlite.mpc.bits import add_to, difference, digits, levels, msb_and_rest, pack, planes, raw, tensor, unpack, window, word_dtype

WIDTHS = pytest.mark.parametrize("width", [2, 4, 8, 16, 32, 64])
WORDS = pytest.mark.parametrize("w", [1, 3, 2100])


def values(width, w):
    dtype = word_dtype(width)
    return torch.randint(-(2 ** (dtype.itemsize * 8 - 1)), 2 ** (dtype.itemsize * 8 - 1) - 1, (width * w,), dtype=dtype)


def reverse(j, count):
    digits = count.bit_length() - 1
    return int(f"{j:0{digits}b}"[::-1], 2) if digits else 0


@WIDTHS
@WORDS
def test_row_bitrev_j_holds_bit_j_of_all_values(width, w):
    x = values(width, w)
    before = x.clone()
    rows = planes(raw(x), width)
    assert rows.shape == (width, w) and torch.equal(x, before)
    for j in range(width):
        assert torch.equal(tensor(unpack(rows[reverse(j, width)], width)), -((x.long() >> j) & 1))


@WIDTHS
@WORDS
def test_row_bitrev_j_holds_digit_j_of_all_values(width, w):
    x, of = values(width, w), min(width, 4)
    rows = digits(raw(x), width)
    assert rows.shape == (width // of, width * w)
    for j in range(width // of):
        assert torch.equal(tensor(rows[reverse(j, width // of)].astype("int64")), x.long() >> of * j & ((1 << of) - 1))


@WIDTHS
@WORDS
def test_the_most_significant_bit_and_the_rest_are_the_value(width, w):
    x, of = values(width, w), min(width, 4)
    top, rest = msb_and_rest(raw(x), width)
    whole = -tensor(unpack(top, width)) << (width - 1)
    for j in range(width // of):
        whole += tensor(rest[reverse(j, width // of)].astype("int64")) << of * j
    assert torch.equal(whole, x.long() & ((1 << width) - 1) if width < 64 else x)


@WIDTHS
@WORDS
def test_element_e_is_bit_e_of_its_plane(width, w):
    bits = torch.randint(0, 2, (3, width * w), dtype=torch.uint8)
    for value in (1, 2, 128):
        packed = pack(raw(bits * value), width)
        assert packed.shape == (3, w)
        for row, plane in zip(bits, packed, strict=True):
            assert torch.equal(tensor(unpack(plane, width)), -row.long())
            words = torch.tensor([int(v) for v in plane])
            assert torch.equal(words.repeat_interleave(width) >> torch.arange(width).repeat(w) & 1, row.long())


def test_halves_of_the_rows_are_the_pairs_of_neighbours():
    """The high bits of all pairs are the upper half of the rows, at each level; row 0 is the lowest segment."""
    x = torch.tensor([0b1010] + [0] * 63)
    rows = planes(raw(x), 64)
    lows, highs = ([int(unpack(row, 64)[0]) & 1 for row in half] for half in (rows[:32], rows[32:]))
    assert sum(lows) == 0 and sum(highs) == 2  # bits 1 and 3 are the high ones of pairs (0, 1) and (2, 3)
    assert highs[0] == 1


def test_levels():
    assert levels(64) == ((16, 2), (8, 2), (4, 2), (2, 2), (1, 2)) and levels(4) == ((1, 2),) and levels(2) == ()
    assert levels(64, 4, 4) == ((4, 4), (1, 4)) and levels(32, 4, 4) == ((4, 2), (1, 4)) and levels(8, 4, 4) == ((1, 2),)
    assert levels(64, 2, 4, 2) == ((16, 2), (8, 2), (4, 2), (1, 4)) and levels(4, 4, 4) == levels(2, 4, 4) == ()


def test_window():
    x = torch.randint(-(2**63), 2**63 - 1, (70,))
    assert torch.equal(tensor(window(raw(x), 32, 16)), ((x >> 16) & 0xFFFFFFFF).int())
    assert torch.equal(tensor(window(raw(x), 64, 0)), x)


def test_meta_tensors_have_shapes_only():
    x = torch.empty(192, dtype=torch.int64, device="meta")
    assert planes(x, 64).shape == (64, 3) and digits(x, 64).shape == (16, 192)
    assert pack(x.view(2, 96).byte(), 32).shape == (2, 3)
    assert unpack(torch.empty(3, dtype=torch.int32, device="meta"), 32).dtype == torch.int64
    top, rest = msb_and_rest(x, 64)
    assert top.shape == (3,) and rest.shape == (16, 192)


@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 5), (2, 3, 4, 4)])
def test_sums_and_differences_are_torchs(shape):
    x, y = (torch.randint(-(2**63), 2**63 - 1, shape) for _ in range(2))
    last = x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x
    assert torch.equal(difference(last, y), x - y) and torch.equal(difference(last, y, out=torch.empty_like(x)), x - y)
    assert torch.equal(add_to(last.clone(), y), x + y)
    meta = difference(x.to("meta"), y.to("meta"))
    assert meta.is_meta and meta.shape == shape and add_to(meta, meta) is meta
