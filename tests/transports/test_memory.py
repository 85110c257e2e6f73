"""Workers in this process: what waits, in which order it is carried out, and in which surroundings."""

import signal
import threading
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.errors import ConnectionLostError, ObjectNotFoundError, QuotaExceededError
from syftlite.transports.memory import BATCH

PATIENCE = 20.0


@pytest.fixture
def worker(request):
    return sy.VirtualWorker(id=f"waits-{request.node.name}")


@pytest.fixture
def session(worker):
    return worker.transport.session


def test_operators_wait_for_a_question(worker, session):
    x = torch.arange(3.0).send(worker)
    told = session.executed
    y = (x + 1).relu()
    assert session.executed == told
    assert y.get_copy().tolist() == [1, 2, 3] and session.executed == told + 3


def test_no_more_than_a_batch_waits(worker, session):
    x = torch.zeros(3).send(worker)
    told = session.executed
    made = [x + i for i in range(BATCH - 1)]
    assert session.executed == told
    made.append(x.relu())
    assert session.executed == told + BATCH


@pytest.mark.parametrize(
    "look",
    [
        lambda w, y: w.transport.flush(),
        lambda w, y: w.engine,
        lambda w, y: w.objects_count(),
        lambda w, y: w.list_objects(),
        lambda w, y: torch.zeros(1).send(w),
        lambda w, y: y.tag("#y"),
        lambda w, y: y.add_(torch.rand(3).send(w)).bernoulli_(),
    ],
)
def test_whatever_else_is_told_or_asked_comes_after(worker, session, look):
    x = torch.zeros(3).send(worker)
    y = x + 1
    look(worker, y)
    assert y.id_at_location in session.objects


def test_what_is_dropped_makes_room_where_it_was_dropped(worker, session):
    """As if each operator had been carried out at once: of a chain only two links are there at a time."""
    x = torch.zeros(1000).send(worker)
    session.max_bytes = session.used + 3 * x.nbytes
    for _ in range(20):
        x = x + 1
    assert session.executed < 20 and x.get_copy()[0] == 20
    kept = [x + 1 for _ in range(5)]
    with pytest.raises(QuotaExceededError):
        kept[-1].get()


def test_ctrl_c_loses_nothing_that_was_promised(worker, monkeypatch):
    x, handle, seen = torch.ones(3).send(worker), worker.transport._handle, []

    def interrupted(session, message):
        seen.append(message)
        if len(seen) == 2:
            signal.raise_signal(signal.SIGINT)
        return handle(session, message)

    made = [x.add_(1) * 1 for _ in range(4)]
    monkeypatch.setattr(worker.transport, "_handle", interrupted)
    with handling_sigint(), pytest.raises(KeyboardInterrupt):
        made[-1].sum().item()
    assert len(seen) == 2
    assert [m.get().tolist() for m in made] == [[2 + i] * 3 for i in range(4)]


@contextmanager
def handling_sigint():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def test_random_numbers_come_in_the_programs_order(worker):
    def program(x):
        torch.manual_seed(1)
        made = [x + 1, torch.rand_like(x), torch.rand(3), torch.nn.functional.dropout(x, 0.5), torch.rand(3), x.clone().normal_()]
        torch.manual_seed(2)
        return [m.get() if isinstance(m, sy.PointerTensor) else m for m in [*made, torch.rand(3)]]

    for ours, theirs in zip(program(torch.ones(3).send(worker)), program(torch.ones(3)), strict=True):
        assert torch.equal(ours, theirs)


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def autocast_on_a_card():
    torch.set_autocast_enabled("cuda", True)
    try:
        yield
        assert torch.is_autocast_enabled("cuda")
    finally:
        torch.set_autocast_enabled("cuda", False)


SURROUNDINGS = {
    "nothing": nullcontext,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
    "default dtype": default_dtype,
    "device": lambda: torch.device("meta"),
    "counter": lambda: FlopCounterMode(display=False),
}


@pytest.mark.parametrize("surroundings", SURROUNDINGS)
def test_what_was_written_outside_is_carried_out_as_outside(worker, surroundings):
    def program(w):
        x, n = w.send(torch.ones(2, 2)), w.send(torch.arange(4).reshape(2, 2))
        return [x @ x, n / 2, n.double().mean(), torch.full_like(x, 2) @ x, n.cumsum(0)]

    expected = [y.get() for y in program(sy.VirtualWorker(id="at once", serialize=True))]
    waiting = program(worker)
    with SURROUNDINGS[surroundings]() as around:
        worker.transport.flush()
    assert not isinstance(around, FlopCounterMode) or around.get_total_flops() == 0
    assert torch.get_default_dtype() is torch.float32
    for ours, theirs in zip(waiting, expected, strict=True):
        ours.add_(0)  # a tensor of inference mode could not be written here
        ours = ours.get()
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)


@pytest.mark.parametrize("serialize", [False, True])
def test_what_is_told_and_asked_inside_is_carried_out_as_outside(serialize):
    w = sy.VirtualWorker(id=f"inside {serialize}", serialize=serialize)
    plan = sy.func2plan(args_shape=[(2, 2)])(lambda x: x @ x).send(w)
    with FlopCounterMode(display=False) as counted:
        plan(torch.ones(2, 2).send(w)).get()
    assert counted.get_total_flops() == 0
    with torch.inference_mode():
        made = [torch.ones(3).send(w), torch.rand(3), torch.nonzero(torch.ones(3).send(w)).double()]
        layer = torch.nn.Linear(3, 1)
        made[1] = made[1].send(w)
        layer.send(w)
    for pointer in made:
        assert not pointer.get().is_inference()
    layer.get()(torch.ones(1, 3)).backward()
    assert layer.weight.grad.tolist() == [[1, 1, 1]]


