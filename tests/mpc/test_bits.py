"""Planes of bits against bits taken one by one."""

import pytest
import torch

from syftlite.mpc.bits import levels, padded, planes, unpack, window, word_dtype


@pytest.mark.parametrize("width", [2, 4, 8, 16, 32, 64])
@pytest.mark.parametrize("w", [1, 3, 2100])
def test_row_bitrev_j_holds_bit_j_of_all_values(width, w):
    dtype = word_dtype(width)
    x = torch.randint(-(2 ** (dtype.itemsize * 8 - 1)), 2 ** (dtype.itemsize * 8 - 1) - 1, (width, w), dtype=dtype)
    rows = planes(x.clone())
    digits = width.bit_length() - 1
    for j in range(width):
        row = int(f"{j:0{digits}b}"[::-1], 2)
        assert torch.equal(unpack(rows[row], width), -((x.long() >> j) & 1))


def test_halves_of_the_rows_are_the_pairs_of_neighbours():
    """The high bits of all pairs are the upper half of the rows, at each level; row 0 is the lowest segment."""
    x = torch.tensor([[0b1010]] + [[0]] * 63)
    rows = planes(x)
    values = [[int(unpack(row, 64)[0, 0]) & 1 for row in half] for half in (rows[:32], rows[32:])]
    assert sum(values[0]) == 0 and sum(values[1]) == 2  # bits 1 and 3 are the high ones of pairs (0, 1) and (2, 3)
    assert values[1][0] == 1


def test_levels():
    assert levels(64) == [(16, 2), (8, 2), (4, 2), (2, 2), (1, 2)] and levels(4) == [(1, 2)] and levels(2) == []
    assert levels(64, 4, 4) == [(4, 4), (1, 4)] and levels(32, 4, 4) == [(4, 2), (1, 4)] and levels(8, 4, 4) == [(1, 2)]
    assert levels(64, 2, 4, 2) == [(16, 2), (8, 2), (4, 2), (1, 4)]


def test_window_and_padding():
    x = torch.randint(-(2**63), 2**63 - 1, (70,))
    assert torch.equal(window(x, 32, 16), ((x >> 16) & 0xFFFFFFFF).int())
    same = window(x, 64, 0)
    assert torch.equal(same, x) and same.data_ptr() != x.data_ptr()
    words = padded(x, 64)
    assert words.shape == (64, 2) and torch.equal(words.view(-1)[:70], x) and not words.view(-1)[70:].any()
    assert padded(x[:64], 64).shape == (64, 1)


def test_meta_tensors_have_shapes_only():
    assert planes(torch.empty(64, 3, dtype=torch.int64, device="meta")).shape == (64, 3)
    assert unpack(torch.empty(3, dtype=torch.int32, device="meta"), 32).dtype == torch.int64
