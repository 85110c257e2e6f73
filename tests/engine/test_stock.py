"""What is dealt and expanded ahead of use: when, how much, and that it is what would have been taken."""

import os
import subprocess
import sys
import threading

import pytest

from syftlite.engine import spare, stock, streams
from syftlite.engine.batches import Batches
from syftlite.engine.stock import Stock
from syftlite.engine.streams import Ahead, Need
from syftlite.mpc.party import Party, group_keys

REQUESTS = (("trunc", (8, 12)), ("product", ("mul", (4,), (4,), ())))


class FakeStream:
    """What a `Stock` looks at of a stream."""

    def __init__(self, rows=1, requests=REQUESTS):
        self.rows, self.requests, self.runs = rows, (), 0
        self.found = requests
        self.party = Party(0, 2, group_keys(os.urandom(32), 2)[0])

    def rehearse(self, row, pause=lambda: None):
        pause()
        assert row == (8,)
        self.requests = self.found


@pytest.fixture
def no_pause(monkeypatch):
    """Nobody waits for quiet."""
    monkeypatch.setattr(spare, "QUIET", 0.0)


def filled(kept, stream, runs):
    """Wait until ``runs`` of ``stream`` are expanded."""
    enough = threading.Event()
    while kept.runs(stream) < runs or len(stream.party._expanded) < runs * len(REQUESTS):
        enough.wait(0.001)


def test_a_stock_fills_up_while_idle_and_stops_at_its_bound(no_pause, monkeypatch):
    monkeypatch.setattr(stock, "MAX_RUNS", 3)
    stream, unknown = FakeStream(), FakeStream(rows=2, requests=())
    kept = Stock([stream, unknown], (8,))
    kept.start()
    filled(kept, stream, 3)
    assert kept._least() is None and kept.runs(unknown) == 0
    taken = stream.party.correlated("trunc", 8, 12)
    again = Party(0, 2, stream.party._keys).correlated("trunc", 8, 12)
    assert all((taken[name] == again[name]).all() for name in ("r", "t", "m"))
    stream.party.correlated("product", "mul", (4,), (4,), ())
    kept.begin()
    stream.runs += 1
    assert kept.runs(stream) == 2
    kept.end()
    filled(kept, stream, 3)
    kept.stop()
    assert kept._next() is None


def test_nothing_is_expanded_while_a_run_is_under_way():
    stream = FakeStream()
    stream.rehearse((8,))
    kept = Stock([stream], (8,))
    kept.begin()
    kept._ended = False
    assert kept._busy == 1 and kept._least() is stream
    kept.stop()
    assert kept._next() is None and not stream.party._expanded


def test_what_is_too_large_is_not_kept(monkeypatch):
    monkeypatch.setattr(stock, "BUDGET", 10)
    stream = FakeStream()
    stream.rehearse((8,))
    assert Stock([stream], (8,))._least() is None


class Came:
    """Corrections that are there at once."""

    def __call__(self, number, nbytes):
        raise AssertionError("nothing is used here")

    def here(self, number, seconds):
        return True


def test_all_streams_are_dealt_for_alike_and_then_the_one_that_ran_last(no_pause, monkeypatch):
    monkeypatch.setattr(streams, "BUDGET", 1000)
    asked = []
    ahead = Ahead({1: Need(1, 100, 0), 4: Need(1, 400, 0)}, asked.append, Came())

    def fill():
        while (deal := next_without_waiting(ahead)) is not None:
            deal()

    fill()
    assert ahead.stock == {1: 5, 4: 1}, "each half of the budget"
    ahead.use(4)
    ahead.end()
    fill()
    assert ahead.stock == {1: 5, 4: 3}, "1,700 of 2,000 bytes"
    assert sorted(asked) == [1] * 5 + [4] * 4, "and one of 4 rows was used"


def test_a_provider_that_deals_nothing_is_told_of_once(no_pause):
    told = []
    ahead = Ahead({1: Need(1, 100, 0)}, lambda rows: None, Came())
    ahead.failed = told.append
    ahead._came.here = lambda number, seconds: False
    next_without_waiting(ahead)()
    assert len(told) == 1 and "dealt nothing" in told[0] and ahead._next() is None


IN_TORCH = """
import threading, torch
from syftlite.engine.spare import SpareTime
begun = threading.Event()
class Long(SpareTime):
    def _job(self):
        return self._multiply
    def _multiply(self):
        for _ in range(50):
            torch.randn(300, 300) @ torch.randn(300, 300)
        begun.set()
long = Long("long")
long.start()
begun.wait()
"""


def test_a_process_ends_cleanly_in_the_midst_of_a_job():
    done = subprocess.run([sys.executable, "-c", IN_TORCH], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr


def next_without_waiting(ahead):
    """What is asked for next; None where it would wait."""
    ahead._changed.wait = lambda *_: ahead.stop()
    found = ahead._next()
    ahead._ended = False
    return found


def test_batches_take_one_of_each_channel_in_turn_while_they_fit():
    ready = Batches([1, 2, 4])
    for number, rows in enumerate((1, 1, 2)):
        ready.add(("a", number), rows)
    ready.add(("b", 0), 2)
    assert ready.next() == (4, [("a", 0), ("b", 0), ("a", 1)]) and ready
    assert ready.of("a") == {("a", 2)} and ready.next() == (2, [("a", 2)]) and not ready
    ready.add(("c", 0), 3)
    assert ready.drop("c") == [("c", 0)] and ready.drop("c") == [] and not ready


def test_batches_wait_for_those_of_the_last_one_a_moment():
    ready = Batches([1, 4])
    ready.ran([("a", 0), ("b", 0)], now=10.0)
    ready.add(("a", 1), 1)
    assert ready.patience(10.0) > 0 == ready.patience(11.0)
    assert not ready.enough({"a", "b"}) and ready.enough({"a"}), "b is gone"
    ready.add(("b", 1), 1)
    assert ready.enough({"a", "b"})
    ready.ran([("a", 1), ("c", 1)], now=11.0)
    assert not ready.enough({"a", "b", "c"})
    ready.add(("d", 0), 2)
    assert ready.enough({"a", "b", "c"}), "it is full"
