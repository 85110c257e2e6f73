"""The running mean: right whatever the order, from any threads, and closed to who comes late."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from syftlite.errors import AggregationError
from syftlite.federated import means
from syftlite.federated.means import AT_ONCE, PIECE, RunningMean


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


@pytest.mark.parametrize("clients", range(1, 2 * AT_ONCE + 2))
@pytest.mark.parametrize("cores", [1, 2])
def test_whoever_came_is_in_it_however_many_are_added_at_once(clients, cores, monkeypatch):
    monkeypatch.setattr(means.os, "cpu_count", lambda: cores)
    mean = RunningMean()
    for n in range(clients):
        assert mean.add(str(n), [torch.full((3,), float(n))], n + 1)
    mean.close()
    expected = sum(n * (n + 1) for n in range(clients)) / sum(range(1, clients + 1))
    torch.testing.assert_close(mean.values()[0], torch.full((3,), expected, dtype=torch.float64))


def test_no_more_than_a_few_are_held():
    mean = RunningMean()
    for n in range(3 * AT_ONCE):
        mean.add(str(n), [torch.ones(2)], 1)
        assert len(mean._held) == (n + 1) % AT_ONCE


def test_what_comes_while_every_sum_is_being_added_to_is_held_until_one_is_free(monkeypatch):
    monkeypatch.setattr(means.os, "cpu_count", lambda: 1)
    mean = RunningMean()
    mean.add("first", [torch.ones(2)], 1)
    busy = mean._lane()
    for n in range(2 * AT_ONCE):
        mean.add(str(n), [torch.ones(2)], 1)
    assert len(mean._held) == 2 * AT_ONCE + 1
    mean._pour([], busy)
    mean.add("last", [torch.ones(2)], 1)
    assert not mean._held
    mean.close()
    assert mean.values()[0].tolist() == [1.0, 1.0] and len(mean.rows) == 2 * AT_ONCE + 2


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
