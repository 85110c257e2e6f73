"""The thread that flushes what nobody flushed: when it works, and when it sleeps."""

import threading

import pytest
import torch

import syftlite as sy
from syftlite.transports.client import FIRST
from syftlite.transports.tender import BUSY_TICKS, QUIET_TICKS, Tender

PATIENCE = 20.0


class Session:
    """Counts ticks; ``script``: what happens at each, by its number."""

    def __init__(self, script):
        self.script, self.ticks, self.flushes, self.flushed = script, 0, 0, []
        self.open, self.waiting, self.patience = True, False, 1
        self.polls = 0

    def flush(self):
        self.flushes += 1
        self.flushed.append(self.ticks)
        self.waiting = False

    def poll(self):
        self.polls += 1

    def tick(self, seconds):
        self.ticks += 1
        self.script.get(self.ticks, lambda s: None)(self)


def queued(session):
    session.waiting = True


def flushed_by_its_own(session):
    session.flushes += 1
    session.waiting = False


def ticks_until_it_sleeps(script):
    session = Session(script)
    Tender(session, session.tick)._look_after(session)
    return session


def test_it_sleeps_where_nothing_is_queued():
    assert ticks_until_it_sleeps({}).ticks == QUIET_TICKS


def test_what_was_queued_is_flushed_and_it_stays_awake():
    session = ticks_until_it_sleeps({3: queued})
    assert session.flushed == [3] and session.ticks == 3 + BUSY_TICKS


def test_whoever_flushes_for_themselves_does_not_keep_it_awake():
    """A kernel flushes its own messages, five milliseconds apart: three threads that wake each millisecond would take a core's tenth."""
    session = ticks_until_it_sleeps(dict.fromkeys(range(1, 200), flushed_by_its_own))
    assert session.flushed == [] and session.ticks == QUIET_TICKS


@pytest.mark.parametrize("busy", [False, True])
def test_the_end_of_the_program_is_the_end_of_it(busy):
    """Asleep, and awake for a session that always has something."""
    session, awake = Session({}), threading.Event()

    def tick(seconds):
        session.waiting = True
        awake.set()

    session.waiting = busy
    tender = Tender(session, tick)
    thread = threading.Thread(target=tender._tend, daemon=True)
    thread.start()
    if busy:
        assert awake.wait(PATIENCE)
    tender.end()
    thread.join(PATIENCE)
    assert not thread.is_alive()


def test_what_was_queued_since_the_last_flush_has_its_millisecond():
    def both(session):
        flushed_by_its_own(session)
        queued(session)

    session = ticks_until_it_sleeps({2: both})
    assert session.flushed == [3] and session.ticks == 3 + BUSY_TICKS


def test_late_is_when_nobody_has_flushed_for_as_long_as_the_session_says():
    def patient(session):
        queued(session)
        session.patience = 16

    session = ticks_until_it_sleeps({3: patient, 10: flushed_by_its_own, 12: queued})
    assert session.flushed == [10 + 16]


@pytest.fixture
def remote(request):
    cluster = sy.LocalCluster("tended")
    request.addfinalizer(cluster.stop)
    (worker,) = cluster.start()
    return worker


def test_what_is_held_wakes_nobody_and_goes_with_the_next_question(remote, monkeypatch):
    from syftlite._torch import aten
    from syftlite.ops.table import BY_FUNC
    from syftlite.wire.messages import GET, OP

    woken = threading.Event()
    x = torch.arange(3.0).send(remote)
    transport = remote.transport
    while not transport._tender.dozing:
        woken.wait(0.001)
    monkeypatch.setattr(transport._tender, "wake", woken.set)
    number = remote.next_id()
    remote.hold((OP, BY_FUNC[aten.relu.default].number, (x.id_at_location,), None, number))
    assert not woken.is_set() and transport.waiting
    assert transport.ask(GET, [number], True, None)[2][0].tolist() == [0, 1, 2] and not transport.waiting


def test_batches_grow_until_somebody_asks(remote, monkeypatch):
    asleep = threading.Event()
    x = torch.arange(3.0).send(remote)
    transport = remote.transport
    for _ in range(2):
        x.get_copy()
        while not transport._tender.dozing:
            asleep.wait(0.001)
        monkeypatch.setattr(transport._tender, "wake", lambda: None)
        sizes, patience, before = [], [], transport.flushes
        for number in range(1, FIRST + 2 * FIRST + 4 * FIRST + 1):
            x + 1
            if transport.flushes != before:
                before = transport.flushes
                sizes.append(number - sum(sizes))
                patience.append(transport.patience)
        assert sizes == [FIRST, 2 * FIRST, 4 * FIRST] and patience == [2, 4, 8]
        monkeypatch.undo()
