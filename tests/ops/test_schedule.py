"""Kernels share rounds where they need nothing of each other, and nothing is done before what it needs."""

import random

import pytest

from syftlite._torch import aten
from syftlite.ops import schedule
from syftlite.ops.schedule import Touched, batches, levels, of_kernel, touched
from syftlite.ops.table import BY_FUNC


def kernel(reads, out):
    return of_kernel(reads, (out,))


def test_what_is_independent_is_of_one_group():
    # a product and its gradient's two products, a view between them
    steps = [kernel((1, 2), 3), Touched((3,), (4,)), kernel((4, 1), 5), Touched((2,), (6,)), kernel((4, 6), 7), kernel((5, 7), 8)]
    assert levels(steps) == [0, 1, 1, 0, 1, 2]


def test_a_write_waits_for_those_that_read_before_and_those_that_read_after_wait_for_it():
    steps = [Touched((1,), (2,)), kernel((1,), 3), Touched((2,), (), writes=True), kernel((1,), 4), kernel((5,), 6)]
    assert levels(steps) == [0, 0, 1, 1, 1]  # 2 may be a view of 1


def test_operators_are_read_by_their_schema():
    add, relu, view = (BY_FUNC[f] for f in (aten.add_.Tensor, aten.relu.default, aten.t.default))
    assert touched(add, (3, 4), None, None) == Touched((3, 4), (), writes=True)
    assert touched(relu, (3,), None, 5) == Touched((3,), (5,)) and touched(view, (3,), None, 7) == Touched((3,), (7,))
    assert of_kernel(((2, 3), 4), (5,)) == Touched((4,), (5,), kernel=True)


def test_large_ones_run_one_after_the_other():
    assert batches([0, 0, 1, 1, 1], [1, 1, 1, 1, 1]) == [[0, 1], [2, 3, 4]]
    assert batches([0, 0, 0, 0], [schedule.MERGED, 1, 1, schedule.MERGED]) == [[0], [1, 2], [3]]
    assert batches([], []) == []


def run(steps, order):
    """The state after ``steps`` in that order: every object a list that operators share, kernels read, and writes change."""
    objects = {i: [f"x{i}"] for i in range(1, 5)}
    for i in order:
        step = steps[i]
        seen = tuple(tuple(objects[r]) for r in step.reads)
        if step.writes:
            objects[step.reads[0]].append((i, seen))
        for out in step.outs:
            objects[out] = [("kernel", i, seen)] if step.kernel else objects[step.reads[0]] if i % 2 else [("copy", i, seen)]
    return objects


def ordered(steps):
    found = levels(steps)
    return sorted(range(len(steps)), key=lambda i: (found[i], steps[i].kernel, i))


def programs(count):
    draw = random.Random(5)
    for _program in range(count):
        steps, known = [], [1, 2, 3, 4]
        for _ in range(draw.randrange(2, 25)):
            reads = tuple(draw.choice(known) for _ in range(draw.choice((1, 2))))
            kind = draw.choice(("kernel", "kernel", "write", "operator"))
            out = () if kind == "write" else (len(known) + 1,)
            known += out
            steps.append(Touched(reads, out, kind == "kernel", kind == "write"))
        yield steps


def test_the_order_computes_what_the_program_computes():
    merged = 0
    for steps in programs(400):
        order, groups = ordered(steps), [level for level, step in zip(levels(steps), steps, strict=True) if step.kernel]
        assert groups == sorted(groups), "kernels stay in the program's order"
        assert run(steps, order) == run(steps, range(len(steps)))
        for group in set(groups):  # those of one group see nothing of each other
            same = [s for s, level in zip(steps, levels(steps), strict=True) if s.kernel and level == group]
            assert not {out for s in same for out in s.outs} & {r for s in same for r in s.reads}
            merged += len(same) - 1
    assert merged > 200


def _apart(self, numbers):
    for number in (numbers := [*numbers]):
        self.ready.setdefault(number, 0), self.read.setdefault(number, 0)
    return numbers[-1]


FLAWS = {
    "writes do not wait for readers": lambda m: m.setattr(Touched, "writes", property(lambda self: False)),
    "operators do not share memory": lambda m: m.setattr(schedule._Memory, "join", _apart),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_is_seen(flaw, monkeypatch):
    steps = [*programs(400)]
    FLAWS[flaw](monkeypatch)
    orders = [ordered(program) for program in steps]
    monkeypatch.undo()
    assert any(run(program, order) != run(program, range(len(program))) for program, order in zip(steps, orders, strict=True))
