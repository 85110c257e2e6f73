"""The gate: nothing PRIVATE leaves, by any route, without the owner's approval."""

import itertools

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite._torch import aten
from syftlite.dp.mechanisms import Query
from syftlite.engine import executor, releases, requests
from syftlite.engine.engine import Engine
from syftlite.engine.journal import MemoryHistory, MemoryJournal
from syftlite.engine.marks import Mark
from syftlite.engine.session import Principal, Role
from syftlite.errors import (
    AggregationError,
    ApprovalRequiredError,
    GetNotPermittedError,
    NotOwnerError,
    PointerMisuseError,
    QuotaExceededError,
    RequestNotFoundError,
)
from syftlite.ops.table import BY_FUNC
from syftlite.policy.labels import PUBLIC
from syftlite.policy.rules import aggregate_only
from syftlite.secagg import Client, Identity, Terms, packing
from syftlite.storage.journal import NOTED
from syftlite.testing.peer import Peer, number_of
from syftlite.transports.memory import MemoryTransport, SerializingTransport
from syftlite.wire import messages as m

CANARY = 123.4375


class Scene:
    """An owner's engine with a PRIVATE and a public dataset, an owner's and a scientist's worker on it."""

    number = 0

    def __init__(self, kind):
        Scene.number += 1
        self.journal, self.now = MemoryJournal(), 1000.0
        self.engine = Engine(f"hospital{Scene.number}", journal=self.journal, clock=lambda: self.now)
        self.data = torch.full((6, 3), CANARY)
        self.engine.load("icu", self.data, ["#icu"], private=True)
        self.engine.load("map", torch.arange(6), ["#map"])
        self.scientist = self.worker(kind, "carol", Role.SCIENTIST)
        self.owner = self.worker(kind, "owner", Role.OWNER)
        (self.x,) = self.scientist.search("#icu")

    def worker(self, kind, name, role):
        return sy.BaseWorker(f"{name}{Scene.number}-{id(object())}", kind(self.engine, Principal(name, role)))


@pytest.fixture(params=[MemoryTransport, SerializingTransport], ids=["memory", "serialize"])
def scene(request):
    return Scene(request.param)


def refused(read):
    with pytest.raises(GetNotPermittedError, match="PRIVATE") as caught:
        read()
    assert "123" not in str(caught.value)


ROUTES = {
    "get": lambda x: x.get(),
    "get_copy": lambda x: x.get_copy(),
    "a slice times one": lambda x: (x[2:3] * 1).get(),
    "item": lambda x: x[0, 0].item(),
    "float": lambda x: float(x.sum()),
    "bool": lambda x: bool((x > 3).any()),
    "iteration": lambda x: [v.item() for v in x[0]],
    "equal": lambda x: torch.equal(x, x),
    "a data-dependent shape": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 3],
    "copy_ to a local tensor": lambda x: torch.zeros(6, 3).copy_(x),
    "move": lambda x: x.move(sy.local_worker),
    "a view of a public clone written to": lambda x: _through_view(x),
    "in place": lambda x: torch.zeros(6, 3).send(x.location).add_(x).get(),
    "index_put": lambda x: torch.zeros(6, 3).send(x.location).index_put_((torch.tensor([0]).send(x.location),), x[0]).get(),
    "as an index": lambda x: torch.arange(500.0).send(x.location)[x[0].long()].get(),
    "a count": lambda x: (x > 3).sum().get(),
    "argmax": lambda x: x.argmax().get(),
    "zero times": lambda x: (x * 0).get(),
    "zeros_like": lambda x: torch.zeros_like(x).get(),
    "concatenated": lambda x: torch.cat([x, torch.zeros(1, 3).send(x.location)]).get(),
    "split": lambda x: x.unbind(0)[1].get(),
    "foreach": lambda x: _through_foreach(x),
    "out=": lambda x: _through_out(x),
    "a gradient": lambda x: _gradient(x).get(),
    "trained weights": lambda x: _trained(x).get(),
    "batch norm's statistics": lambda x: _statistics(x).get(),
    "its error": lambda x: nn.functional.embedding(x[0].long(), torch.zeros(3, 1).send(x.location)).get(),
    "dropout": lambda x: nn.functional.dropout(x).get(),
    "tolist": lambda x: x[0].tolist(),
    "deepcopy": lambda x: x.clone().get(),
    "a name in a secure sum's terms": lambda x: _through_aggregation(x),
    "a secure sum's word that it failed": lambda x: _added(nn.functional.embedding(x[0].long(), torch.zeros(3, 1).send(x.location))),
}


