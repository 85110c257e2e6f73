"""Straight-line replays give what the executor gives, and leave to it everything that values or labels decide."""

import pytest
import torch

import syftlite as sy
from syftlite.plans.placed import Placed


@pytest.fixture
def worker(alice):
    return alice


def short(worker):
    (program,) = worker.transport.session.programs.values()
    return program.straight


def replayed(worker, plan, *args, times=3):
    """The plan's results after ``times`` calls: the first is the executor's, the last straight."""
    for _ in range(times):
        result = plan(*[a.send(worker) for a in args])
    return result


CASES = {
    "chain": (lambda x, y: ((x + y) * 2.0).relu().sum(), True),
    "several results": (lambda x, y: (x.max(dim=1), (x @ y.T, x - 1)), True),
    "lists": (lambda x, y: torch.cat([x, y, x * 2], dim=1), True),
    "views": (lambda x, y: (x.t()[0], (x + y).view(-1)[1:], y), True),
    "keywords": (lambda x, y: (torch.sum(x, dim=(0, 1), keepdim=True), torch.zeros_like(y, dtype=torch.float64)), True),
    "literals": (lambda x, y: torch.where(x > 0, x, 0.5) + y.clamp(min=-1, max=2), True),
    "reads values": (lambda x, y: x.gather(1, torch.zeros_like(y, dtype=torch.int64)), True),
    "checks values": (lambda x, y: x[torch.zeros_like(y, dtype=torch.int64)], False),
    "writes": (lambda x, y: (x + y).mul_(2.0), False),
}


@pytest.mark.parametrize("name", CASES)
def test_as_in_the_executor(worker, name):
    function, straight = CASES[name]
    plan = sy.func2plan()(function)
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    before = worker.transport.session.used
    remote, _ = torch.utils._pytree.tree_flatten(replayed(worker, plan, x, y))
    local, _ = torch.utils._pytree.tree_flatten(function(x, y))
    assert (short(worker) is not None) is straight
    assert len(remote) == len(local)
    for r, expected in zip(remote, local, strict=True):
        assert r.shape == expected.shape and r.stride() == expected.stride() and torch.equal(r.get(), expected)
    del remote, r
    plan._placed = Placed()
    worker.transport.settle()
    assert worker.transport.session.used == before and worker._objects == {}


def test_a_result_that_is_a_view_of_an_operand_writes_to_it(worker):
    plan = sy.func2plan()(lambda x: (x.t(), x + 1))
    x = torch.zeros(2, 3).send(worker)
    for _ in range(3):
        view, _other = plan(x)
    assert short(worker) is not None
    view.add_(1)
    assert torch.equal(x.get_copy(), torch.ones(2, 3))


def test_results_in_one_storage_share_its_cell(worker):
    def halves(x):
        y = x + 1
        return y[:1], y[1:]

    plan = sy.func2plan()(halves)
    x = torch.zeros(2, 3).send(worker)
    for _ in range(3):
        first, second = plan(x)
    session = worker.transport.session
    assert short(worker) is not None and session.objects[first.id_at_location][1] is session.objects[second.id_at_location][1]
    worker.transport.settle()
    used = session.used
    del first
    worker.transport.settle()
    assert session.used == used, "the storage is still held"
    del second
    worker.transport.settle()
    assert session.used < used


def test_a_replay_holds_only_what_is_still_needed(worker):
    def tenfold(x, y):
        for _ in range(10):
            x = x + y
        return x

    replayed(worker, sy.func2plan()(tenfold), torch.ones(3), torch.ones(3))
    assert len(short(worker).blank) == 1, "nine sums make room for the next"


def test_slots_that_are_shared_keep_what_is_read_later(worker):
    def tangled(x, y):
        a, b = x + 1, x * 2
        c = torch.cat([a, b, a])
        d = c.sum()
        e = b * d
        f, g = e.max(dim=0)
        return c[:1] + f, a - e, g, b

    plan = sy.func2plan()(tangled)
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    for _ in range(2):
        remote = replayed(worker, plan, x, y)
        for r, expected in zip(remote, tangled(x, y), strict=True):
            assert torch.equal(r.get(), expected)
    assert short(worker) is not None


def test_private_operands_stay_private_after_public_ones(worker):
    plan = sy.func2plan()(lambda x: x * 2)
    replayed(worker, plan, torch.ones(3))
    assert short(worker) is not None
    worker.load(torch.ones(3), name="rows", private=True)
    (rows,) = worker.engine.names.values()
    (found,) = worker.search(str(rows))
    doubled = plan(found)
    session = worker.transport.session
    assert session.objects[doubled.id_at_location][1].label.private


def test_a_value_that_an_operator_refuses_poisons_as_in_the_executor(worker):
    plan = sy.func2plan()(lambda x, i: x.gather(1, i) + 1)
    x, good, bad = torch.eye(2), torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 1], [7, 0]])
    replayed(worker, plan, x, good)
    assert short(worker) is not None
    failed = plan(x.send(worker), bad.send(worker))
    with pytest.raises(RuntimeError, match="out of bounds") as caught:
        failed.get()
    assert "aten.gather" in str(caught.value)
    assert torch.equal(plan(x.send(worker), good.send(worker)).get(), x.gather(1, good) + 1)


def test_poisoned_operands_poison_the_results(worker):
    plan = sy.func2plan()(lambda x: x + 1)
    replayed(worker, plan, torch.eye(2))
    poisoned = torch.zeros(2, 2).send(worker).gather(1, torch.full((2, 2), 7).send(worker))
    with pytest.raises(RuntimeError):
        plan(poisoned).get()


def test_the_quota_holds(worker):
    plan = sy.func2plan()(lambda x: (x + 1) * 2)
    x = torch.ones(100).send(worker)
    for _ in range(3):
        plan(x)
    session = worker.transport.session
    worker.transport.settle()
    assert short(worker) is not None
    session.max_bytes = session.used + 500
    with pytest.raises(sy.errors.QuotaExceededError):
        plan(x).get()


def test_operands_of_another_layout_are_looked_at_again(worker):
    plan = sy.func2plan()(lambda x: x.view(-1) if x.is_contiguous() else x.reshape(-1))
    x = torch.arange(6.0).view(2, 3)
    replayed(worker, plan, x)
    transposed = x.t().contiguous().send(worker).t()
    assert torch.equal(plan(transposed).get(), x.reshape(-1))
