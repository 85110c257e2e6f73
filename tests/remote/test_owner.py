"""What an owner does at its own worker, the same on every kind of worker."""

import itertools
import threading
import time

import pytest
import torch

import syftlite as sy
from syftlite.engine.journal import MemoryJournal, NoDatasets
from syftlite.engine.session import Role
from syftlite.remote import registry
from syftlite.testing import Simulator
from syftlite.transports.client import SocketTransport
from syftlite.wire import messages as m


def test_a_stored_dataset_is_found_and_labelled(bob):
    sent = []
    bob.store(torch.ones(3, 2), "#x", "#2024", name="x", description="ones", private=True, progress=sent.append)
    bob.store(torch.zeros(2, dtype=torch.int64), name="y")
    x, y = bob.listing()
    assert (x.shape, x.dtype, set(x.tags), x.description) == ((3, 2), torch.float32, {"#x", "#2024"}, "ones")
    assert x.private and x.borrowed
    assert (y.shape, y.dtype, y.tags, y.private) == ((2,), torch.int64, (), False)
    with pytest.raises(sy.errors.GetNotPermittedError):
        bob.search("#x")[0].get(user="alice")
    with pytest.raises(sy.errors.IdNotUniqueError, match="choose another name"):
        bob.store(torch.ones(1), name="x")


def test_what_was_made_here_is_stored_from_here(bob):
    rows = torch.arange(6.0).view(3, 2)
    bob.store(rows, "#x", name="x", private=True)
    made, open_ = bob.search("#x")[0].t()[1] * 2, torch.ones(3).send(bob)
    before = bob.objects_count()
    bob.store(made, "#made", name="made", description="doubled")
    bob.store(open_, "#open", name="open")
    made.zero_()
    open_.zero_()
    found, free = bob.search("#made")[0], bob.search("#open")[0]
    assert torch.equal(found.get(), rows[:, 1] * 2) and torch.equal(free.get(), torch.ones(3))
    assert bob.objects_count() == before + 2
    assert [(d.private, d.description) for d in bob.listing() if d.tags == ("#made",)] == [(True, "doubled")]
    with pytest.raises(sy.errors.GetNotPermittedError, match="made lets go what its owner approved"):
        found.get(user="alice")


def test_what_is_not_here_is_not_stored(bob, alice):
    with pytest.raises(sy.errors.TensorsNotCollocatedError, match="move"):
        bob.store(torch.ones(3).send(alice), name="x")
    gone = torch.ones(3).send(bob)
    gone.get()
    with pytest.raises(sy.errors.ObjectNotFoundError):
        bob.store(gone, name="x")
    with pytest.raises(sy.errors.Misuse, match="FixedPrecisionTensor has no value here"):
        bob.store(torch.ones(3).fix_prec(), name="x")
    with pytest.raises(sy.errors.Misuse, match="PrivateTensor has no value here"):
        bob.store(torch.ones(3).private_tensor(allowed_users=["carol"]), name="x")
    assert not [d for d in bob.listing() if d.borrowed]


def test_storing_leaves_nothing_in_the_session(bob):
    before = bob.objects_count()
    bob.store(torch.ones(3), name="x")
    with pytest.raises(sy.errors.IdNotUniqueError):
        bob.store(torch.ones(3), name="x")
    assert bob.objects_count() == before + 1


def test_a_listing_has_own_objects_too(bob):
    mine = torch.ones(4).send(bob)
    (listed,) = bob.listing()
    assert (listed.id, listed.shape, listed.private, listed.borrowed) == (mine.id_at_location, (4,), False, False)


def test_requests_are_listed_undecided_first_and_decided_once(bob):
    bob.store(torch.arange(3.0), "#x", name="x", private=True)
    (x,) = bob.search("#x")
    denied, approved, waits = (x.sum().request(reason) for reason in ("one", "two", "three"))
    bob.deny(denied, "no")
    bob.approve(approved.id, "yes")
    rows = bob.requests()
    assert [(r.reason, r.state) for r in rows] == [("three", "pending"), ("one", "denied"), ("two", "approved")]
    assert rows[0].principal == "me" and rows[0].what == ("float32[] from x",) and abs(rows[0].filed_at - time.time()) < 600
    assert (denied.refresh(), denied.note) == ("denied", "no") and (approved.refresh(), approved.note) == ("approved", "yes")
    for again in (denied, rows[1], "none"):
        with pytest.raises(sy.errors.RequestNotFoundError):
            bob.approve(again)
    bob.deny(rows[0])
    assert waits.refresh() == "denied"


