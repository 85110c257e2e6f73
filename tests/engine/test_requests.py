"""Requests: kept with their values, decided by quorum, good once and for a time, whatever becomes of session and node."""

import asyncio
import itertools

import pytest
import torch

import syftlite as sy
from syftlite._torch import aten
from syftlite.engine.engine import Engine
from syftlite.engine.journal import MemoryJournal
from syftlite.engine.requests import DAY, MAX_KEPT, Terms
from syftlite.engine.session import Principal, Role
from syftlite.errors import GetNotPermittedError, NotOwnerError, QuotaExceededError, RequestNotFoundError
from syftlite.ops.table import BY_FUNC
from syftlite.storage.database import Database
from syftlite.storage.requests import FileRequests
from syftlite.transports.memory import MemoryTransport, SerializingTransport
from syftlite.wire import messages as m

_number = itertools.count()


class Scene:
    """A node that can be started again on its database."""

    def __init__(self, path):
        self.path, self.now, self.journal = path, 1000.0, MemoryJournal()
        self.data = torch.arange(12.0).view(4, 3)
        self.database = None
        self.start()

    def start(self, terms=None):
        if self.database is not None:
            self.database.close()
        self.database = Database(self.path)
        self.engine = Engine("clinic", journal=self.journal, clock=lambda: self.now, requests=FileRequests(self.database))
        self.engine.load("icu", self.data, ["#icu"], private=True)
        if terms is not None:
            self.engine.gate.requests.terms = lambda sources: terms

    def worker(self, name="carol", role=Role.SCIENTIST, kind=SerializingTransport):
        return sy.BaseWorker(f"{name}-of-request-{next(_number)}", kind(self.engine, Principal(name, role)))

    def owner(self, name="owner"):
        return self.worker(name, Role.OWNER)

    def ask(self, worker=None):
        (x,) = (worker or self.worker()).search("#icu")
        return x.mean(0).request("means")

    @property
    def events(self):
        return [event for event, _ in self.journal.events if event not in ("frame", "connected")]


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path / "node.db")


MEAN = torch.tensor([4.5, 5.5, 6.5])


def test_it_is_fetched_by_its_id_from_another_session_once(scene):
    first = scene.worker()
    request = scene.ask(first)
    first.close()
    scene.owner().approve(request.id, "fine")
    again = sy.request(scene.worker(), request.id)
    assert (again.state, again.note) == ("approved", "fine")
    assert torch.equal(again.get(), MEAN) and again.refresh() == "released"
    for taker in (again, request := sy.request(scene.worker(), request.id)):
        with pytest.raises(GetNotPermittedError, match="is released"):
            taker.get()
    assert scene.events == ["filed", "approved", "released"] and request.state == "released"


def test_it_survives_the_node_pending_and_approved(scene):
    request = scene.ask()
    scene.start()
    (listed,) = scene.owner().requests()
    assert (listed.id, listed.state, listed.what) == (request.id, "pending", ("float32[3] from icu",))
    scene.owner().approve(request.id)
    scene.start()
    taker = scene.worker()
    assert [r.id for r in taker.requests()] == [request.id]
    assert torch.equal(sy.request(taker, request.id).get(), MEAN)
    scene.start()
    with pytest.raises(GetNotPermittedError, match="is released"):
        sy.request(scene.worker(), request.id).get()


def test_what_leaves_is_what_was_filed_whatever_happened_to_the_object(scene):
    worker = scene.worker()
    (x,) = worker.search("#icu")
    mean = x.mean(0)
    request = mean.request("means")
    mean.add_(x[0])
    scene.owner().approve(request.id)
    with pytest.raises(GetNotPermittedError):
        mean.get()
    del mean
    assert torch.equal(request.get(), MEAN)


def test_the_object_and_the_request_are_one_release(scene):
    worker = scene.worker()
    (x,) = worker.search("#icu")
    mean = x.mean(0)
    request = mean.request("means")
    scene.owner().approve(request.id)
    assert torch.equal(mean.get_copy(), MEAN)
    with pytest.raises(GetNotPermittedError, match="is released"):
        request.get()


