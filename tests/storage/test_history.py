"""What has left of a dataset is known after a restart, and more rows do not undo it."""

import os
import signal
from dataclasses import replace

import numpy
import pytest
import torch

from syftlite._torch import aten
from syftlite.engine.engine import Engine
from syftlite.engine.journal import MemoryHistory
from syftlite.engine.session import Principal, Role
from syftlite.policy.lineage import Frame
from syftlite.policy.partition import Aggregate, Partition
from syftlite.policy.rules import aggregate_only, allow
from syftlite.policy.terms import Rate
from syftlite.storage.database import Database
from syftlite.storage.history import StoredHistory
from syftlite.testing.peer import Peer, number_of
from syftlite.wire import messages as m

POLICY = aggregate_only(5, ratio=1.0)


def sum_of(engine, rows):
    """What a scientist is told of the sum over ``rows``."""
    peer = Peer(engine, "carol")
    number = engine.names["icu"]
    peer.say((m.FIND, 1, ("#icu",), 0))
    index, some, total = peer.id(1), peer.id(2), peer.id(3)
    peer.say((m.PUT, index, torch.tensor(rows), (), ""))
    peer.say((m.OP, number_of(aten.index_select.default), (number, 0, index), None, some))
    peer.say((m.OP, number_of(aten.sum.dim_IntList), (some, (0,)), None, total))
    return peer.say((m.GET, 2, (total,), False, None))[0][0]


def node(path, rows):
    return Engine("node", history=StoredHistory(Database(path)), policies={"icu": POLICY}), torch.randn(rows, 2, dtype=torch.float64)


def test_what_has_left_survives(tmp_path):
    engine, x = node(tmp_path / "node.db", 40)
    engine.load("icu", x, ["#icu"], private=True)
    assert sum_of(engine, list(range(40))) == m.VALUES
    again, _ = node(tmp_path / "node.db", 40)
    again.load("icu", x, ["#icu"], private=True)
    assert sum_of(again, list(range(39))) == m.ERROR, "the difference is one row"
    assert sum_of(again, list(range(20))) == m.VALUES
    forgetful = Engine("node", policies={"icu": POLICY})
    forgetful.load("icu", x, ["#icu"], private=True)
    assert sum_of(forgetful, list(range(39))) == m.ERROR, "one row is left over"
    assert sum_of(forgetful, list(range(35))) == m.VALUES


def test_a_disk_that_fails_lets_nothing_go(tmp_path, monkeypatch):
    engine, x = node(tmp_path / "node.db", 40)
    engine.load("icu", x, ["#icu"], private=True)

    def fail(changed):
        raise OSError("disk full")

    monkeypatch.setattr(engine.policies.history, "save", fail)
    assert sum_of(engine, list(range(40))) == m.ERROR
    monkeypatch.undo()
    assert sum_of(engine, list(range(40))) == m.VALUES


def test_a_partition_is_what_it_was():
    frame = Frame("icu", 30)
    half = frame.selection(numpy.arange(30) < 15, derived=True)
    left = Partition.fresh(30).release(frame, [half], 3, Aggregate(5, 1.0))
    back = Partition.load(left.told_one().dump())
    assert (back.atoms == left.atoms).all() and (back.touched == left.touched).all() and back.told == 1 and back.derived
    grown = back.of_size(33)
    larger = Frame("icu", 33)
    first = larger.selection(numpy.arange(33) < 15, derived=True)
    assert len(set(grown.atoms[30:])) == 1 and grown.release(larger, [first], 1, Aggregate(5, 1.0)) is None


@pytest.mark.parametrize("role", list(Role))
def test_only_the_owner_states_policies_and_forgives(role):
    engine = Engine("node")
    engine.load("icu", torch.randn(40, 2), ["#icu"], private=True)
    session = engine.open_session(Principal("x", role))
    answer = engine.handle(session, (m.POLICY, 1, "icu", '[{"aggregate": {"min_units": 5}}]'))
    assert answer[0] == (m.DONE if role is Role.OWNER else m.ERROR)
    assert (engine.policies.of(["icu"])["icu"].aggregate is not None) == (role is Role.OWNER)


def fixed():
    return torch.arange(80.0, dtype=torch.float64).sin().view(40, 2)


@pytest.mark.parametrize("after", [False, True], ids=["before it is on disk", "after"])
def test_a_kill_at_the_release_forgets_nothing_that_was_told(tmp_path, after):
    child = os.fork()
    if not child:
        try:
            engine, _ = node(tmp_path / "node.db", 40)
            engine.load("icu", fixed(), ["#icu"], private=True)
            save = engine.policies.history.save
            engine.policies.history.save = lambda changed: (after and save(changed), os.kill(os.getpid(), signal.SIGKILL))
            sum_of(engine, list(range(40)))
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL, "nothing was told before it was on disk"
    again, _ = node(tmp_path / "node.db", 40)
    again.load("icu", fixed(), ["#icu"], private=True)
    assert (again.policies.history.load("icu") is not None) == after
    assert sum_of(again, list(range(40))) == m.VALUES


def test_a_rate_holds_over_a_restart(tmp_path):
    now = [1000.0]
    policy = replace(allow(), rate=Rate(2, 60.0))

    def left(history):
        engine = Engine("node", history=history, clock=lambda: now[0])
        engine.load("icu", torch.ones(3), ["#icu"], policy=policy)
        peer = Peer(engine, "carol")
        peer.say((m.FIND, 1, ("#icu",), 0))
        return peer.say((m.GET, 2, (engine.names["icu"],), False, None))[0][0] == m.VALUES

    def stored():
        return StoredHistory(Database(tmp_path / "node.db"))

    assert [left(stored()) for _ in range(3)] == [True, True, False]
    now[0] += 61
    assert left(stored()) and stored().times("icu", "carol") == [1061.0]
    assert [left(MemoryHistory()) for _ in range(3)] == [True] * 3, "which forgets"
