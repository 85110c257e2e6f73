"""The running mean: right whatever the order, from any threads, and closed to who comes late."""

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
import torch

from syftlite.errors import AggregationError
from syftlite.federated.means import PIECE, RunningMean


def test_it_is_the_mean_by_rows_whatever_the_order():
    parts = [([torch.randn(PIECE + 3), torch.tensor(float(i)), torch.tensor([i, 2])], 3 * i + 1) for i in range(12)]
    found = []
    for order in (parts, parts[::-1]):
        mean = RunningMean()
        with ThreadPoolExecutor(4) as pool:
            futures = [pool.submit(mean.add, f"c{n}", values, n) for values, n in order]
            assert all(future.result() for future in futures)
        mean.close()
        assert mean.rows == {f"c{n}": n for _, n in parts}
        found.append([value.float() for value in mean.values()])
    total = sum(n for _, n in parts)
    for at, (one, other) in enumerate(zip(*found, strict=True)):
        assert torch.equal(one, other)
        torch.testing.assert_close(one, sum(values[at].double() * n for values, n in parts).div(total).float(), rtol=1e-6, atol=0)


def test_weights_of_other_shapes_are_refused_and_spoil_nothing():
    mean = RunningMean()
    assert mean.add("ann", [torch.ones(2), torch.ones(3)], 1)
    for wrong in ([torch.ones(2), torch.ones(4)], [torch.ones(2)], [torch.ones(1), torch.ones(3)]):
        with pytest.raises(AggregationError, match="shapes"):
            mean.add("ben", wrong, 9)
    assert mean.add("cy", [torch.full((2,), 3.0), torch.ones(3)], 1)
    mean.close()
    assert mean.rows == {"ann": 1, "cy": 1} and mean.values()[0].tolist() == [2.0, 2.0]


def test_who_comes_late_is_left_out():
    mean = RunningMean()
    assert mean.add("in time", [torch.ones(2)], 5)
    mean.close()
    assert not mean.add("late", [torch.full((2,), 9.0)], 5)
    assert mean.rows == {"in time": 5} and mean.values()[0].tolist() == [1.0, 1.0]


def test_of_doubles_it_is_the_same_to_the_bit_whatever_the_order():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(1, 1 << 20, (15,), generator=generator).tolist()
    size = 10.0 ** torch.randint(-12, 12, (15, 40), generator=generator)
    values = torch.randn(15, 40, generator=generator, dtype=torch.float64) * size
    values[7] = -values[3] * rows[3] / rows[7]  # which nearly cancel
    exact = [float(sum(Fraction(v) * n for v, n in zip(column, rows, strict=True))) / sum(rows) for column in values.T.tolist()]
    for seed in range(20):
        mean = RunningMean()
        with ThreadPoolExecutor(4) as pool:
            for at in torch.randperm(15, generator=generator.manual_seed(seed)).tolist():
                pool.submit(mean.add, str(at), [values[at], values[at][:4].view(2, 2).T], rows[at])
        mean.close()
        whole, turned = mean.values()
        assert whole.tolist() == exact and turned.T.flatten().tolist() == exact[:4]


def test_weights_of_a_narrower_dtype_are_added_as_they_are():
    mean = RunningMean()
    for values in (torch.full((3,), 0.1, dtype=torch.float64), torch.full((3,), 0.5)):
        assert mean.add(str(values.dtype), [values], 2)
    mean.close()
    torch.testing.assert_close(mean.values()[0], torch.full((3,), 0.3, dtype=torch.float64))


def test_what_cannot_be_added_stops_nobody_and_is_no_part_of_a_mean():
    mean = RunningMean()
    mean.add("first", [torch.ones(2)], 1)
    with pytest.raises(RuntimeError):
        mean.add("second", [torch.ones(2, dtype=torch.complex64)], 1)
    mean.add("third", [torch.ones(2)], 1)
    mean.close()
    assert list(mean.rows) == ["first", "third"]
    with pytest.raises(AggregationError, match="could not be added"):
        mean.values()
