"""Random pointer programs on links that fail: right values, in order, at most once, or ConnectionLostError with its cause."""

import os
import random

import pytest
import torch

from syftlite.engine.door import Door
from syftlite.engine.session import Role
from syftlite.errors import AuthenticationError, ConnectionLostError, IdNotUniqueError, SyftliteError
from syftlite.testing import Faults, Simulator
from syftlite.wire import codec
from syftlite.wire.connection import Connection

RUNS = int(os.environ.get("SYFTLITE_SIMULATIONS", "1000"))
MIXED = {"drop": 0.01, "delay": 0.01, "cut": 0.005, "reorder": 0.02, "duplicate": 0.01}
CAUSES = (
    "frames were lost, repeated or reordered",
    "expected message",
    "the line was cut",
    "gave no answer within",
    "the node closed the connection: ProtocolError",  # its own account of it was dropped
)


def program(simulator, worker, steps, offset=0, rng=None):
    """Yield after each of ``steps`` random steps; every value that comes back is compared with its local twin."""
    rng = rng or random.Random(simulator.seed)
    twins = []

    def put():
        size = rng.choice((1, 3, 7, 20_000)) if rng.random() < 0.1 else 3
        local = torch.arange(size) + offset + rng.randrange(1000)
        twins.append((local.send(worker), local))

    def compare(pointer, local, value):
        simulator.check(torch.equal(value, local), f"{worker.id} returned {value.flatten()[:4]}, {local.flatten()[:4]} is right")

    put()
    for _ in range(steps):
        kind = rng.choice(("put", "out", "out", "in place", "in place", "view", "read", "take", "drop"))
        pointer, local = twins[rng.randrange(len(twins))]
        if kind == "put" or len(twins) < 2:
            put()
        elif kind == "out":
            twins.append((pointer * 3 - pointer // 2, local * 3 - local // 2))
        elif kind == "in place":
            amount = rng.randrange(1, 100)
            pointer.add_(amount)
            local.add_(amount)
        elif kind == "view":
            twins.append((pointer[:2], local[:2]))
        elif kind == "read":
            compare(pointer, local, pointer.get_copy())
        else:
            twins = [t for t in twins if t[0] is not pointer]
            if kind == "take":
                compare(pointer, local, pointer.get())
            del pointer
        yield
    while twins:
        pointer, local = twins.pop()
        compare(pointer, local, pointer.get())
        yield


def in_order_and_once(simulator, worker, node):
    transport = worker.transport
    done = [message for prefix, message in simulator.node(node).done if prefix == transport.prefix]
    simulator.check(done == transport.sent[: len(done)], "the node carried out something else than the beginning of what was sent")


def run(seed, steps=12, **faults):
    """One program on one link. Whether it came to its end; raises unless all that it promises holds."""
    with Simulator(seed, **faults) as simulator:
        try:
            worker = simulator.worker(f"node-{seed}")
        except ConnectionLostError as error:
            named(simulator, error)
            return False
        try:
            for _ in program(simulator, worker, steps):
                pass
            return True
        except ConnectionLostError as error:
            named(simulator, error)
            with pytest.raises(ConnectionLostError):  # and it stays lost, with the same cause
                worker.objects_count()
            return False
        except SyftliteError as error:
            simulator.check(False, f"a fault became {type(error).__name__}: {error}")
        finally:
            in_order_and_once(simulator, worker, f"node-{seed}")
            simulator.advance(120.0)  # what the client has heard nothing of must hold too
            in_order_and_once(simulator, worker, f"node-{seed}")


def named(simulator, error):
    text = str(error)
    simulator.check(any(cause in text for cause in CAUSES), f"the error does not say what happened: {text}")
    simulator.check(f"seed={simulator.seed}" in text, f"the error does not say how to replay: {text}")


def test_without_faults_every_program_ends_right():
    assert all(run(seed, steps=30, delay=0.05) for seed in range(20))


def test_random_faults_never_give_a_wrong_value():
    ended = sum(run(seed, **MIXED) for seed in range(RUNS))
    assert 0.05 * RUNS < ended < 0.95 * RUNS  # faults that always or never hit would prove nothing


@pytest.mark.parametrize("fault", ["drop", "cut", "reorder", "duplicate"])
def test_each_fault_alone(fault):
    ended = sum(run(seed, delay=0.005, **{fault: 0.05}) for seed in range(60))
    assert 0 < ended < 60


def test_one_seed_gives_one_trace():
    def trace(seed):
        with Simulator(seed, **MIXED) as simulator:
            try:
                for _ in program(simulator, simulator.worker("replayed"), 12):
                    pass
            except ConnectionLostError as error:
                return [*simulator.trace, str(error)], simulator.nodes["replayed"].done
            return simulator.trace, simulator.nodes["replayed"].done

    assert all(trace(seed) == trace(seed) for seed in range(50))
    assert len({tuple(trace(seed)[0]) for seed in range(50)}) == 50


def test_clients_of_one_node_do_not_meet():
    """Three interleaved clients, one on a bad line: the others come to their end, and nobody sees another's values."""
    for seed in range(60):
        with Simulator(seed, delay=0.01) as simulator:
            rng = random.Random(seed)
            worst = Faults(drop=0.05, cut=0.02, reorder=0.05, duplicate=0.05, delay=0.01)
            programs, workers = {}, {}
            for number, client in enumerate(("ann", "ben", "eve")):
                try:
                    workers[client] = simulator.worker("shared", client, faults=worst if client == "eve" else None)
                except ConnectionLostError:
                    assert client == "eve"
                    continue
                programs[client] = program(simulator, workers[client], 10, offset=10**6 * number, rng=random.Random(seed + number))
            while programs:
                client = rng.choice(sorted(programs))
                try:
                    next(programs[client])
                except StopIteration:
                    del programs[client]
                except ConnectionLostError as error:
                    named(simulator, error)
                    simulator.check(client == "eve", f"{client}'s line has no faults, and it lost its session: {error}")
                    del programs[client]
            for worker in workers.values():
                in_order_and_once(simulator, worker, "shared")


def test_a_closed_session_leaves_nothing_at_the_node():
    with Simulator(3) as simulator:
        worker = simulator.worker("tidy")
        kept = torch.ones(3).send(worker)
        simulator.advance(0.1)
        assert simulator.node("tidy").objects
        worker.close()
        simulator.advance(1.0)
        assert not simulator.node("tidy").objects
        with pytest.raises(ConnectionLostError, match="was closed"):
            kept.get()


def test_the_engine_lives_on_virtual_time():
    with Simulator(1) as simulator:
        owner = simulator.worker("timed", "owner", role=Role.OWNER)
        simulator.node("timed").load("rows", torch.ones(2), ("#rows",), private=True)
        worker = simulator.worker("timed")
        simulator.advance(3600.0)
        worker.search("#rows")[0].request("please")
        assert owner.requests()[0].filed_at == pytest.approx(1_700_003_600, abs=1)


def test_a_stranger_is_refused_with_its_own_class():
    with Simulator(1) as simulator:
        worker = simulator.worker("closed")
        simulator.node("closed").authenticate = lambda scheme, secret: None  # as with a token that was revoked
        with pytest.raises(AuthenticationError, match="seed=1"):
            simulator.worker("closed", "stranger")
        assert torch.ones(2).send(worker).get().tolist() == [1.0, 1.0]


def test_a_failure_of_the_test_itself_names_the_seed():
    with pytest.raises(AssertionError, match=r"drop=0\.25.*|seed=42"), Simulator(42, drop=0.25) as simulator:
        simulator.check(False, "wrong")
    with pytest.raises(ValueError, match="seed=42"), Simulator(42):
        raise ValueError("of the program's own")


def test_worker_ids_are_free_again_after_the_simulation():
    with Simulator(1) as simulator:
        simulator.worker("same")
        with pytest.raises(IdNotUniqueError):
            simulator.worker("same")
    with Simulator(1) as simulator:
        simulator.worker("same")


# -- the tests above find what they are for


def caught(**faults):
    for seed in range(300):
        try:
            run(seed, **faults)
        except AssertionError as failure:
            assert f"seed={seed}" in str(failure)
            with pytest.raises(AssertionError) as again:  # and the failure replays
                run(seed, **faults)
            assert str(again.value) == str(failure)
            return True
    return False


@pytest.mark.parametrize("fault", ["drop", "reorder", "duplicate"])
def test_a_connection_that_ignores_sequence_numbers_is_caught(monkeypatch, fault):
    strict = Connection._receive

    def lax(self, frame):
        self.received = codec.unpack(frame)[0].sequence
        return strict(self, frame)

    monkeypatch.setattr(Connection, "_receive", lax)
    assert caught(delay=0.005, **{fault: 0.05})


def test_a_door_that_runs_a_repeated_frame_is_caught(monkeypatch):
    strict = Door.receive

    def lax(self, frame):
        before = self.connection.received
        self.connection.received = min(before, codec.unpack(frame)[0].sequence)
        strict(self, frame)
        self.connection.received = max(before, self.connection.received)

    monkeypatch.setattr(Door, "receive", lax)
    assert caught(duplicate=0.05)


def test_an_engine_that_forgets_an_operation_is_caught(monkeypatch):
    strict = Door.run

    def forgetful(self, **how):
        if len(self.inbox) > 3:
            self.inbox.popleft()
        strict(self, **how)

    monkeypatch.setattr(Door, "run", forgetful)
    assert caught()
