"""Sessions beside threads that are not theirs."""

import threading

import torch
from engine._threads import beside

from syftlite.engine import catalogue
from syftlite.engine.answers import spec_of
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role, Session
from syftlite.remote.virtual import VirtualWorker
from syftlite.testing.peer import Peer
from syftlite.wire import messages as m


def busy(session, first=1, times=20_000):
    """Work of ``session``'s own thread: objects come and go, a thousand at a time."""

    def work():
        x = torch.zeros(1)
        for i in range(times):
            session.put(session.prefix << 32 | first + i, x)
            if i >= 1000:
                session.drop(session.prefix << 32 | first + i - 1000)

    return work


def test_objects_are_counted_while_they_come_and_go():
    worker = VirtualWorker(id="counted")
    session, counts = Peer(worker.engine).door.session, []
    beside(busy(session), lambda: counts.append(worker.objects_count()))
    assert worker.objects_count() == 1000 and max(counts) <= 1001


def test_a_session_ends_while_others_work():
    """Ending one looks at the labels of all that is left."""
    engine = Engine("alice")
    session = Peer(engine).door.session

    def end():
        other = Peer(engine).door.session
        other.protected.append("icu")
        engine.close_session(other)

    beside(busy(session), end)
    assert len(session.objects) == 1000 and list(engine.sessions.values()).count(session) == 1


def test_objects_are_found_while_they_come_and_go(monkeypatch):
    """Any number of threads use a virtual worker: one of them lets go of what another's answer is about."""
    engine = Engine("alice")
    session = engine.open_session(Principal("carol", Role.SCIENTIST))
    for kind, fields in ((m.FIND, ((), 0)), (m.LIST, (0,))):
        for number in range(3):
            engine.handle(session, (m.PUT, (session.prefix << 32) + number, torch.zeros(2), (), ""))
        seen = []
        monkeypatch.setattr(catalogue, "spec_of", lambda tensor: seen.append(session.objects.clear()) or spec_of(tensor))  # noqa: B023
        answer = engine.handle(session, (kind, 1, *fields))
        assert answer[0] == m.FOUND and answer[2] == len(answer[3]) == len(seen) == 3


def test_nobody_waits_while_what_others_keep_is_looked_through(monkeypatch):
    """On the event loop's thread a client logs in, and another one drops what it has described."""
    engine = Engine("alice")
    carol = Principal("carol", Role.SCIENTIST)
    keeper, seeker = engine.open_session(carol), engine.open_session(carol)
    for number in range(3):
        engine.handle(keeper, (m.PUT, (keeper.prefix << 32) + number, torch.zeros(2), ("#kept",), ""))
    done, real = threading.Event(), catalogue.Catalogue._offered

    def others():
        engine.open_session(Principal("ben", Role.SCIENTIST))
        engine.handle(keeper, (m.DROP, ((keeper.prefix << 32) + 1,)))
        done.set()

    def offered(*given):
        numbers = real(*given)
        threading.Thread(target=others, daemon=True).start()
        assert done.wait(5), "they wait"
        return numbers

    monkeypatch.setattr(catalogue.Catalogue, "_offered", offered)
    assert engine.handle(seeker, (m.FIND, 1, ("#kept",), 0))[2] == 2


def test_nobody_waits_for_the_lock_while_what_a_session_had_is_dropped(monkeypatch):
    engine = Engine("alice")
    ended = engine.open_session(Principal("carol", Role.SCIENTIST))
    for number in range(3):
        ended.put((ended.prefix << 32) + number, torch.zeros(2))
    drop, done = Session.drop, threading.Event()

    def others():
        engine.close_session(engine.open_session(Principal("ben", Role.SCIENTIST)))
        done.set()

    def dropped(session, number):
        threading.Thread(target=others, daemon=True).start()
        assert done.wait(30), "they wait"
        drop(session, number)

    monkeypatch.setattr(Session, "drop", dropped)
    engine.close_session(ended)
    assert not ended.objects and list(engine.sessions) == [engine.vault.prefix]
