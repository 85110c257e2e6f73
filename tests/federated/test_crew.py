"""As many at a time as can compute; whoever sleeps holds nobody up; nothing begins after the end."""

import math
import threading
from concurrent.futures import FIRST_COMPLETED

import pytest

from syftlite.federated import crew as module
from syftlite.federated.crew import Crew


def test_as_many_at_a_time_as_there_are_cores_and_each_in_its_turn():
    crew, at_work, seen, order, lock = Crew(2, 8), [0], [0], [], threading.Lock()

    def task(number):
        with lock:
            at_work[0] += 1
            seen[0] = max(seen[0], at_work[0])
            order.append(number)
        with lock:
            at_work[0] -= 1
        return number

    futures = [crew.submit(task, n) for n in range(200)]
    assert crew.wait(futures, math.inf) == set(futures)
    assert [f.result() for f in futures] == list(range(200)) and seen[0] <= 2
    assert all(abs(place - number) <= 2 for place, number in enumerate(order))
    crew.leave()


def test_sleepers_hold_nobody_up(monkeypatch):
    monkeypatch.setattr(module, "PATIENCE", 0.01)
    crew, go = Crew(2, 4), threading.Event()
    sleepers = [crew.submit(go.wait, 60) for _ in range(2)]
    others = [crew.submit(int, 7) for _ in range(3)]
    assert crew.wait(others, 60.0) == set(others) and not any(s.done() for s in sleepers)
    go.set()
    assert crew.wait(sleepers, 60.0) == set(sleepers)
    crew.leave()


def test_time_is_up_and_the_first_is_enough():
    crew, begun, go = Crew(1, 1), threading.Event(), threading.Event()
    quick, slow = crew.submit(int, 1), crew.submit(lambda: begun.set() or go.wait(60))
    assert crew.wait([quick, slow], 60.0, FIRST_COMPLETED) == {quick}
    assert crew.wait([slow], 0.0) == set() == crew.wait([slow], -1.0)
    waits = crew.submit(int, 2)
    assert begun.wait(60)
    crew.leave()
    assert waits.cancelled() and not slow.cancelled()
    go.set()
    assert slow.result(60)


def test_an_error_is_its_own_tasks():
    crew = Crew(1, 1)
    bad, good = crew.submit(int, "no number"), crew.submit(int, "5")
    crew.wait([bad, good], math.inf)
    with pytest.raises(ValueError, match="no number"):
        bad.result()
    assert good.result() == 5
    crew.leave()
