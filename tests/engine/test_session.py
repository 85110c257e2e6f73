"""Sessions beside threads that are not theirs."""

import torch
from engine._threads import beside

from syftlite.engine.engine import Engine
from syftlite.remote.virtual import VirtualWorker
from syftlite.testing.peer import Peer


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
