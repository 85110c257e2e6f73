"""The executor: what a failure spreads to, who may write, what is counted, what waits."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import torch

from syftlite._torch import aten as A
from syftlite.engine import executor
from syftlite.engine.admission import Deferred
from syftlite.engine.engine import Engine
from syftlite.engine.marks import Poison
from syftlite.engine.session import Principal, Role, Session
from syftlite.errors import (
    GetNotPermittedError,
    NotOwnerError,
    ObjectNotFoundError,
    OperatorNotReviewedError,
    ProtocolError,
    QuotaExceededError,
    code_of,
)
from syftlite.ops.cost import QUICK
from syftlite.ops.table import BY_FUNC, VERSION
from syftlite.wire import messages as m


class Eve:
    """A scientist's session at an engine, driven by messages."""

    def __init__(self, engine: Engine, name: str = "eve") -> None:
        self.engine = engine
        self.session: Session = engine.open_session(Principal(name, Role.SCIENTIST))
        self._ids, self._requests = count(1), count(1)

    def id(self) -> int:
        return (self.session.prefix << 32) + next(self._ids)

    def put(self, tensor: torch.Tensor) -> int:
        number = self.id()
        self.engine.handle(self.session, (m.PUT, number, tensor, (), ""))
        return number

    def op(self, func: Any, *args: Any, outs: Any = "one", **kwargs: Any) -> Any:
        """Send OP; ``outs``: "one" for a fresh id, or as given."""
        outs = self.id() if outs == "one" else outs
        self.engine.handle(self.session, (m.OP, BY_FUNC[func].number, args, kwargs or None, outs))
        return outs

    def ask(self, kind: int, *fields: Any) -> Any:
        return self.engine.handle(self.session, (kind, next(self._requests), *fields))

    def get(self, number: int) -> torch.Tensor:
        answer = self.ask(m.GET, (number,), False, None)
        assert answer[0] == m.VALUES, answer
        return answer[2][0]  # type: ignore[no-any-return]

    def refusal(self, number: int) -> tuple[int, str, int, int]:
        """(code, text, operator, origin) of the error that reading ``number`` gives."""
        answer = self.ask(m.GET, (number,), False, None)
        assert answer[0] == m.ERROR, answer
        return answer[2], answer[3], answer[4], answer[5]

    def find(self, tag: str) -> int:
        return self.ask(m.FIND, (tag,), 0)[3][0][0]  # type: ignore[no-any-return]


@pytest.fixture
def engine() -> Engine:
    engine = Engine("hospital", max_bytes=1 << 20)
    engine.load("rows", torch.arange(6.0).reshape(2, 3), ("#rows",), private=True)
    engine.load("shared", torch.arange(4.0), ("#shared",))
    return engine


@pytest.fixture
def eve(engine: Engine) -> Eve:
    return Eve(engine)


# -- poison


def test_a_failure_poisons_its_result_and_names_its_operator_and_message(eve: Eve) -> None:
    x, i = eve.put(torch.ones(3)), eve.put(torch.tensor([5]))
    origin = eve.session.executed
    bad = eve.op(A.index_select.default, x, 0, i)
    code, text, operator, at = eve.refusal(bad)
    assert code in (code_of(IndexError()), code_of(RuntimeError())) and "out of range" in text
    assert (operator, at) == (BY_FUNC[A.index_select.default].number, origin)
    assert torch.equal(eve.get(x), torch.ones(3)), "its operands live on"


def test_poison_spreads_to_results_with_its_first_origin(eve: Eve) -> None:
    bad = eve.op(A.index_select.default, eve.put(torch.ones(3)), 0, eve.put(torch.tensor([5])))
    first = eve.refusal(bad)
    worse = eve.op(A.add.Tensor, eve.op(A.mul.Tensor, bad, 2.0), eve.put(torch.ones(1)))
    several = eve.op(A.sort.default, worse, outs=(eve.id(), eve.id()))
    assert eve.refusal(worse) == eve.refusal(several[0]) == eve.refusal(several[1]) == first


def test_poison_spreads_to_targets_their_base_and_all_views(eve: Eve) -> None:
    base = eve.put(torch.zeros(4, 3))
    row = eve.op(A.select.int, base, 0, 0)
    bad = eve.op(A.index_select.default, eve.put(torch.ones(3)), 0, eve.put(torch.tensor([5])))
    eve.op(A.add_.Tensor, row, bad, outs=None)
    later = eve.op(A.select.int, base, 0, 2)
    assert eve.refusal(row) == eve.refusal(base) == eve.refusal(later) == eve.refusal(bad)