def _through_view(x):
    base = torch.zeros(6, 3).send(x.location)
    base[0].copy_(x[0])
    return base.get()


def _through_foreach(x):
    targets = [torch.zeros(6, 3).send(x.location)]
    torch._foreach_add_(targets, [x.clone()])
    return targets[0].get()


def _through_out(x):
    target = torch.zeros(6, 3).send(x.location)
    torch.maximum(x, x, out=target)
    return target.get()


def _gradient(x):
    model = nn.Linear(3, 1).send(x.location)
    model(x).sum().backward()
    return model.weight.grad


def _trained(x):
    model = nn.Linear(3, 1).send(x.location)
    optimizer = torch.optim.Adam(model.parameters())
    model(x).sum().backward()
    optimizer.step()
    return model


def _statistics(x):
    layer = nn.BatchNorm1d(3).send(x.location)
    layer(x)
    return layer.running_mean


def _through_aggregation(x):
    """A client that is not among the names in a round's terms tells of these: here one is a value."""
    packed = Terms.of(bytes(16), {"?": bytes(32), "b": bytes(range(32))}, 1).pack()
    told = torch.frombuffer(bytearray(packed), dtype=torch.uint8).send(x.location)
    told[packed.index(b"?")].copy_(x[0, 0])
    return x.location.ask(m.AGGREGATE, 1, 1, told._handle.id, [], None)


def _added(pointer, values=None):
    """Has its worker add it to a sum, of ``values`` or as many numbers, with a client of one's own."""
    worker, mine = pointer.location, Identity()

    def told(stage, payload, *vector):
        given = torch.frombuffer(bytearray(payload), dtype=torch.uint8).send(worker)
        return worker.ask(m.AGGREGATE, stage, 1, given._handle.id, [v._handle.id for v in vector], None)[2][0].numpy().tobytes()

    terms = Terms.of(bytes(16), {worker.transport.engine.name: packing.public(told(0, b"-")), "mine": mine.public}, values or pointer.numel())
    accomplice = Client(terms, 1, mine)
    adverts = {0: packing.advert(told(1, terms.pack())), 1: accomplice.advertise()}
    told(2, packing.packed_map(adverts))
    return told(3, packing.packed_map({1: accomplice.share(adverts)[0]}), pointer)


@pytest.mark.parametrize("route", ROUTES)
def test_no_route_lets_it_out(scene, route):
    with pytest.raises((GetNotPermittedError, PointerMisuseError)) as caught:
        ROUTES[route](scene.x)
    assert "123" not in str(caught.value)


@pytest.mark.parametrize("route", ["a slice times one", "in place", "a view of a public clone written to", "trained weights", "a gradient"])
def test_the_routes_are_real(monkeypatch, route):
    """Negative control: with a join that forgets, the same routes give the value."""
    monkeypatch.setattr(executor, "_labelled", lambda *given: Mark(PUBLIC, None))
    monkeypatch.setattr(executor, "join", lambda labels: PUBLIC)
    ROUTES[route](Scene(MemoryTransport).x)


def test_a_vector_that_is_longer_than_its_sum_s_is_not_copied(scene):
    with pytest.raises(AggregationError, match="adds vectors of 2 values"):
        _added(torch.ones(2, 1).send(scene.scientist).expand(2, 1 << 38), values=2)


def test_public_data_and_one_s_own_leave(scene):
    (ids,) = scene.scientist.search("#map")
    assert torch.equal(ids.get(), torch.arange(6))
    assert torch.equal((torch.ones(2).send(scene.scientist) + 1).get(), torch.full((2,), 2.0))


def test_the_owner_reads_its_own(scene):
    (x,) = scene.owner.search("#icu")
    assert torch.equal(x.get(), scene.data)
    refused(lambda: x.get(user="carol"))


