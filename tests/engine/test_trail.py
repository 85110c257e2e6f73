"""One record a frame that met labelled data, before anything that it led to may leave."""

import pytest
import torch

import syftlite as sy
from syftlite._torch import aten
from syftlite.engine.access import kinds_of
from syftlite.engine.engine import Engine
from syftlite.engine.journal import MemoryJournal
from syftlite.engine.kinds import JOURNALLED, RELEASING
from syftlite.engine.session import Principal, Role
from syftlite.engine.trail import MAX_NAMED, named
from syftlite.errors import GetNotPermittedError
from syftlite.remote.worker import BaseWorker
from syftlite.storage.journal import NOTED
from syftlite.testing import Simulator
from syftlite.testing.peer import Peer, number_of
from syftlite.transports.memory import MemoryTransport, SerializingTransport
from syftlite.wire import messages as m


def frames(journal):
    return [record for event, record in journal.events if event == "frame"]


@pytest.fixture
def engine():
    engine = Engine("trail", journal=MemoryJournal())
    engine.load("icu", torch.ones(6, 3), ["#icu"], private=True)
    engine.load("map", torch.arange(6), ["#map"])
    return engine


def scientist(engine, kind):
    return BaseWorker(f"trail-{id(object())}", kind(engine, Principal("carol", Role.SCIENTIST)))


def test_a_frame_says_who_did_what_on_which_data():
    with Simulator(seed=3) as simulator:
        node = simulator.node("trail")
        node.load("icu", torch.ones(6, 3), ["#icu"], private=True)
        worker = simulator.worker("trail", "carol")
        (x,) = worker.search("#icu")
        kept = [x.mul(2) for _ in range(10)]
        kept.append(x.mean(0))
        with pytest.raises(GetNotPermittedError):
            kept[-1].get()
        told = frames(node.journal)
        assert [(f["principal"], f["sources"]) for f in told] == [("carol", ["icu"])] * len(told)
        total = {}
        for frame in told:
            for name, count in frame["operators"].items():
                total[name] = total.get(name, 0) + count
        assert total == {"mul.Tensor": 10, "mean.dim": 1}
        assert len(told) <= 2, "one a frame, not one an operator"
        assert [event for event, _ in node.journal.events][-1] == "refused", "what led to it comes before"


@pytest.mark.parametrize("kind", [MemoryTransport, SerializingTransport])
def test_what_led_to_a_release_is_on_record_before_it(engine, kind):
    worker = scientist(engine, kind)
    (x,) = worker.search("#icu")
    x.mean(0).request("means")
    events = [event for event, _ in engine.journal.events]
    assert events[-2:] == ["frame", "filed"]


def test_public_work_leaves_no_record(engine):
    worker = scientist(engine, SerializingTransport)
    (m,) = worker.search("#map")
    (m + 1).get()
    (torch.ones(3).send(worker) * 2).get()
    assert not frames(engine.journal) and worker.transport.session.trail is None


def test_operators_beyond_the_first_are_counted_together():
    counts = {number: 30 - number for number in range(1, 30)}
    shown = named(counts.items())
    assert len(shown) == MAX_NAMED + 1 and sum(shown.values()) == sum(counts.values())
    assert next(iter(shown)) == "add.Tensor"


def test_only_what_lets_nothing_go_may_be_unsigned():
    assert {"filed", "approved", "denied", "released", "refused", "stored"}.isdisjoint(NOTED)


def test_what_a_session_did_is_on_record_when_it_ends(engine):
    """Also if its lane stopped at an answer that nobody read."""
    peer = Peer(engine)
    (icu,) = [row[0] for row in peer.say((m.FIND, 1, ("#icu",), 0))[0][3]]
    neg = (m.OP, number_of(torch.ops.aten.neg.default), (icu,), None, peer.id(1))
    peer.door.receive(b"".join(b"".join(parts) for parts in peer.connection.frames([neg, (m.LIST, 2, 0), (m.SYNC, 3)])))
    peer.door.run()
    list(peer.door.frames())
    peer.door.leave()
    assert [record["operators"] for record in frames(engine.journal)] == [{"neg.default": 1}]


def test_everything_that_answers_with_what_derives_from_private_data_is_recorded_first():
    """Of the messages that journal something of their own, those that a scientist may send."""
    ends_on_disk = (JOURNALLED | {m.GET, m.ASK, m.SHIP, m.SPLIT, m.SPREAD, m.AGGREGATE}) & kinds_of(Role.SCIENTIST, None)
    assert ends_on_disk - {m.STATUS, m.PROTECT} <= RELEASING


def test_a_session_ends_though_the_journal_fails(engine, monkeypatch):
    peer = Peer(engine)
    (icu,) = [row[0] for row in peer.say((m.FIND, 1, ("#icu",), 0))[0][3]]
    session = peer.door.session
    session.trace(number_of(torch.ops.aten.neg.default), (icu,), None, peer.id(1), session.objects[icu][1].mark)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(engine.journal, "note", full)
    with pytest.raises(OSError, match="no space"):
        engine.close_session(session)
    assert session.prefix not in engine.sessions and not session.objects


def test_what_is_put_off_to_another_thread_is_on_record_once():
    """Each operator here takes too long for the event loop's thread, whether it succeeds, fails, writes or answers."""
    told = []
    for quick in (False, True):
        engine = Engine("trail", journal=MemoryJournal())
        engine.load("icu", torch.ones(400_000, 2), ["#icu"], policy=sy.policy.allow() | sy.policy.dp(9.0))
        peer = Peer(engine, quick=quick)
        x = peer.say((m.FIND, 1, ("#icu",), 0))[0][3][0][0]
        one, two, three = (peer.id(n) for n in (1, 2, 3))
        peer.say((m.OP, number_of(aten.clone.default), (x,), None, one))
        peer.say((m.OP, number_of(aten.exp_.default), (one,), None, None))
        peer.say((m.OP, number_of(aten.index_select.default), (one, 0, one), None, two))
        peer.say((m.OP, number_of(aten.exp.default), (two,), None, three))
        assert peer.say((m.ASK, 2, number_of(aten.equal.default), (one, one), None, None))[0][0] == m.SPECS
        peer.say((m.FILE, 3, (one,), "why"))
        (request,) = engine.gate.requests.all.values()
        told.append((request.program, list(peer.door.session.trail.steps), [record["operators"] for record in frames(engine.journal)]))
    assert told[0][0] == told[1][0] and len(told[0][1]) == len(told[1][1]) == 5
    assert told[0][2] == told[1][2] and sum(sum(each.values()) for each in told[0][2]) == 5