def test_over_a_socket_only_the_owner(node):
    registry.forget(node)  # or this process would have two workers of its name
    scientist = sy.WebsocketClientWorker(port=node.port)
    store = lambda: scientist.store(torch.ones(1), name="x")  # noqa: E731
    assert scientist.requests() == []
    for act in (lambda: scientist.inspect("x"), lambda: scientist.approve("x"), lambda: scientist.deny("x"), store):
        with pytest.raises(sy.errors.NotOwnerError, match=r"connection is scientist, a scientist.*role='owner'"):
            act()
    node.store(torch.ones(2), "#x", name="x", private=True)
    request = scientist.search("#x")[0].sum().request("a sum")
    scientist.close()
    owner = sy.WebsocketClientWorker(port=node.port, role="owner")
    assert [row.id for row in owner.requests()] == [request.id]
    owner.approve(request)
    assert [row.state for row in node.requests()] == ["approved"]
    owner.close()


# -- while the disk works, nobody else waits


_number = itertools.count()


class Slow:
    """A disk that works only when told to."""

    def __init__(self):
        self.reached, self.go = threading.Event(), threading.Event()

    def wait(self):
        self.reached.set()
        assert self.go.wait(60)


class SlowDatasets(NoDatasets):
    def __init__(self, disk):
        self.disk = disk

    def save(self, *arguments):
        self.disk.wait()


class SlowJournal(MemoryJournal):
    def __init__(self, disk):
        super().__init__()
        self.disk = disk

    def append(self, event, record):
        self.disk.wait()
        super().append(event, record)


def meanwhile(node, disk, act):
    """Run ``act`` on a thread; once it waits for ``disk``, connect and compute as another; then let it end. Returns what it raised."""
    raised = []

    def run():
        try:
            act()
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        assert disk.reached.wait(60)
        worker = sy.connect(node.uri)
        assert (torch.ones(3).send(worker) + 1).get().tolist() == [2, 2, 2]
        assert worker.search("#nothing") == []
        worker.close()
    finally:
        disk.go.set()
        thread.join()
    return raised


@pytest.fixture
def serve(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    nodes = []

    def started(**options):
        node = sy.WebsocketServerWorker(id=f"slow{next(_number)}", port=0, **options).start(wait=False)
        registry.forget(node)
        nodes.append(node)
        return node

    yield started
    for node in nodes:
        node.close()


def owner_of(node):
    return SocketTransport(node.uri, node._own["owner"])


def test_a_slow_store_delays_nobody_else(serve):
    disk = Slow()
    node = serve(datasets=SlowDatasets(disk))
    owner = owner_of(node)
    number = (owner.prefix << 32) + 1
    owner.put(number, torch.ones(3), (), "")
    assert meanwhile(node, disk, lambda: owner.ask(m.STORE, number, "x", ["#x"], "", True)) == []
    assert [item.tags for item in node.listing()] == [("#x",)]
    owner.close()


def test_a_slow_journal_delays_nobody_else(serve):
    from syftlite.transports.client import SocketTransport
    disk = Slow()
    node = serve(journal=SlowJournal(disk))
    node.load(torch.ones(3), "#x", name="x", private=True)
    alice = SocketTransport(node.uri, node._own["scientist"])
    ((number, *_),) = alice.ask(m.FIND, ["#x"], 0)[3]
    for ask in (lambda: alice.ask(m.GET, [number], False, None), lambda: alice.ask(m.FILE, [number], "why")):
        disk.reached.clear()
        disk.go.clear()
        raised = meanwhile(node, disk, ask)
        assert [type(error) for error in raised] in ([sy.errors.GetNotPermittedError], [])
    alice.close()


@pytest.mark.parametrize("serialize", [False, True])
def test_a_request_is_of_whom_the_value_was_asked_for(serialize):
    with_eve = sy.VirtualWorker(id=f"asked for {serialize}", serialize=serialize)
    with_eve.load(torch.arange(4.0), "#x", name="x", private=True)
    total = with_eve.search("#x")[0].sum()
    with pytest.raises(sy.errors.ApprovalRequiredError, match=r"get\(user='eve'\) again") as refused:
        total.get_copy(user="eve", reason="study")
    (asked,) = with_eve.requests()
    assert (asked.principal, asked.reason, asked.id) == ("eve", "study", refused.value.request.id)
    with_eve.approve(asked)
    with pytest.raises(sy.errors.GetNotPermittedError):
        total.get_copy(user="mallory")
    assert total.get_copy(user="eve") == 6.0
    with pytest.raises(sy.errors.GetNotPermittedError):
        total.get_copy(user="eve")
    with_eve.close()


def test_nobody_files_for_another_over_a_connection():
    with Simulator(seed=1) as simulator:
        clinic = simulator.node("clinic")
        clinic.load("x", torch.arange(4.0), ["#x"], private=True)
        owner, carol = simulator.worker("clinic", "owner", role=Role.OWNER), simulator.worker("clinic", "carol")
        for worker, user in ((carol, "eve"), (carol, "owner"), (owner, "carol")):
            with pytest.raises(sy.errors.GetNotPermittedError):
                worker.search("#x")[0].get_copy(user=user, reason="study")
        assert owner.requests() == []