def test_nobody_speaks_for_another(scene):
    with pytest.raises(GetNotPermittedError, match="token"):
        scene.x.get(user="owner")
    with pytest.raises(GetNotPermittedError, match="PRIVATE"):
        scene.x.get(user="carol")


def approve(scene, release, yes=True, note=""):
    return scene.owner.approve(release, note) if yes else scene.owner.deny(release, note)


def test_approval_lets_this_content_go_once(scene):
    mean = scene.x.mean(0)
    request = mean.request("for study 12")
    assert request.state == "pending" and request.refresh() == "pending"
    refused(mean.get_copy)
    ((number, who, why, what, state, filed),) = scene.owner.requests()
    assert (number, who, why, state, filed) == (request.id, "carol", "for study 12", "pending", 1000.0)
    assert what == ("float32[3] from icu",)
    approve(scene, request.id, note="fine")
    assert request.wait() == "approved" and request.note == "fine"
    assert torch.equal(mean.get_copy(), scene.data.mean(0))
    refused(mean.get_copy)
    assert request.refresh() == "released"


def test_a_value_that_changed_is_refused_again(scene):
    mean = scene.x.mean(0)
    request = mean.request("mean")
    approve(scene, request.id)
    mean.add_(1)
    refused(mean.get)


def test_an_approval_answers_no_question_about_other_values(scene):
    """Neither an equal value, nor the approved object after another was written to it: both would tell whether they are equal."""
    mean = scene.x.mean(0)
    alias = mean.view(3)
    approve(scene, mean.request("mean").id)
    for equal in (scene.x[0], scene.x[0].clone(), alias):
        refused(equal.get)
    alias.copy_(scene.x[0])
    refused(mean.get)


VIEWS = {
    "other rows": (aten.slice.Tensor, (0, 1, 2)),
    "all rows": (aten.slice.Tensor, (0, 0, 6)),
    "every other row": (aten.slice.Tensor, (0, 0, 2, 2)),
    "other columns": (aten.slice.Tensor, (1, 0, 1)),
    "one row": (aten.select.int, (0, 0)),
}  # fmt: skip


@pytest.mark.parametrize("view", VIEWS)
def test_an_approval_is_for_no_other_view_under_the_same_id(scene, view):
    """Ids are the client's to give: an approved one, dropped and given to another view of the same storage, is another object."""
    session, owner = (scene.engine.open_session(Principal(name, role)) for name, role in (("carol", Role.SCIENTIST), ("owner", Role.OWNER)))
    (row,) = scene.engine.handle(session, (m.FIND, 1, ("#icu",), 0))[3]
    number = (session.prefix << 32) + 1

    def become(func, args):
        scene.engine.handle(session, (m.DROP, (number,)))
        scene.engine.handle(session, (m.OP, BY_FUNC[func].number, (row[0], *args), None, number))

    def got():
        return scene.engine.handle(session, (m.GET, 3, (number,), False, None))

    approved = (aten.slice.Tensor, (0, 0, 1))
    become(*approved)
    release = scene.engine.handle(session, (m.FILE, 2, (number,), "one row"))[2]
    scene.engine.handle(owner, (m.DECIDE, 1, release, True, ""))
    become(*VIEWS[view])
    assert got()[0] == m.ERROR
    become(*approved)
    assert torch.equal(got()[2][0], scene.data[:1]), "the very view that was filed leaves"


def test_a_policy_that_asks_for_more_owners_holds_for_what_was_approved_before(scene):
    mean, total = scene.x.mean(0), scene.x.sum(0)
    requests = [value.request("both") for value in (mean, total)]
    for request in requests:
        approve(scene, request.id)
    scene.owner.set_policy("icu", sy.policy.approve(quorum=2))
    refused(mean.get_copy)
    with pytest.raises(GetNotPermittedError, match="takes 2"):
        sy.request(scene.scientist, requests[1].id).get()
    scene.owner.set_policy("icu", sy.policy.approve())
    assert torch.equal(mean.get_copy(), scene.data.mean(0)) and torch.equal(requests[1].get(), scene.data.sum(0))


def test_an_approval_is_for_its_principal(scene):
    request = scene.x.mean(0).request("mean")
    approve(scene, request.id)
    other = scene.worker(MemoryTransport, "dave", Role.SCIENTIST)
    (x,) = other.search("#icu")
    refused(x.mean(0).get)
    with pytest.raises(RequestNotFoundError):
        other.ask(m.STATUS, request.id)


