"""Sharing and revealing, small rings, and the order of elements."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from syftlite.mpc.ring import Ring, flat, reveal, share

values = st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20)


@given(values, st.integers(2, 5))
def test_shares_add_up(plain, holders):
    x = torch.tensor(plain)
    shares = share(x, holders)
    assert len(shares) == holders and torch.equal(reveal(shares), x)
    assert all(s.is_contiguous() for s in share(x.view(1, -1).t(), holders))


def test_every_share_is_uniform_and_so_is_every_sum_of_all_but_one():
    shares = share(torch.zeros(4096, dtype=torch.int64), 3)
    for s in (*shares, shares[0] + shares[1], shares[1] + shares[2]):
        ones = torch.stack([(s >> k) & 1 for k in range(64)]).sum(1).double()
        assert ((ones - 2048).abs() < 8 * 32).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8, 63, 64])
@given(plain=values)
def test_parts_of_a_number(bits, plain):
    ring, x = Ring(bits), torch.tensor(plain)
    reduced = ring.reduce(x)
    for v, r, s in zip(plain, reduced.tolist(), ring.signed(x).tolist()):
        small = v % (1 << bits)
        assert r % (1 << 64) == small
        assert s == small - (1 << bits if small >> (bits - 1) else 0)
        assert ring.shifted(torch.tensor([r]).numpy(), 1).item() == small >> 1


@pytest.mark.parametrize("bits, f", [(2, 1), (3, 1), (4, 2), (8, 7), (16, 10), (32, 16), (64, 1), (64, 12), (64, 16), (64, 17), (64, 32), (64, 33), (64, 62)])
@given(plain=values)
def test_the_highest_bits_of_a_number(bits, f, plain):
    ring = Ring(bits)
    x, heads = ring.reduce(torch.tensor(plain)).numpy(), ring.heads(f)
    width = 8 * heads.kind.itemsize
    assert heads.of(x).dtype == heads.kind and heads.quarter == 1 << (width - 2) and f <= width
    for head, v in zip(heads.of(x).tolist(), plain):
        assert (head >> heads.sign) & 1 == (v >> (bits - 1)) & 1 and (head >> heads.sign - 1) & 1 == (v >> (bits - 2)) & 1
    y, sums = np.array(plain).astype(heads.kind), x.copy()
    heads.add(sums, y)
    for before, added, after in zip(x.tolist(), y.tolist(), sums.tolist()):
        assert (after - before - (added << (bits - f))) % (1 << bits) == 0


def test_flat_keeps_the_memory_order_of_images_only_if_all_have_it():
    x = torch.arange(2 * 3 * 4 * 5).view(2, 3, 4, 5)
    last = x.contiguous(memory_format=torch.channels_last)
    (vector,), back = flat(last)
    assert vector.data_ptr() == last.data_ptr() and torch.equal(back(vector), x) and back(vector).stride() == last.stride()
    (one, other), back = flat(last, x)
    assert torch.equal(one, other) and torch.equal(back(one), x)
    (vector,), back = flat(x[0].t() if x.dim() == 2 else x[0].transpose(0, 1))
    assert torch.equal(back(vector), x[0].transpose(0, 1))
