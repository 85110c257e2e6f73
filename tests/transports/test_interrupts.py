"""Ctrl-C between pieces: late by one piece at most, and at once in a wait, or if it comes again."""

import os
import signal
import threading

import pytest

from syftlite.transports import interrupts
from syftlite.transports.interrupts import Held


@pytest.fixture(autouse=True)
def _handler():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.signal(signal.SIGINT, before) is signal.default_int_handler


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_it_comes_between_pieces():
    done = []
    with pytest.raises(KeyboardInterrupt), Held() as held:
        for piece in range(4):
            held.between()
            if piece == 1:
                interrupt()
            done.append(piece)
    assert done == [0, 1]


def test_it_comes_at_the_end_at_the_latest_and_hides_no_error():
    done = []
    with pytest.raises(KeyboardInterrupt), Held():
        interrupt()
        done.append(1)
    assert done == [1]
    with pytest.raises(ValueError, match="mine"), Held():
        interrupt()
        raise ValueError("mine")


def test_it_comes_at_once_in_a_wait_or_a_second_time_or_when_a_piece_takes_long(monkeypatch):
    for urgent in ("waiting", "again", "stuck"):
        done = []
        with pytest.raises(KeyboardInterrupt), Held() as held:
            if urgent == "waiting":
                held.waiting = True
            elif urgent == "again":
                interrupt()
                done.append(0)
            else:
                monkeypatch.setattr(interrupts, "PATIENCE", -1.0)
            interrupt()
            done.append(1)
        assert done == ([0] if urgent == "again" else [])


def test_other_threads_and_other_handlers_are_left_alone():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(Held().__enter__()._handler))
    thread.start()
    thread.join()
    assert seen == [None] and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    for handler in (signal.SIG_IGN, lambda *told: seen.append(told[0])):
        signal.signal(signal.SIGINT, handler)
        with Held() as held:
            interrupt()
            held.between()
    assert seen == [None, signal.SIGINT]
    signal.signal(signal.SIGINT, signal.default_int_handler)