def test_a_denial_is_told_with_its_reason(scene):
    request = scene.x.request("all of it")
    approve(scene, request.id, yes=False, note="too much")
    with pytest.raises(GetNotPermittedError, match="denied.*too much"):
        request.wait()
    refused(scene.x.get)
    with pytest.raises(RequestNotFoundError):
        approve(scene, request.id)


def test_operands_that_are_given_by_name_are_as_those_at_their_places():
    """A vector that was held to be of equal elements, since its operand was not where a rule looked for it, weighted one row apart."""
    engine, rows = Engine("named"), torch.randn(60, 3)
    engine.load("icu", rows, ["#icu"], policy=aggregate_only(5))
    peer, count = Peer(engine), itertools.count()
    ((_, _, _, ((x, *_),)),) = peer.say((m.FIND, 1, ("#icu",), 0))

    def run(func, *args, **kwargs):
        out = peer.id(next(count))
        peer.say((m.OP, number_of(func), args, kwargs, out))
        return out

    def get(number):
        return peer.say((m.GET, 1, (number,), False, None))[0]

    weights, spoilt = peer.id(next(count)), torch.ones(60)
    spoilt[7] = 2.0
    peer.say((m.PUT, weights, spoilt, (), ""))
    zero = run(aten.mul.Tensor, run(aten.sum.default, x), 0.0)
    columns = run(aten.t.default, x)
    for named in (run(aten.add.Tensor, other=weights, self=zero), run(aten.add.Tensor, zero, other=weights)):
        assert get(run(aten.mv.default, columns, named))[:1] == (m.ERROR,)
        assert get(run(aten.mv.default, vec=named, self=columns))[:1] == (m.ERROR,)
    (total,) = get(run(aten.sum.dim_IntList, dim=(0,), self=x))[2]
    assert torch.allclose(total, rows.sum(0), atol=1e-4)
    x4, weight = run(aten.view.default, x, (60, 3, 1, 1)), run(aten.view.default, run(aten.slice.Tensor, x, 0, 0, 3), (3, 3, 1, 1))
    rest = {"weight": weight, "bias": None, "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "transposed": False, "output_padding": (0, 0)}
    for out in (run(aten.convolution.default, x4, *rest.values(), 1), run(aten.convolution.default, x4, **rest, groups=1)):
        assert peer.door.session.objects[out][1].label.rows is None, "each row is made of three"


def test_what_is_written_through_a_view_that_was_made_by_name_is_shown():
    engine = Engine("shown")
    engine.load("icu", torch.randn(6, 3), ["#icu"], private=True)
    peer = Peer(engine)
    ((_, _, _, ((x, *_),)),) = peer.say((m.FIND, 1, ("#icu",), 0))
    row, base, view = map(peer.id, range(3))
    peer.say(
        (m.PUT, base, torch.zeros(3), (), ""),
        (m.OP, number_of(aten.select.int), (x, 0, 2), None, row),
        (m.OP, number_of(aten.view.default), (), {"size": (3,), "self": base}, view),
        (m.OP, number_of(aten.copy_.default), (), {"src": row, "self": view}, None),
    )
    peer.say((m.FILE, 1, (base,), "why"))
    (release,) = engine.gate.requests.seen_by(peer.principal)
    assert [line.split(" = ")[-1].split("(")[0] for line in release.program if "#" not in line] == ["select", "view", "copy_", "return given1"]


def test_only_the_owner_decides(scene):
    request = scene.x.request("all of it")
    for attempt in (
        lambda: scene.scientist.ask(m.DECIDE, request.id, True, ""),
        lambda: scene.scientist.ask(m.INSPECT, request.id, True),
        lambda: scene.scientist.ask(m.STORE, torch.ones(1).send(scene.scientist).id, "mine", [], "", False),
    ):
        with pytest.raises(NotOwnerError, match="carol is a scientist"):
            attempt()
    refused(scene.x.get)
    other = scene.worker(MemoryTransport, "dave", Role.SCIENTIST)
    assert [r.id for r in scene.scientist.requests()] == [request.id] and other.requests() == []


def test_get_with_a_reason_files_the_request(scene):
    mean = scene.x.mean()
    with pytest.raises(ApprovalRequiredError, match="syftlite approve") as caught:
        mean.get(reason="a mean")
    approve(scene, caught.value.request.id)
    assert mean.get().item() == CANARY


def test_a_module_is_asked_for_as_one(scene):
    model = nn.Linear(3, 1).send(scene.scientist)
    model(scene.x).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.raises(ApprovalRequiredError) as caught:
        model.get(reason="weights")
    refused(model.get)
    approve(scene, caught.value.request.id)
    assert model.get() is model and model.weight.grad is None, "gradients were not asked for and stay"
    assert len(scene.owner.requests()) == 1


def test_everything_is_in_the_journal_first(scene):
    mean = scene.x.mean(0)
    refused(mean.get_copy)
    request = mean.request("mean")
    approve(scene, request.id)
    mean.get_copy()
    events = [event for event, _ in scene.journal.events if event not in NOTED]
    assert events == ["refused", "filed", "approved", "released"]
    assert scene.journal.events[-1][1] == {"principal": "carol", "releases": [request.id]}


def test_a_journal_that_fails_lets_nothing_go(scene):
    mean = scene.x.mean(0)
    request = mean.request("mean")
    approve(scene, request.id)

    def fail(event, record):
        raise OSError("disk full")

    scene.journal.append = fail
    with pytest.raises(sy.errors.RemoteError, match="internal error"):
        mean.get_copy()


def test_no_request_tells_whether_an_operation_failed(scene, monkeypatch):
    """Of two tables the index 123 is in one: a scientist could ask so about every number."""
    good, failed = (nn.functional.embedding(scene.x[0].long(), torch.zeros(rows, 1).send(scene.scientist)) for rows in (124, 123))
    good.request("first"), failed.request("second")
    assert [what for _, _, _, what, _, _ in scene.scientist.requests()] == [("float32[3, 1] from icu",)] * 2
    monkeypatch.setattr(requests, "MAX_KEPT", 0)
    told = set()
    for pointer in (good, failed):
        with pytest.raises(QuotaExceededError) as refusal:
            pointer.request("third")
        told.add(str(refusal.value))
    assert len(told) == 1


def test_requests_are_bounded(scene):
    for _ in range(100):
        scene.x.request("again")
    with pytest.raises(QuotaExceededError, match="pending"):
        scene.x.request("again")


def test_labels_follow_an_operator_that_fails(scene):
    worker = scene.scientist
    target = torch.zeros(3).send(worker)
    target.index_put_((scene.x[0].long(),), torch.ones(1).send(worker))
    refused(target.get)
    (own,) = [target]
    assert own.shape == (3,)


# -- sessions of one principal at the same time


class Two:
    """Two sessions of carol's on data under ``policy``: the first has found what the second has made. ``meanwhile``: done while the first
    one's release is written down."""

    def __init__(self, policy):
        class Journal(MemoryJournal):
            def append(journal, event, record):
                super().append(event, record)
                self.then(event)

        class History(MemoryHistory):
            def save(history, partitions):
                super().save(partitions)
                self.then("saved")

        self.meanwhile = {}
        self.data = torch.randn(200, 3, generator=torch.Generator().manual_seed(0)) + CANARY
        self.engine = Engine("race", journal=Journal(), history=History())
        self.engine.load("icu", self.data, ["#icu"], policy=policy)
        self.first, self.second, self.owner = (
            self.engine.open_session(Principal(name, role))
            for name, role in (("carol", Role.SCIENTIST), ("carol", Role.SCIENTIST), ("owner", Role.OWNER))
        )
        self.count = self.second.prefix << 32
        for session in (self.first, self.second):
            ((self.icu, *_),) = self.ask(session, m.FIND, ("#icu",), 0)[3]

    def then(self, event):
        self.meanwhile.pop(event, lambda: None)()

    def ask(self, session, kind, *fields):
        return self.engine.handle(session, (kind, 1, *fields))

    def op(self, func, *args, made=True):
        self.count += 1
        self.engine.handle(self.second, (m.OP, BY_FUNC[func].number, args, None, self.count if made else None))
        return self.count

    def found(self, number):
        self.engine.handle(self.second, (m.DESCRIBE, number, ("#made",), ""))
        self.ask(self.first, m.FIND, ("#made",), 0)
        return number

    def get(self, number):
        answer = self.ask(self.first, m.GET, (number,), False, None)
        return answer[2][0] if answer[0] == m.VALUES else None


@pytest.mark.parametrize("when", ["saved", "released"])
@pytest.mark.parametrize("first", [True, False], ids=["for the first time", "again"])
def test_an_aggregate_is_not_exchanged_while_it_leaves(when, first):
    """Its owner's lane writes two rows' sum into it while another session's release of it is written down."""
    two = Two(sy.policy.aggregate_only(min_units=10))
    total = two.found(two.op(aten.sum.dim_IntList, two.icu, (0,)))
    pair = two.op(aten.sum.dim_IntList, two.op(aten.slice.Tensor, two.icu, 0, 0, 2), (0,))
    assert two.get(pair) is None
    if not first:
        assert torch.allclose(two.get(total), two.data.sum(0))
    two.meanwhile[when] = lambda: two.op(aten.copy_.default, total, pair, made=False)
    for _ in range(3):
        seen = two.get(total)
        assert seen is None or torch.allclose(seen, two.data.sum(0))


def test_what_was_approved_is_not_exchanged_while_it_leaves():
    two = Two(sy.policy.approve())
    mean = two.found(two.op(aten.mean.dim, two.icu, (0,)))
    release = two.ask(two.first, m.FILE, (mean,), "the mean")[2]
    two.ask(two.owner, m.DECIDE, release, True, "")
    row = two.op(aten.select.int, two.icu, 0, 0)
    two.meanwhile["released"] = lambda: two.op(aten.copy_.default, mean, row, made=False)
    assert [two.get(mean) for _ in range(3)] == [None] * 3


def test_rows_that_another_session_writes_to_are_none_to_ask_about(monkeypatch):
    """What had one row in each place has all of them in each, by the time that it is mapped."""
    two = Two(sy.policy.dp(epsilon=1e6))
    rows = two.found(two.op(aten.neg.default, two.icu))
    spread = two.op(aten.expand.default, two.op(aten.select.int, two.icu, 0, 0), (200, 3))
    column = two.op(aten.select.int, rows, 1, 0)
    two.found(column)
    reserve, seen = two.engine.ledger.reserve, []

    def meanwhile(*args):
        two.op(aten.copy_.default, rows, spread, made=False)
        return reserve(*args)

    monkeypatch.setattr(two.engine.ledger, "reserve", meanwhile)
    monkeypatch.setattr(Query, "run", lambda query, values, units: seen.append(values) or torch.zeros(()))
    answer = two.ask(two.first, m.MEASURE, column, (1, 1.0, None, (0.0, 1.0), ()), "once", (two.first.prefix << 32) + 1)
    assert answer[0] == m.MEASURED, answer
    assert torch.equal(seen[0], -two.data[:, 0])


@pytest.mark.parametrize("when", ["looked at", "written down"])
def test_what_is_filed_is_not_exchanged_while_it_is_written_down(when, monkeypatch):
    """The owner is shown how a mean was made, and its own lane writes a row into it before it is kept, or while."""
    two = Two(sy.policy.approve())
    mean = two.found(two.op(aten.mean.dim, two.icu, (0,)))
    row = two.op(aten.select.int, two.icu, 0, 0)

    def write():
        two.op(aten.copy_.default, mean, row, made=False)

    if when == "looked at":
        real = releases.program
        monkeypatch.setattr(releases, "program", lambda *given: (real(*given), write())[0])
        answer = two.ask(two.first, m.FILE, (mean,), "the mean")
        assert answer[0] == m.ERROR and "writes to this object" in answer[3]
        return
    two.meanwhile["filed"] = write
    release = two.ask(two.first, m.FILE, (mean,), "the mean")[2]
    two.ask(two.owner, m.DECIDE, release, True, "")
    assert two.get(mean) is None
    ((kept,),) = (answer[2] for answer in [two.ask(two.first, m.TAKE, release)])
    assert torch.allclose(kept, two.data.mean(0))