def test_a_failed_write_poisons_its_target(eve: Eve) -> None:
    x = eve.put(torch.ones(3))
    eve.op(A.add_.Tensor, x, eve.put(torch.ones(4)), outs=None)
    assert "must match" in eve.refusal(x)[1]
    y = eve.put(torch.ones(3))
    eve.op(A.add_.Tensor, y, 99, outs=None)
    assert eve.refusal(y)[0] == code_of(ObjectNotFoundError())


def test_a_view_of_poison_shares_its_account(eve: Eve) -> None:
    bad = eve.op(A.index_select.default, eve.put(torch.ones(3)), 0, eve.put(torch.tensor([5])))
    view = eve.op(A.view.default, bad, [1])
    assert eve.refusal(view) == eve.refusal(bad)


@pytest.mark.parametrize("number", [0, VERSION, -1, "aten.add.Tensor", 1.5, None])
def test_an_unknown_operator_poisons(eve: Eve, number: Any) -> None:
    out = eve.id()
    eve.engine.handle(eve.session, (m.OP, number, (1,), None, out))
    code, text, operator, _ = eve.refusal(out)
    assert code == code_of(OperatorNotReviewedError()) and operator == 0 and str(number) in text


def test_a_poisoned_private_result_is_told_to_nobody_but_the_owner(eve: Eve, engine: Engine) -> None:
    rows = eve.find("#rows")
    index = eve.op(A._to_copy.default, eve.op(A.select.int, rows, 0, 1), dtype=8)
    bad = eve.op(A.index_select.default, eve.put(torch.ones(2)), 0, index)
    good = eve.op(A.index_select.default, eve.put(torch.ones(9)), 0, index)
    assert eve.refusal(bad)[0] == eve.refusal(good)[0] == code_of(GetNotPermittedError())
    listed = {row[0]: row[1] for row in eve.ask(m.LIST, 0)[3]}
    assert listed[bad] == listed[good], "a list does not tell which of them failed"
    assert eve.session.objects[bad][1].nbytes == eve.session.objects[good][1].nbytes == 12, "nor does the account"
    owner = engine.open_session(Principal("hospital", Role.OWNER))
    owner.objects[1] = eve.session.objects[bad]
    assert engine.handle(owner, (m.GET, 1, (1,), False, None))[2] != code_of(GetNotPermittedError())  # type: ignore[index]


def test_views_and_results_of_private_poison_are_counted_as_if_all_had_gone_well(eve: Eve) -> None:
    def follow(table: torch.Tensor) -> tuple[Any, ...]:
        eve.engine.handle(eve.session, (m.CLEAR, 0))
        index = eve.op(A._to_copy.default, eve.op(A.select.int, eve.find("#rows"), 0, 1), dtype=8)
        picked = eve.op(A.index_select.default, eve.put(table), 0, index)
        column = eve.op(A.unsqueeze.default, picked, 1)
        eve.engine.handle(eve.session, (m.DROP, (picked,)))
        total = eve.op(A.mm.default, column, eve.op(A.t.default, column))
        eve.op(A.add_.Tensor, total, total, outs=None)
        pair = eve.op(A.sort.default, total, outs=(eve.id(), eve.id()))
        rows = [row[1] for row in eve.ask(m.LIST, 0)[3] if row[4]]
        return len(pair), rows, eve.session.used - table.nbytes

    assert follow(torch.ones(9)) == follow(torch.ones(2))


# -- shapes that depend on values


def test_a_shape_that_depends_on_values_needs_an_ask(eve: Eve) -> None:
    x = eve.put(torch.tensor([True, False, True]))
    with pytest.raises(ProtocolError, match="ASK"):
        eve.op(A.nonzero.default, x)
    with pytest.raises(ProtocolError, match="ASK"):
        eve.op(A.index.Tensor, eve.put(torch.ones(3)), [x])
    out = eve.id()
    assert eve.ask(m.ASK, BY_FUNC[A.nonzero.default].number, (x,), None, (out,)) == (m.SPECS, 1, ((8, (2, 1), (1, 2), 0),))
    assert torch.equal(eve.get(out), torch.tensor([[0], [2]]))
    assert torch.equal(eve.get(eve.op(A.index.Tensor, eve.put(torch.arange(3)), [eve.put(torch.tensor([2, 0]))])), torch.tensor([2, 0]))


@pytest.mark.parametrize("func, args", [(A.add.Tensor, (1.0,)), (A.empty_like.default, ()), (A._foreach_sqrt.default, ()), (A.t.default, ())])
def test_what_needs_no_answer_gets_none(eve: Eve, func: Any, args: Any) -> None:
    x = eve.put(torch.ones(2))
    first: Any = [x] if func is A._foreach_sqrt.default else x
    with pytest.raises(ProtocolError, match="send it as an OP"):
        eve.ask(m.ASK, BY_FUNC[func].number, (first, *args), None, (eve.id(),))