def test_nobody_else_sees_or_takes_it(scene):
    request = scene.ask()
    scene.owner().approve(request.id)
    other = scene.worker("dave")
    assert other.requests() == []
    with pytest.raises(RequestNotFoundError):
        sy.request(other, request.id)
    with pytest.raises(RequestNotFoundError):
        sy.remote.asking.ReleaseRequest(other, request.id).get()
    owner = scene.owner()
    with pytest.raises(GetNotPermittedError, match="of carol is approved"):
        sy.request(owner, request.id).get()
    auditor = scene.worker("eve", Role.AUDITOR)
    assert [r.id for r in auditor.requests()] == [request.id]
    for refused in (lambda: auditor.search("#icu"), lambda: auditor.approve(request.id), lambda: auditor.inspect(request.id)):
        with pytest.raises(NotOwnerError):
            refused()


def test_before_approval_and_after_denial_nothing_leaves(scene):
    request = scene.ask()
    with pytest.raises(GetNotPermittedError, match="is pending"):
        request.get()
    scene.owner().deny(request.id, "too much")
    with pytest.raises(GetNotPermittedError, match="is denied: too much"):
        request.get()
    assert scene.engine.gate.requests.store.values(request.id) == [], "its values are not kept"


def test_a_quorum_is_of_different_owners_who_did_not_ask(scene):
    scene.start(Terms(quorum=2))
    request = scene.ask(scene.worker("carol"))
    ann, bob = scene.owner("ann"), scene.owner("bob")
    for _ in range(3):
        ann.approve(request.id)
    assert request.refresh() == "pending" and request.note == "1 of 2 owners have approved"
    with pytest.raises(NotOwnerError, match="your own"):
        scene.owner("carol").approve(request.id)
    scene.start(Terms(quorum=1))  # what a request takes is what held when it was filed
    with pytest.raises(GetNotPermittedError, match="is pending"):
        sy.request(scene.worker(), request.id).get()
    assert scene.owner("bob").inspect(request.id).votes == ("ann",)
    scene.owner("bob").approve(request.id)
    assert torch.equal(sy.request(scene.worker(), request.id).get(), MEAN)
    assert scene.events == ["filed", "voted", "voted", "voted", "approved", "released"] and bob is not None


def test_one_denial_denies(scene):
    scene.start(Terms(quorum=2))
    request = scene.ask()
    scene.owner("ann").approve(request.id)
    scene.owner("bob").deny(request.id)
    with pytest.raises(RequestNotFoundError):
        scene.owner("eve").approve(request.id)
    assert request.refresh() == "denied"


def test_it_expires_pending_and_approved(scene):
    scene.start(Terms(seconds=DAY))
    pending, approved = scene.ask(), scene.ask()
    scene.now += DAY / 2
    scene.owner().approve(approved.id)
    scene.now += DAY / 2
    assert pending.refresh() == "expired" and approved.refresh() == "approved"
    with pytest.raises(RequestNotFoundError):
        scene.owner().approve(pending.id)
    with pytest.raises(GetNotPermittedError, match="has expired: ask again"):
        pending.wait()
    scene.now += DAY / 2
    with pytest.raises(GetNotPermittedError, match="is expired"):
        approved.get()
    assert scene.events.count("expired") == 2


def test_it_can_be_awaited(scene):
    request = scene.ask()

    async def both():
        waiting = asyncio.ensure_future(_awaited(request))
        await asyncio.sleep(0)
        scene.owner().approve(request.id)
        return await waiting

    assert asyncio.run(both()) == "approved"


async def _awaited(request):
    return await request


def test_a_failed_value_is_told_to_who_may_be_told(scene):
    worker = scene.worker()
    (x,) = worker.search("#icu")
    bad = torch.nn.functional.embedding(x[1].long(), torch.zeros(3, 1).send(worker))
    request = bad.request("an embedding")
    scene.start()
    scene.owner().approve(request.id)
    with pytest.raises(IndexError):
        sy.request(scene.worker(), request.id).get()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8, torch.bool, torch.complex64])
