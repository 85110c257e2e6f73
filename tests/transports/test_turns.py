"""One thread reads for all that wait: each is woken for its own answer alone, and somebody always reads."""

import threading

import pytest

from syftlite.transports import turns as module
from syftlite.transports.turns import Turns

PATIENCE = 30.0


class Waiting(threading.Thread):
    """A thread that waits for the answer to ``request``; what `lead` gave it."""

    def __init__(self, turns, request, seconds=None):
        super().__init__(daemon=True)
        self.turns, self.request, self.seconds = turns, request, seconds
        self.led = self.error = None
        turns.ask(request)
        self.start()
        while request not in turns._gates and self.is_alive():
            pass

    def run(self):
        try:
            self.led = self.turns.lead(self.request, self.seconds)
        except TimeoutError as error:
            self.error = error

    def done(self):
        self.join(PATIENCE)
        assert not self.is_alive()
        return self.error or self.led


@pytest.fixture
def turns():
    made = Turns()
    made.ask(1)
    assert made.lead(1, None), "nobody else reads"
    return made


def test_an_answer_wakes_who_waits_for_it_and_nobody_else(turns):
    two, three = Waiting(turns, 2), Waiting(turns, 3)
    turns.deliver(3, ("three",))
    assert three.done() is False and turns.answers[3] == ("three",)
    assert two.is_alive() and set(turns._gates) == {2}
    turns.deliver(2, ("two",))
    assert two.done() is False


def test_who_has_its_answer_passes_the_reading_on(turns):
    two = Waiting(turns, 2)
    turns.pass_on()
    assert two.done() is True and not turns.try_to_lead()
    turns.pass_on()
    assert turns.try_to_lead(), "nobody reads, and nobody waits"


def test_an_answer_that_is_there_is_not_waited_for(turns):
    turns.ask(2)
    turns.deliver(2, ("two",))
    assert turns.lead(2, None) is False


def test_nobody_keeps_what_nobody_wants(turns):
    turns.deliver(7, ("never asked",))
    turns.ask(8)
    turns.forget(8)
    turns.deliver(8, ("not any more",))
    turns.ask(9)
    turns.deliver(9, ("read",))
    turns.forget(9)
    assert not turns.answers


def test_the_end_wakes_all(turns):
    waiting = [Waiting(turns, number) for number in (2, 3)]
    turns.end()
    assert [w.done() for w in waiting] == [False, False]
    turns.ask(4)
    assert turns.lead(4, None) is False and not turns.try_to_lead()


def test_who_waits_too_long_leaves_no_gate(turns):
    late = Waiting(turns, 2, seconds=0.01)
    assert isinstance(late.done(), TimeoutError) and not turns._gates
    turns.pass_on()
    assert turns.try_to_lead()


@pytest.mark.parametrize("meanwhile", ["leads", "answered", "neither"])
def test_an_interrupt_while_waiting_loses_no_turn(turns, monkeypatch, meanwhile):
    class Interrupted(module._Gate):
        def __init__(self):
            super().__init__()
            self.shut = self

        def acquire(self, timeout):
            {"leads": turns.pass_on, "answered": lambda: turns.deliver(2, ("two",)), "neither": lambda: None}[meanwhile]()
            raise KeyboardInterrupt

        def release(self):
            pass

    with monkeypatch.context() as patch:
        patch.setattr(module, "_Gate", Interrupted)
        turns.ask(2)
        with pytest.raises(KeyboardInterrupt):
            turns.lead(2, None)
    three = Waiting(turns, 3)
    assert turns.leader == (2 if meanwhile == "leads" else 1)
    turns.forget(2)
    turns.forget(1)
    assert three.done() is True and not turns.answers and turns.leader == 3, "somebody reads"


def test_one_that_is_interrupted_before_it_reads_is_not_waited_for(turns):
    two = Waiting(turns, 2)
    turns.forget(1)
    assert two.done() is True
    turns.forget(2)
    assert turns.leader is None


def test_many_threads_ask_and_all_are_answered():
    """Whoever leads reads what there is to read, one answer at a time, in an order of its own."""
    turns, answered, lock = Turns(), [], threading.Lock()
    pending = []

    def query(start):
        for number in range(start, start + 50):
            turns.ask(number)
            with lock:
                pending.insert(len(pending) // 2, number)
            if turns.lead(number, PATIENCE):
                while number not in turns.answers:
                    with lock:
                        due = pending.pop() if pending else None
                    if due is not None:
                        turns.deliver(due, (due,))
                turns.pass_on()
            answered.append(turns.answers[number][0] == number)
            turns.forget(number)

    threads = [threading.Thread(target=query, args=(1000 * i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(answered) == 400 and all(answered) and not turns.answers and not turns._gates
