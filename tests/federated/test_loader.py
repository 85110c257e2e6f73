"""Batches: every row once, at its worker, without waiting, the next one queued."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import syftlite as sy
from syftlite.errors import ConfigurationError


def federated(sizes, holders):
    start, parts = 0, []
    for size, holder in zip(sizes, holders):
        index = torch.arange(start, start + size)
        parts.append(sy.BaseDataset(index.float().view(-1, 1) * 10, index).send(holder))
        start += size
    return sy.FederatedDataset(parts)


@pytest.fixture(scope="module")
def holders():
    return [sy.VirtualWorker(id=f"loader-holder{i}") for i in range(4)]


def seen(loader):
    """Rows in the order in which they come; each batch is checked to be of one worker, and its data to belong to its targets."""
    found = []
    for step in loader:
        for worker, (data, target) in step.items() if isinstance(step, dict) else [(step[0].location, step)]:
            assert isinstance(data, sy.PointerTensor) and data.location is worker is target.location and len(data) <= loader.batch_size
            values = target.get_copy()
            assert torch.equal(data.get_copy().view(-1), values * 10.0)
            found += values.tolist()
    return found


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    batch_size=st.integers(1, 5),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    num_iterators=st.integers(1, 5),
    per_worker=st.booleans(),
)
def test_every_row_comes_once(holders, sizes, batch_size, shuffle, drop_last, num_iterators, per_worker):
    fds = federated(sizes, holders)
    loader = sy.FederatedDataLoader(
        fds, batch_size=batch_size, shuffle=shuffle, drop_last=drop_last, num_iterators=num_iterators, iter_per_worker=per_worker
    )
    expected = sum(n // batch_size * batch_size for n in sizes) if drop_last else sum(sizes)
    for _ in range(2):
        found = seen(loader)
        assert len(found) == len(set(found)) == expected and set(found) <= set(range(sum(sizes)))
    steps = list(loader)
    assert len(steps) == len(loader)
    if per_worker or min(num_iterators, len(sizes)) > 1:
        assert all(isinstance(step, dict) and len(step) <= loader.num_iterators for step in steps)


def test_order_and_shuffling(holders):
    fds = federated([5, 4], holders)
    assert seen(sy.FederatedDataLoader(fds, batch_size=2)) == list(range(9))
    shuffled = sy.FederatedDataLoader(fds, 2, True)
    first, second = seen(shuffled), seen(shuffled)
    assert first != second != list(range(9)) and sorted(first[:5]) == list(range(5))
    torch.manual_seed(3)
    third = seen(shuffled)
    torch.manual_seed(3)
    assert seen(shuffled) == third


def test_a_step_of_several_workers(holders):
    fds = federated([4, 2, 2], holders)
    steps = [{w.id: t.get_copy().tolist() for w, (_, t) in step.items()} for step in sy.FederatedDataLoader(fds, 2, num_iterators=2)]
    one, two, three = (h.id for h in holders[:3])
    assert steps == [{one: [0, 1], two: [4, 5]}, {one: [2, 3], three: [6, 7]}]
    assert [len(step) for step in sy.FederatedDataLoader(fds, 2, iter_per_worker=True)] == [3, 1]


def test_a_batch_waits_for_nothing_and_the_next_is_queued(monkeypatch):
    carol = sy.VirtualWorker(id="loader-carol", serialize=True)
    fds = federated([6], [carol])
    asked, cast = [], []
    ask, put = carol.ask, carol.cast
    monkeypatch.setattr(carol, "ask", lambda *a: asked.append(a) or ask(*a))
    monkeypatch.setattr(carol, "cast", lambda m, site=None: cast.append(m) or put(m, site))
    counts = []
    for _data, _target in sy.FederatedDataLoader(fds, batch_size=2):
        counts.append(len(cast))
    assert asked == [] and counts == [4, 6, 6], "two slices a batch, those of the next before this one is handed out"
    for _data, _target in sy.FederatedDataLoader(fds, batch_size=2, shuffle=True):
        pass
    assert asked == []


def test_next_without_iter_and_a_collate_function(holders):
    fds = federated([3], holders)

    def collate(rows):
        return torch.stack([x for x, _ in rows]) + 1, torch.stack([y for _, y in rows])

    loader = sy.FederatedDataLoader(fds, 2, collate_fn=collate)
    assert next(loader)[0].get().view(-1).tolist() == [1.0, 11.0]
    assert next(loader)[1].get().tolist() == [2]
    with pytest.raises(StopIteration):
        next(loader)
    assert next(loader)[1].get().tolist() == [0, 1]


def test_what_it_refuses_and_what_it_ignores(holders, caplog):
    fds = federated([3], holders)
    with pytest.raises(ConfigurationError, match="DataLoader"):
        sy.FederatedDataLoader([1, 2])
    for options in ({"batch_size": 0}, {"num_iterators": 0}):
        with pytest.raises(ConfigurationError, match="at least 1"):
            sy.FederatedDataLoader(fds, **options)
    with caplog.at_level(logging.WARNING, "syftlite.federated"):
        sy.FederatedDataLoader(fds, num_workers=1, pin_memory=True)
    assert "num_workers, pin_memory" in caplog.text