@pytest.mark.parametrize("shape", [(), (0, 3), (5, 2)])
def test_every_kind_of_value_comes_back_as_it_was(scene, dtype, shape):
    value = torch.rand(shape).mul(3).to(dtype)
    scene.engine.load("v", value, ["#v"], private=True)
    (x,) = scene.worker().search("#v")
    request = x.request("it")
    scene.start()
    scene.engine.load("v", value, ["#v"], private=True)
    scene.owner().approve(request.id)
    got = sy.request(scene.worker(), request.id).get()
    assert got.dtype is dtype and torch.equal(got, value)


def test_what_is_kept_for_one_principal_is_bounded(scene, monkeypatch):
    monkeypatch.setattr("syftlite.engine.requests.MAX_KEPT", 30)
    first = scene.ask()
    scene.ask()
    with pytest.raises(QuotaExceededError, match="bytes would be kept"):
        scene.ask()
    scene.ask(scene.worker("dave"))
    scene.owner().deny(first.id)
    scene.ask()
    assert MAX_KEPT == 1 << 30


def test_what_is_on_record_comes_first(scene):
    request = scene.ask()
    scene.owner().approve(request.id)

    def fail(event, record):
        raise OSError("disk full")

    scene.journal.append = fail
    with pytest.raises(sy.errors.RemoteError, match="internal error"):
        request.get()
    assert request.refresh() == "approved", "nothing has left"


def test_a_database_that_fails_lets_nothing_go(scene, monkeypatch):
    request = scene.ask()
    scene.owner().approve(request.id)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(FileRequests, "update", fail)
    with pytest.raises(sy.errors.RemoteError, match="internal error"):
        request.get()


def test_the_owner_sees_values_and_program_and_it_is_on_record(scene):
    worker = scene.worker()
    (x,) = worker.search("#icu")
    weight = torch.ones(3, 2).send(worker)
    hidden = (x @ weight).relu_()
    noise = x.exp()
    total = hidden.sum(0)
    request = total.request("a layer")
    seen = scene.owner().inspect(request.id, values=True)
    assert [torch.equal(v, (scene.data @ torch.ones(3, 2)).relu().sum(0)) for v in seen.values] == [True]
    assert seen.program == (
        "# sent by who asks, or made before any PRIVATE data was met: given1",
        'x1 = mm(dataset("icu"), given1)',
        "relu_(x1)",
        "x2 = sum(x1, [0])",
        "return x2",
    )
    assert scene.events == ["filed", "inspected"] and noise is not None
    assert request.refresh() == "pending"


def test_a_program_follows_views_and_writes_through_them(scene):
    worker = scene.worker(kind=MemoryTransport)
    (x,) = worker.search("#icu")
    base = (x * 0).clone()
    view = base[0]
    view.copy_(x[1])
    other = x.neg()
    lines = scene.owner().inspect(base.request("base").id).program
    assert [line.split("(")[0] for line in lines] == ["x1 = mul", "x2 = clone", "x3 = select", "x4 = select", "copy_", "return x2"] and other is not None


def test_a_program_that_ran_as_a_plan_is_shown_as_well(scene):
    """What a recorded program does is hidden neither by a replay nor by a scan of rows."""
    worker = scene.worker(kind=MemoryTransport)
    (x,) = worker.search("#icu")

    @sy.func2plan(args_shape=[x.shape])
    def total(rows):
        return rows.exp().sum(0)

    @sy.func2plan(args_shape=[x.shape[1:]])
    def one(row):
        return row.neg()

    once = total.send(worker)(x)
    rows = one.send(worker).scan(x)
    lines = scene.owner().inspect(once.request("total").id).program
    assert [line.split("(")[0] for line in lines] == ["x1 = exp", "x2 = sum", "x3 = alias", "return x3"] and 'exp(dataset("icu"))' in lines[0]
    lines = scene.owner().inspect(rows.request("rows").id).program
    assert not any("given" in line for line in lines) and sum("neg(" in line for line in lines) == len(scene.data)