def test_an_ask_about_private_values_is_refused_before_it_is_computed(eve: Eve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "admit", lambda *a, **k: pytest.fail("it was admitted"))
    answer = eve.ask(m.ASK, BY_FUNC[A.nonzero.default].number, (eve.find("#rows"),), None, (eve.id(),))
    assert answer[0] == m.ERROR and answer[2] == code_of(GetNotPermittedError())


# -- borrowed data


def test_writing_to_borrowed_data_is_refused_and_seen(eve: Eve, engine: Engine) -> None:
    shared = eve.find("#shared")
    eve.op(A.add_.Tensor, shared, 1.0, outs=None)
    code, text, *_ = eve.refusal(shared)
    assert code == code_of(NotOwnerError()) and "clone()" in text
    other = Eve(engine, "ann")
    assert torch.equal(other.get(other.find("#shared")), torch.arange(4.0)), "the owner's data is untouched, for everyone else"


def test_writing_through_a_view_of_borrowed_data_is_refused(eve: Eve, engine: Engine) -> None:
    view = eve.op(A.select.int, eve.find("#rows"), 0, 0)
    for func, args in ((A.zero_.default, ()), (A.copy_.default, (eve.put(torch.ones(3)),)), (A.index_put_.default, ([eve.put(torch.tensor([0]))], 0.0))):
        eve.op(func, view, *args, outs=None)
    eve.op(A._foreach_zero_.default, [view], outs=None)
    (number,) = [n for n, stored in engine.vault.objects.items() if stored[1].label.private]
    tensor = engine.vault.objects[number][0]
    assert tensor is not None and torch.equal(tensor, torch.arange(6.0).reshape(2, 3))
    mine = eve.op(A.clone.default, eve.find("#rows"))
    eve.op(A.zero_.default, mine, outs=None)
    assert not eve.session.objects[mine][0].any()  # type: ignore[union-attr]


def test_statistics_that_are_only_read_may_be_borrowed(eve: Eve, engine: Engine) -> None:
    """Batch norm's running statistics are written in training alone."""
    engine.load("stats", torch.ones(4), ("#stats",))
    x, stats = eve.put(torch.ones(2, 4)), eve.find("#stats")
    outs = (eve.id(), eve.id(), eve.id())
    eve.op(A.native_batch_norm.default, x, None, None, stats, stats, False, 0.1, 0.0, outs=outs)
    assert torch.equal(eve.get(outs[0]), torch.zeros(2, 4))
    outs = (eve.id(), eve.id(), eve.id())
    eve.op(A.native_batch_norm.default, x, None, None, stats, stats, True, 0.1, 0.0, outs=outs)
    assert eve.refusal(outs[0])[0] == code_of(NotOwnerError())


def test_statistics_that_are_only_read_stay_public(eve: Eve) -> None:
    x = eve.op(A.clone.default, eve.find("#rows"))
    stats = eve.put(torch.ones(3))
    eve.op(A.native_batch_norm.default, x, None, None, stats, stats, False, 0.1, 0.0, outs=(eve.id(), eve.id(), eve.id()))
    assert torch.equal(eve.get(stats), torch.ones(3))
    eve.op(A.native_batch_norm.default, x, None, None, stats, stats, True, 0.1, 0.0, outs=(eve.id(), eve.id(), eve.id()))
    assert eve.refusal(stats)[0] == code_of(GetNotPermittedError())


# -- quota


def test_quota_is_taken_by_results_and_given_back_by_drops(eve: Eve) -> None:
    session = eve.session
    x = eve.put(torch.ones(1000))
    y = eve.op(A.mul.Tensor, x, 2.0)
    view = eve.op(A.view.default, y, [10, 100])
    assert session.used == 8000, "a view takes nothing"
    session.drop(y)
    assert session.used == 8000, "while a view lives, so does its storage"
    session.drop(view)
    session.drop(x)
    assert session.used == 0 and not session.objects


def test_a_result_over_the_quota_poisons_and_takes_nothing(eve: Eve) -> None:
    session = eve.session
    x = eve.put(torch.ones(100_000))
    used = session.used
    big = eve.op(A.repeat.default, x, [10])
    assert eve.refusal(big)[0] == code_of(QuotaExceededError()) and session.used == used
    assert "delete pointers" in eve.refusal(big)[1]
    session.drop(x)
    x = eve.put(torch.ones(10_000))
    assert eve.get(eve.op(A.repeat.default, x, [10])).shape == (100_000,), "what was given back can be used again"


