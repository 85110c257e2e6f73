"""Labels that wait: as if they had not, never made of values that have changed, not at all for what is gone."""

import gc
import random

import pytest
import torch

from syftlite._torch import aten
from syftlite.engine import marks
from syftlite.engine.engine import Engine
from syftlite.engine.journal import MemoryJournal
from syftlite.engine.marks import Mark, Unsettled
from syftlite.engine.session import Principal, Role
from syftlite.ops.table import BY_FUNC
from syftlite.policy import lineage
from syftlite.policy.labels import Class, Label, private
from syftlite.policy.lineage import Frame, own
from syftlite.policy.propagate import propagate
from syftlite.policy.rules import aggregate_only
from syftlite.wire import messages as m

ROWS = torch.randn(40, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


OPERATOR = BY_FUNC[aten.sum.dim_IntList]


class Looked:
    """In place of `propagate`: counts the results that labels are made out for."""

    def __init__(self, fails=False):
        self.fails, self.outs = fails, []

    def __call__(self, operator, args, kwargs, labels, out):
        self.outs.append(out)
        if self.fails:
            raise ZeroDivisionError
        return propagate(operator, args, kwargs, labels, out)


@pytest.fixture
def looked(monkeypatch):
    looked = Looked()
    monkeypatch.setattr(marks, "propagate", looked)
    return looked


def waiting(session, out, *before):
    """A mark without a label, for something made of ``before``."""
    mark = Mark(None, None, frozenset({"icu"}), (OPERATOR, [], None, [torch.zeros(3) for _ in before], before, out))
    session.add(mark)
    return mark


def test_a_label_is_made_out_once_and_not_at_all_for_what_is_gone(looked):
    session, rows = Unsettled(), Mark(private("icu"))
    one, other = waiting(session, "one", rows), waiting(session, "other", rows)
    last = waiting(session, "last", other)
    waiting(session, "gone", rows)
    del other
    gc.collect()
    assert looked.outs == [] and last.sources == {"icu"} and not one.settled
    session.settle()
    session.settle()
    assert sorted(looked.outs) == ["last", "one", "other"] and last.label == private("icu")


def test_no_more_than_so_many_wait(looked):
    session = Unsettled()
    kept = [waiting(session, n, Mark(private("icu"))) for n in range(marks.MOST + 1)]
    assert looked.outs == list(range(marks.MOST)) and not kept[-1].settled
    for n in range(3 * marks.MOST):
        kept = [waiting(session, n, *kept[-2:])]
    assert kept[0].label == private("icu")


def test_what_cannot_be_looked_at_is_held_to_be_exposed(looked):
    looked.fails = True
    frame = Frame("icu", 40, aggregates=True)
    label = waiting(Unsettled(), "one", Mark(private("icu", own(frame, ROWS)))).label
    assert label.exposed and label.rows is None and label.level is Class.PRIVATE


class Scene:
    """A node whose dataset has a column that is zero but for one row; messages of eve's sessions."""

    def __init__(self):
        self.engine = Engine("node", journal=MemoryJournal(), clock=lambda: 1.0, bits=random.Random(1).getrandbits)
        rows = ROWS.clone()
        rows[:, 1] = 0.0
        rows[7, 1] = 5.0
        self.number = self.engine.load("icu", rows, ("#icu",), policy=aggregate_only(5))
        self.count = 0

    def session(self, tags=("#icu",)):
        session = self.engine.open_session(Principal("eve", Role.SCIENTIST))
        self.engine.handle(session, (m.FIND, 1, tags, 0))
        return session

    def op(self, session, overload, *args, **kwargs):
        self.count += 1
        operator, out = BY_FUNC[overload], (session.prefix << 32) + self.count
        into = operator.out_type is type(None)
        self.engine.handle(session, (m.OP, operator.number, args, kwargs or None, None if into else out))
        return args[0] if into else out

    def put(self, session, tensor):
        self.count += 1
        number = (session.prefix << 32) + self.count
        self.engine.handle(session, (m.PUT, number, tensor, (), ""))
        return number

    def leaves(self, session, number):
        return self.engine.handle(session, (m.GET, 2, (number,), False, None))[0] == m.VALUES


def overwritten(scene, session):
    """A sum that tells of one row, whose rows are then overwritten with even ones; and such a sum of even ones."""
    mine = scene.op(session, aten.clone.default, scene.number)
    total = scene.op(session, aten.sum.dim_IntList, mine, (0,))
    first = scene.op(session, aten.slice.Tensor, scene.number, 1, 0, 1)
    scene.op(session, aten.copy_.default, mine, first)
    return total, scene.op(session, aten.sum.dim_IntList, first, (0,))


def test_what_a_label_depends_on_is_looked_at_before_it_is_written(monkeypatch):
    scene = Scene()
    session = scene.session()
    total, even = overwritten(scene, session)
    assert scene.leaves(session, even) and not scene.leaves(session, total)
    monkeypatch.setattr(Unsettled, "settle", lambda self: None)
    scene = Scene()
    session = scene.session()
    assert scene.leaves(session, overwritten(scene, session)[0]), "the write is what the look must come before"


@pytest.mark.parametrize("when", ["before the look", "while the operator runs"])
def test_what_another_session_writes_meanwhile_is_exposed(when, monkeypatch):
    scene = Scene()
    writer = scene.session()
    mine = scene.op(writer, aten.clone.default, scene.op(writer, aten.slice.Tensor, scene.number, 1, 0, 1))
    scene.engine.handle(writer, (m.DESCRIBE, mine, ("#mine",), ""))
    reader = scene.session(("#mine",))
    assert scene.leaves(reader, scene.op(reader, aten.sum.dim_IntList, mine, (0,)))
    real = marks.propagate

    def meanwhile(*given):
        marks.propagate = real
        if when == "before the look":
            scene.op(writer, aten.mul_.Scalar, mine, 2.0)
        else:
            writer.objects[mine][1].writing = True
        return real(*given)

    monkeypatch.setattr(marks, "propagate", meanwhile)
    assert not scene.leaves(reader, scene.op(reader, aten.mean.dim, mine, (0,)))


def test_what_another_session_writes_meanwhile_is_exposed_whichever_operand_is_the_first():
    """Weights that were one row's while they were used, and even ones when they are looked at; a private answer and a sum come first."""
    scene = Scene()
    scene.engine.load("ages", ROWS, ("#ages",), policy=aggregate_only(5))
    writer, even = scene.session(), torch.ones(40, dtype=torch.float64)
    weights = scene.put(writer, even)
    scene.engine.handle(writer, (m.DESCRIBE, weights, ("#weights",), ""))
    reader = scene.session(("#weights",))
    ages = scene.engine.names["ages"]
    scene.engine.handle(reader, (m.FIND, 1, ("#ages",), 0))
    scene.engine.handle(reader, (m.FIND, 1, ("#icu",), 0))
    answer = scene.put(reader, torch.zeros(1, dtype=torch.float64))
    reader.objects[answer][1].mark = Mark(Label(Class.DP, frozenset({"icu"})))
    total = scene.op(reader, aten.sum.dim_IntList, scene.op(reader, aten.slice.Tensor, ages, 1, 0, 1), (0,))
    rows = scene.op(reader, aten.t.default, scene.op(reader, aten.slice.Tensor, scene.number, 1, 0, 1))
    for first in (answer, total):
        assert scene.leaves(reader, scene.op(reader, aten.addmv.default, first, rows, weights))
        scene.op(writer, aten.copy_.default, weights, scene.put(writer, torch.eye(40, dtype=torch.float64)[3]))
        one_row = scene.op(reader, aten.addmv.default, first, rows, weights)
        scene.op(writer, aten.fill_.Scalar, weights, 1.0)
        assert not scene.leaves(reader, one_row)


def test_what_labels_tell_apart_takes_no_more_than_so_much(monkeypatch):
    """A sum takes 8 bytes of a quota, and its label a byte for each row: beyond the limit it is held to be exposed, until others go."""
    monkeypatch.setattr(lineage, "MAX_KEPT", 0)
    monkeypatch.setattr(lineage, "PER_ROW", 100)
    scene = Scene()
    session, frame = scene.session(), scene.engine.policies._frames["icu"]

    def sums(times):
        return [
            scene.op(session, aten.sum.dim_IntList, scene.op(session, aten.slice.Tensor, column, 0, first, first + 20), (0,))
            for first in range(times)
        ]

    column = scene.op(session, aten.slice.Tensor, scene.number, 1, 0, 1)
    assert scene.leaves(session, sums(1)[0])
    rest = [scene.op(session, aten.neg.default, scene.op(session, aten.slice.Tensor, column, 0, n, n + 20)) for n in range(20)]
    session.unsettled.settle()
    made = sums(20)
    session.unsettled.settle()
    assert frame.kept[False] <= frame.most == 100 * 40 and not frame.kept[True]
    assert any(session.objects[n][1].label.exposed for n in made), "what there was no room for is not told apart"
    scene.op(session, aten.gt.Scalar, column, 0.0)
    session.unsettled.settle()
    assert frame.kept[True] == 40, "which rows are above it is told of by no refusal elsewhere"
    scene.engine.handle(session, (m.DROP, (*rest, *made)))
    propagate.__globals__["_known"].__init__()
    gc.collect()
    assert not session.objects[(again := sums(1)[0])][1].label.exposed and scene.leaves(session, again)