def test_ids_that_come_again_hide_no_write(scene):
    """A view through which something was written is dropped, and its id given to a view of something else."""
    session = scene.engine.open_session(Principal("carol", Role.SCIENTIST))
    (found,) = scene.engine.handle(session, (m.FIND, 1, ("#icu",), 0))[3]
    x, base, view, row, other = found[0], *((session.prefix << 32) + n for n in range(1, 5))

    def op(func, args, out=None):
        scene.engine.handle(session, (m.OP, BY_FUNC[func].number, args, None, out))

    op(aten.zeros_like.default, (x,), base)
    op(aten.zeros_like.default, (x,), other)
    op(aten.select.int, (base, 0, 0), view)
    op(aten.select.int, (x, 0, 1), row)
    op(aten.copy_.default, (view, row))
    scene.engine.handle(session, (m.DROP, (view,)))
    op(aten.select.int, (other, 0, 0), view)
    release = scene.engine.handle(session, (m.FILE, 2, (base,), "zeros"))[2]
    lines = scene.owner().inspect(release).program
    assert [line.split("(")[0] for line in lines] == ["x1 = zeros_like", "x2 = select", "x3 = select", "copy_", "return x1"]


def test_an_id_that_comes_again_with_an_upload_is_shown_as_one(scene):
    """Weights of one's own, one of them 1, under the id of means that are gone: the owner would see a weighting by means."""
    session = scene.engine.open_session(Principal("carol", Role.SCIENTIST))
    (found,) = scene.engine.handle(session, (m.FIND, 1, ("#icu",), 0))[3]
    x, weights, product, row, old = found[0], *((session.prefix << 32) + n for n in range(1, 5))

    def op(func, args, out):
        scene.engine.handle(session, (m.OP, BY_FUNC[func].number, args, None, out))

    op(aten.mean.dim, (x, (1,), True), weights)
    op(aten.mul.Tensor, (x, weights), old)
    scene.engine.handle(session, (m.DROP, (weights,)))
    scene.engine.handle(session, (m.PUT, weights, torch.eye(len(scene.data))[:, :1], (), ""))
    op(aten.mul.Tensor, (old, weights), product)
    scene.engine.handle(session, (m.DROP, (old,)))
    op(aten.sum.dim_IntList, (product, (0,)), old)
    op(aten.neg.default, (old,), row)
    release = scene.engine.handle(session, (m.FILE, 2, (row,), "weighted by means"))[2]
    assert scene.owner().inspect(release).program[1:] == (
        'x1 = mean(dataset("icu"), [1], True)',
        'x2 = mul(dataset("icu"), x1)',
        "x3 = mul(x2, given1)",
        "x4 = sum(x3, [0])",
        "x5 = neg(x4)",
        "return x5",
    )


def test_what_another_session_writes_later_is_shown_later(scene):
    """Rows that are used are none of the means that are written there afterwards, by the session that they are of."""
    first, second = scene.worker(kind=MemoryTransport), scene.worker(kind=MemoryTransport)
    (x,) = first.search("#icu")
    rows = (x * 1).tag("#rows")
    (found,) = second.search("#rows")
    used = found.exp()
    rows.copy_(x.mean(0))
    lines = scene.owner().inspect(used.request("means").id).program
    assert [line.split("(")[0] for line in lines] == ["x1 = mul", "x2 = exp", "return x2"]


def test_a_program_goes_on_in_another_session(scene):
    """What one session of a principal has made, another finds: what led to it is shown."""
    first = scene.worker(kind=MemoryTransport)
    (x,) = first.search("#icu")
    made = x.exp().tag("#made")
    (found,) = scene.worker(kind=MemoryTransport).search("#made")
    lines = scene.owner().inspect(found.sum(0).request("in two sessions").id).program
    assert lines == ('x1 = exp(dataset("icu"))', "x2 = sum(x1, [0])", "return x2") and made is not None


def test_a_program_s_length_is_bounded(scene):
    worker = scene.worker(kind=MemoryTransport)
    (x,) = worker.search("#icu")
    y = x.clone()
    for _ in range(5000):
        y.add_(1)
    lines = scene.owner().inspect(y.request("long").id).program
    assert len(lines) <= 203 and any("earlier lines left out" in line for line in lines) and lines[-1].startswith("return")
