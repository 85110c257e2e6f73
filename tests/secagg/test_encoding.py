import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from syftlite.errors import AggregationError, ConfigurationError
from syftlite.secagg.encoding import Encoding


@given(st.lists(st.lists(st.floats(-8, 8), min_size=4, max_size=4), min_size=1, max_size=20), st.integers(4, 30))
def test_a_sum_is_right_within_half_a_unit_a_client(rows, bits):
    encoding = Encoding(len(rows), clip=8.0, fraction_bits=bits)
    encoded = [encoding.encode(torch.tensor(row, dtype=torch.float64))[0] for row in rows]
    total, _ = encoding.decode(sum(encoded[1:], encoded[0]))
    want = torch.tensor([math.fsum(column) for column in zip(*rows, strict=True)], dtype=torch.float64)
    assert (total - want).abs().max() <= len(rows) * 0.5 / 2**bits + 1e-9


@given(st.integers(1, 10_000), st.floats(0.01, 1e6), st.integers(0, 32), st.one_of(st.none(), st.floats(0.5, 1e4)))
def test_no_sum_of_allowed_vectors_wraps(clients, clip, bits, weight):
    try:
        encoding = Encoding(clients, clip, bits, weight)
    except ConfigurationError:
        return
    largest, _ = encoding.encode(torch.tensor([clip, -clip], dtype=torch.float64), weight)
    assert all(abs(int(v)) * clients <= torch.iinfo(encoding.dtype).max for v in largest)


def test_small_sums_take_half_the_bytes():
    assert Encoding(10).dtype is torch.int32 and Encoding(10, fraction_bits=32).dtype is torch.int64
    with pytest.raises(ConfigurationError, match="beyond 64 bits"):
        Encoding(1000, clip=2.0**30, fraction_bits=30)


def test_what_is_clipped_is_told_and_what_is_no_number_refused():
    values, clipped = Encoding(2, clip=1.0).encode(torch.tensor([0.5, 3.0, -9.0, 1.0]))
    assert clipped == 0.5 and values.tolist() == [1 << 15, 1 << 16, -1 << 16, 1 << 16]
    for bad in (math.nan, math.inf):
        with pytest.raises(AggregationError, match="NaN or infinity"):
            Encoding(2).encode(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("weight", [0.0, -1.0, 11.0, math.nan])
def test_weights_out_of_bounds_are_refused(weight):
    with pytest.raises(AggregationError, match="a weight of"):
        Encoding(2, max_weight=10.0).encode(torch.ones(2), weight)
    with pytest.raises(AggregationError, match="weight"):
        Encoding(2, max_weight=10.0).encode(torch.ones(2))
    with pytest.raises(AggregationError, match="no weights"):
        Encoding(2).encode(torch.ones(2), 1.0)
