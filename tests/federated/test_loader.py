"""Batches: every row once, at its worker, without waiting, the next one queued."""

import logging

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import syftlite as sy
from syftlite.errors import ConfigurationError
from syftlite.wire.messages import RUN


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


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_batch_is_one_message_and_the_next_is_queued(monkeypatch, shuffle):
    carol = sy.VirtualWorker(id="loader-carol", serialize=True)
    rows = torch.arange(7.0).view(7, 1)
    fds = sy.FederatedDataset([sy.BaseDataset(rows, rows[:, 0] * 2).send(carol)])
    loader = sy.FederatedDataLoader(fds, batch_size=2, shuffle=shuffle)
    asked, cast, placed = [], [], []
    for name, kept in (("ask", asked), ("cast", cast), ("put", placed)):
        done = getattr(carol, name)
        monkeypatch.setattr(carol, name, lambda *a, done=done, kept=kept: kept.append(a[0]) or done(*a))
    for epoch in range(2):
        cast.clear(), placed.clear()
        counts, batches = [], []
        for batch in loader:
            counts.append(sum(message[0] == RUN for message in cast))
            batches.append(batch)
        assert counts == [2, 3, 4, 4], "the next batch is asked for before this one is handed out"
        kinds = [message[0] for message in cast]
        assert kinds.count(RUN) == len(batches) == 4
        assert len(kinds) == 4 + (2 if epoch == 0 else 0), "beside those, the plans of a whole batch and of the last, once"
        assert len(placed) == (2 if shuffle else 1), "where the first rows are, and the order"
        assert asked == []
        data, targets = (torch.cat(part) for part in zip(*[(x.get(), y.get()) for x, y in batches], strict=True))
        asked.clear()
        assert torch.equal(data[:, 0] * 2, targets) and data.view(-1).sort().values.tolist() == list(range(7))
        assert shuffle or torch.equal(data, rows)
    held = len(carol._objects)
    monkeypatch.undo()
    del loader, batch, batches
    carol.transport.settle()
    assert held >= 2 and len(carol._objects) == 2 and not carol.transport.session.programs, "an epoch leaves nothing behind"


def test_rows_behind_a_transform_a_pointer_or_a_gradient_come_too(holders):
    bob, carol = holders[:2]
    rows, targets = torch.arange(5.0).view(5, 1), torch.arange(5)
    plain = torch.arange(5.0)
    for dataset in (
        sy.BaseDataset(rows, targets, lambda row: row * 1).send(bob),
        sy.BaseDataset(rows.send(bob).send(carol), targets.send(bob).send(carol)),
        sy.BaseDataset(rows.clone().requires_grad_().send(bob), targets.send(bob)),
    ):
        for shuffle in (False, True) if dataset.data.child is None else (False,):
            batches = list(sy.FederatedDataLoader(sy.FederatedDataset([dataset]), batch_size=2, shuffle=shuffle))
            found = torch.cat([x.detach().get_copy() if x.child is None else x.detach().get().get() for x, _ in batches]).view(-1)
            assert torch.equal(found.sort().values, plain)
            if dataset.data.child is None:
                for data, marks in batches:
                    data.detach().zero_(), marks.zero_()
                assert torch.equal(dataset.data.detach().get_copy(), rows) and torch.equal(dataset.targets.get_copy(), targets)


@pytest.mark.parametrize("options", [{}, {"num_iterators": 2}])
def test_a_batch_may_be_none(holders, options):
    fds = sy.BaseDataset(torch.randn(10, 2), torch.arange(10)).federate(holders[:2])
    loader = sy.FederatedDataLoader(fds, 2, collate_fn=lambda rows: None, **options)
    batches = [batch for step in loader for batch in (step.values() if isinstance(step, dict) else [step])]
    assert batches == [None] * 6


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


def test_it_says_what_it_gives(holders):
    fds = federated([3, 4], holders)
    where = ", ".join(fds.workers)
    assert repr(sy.FederatedDataLoader(fds, batch_size=2)) == f"<FederatedDataLoader: 4 batches, up to 2 rows, at {where}>"
    assert "2 steps of a batch of each" in repr(sy.FederatedDataLoader(fds, batch_size=2, iter_per_worker=True))


@pytest.mark.parametrize(
    ("options", "match"),
    [({"batch_size": "a"}, "at least 1, got 'a'"), ({"batch_size": 2.5}, "at least 1, got 2.5"), ({"num_iterators": None}, "and None"),
     ({"num_iterators": True}, "and True"),
     ({"collate_fn": 3}, "collate_fn is a function")],
)  # fmt: skip
def test_what_no_batch_is_made_by_is_refused_at_once(options, match):
    with pytest.raises(ConfigurationError, match=match):
        sy.FederatedDataLoader(sy.FederatedDataset([]), **options)