def test_many_small_objects_are_bounded_too(eve: Eve) -> None:
    eve.session.max_objects = 3
    x = eve.put(torch.ones(1))
    made = [eve.op(A.neg.default, x) for _ in range(4)]
    assert [eve.session.objects[n][1].mark is None for n in made] == [True, True, False, False]


def test_a_borrowed_dataset_is_on_its_owners_account(eve: Eve) -> None:
    eve.find("#rows")
    assert eve.session.used == 0


# -- deferral


def test_what_takes_long_is_deferred_without_effect(eve: Eve) -> None:
    session = eve.session
    x = eve.put(torch.ones(QUICK + 1))
    session.quick = True
    before = (dict(session.objects), session.used, session.executed, [c.writes for _, c in session.objects.values()])
    for func, args, outs in (
        (A.neg.default, (x,), eve.id()),
        (A.add_.Tensor, (x, 1.0), None),
        (A.sort.default, (x,), (eve.id(), eve.id())),
        (A.repeat.default, (x, [3]), eve.id()),
    ):
        with pytest.raises(Deferred):
            eve.op(func, *args, outs=outs)
        assert (dict(session.objects), session.used, session.executed, [c.writes for _, c in session.objects.values()]) == before
    assert session.objects[x][0] is not None and torch.equal(session.objects[x][0], torch.ones(QUICK + 1))
    session.quick = False
    assert eve.get(eve.op(A.neg.default, x)).sum() == -(QUICK + 1)


def test_a_failure_on_private_values_is_deferred_as_success_would_be(eve: Eve, engine: Engine) -> None:
    engine.load("many", torch.full((QUICK + 1,), 7), ("#many",), private=True)
    many = eve.op(A.clone.default, eve.find("#many"))
    eve.session.quick = True
    with pytest.raises(Deferred):
        eve.op(A.index_select.default, eve.put(torch.ones(2)), 0, many)
    eve.session.quick = False
    bad = eve.op(A.index_select.default, eve.put(torch.ones(2)), 0, many)
    eve.session.quick = True
    with pytest.raises(Deferred):
        eve.op(A.neg.default, bad)


def test_views_and_small_work_never_wait(eve: Eve) -> None:
    x = eve.put(torch.ones(QUICK + 1))
    eve.session.quick = True
    view = eve.op(A.slice.Tensor, x, 0, 0, 3)
    assert torch.equal(eve.get(eve.op(A.neg.default, view)), -torch.ones(3))


# -- messages that break the protocol


@pytest.mark.parametrize("outs", [1, -1, "x", 1.5, [1], {}, True])
def test_results_must_be_fresh_ids_of_the_session(eve: Eve, outs: Any) -> None:
    x = eve.put(torch.ones(1))
    with pytest.raises(ProtocolError):
        eve.op(A.neg.default, x, outs=outs)
    with pytest.raises(ProtocolError):
        eve.op(A.neg.default, x, outs=x)


@pytest.mark.parametrize("func, named", [(A.neg.default, 0), (A.neg.default, 2), (A.sort.default, 1), (A.sort.default, 3), (A.unbind.int, 1), (A.add_.Scalar, 1)])
def test_as_many_results_as_the_operator_gives(eve: Eve, func: Any, named: int) -> None:
    x = eve.put(torch.ones(2))
    args = (x, 1.0) if func is A.add_.Scalar else (x,)
    outs: Any = tuple(eve.id() for _ in range(named)) if named else None
    with pytest.raises(ProtocolError):
        eve.op(func, *args, outs=outs)


def test_a_result_named_twice_breaks_the_protocol(eve: Eve) -> None:
    out = eve.id()
    with pytest.raises(ProtocolError, match="twice"):
        eve.op(A.sort.default, eve.put(torch.ones(2)), outs=(out, out))


def test_poison_is_a_plain_value() -> None:
    assert Poison(9, "no", 1, 2) == (9, "no", 1, 2)


def test_a_plan_that_was_light_is_deferred_on_views_that_are_not(eve: Eve) -> None:
    """An `expand` takes four bytes however large it is."""
    session, plan = eve.session, eve.id()
    code = tuple((BY_FUNC[A.sum.default].number, (1,), None, 2 + step) for step in range(3))
    eve.engine.handle(session, (m.PLAN, plan, 1, code, (4,)))
    one = eve.put(torch.ones(1))
    many = eve.op(A.expand.default, one, (QUICK * 100,))
    for quick, operand in ((False, one), (True, one)):
        session.quick = quick
        session.programs[plan].straight = None
        eve.engine.handle(session, (m.RUN, plan, (operand,), (session.prefix << 32) + 1000, (eve.id(),)))
    with pytest.raises(Deferred):
        eve.engine.handle(session, (m.RUN, plan, (many,), (session.prefix << 32) + 1000, (eve.id(),)))