def test_the_processs_default_dtype_stays_as_it_was_written_with(worker, monkeypatch):
    """It is other threads' too."""
    handle, seen = worker.transport._handle, set()

    def looking(session, message):
        seen.add(torch.get_default_dtype())
        return handle(session, message)

    monkeypatch.setattr(worker.transport, "_handle", looking)
    x = torch.arange(3).send(worker)
    with default_dtype():
        seen.clear()
        assert (x / 2).exp().get().dtype is torch.float64 and seen == {torch.float64}


def test_autocast_for_a_card_does_not_reach_a_worker_that_keeps_its_tensors_there(worker, monkeypatch):
    handle, seen = worker.transport._handle, []
    monkeypatch.setattr(worker.transport, "_handle", lambda *told: seen.append(torch.is_autocast_enabled("cuda")) or handle(*told))
    with autocast_on_a_card():
        (torch.ones(2, 2).send(worker) @ torch.ones(2, 2).send(worker)).get()
    assert seen == [False] * 3


def test_what_was_written_outside_a_transform_is_carried_out_as_outside(worker):
    x = torch.ones(3).send(worker)
    y = x * 2

    def look(row):
        worker.transport.flush()
        return row * 3

    assert torch.vmap(look)(torch.ones(2, 3)).tolist() == [[3, 3, 3]] * 2
    assert torch.func.grad(lambda z: (worker.transport.flush(), (z * z).sum())[1])(torch.ones(3)).tolist() == [2, 2, 2]
    assert y.add_(1).get().tolist() == [3, 3, 3]


def test_who_asks_waits_for_what_another_thread_is_carrying_out(worker, monkeypatch):
    x = torch.zeros(3).send(worker)
    running, go_on, got = threading.Event(), threading.Event(), []
    handle = worker.transport._handle

    def slow(session, message):
        running.set()
        assert go_on.wait(PATIENCE)
        return handle(session, message)

    y = x + 1
    monkeypatch.setattr(worker.transport, "_handle", slow)
    first = threading.Thread(target=worker.transport.flush)
    first.start()
    assert running.wait(PATIENCE)
    second = threading.Thread(target=lambda: got.append(y.get()))
    second.start()
    go_on.set()
    first.join(PATIENCE)
    second.join(PATIENCE)
    assert got[0].tolist() == [1, 1, 1]


def test_what_is_told_while_something_is_carried_out_comes_after_it(worker, session, monkeypatch):
    x = torch.zeros(3).send(worker)
    handle, nested = worker.transport._handle, []

    def telling(session, message):
        if not nested:  # as the end of an object may, wherever the collector runs
            nested.append(torch.relu(y))
            worker.transport.flush()
            assert nested[0].id_at_location not in session.objects
        return handle(session, message)

    y = x + 1
    monkeypatch.setattr(worker.transport, "_handle", telling)
    worker.transport.flush()
    assert nested[0].id_at_location in session.objects and nested[0].get().tolist() == [1, 1, 1]


def test_nothing_waits_at_an_engine_that_others_look_at():
    engine = Engine("given")
    worker = sy.VirtualWorker(id="given", engine=engine)
    x = torch.zeros(3).send(worker)
    x.add_(1)
    assert engine.objects[x.id_at_location][0].tolist() == [1, 1, 1]


def test_nothing_waits_at_an_engine_that_somebody_has_taken(worker):
    x = torch.zeros(3).tag("#waits").send(worker)
    other = sy.VirtualWorker(id="other", engine=worker.engine)
    (found,) = other.search("#waits")
    x.add_(1)
    assert found.get_copy().tolist() == [1, 1, 1]


def test_a_place_is_remembered_for_each_that_waited(worker):
    x = torch.zeros(3).send(worker)
    wrong = x[torch.tensor([5]).send(worker)]
    fine = x + 1
    assert fine.get().tolist() == [1, 1, 1]
    with pytest.raises(IndexError, match=r"test_memory.py:\d+, in test_a_place_is_remembered"):
        wrong.get()


@pytest.mark.parametrize("serialize", [False, True])
def test_any_number_of_objects_goes_at_once(serialize):
    w = sy.VirtualWorker(id=f"many go {serialize}", serialize=serialize)
    x = torch.ones(2).send(w)
    w.drops.extend([w.next_id()] * 5000)  # more than a message holds
    assert x.get()[0] == 1 and w.objects_count() == 0


@pytest.mark.parametrize("serialize", [False, True])
def test_a_closed_worker_takes_nothing(serialize):
    w = sy.VirtualWorker(id=f"closed {serialize}", serialize=serialize)
    x, layer = torch.ones(2).send(w), torch.nn.Linear(2, 1).send(w)
    w.close()
    w.close()
    told = (lambda: torch.ones(2).send(w), lambda: x + 1, x.get, lambda: w.search("#x"), lambda: w.load(torch.ones(2)), layer.get, lambda: layer(x))
    for use in told:
        with pytest.raises(ConnectionLostError, match="closed"):
            use()
    assert "#objects:0" in repr(w)
    again = sy.VirtualWorker(id=f"closed {serialize}", serialize=serialize)
    assert again is not w and torch.ones(2).send(again).get().tolist() == [1, 1]


def test_the_local_worker_outlives_its_end():
    x = torch.ones(2).send(sy.local_worker)
    sy.local_worker.close()
    with pytest.raises(ObjectNotFoundError):
        x.get()
    assert torch.ones(2).send(sy.local_worker).get().tolist() == [1, 1]
