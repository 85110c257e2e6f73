"""Worker to worker: a value that moves between nodes goes by their own link, under a ticket that the client carries."""

import copy
import itertools
import time

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import (
    AuthenticationError,
    GetNotPermittedError,
    ObjectNotFoundError,
    ProtocolError,
    QuotaExceededError,
    SendNotPermittedError,
)
from syftlite.storage.tokens import discover
from syftlite.testing.peer import Peer
from syftlite.transports.client import SocketTransport
from syftlite.transports.peers import PeerLinks
from syftlite.wire import messages as m

_number = itertools.count()


@pytest.fixture
def pair(tmp_path, monkeypatch):
    """Two nodes of this process and a worker's face for each: (first, second, their nodes)."""
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path))
    nodes = [sy.WebsocketServerWorker(id=f"peer{next(_number)}", port=0).start(wait=False) for _ in range(2)]
    transports = [SocketTransport(n.uri, discover("127.0.0.1", n.port, "scientist")) for n in nodes]
    faces = [sy.BaseWorker(f"face{next(_number)}", t) for t in transports]
    yield (*faces, nodes)
    for closing in (*faces, *nodes):
        closing.close()


@pytest.mark.parametrize("numel", [0, 3, 400_000])
def test_a_value_moves_without_passing_the_client(pair, numel, monkeypatch):
    first, second, nodes = pair
    x = torch.randn(numel)
    pointer = x.send(first)
    monkeypatch.setattr("syftlite.remote.transfer.read", lambda *a, **k: pytest.fail("the client read the value"))
    moved = pointer.move(second)
    monkeypatch.undo()
    assert moved.location is second and moved.shape == x.shape
    assert torch.equal((moved * 1).get(), x)
    with pytest.raises(ObjectNotFoundError, match="consumed"):
        pointer.get()
    first.ask(m.SYNC)
    assert nodes[0].objects_count() == 0


def test_modules_and_optimizers_move_between_nodes(pair, monkeypatch):
    first, second, _ = pair
    asked = []
    for worker in (first, second):
        monkeypatch.setattr(worker, "ask", lambda kind, *fields, ask=worker.ask: asked.append(kind) or ask(kind, *fields))
    here = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    there = copy.deepcopy(here).send(first)
    plain, moving = torch.optim.Adam(here.parameters(), lr=0.1), torch.optim.Adam(there.parameters(), lr=0.1)
    data = torch.randn(8, 3)

    def step(model, optimizer, rows):
        optimizer.zero_grad()
        model(rows).pow(2).mean().backward()
        optimizer.step()

    for worker in (first, second, first):
        there.move(worker)
        rows = data.send(worker)
        for _ in range(3):
            step(there, moving, rows)
            step(here, plain, data)
    assert asked == [m.EXPECT, m.SHIP] * 4, "the module, then the moments of its parameters, twice"
    for p, q in zip(here.parameters(), there.get().parameters(), strict=True):
        assert torch.allclose(p, q, atol=1e-6)


def test_modules_and_moves_in_place_do_not_pass_the_client(pair, monkeypatch):
    first, second, nodes = pair
    model, x = nn.Linear(3, 2).send(first), torch.ones(3, requires_grad=True).send(first)
    (x * 2).sum().backward()
    asked = []
    ask = first.ask
    monkeypatch.setattr(first, "ask", lambda kind, *fields: asked.append(kind) or ask(kind, *fields))
    assert model.move(second) is model and x.move_(second) is x
    assert asked == [m.SHIP] * 3, "nothing was read, and a module is one delivery; so are a leaf and its gradient"
    assert x.location is second and torch.equal(x.grad.get_copy(), torch.full((3,), 2.0))
    assert model(x.detach().view(1, 3)).location is second
    first.ask(m.SYNC)
    assert nodes[0].objects_count() == 0


def test_a_gradient_that_crosses_serves_its_other_branches_too(pair):
    first, second, _ = pair
    x, y = (torch.ones(2, requires_grad=True).send(first) for _ in range(2))
    ((x * 2).move(second) + (y * 3).move(second)).sum().backward()
    assert torch.equal(x.grad.get_copy(), torch.full((2,), 2.0)) and torch.equal(y.grad.get_copy(), torch.full((2,), 3.0))


def test_gradients_cross_back(pair):
    first, second, _ = pair
    bottom, top = nn.Linear(3, 4), nn.Linear(4, 1)
    whole = copy.deepcopy(nn.Sequential(bottom, nn.ReLU(), top))
    data = torch.randn(5, 3)
    bottom.send(first), top.send(second)
    top(bottom(data.send(first)).relu().move(second)).sum().backward()
    whole(data).sum().backward()
    assert torch.allclose(bottom.weight.grad.get_copy(), whole[0].weight.grad, atol=1e-6)
    assert torch.allclose(top.weight.grad.get_copy(), whole[2].weight.grad, atol=1e-6)


def test_a_module_whose_parts_are_apart_comes_together(pair):
    first, second, nodes = pair
    here = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    apart = copy.deepcopy(here)
    apart[0].send(first), apart[1].send(second)
    (apart[0](torch.ones(2, 3).send(first)).sum()).backward()
    grad = apart[0].weight.grad.get_copy()
    assert apart.move(second) is apart
    assert all(t.location is second for t in (*apart.parameters(), *apart.buffers()))
    assert torch.equal(apart[0].weight.grad.get_copy(), grad)
    assert torch.equal(apart.eval()(torch.ones(2, 3).send(second)).get(), here.eval()(torch.ones(2, 3)))


def test_more_than_one_delivery_may_hold(pair, monkeypatch):
    first, second, nodes = pair
    monkeypatch.setattr("syftlite.remote.transfer.SHIPMENT", 3)
    layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(4))
    values = [p.detach().clone() for p in layers.parameters()]
    layers.send(first).move(second)
    assert all(p.location is second for p in layers.parameters())
    assert all(torch.equal(p, v) for p, v in zip(layers.get().parameters(), values, strict=True))


def test_a_module_of_which_one_part_may_not_go_stays_whole(pair):
    first, second, nodes = pair
    nodes[0].load(torch.ones(1), "#icu", private=True)
    model = nn.Linear(1, 1).send(first)
    with torch.no_grad():
        model.bias.add_(first.search("#icu")[0])
    with pytest.raises(GetNotPermittedError, match="PRIVATE"):
        model.move(second)
    assert model.weight.location is model.bias.location is first and nodes[1].objects_count() == 0


def test_private_values_do_not_move(pair):
    first, second, nodes = pair
    nodes[0].load(torch.ones(3), "#icu", private=True)
    (x,) = first.search("#icu")
    for pointer in (x, x * 2):
        with pytest.raises(GetNotPermittedError, match="PRIVATE"):
            pointer.move(second)
    assert nodes[1].objects_count() == 0


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (lambda values: values[1:], "asked for"),
        (lambda values: [*values, values[0]], "asked for"),
        (lambda values: [v[None] for v in values], "the pointer is to"),
        (lambda values: [v.double() for v in values], "the pointer is to"),
    ],
)
def test_a_node_that_gives_other_tensors_than_asked_for_is_told_of(pair, answer, match, monkeypatch):
    first, ask = pair[0], pair[0].ask
    pointer, model = torch.ones(2).send(first), nn.Linear(2, 1).send(first)
    monkeypatch.setattr(first, "ask", lambda kind, *fields: (*(told := ask(kind, *fields))[:2], answer(told[2])))
    for use in (pointer.get_copy, pointer.sum().item, model.get, pointer.get):
        with pytest.raises(ProtocolError, match=match):
            use()


@pytest.mark.parametrize("specs", [(), (True,), ((0, (1,), (1,), 0),), ((0, (1,), (1,), 0),) * 2])
def test_a_node_that_answers_with_no_results_of_the_operator_is_told_of(pair, specs, monkeypatch):
    first, x = pair[0], torch.ones(2).send(pair[0])
    monkeypatch.setattr(first, "ask", lambda kind, *fields: (m.SPECS, 1, specs))
    for use, right in ((x.nonzero, 1), (lambda: torch.equal(x, x), 0)):
        if len(specs) != 1 or (type(specs[0]) is tuple) != right:
            with pytest.raises(ProtocolError, match="something else"):
                use()


def test_what_may_not_move_takes_no_room_where_it_was_expected(pair):
    first, second, nodes = pair
    nodes[0].load(torch.ones(100), "#icu", private=True)
    session = nodes[1].engine.sessions[second.transport.prefix]
    session.max_bytes = 500
    for _ in range(2):
        with pytest.raises(GetNotPermittedError, match="PRIVATE"):
            first.search("#icu")[0].move(second)
        assert torch.equal(torch.ones(120).send(second).get(), torch.ones(120))
    assert session.used == 0


def test_a_node_calls_only_whom_its_owner_allows(pair):
    first, _, nodes = pair
    nodes[0].engine.peers = PeerLinks(["wss://lab.example:8777"], local=False)
    x = torch.ones(2).send(first)
    for uri in ("ws://127.0.0.1:22", "ws://10.0.0.1:80", "wss://lab.example:1", "http://lab.example", "nonsense"):
        with pytest.raises(SendNotPermittedError, match=r"peers=\["):
            first.ask(m.SHIP, [(x.id, 1)], uri, "ticket")
    with pytest.raises(SendNotPermittedError, match="in clear"):
        PeerLinks(["ws://lab.example:8777"]).deliver("ws://lab.example:8777", "t", [(1, torch.ones(1))])
    assert torch.equal(x.get(), torch.ones(2)), "nothing was lost"


def test_a_sender_that_is_busy_for_minutes_delivers_all_the_same(pair, monkeypatch):
    first, second, nodes = pair
    x, later, handle = torch.ones(2).send(first), [0.0], nodes[0].engine.handle

    def busy(session, message):
        later[0] = 150.0  # it has had as much to do before
        return handle(session, message)

    monkeypatch.setattr(nodes[0].engine, "handle", busy)
    monkeypatch.setattr(nodes[1].engine.arrivals, "clock", lambda: time.time() + later[0])
    monkeypatch.setattr("syftlite.remote.transfer.monotonic", lambda: time.monotonic() + later[0])
    assert torch.equal(x.move(second).get(), torch.ones(2))


def test_a_move_that_fails_loses_nothing(pair):
    first, second, nodes = pair
    x = torch.ones(2).send(first)
    nodes[1].close()
    with pytest.raises(sy.errors.SyftliteError):
        x.move(second)
    assert torch.equal(x.get(), torch.ones(2))


# -- the ticket


class Scene:
    def __init__(self):
        self.now = 0.0
        self.engine = Engine(f"ticketed{next(_number)}", clock=lambda: self.now)
        self.client = Peer(self.engine, "carol")

    def expect(self, number=1, nbytes=8):
        self.to = self.client.id(number)
        return self.client.say((m.EXPECT, 1, ((self.to, nbytes),)))[0][2]

    def courier(self, ticket):
        peer = Peer(self.engine, shake=False)
        return peer, peer.shake(ticket, "ticket")


@pytest.fixture
def scene():
    return Scene()


def test_a_ticket_is_for_one_delivery(scene):
    ticket = scene.expect()
    courier, welcome = scene.courier(ticket)
    assert welcome[-1][0] == m.WELCOME
    courier.say((m.PUT, scene.to, torch.ones(2), (), ""))
    scene.client.say((m.ARRIVED, scene.to))
    assert torch.equal(scene.client.say((m.GET, 1, [scene.to], True, None))[0][2][0], torch.ones(2))
    _, again = scene.courier(ticket)
    assert again[-1][0] == m.ERROR, "used"


def test_a_ticket_may_be_for_several_values(scene):
    numbers = [scene.client.id(n) for n in (1, 2, 3)]
    ticket = scene.client.say((m.EXPECT, 1, [(number, 8) for number in numbers]))[0][2]
    courier, _ = scene.courier(ticket)
    courier.say(*[(m.PUT, number, torch.full((2,), float(n)), (), "") for n, number in enumerate(numbers[:2])])
    scene.client.say(*[(m.ARRIVED, number) for number in numbers])
    for n, number in enumerate(numbers[:2]):
        assert torch.equal(scene.client.say((m.GET, 1, [number], True, None))[0][2][0], torch.full((2,), float(n)))
    answer = scene.client.say((m.GET, 1, [numbers[2]], True, None))[0]
    assert answer[0] == m.ERROR and "arrived" in answer[3]
    courier.say((m.PUT, numbers[0], torch.ones(2), (), ""))
    assert not scene.engine.arrivals._arrived, "each once"


def test_each_value_is_within_what_was_announced_for_it(scene):
    numbers = [scene.client.id(n) for n in (1, 2)]
    courier, _ = scene.courier(scene.client.say((m.EXPECT, 1, [(numbers[0], 4), (numbers[1], 12)]))[0][2])
    courier.say((m.PUT, numbers[0], torch.ones(2), (), ""))
    scene.client.say((m.ARRIVED, numbers[0]))
    assert scene.client.say((m.GET, 1, [numbers[0]], True, None))[0][0] == m.ERROR


def test_all_values_of_a_ticket_count_towards_the_quota_and_the_number_expected(scene):
    session = scene.engine.open_session(Principal("dave", Role.SCIENTIST))
    session.max_bytes = 1000
    scene.engine.arrivals.expect(session, [(1, 400), (2, 400)])
    with pytest.raises(QuotaExceededError):
        scene.engine.arrivals.expect(session, [(3, 150), (4, 150)])
    with pytest.raises(QuotaExceededError, match="expected"):
        scene.engine.arrivals.expect(session, [(n, 0) for n in range(3, 1002)])


def test_a_ticket_expires_and_goes_with_its_session(scene):
    late, orphan = scene.expect(1), scene.expect(2)
    scene.now += 121
    assert scene.courier(late)[1][-1][0] == m.ERROR
    orphan = scene.expect(3)
    scene.client.leave()
    assert scene.courier(orphan)[1][-1][0] == m.ERROR


def test_a_delivery_that_began_in_time_takes_as_long_as_it_takes(scene):
    session = scene.client.door.session
    for comes in (True, False):
        courier, _ = scene.courier(scene.expect())
        scene.now += 500
        scene.engine.arrivals.expire()
        if comes:
            courier.say((m.PUT, scene.to, torch.ones(2), (), ""), (m.SYNC, 1))
        courier.leave()
        scene.now += 500
        assert session.used == 8 * comes, "what cannot come any more takes no room"
        scene.client.say((m.ARRIVED, scene.to))
        answer = scene.client.say((m.GET, 1, [scene.to], True, None), (m.DROP, [scene.to]))[0]
        assert answer[0] == (m.VALUES if comes else m.ERROR)
    assert session.used == 0


@pytest.mark.parametrize(
    "message",
    [
        (m.PUT, 999, torch.ones(2), (), ""),
        (m.GET, 1, [1], False, None),
        (m.FIND, 1, (), 0),
        (m.LIST, 1, 0),
        (m.OP, 1, (1, 1), None, 2),
        (m.EXPECT, 1, ((5, 8),)),
        (m.DROP, [1]),
    ],
    ids=lambda message: m.FROM_CLIENT[message[0]].name,
)
def test_a_ticket_opens_nothing_else(scene, message):
    courier, _ = scene.courier(scene.expect())
    answers = courier.say(message)
    assert [a[0] for a in answers] == [m.ERROR] and courier.door.closing


def test_more_than_was_announced_is_refused(scene):
    courier, _ = scene.courier(scene.expect(nbytes=4))
    courier.say((m.PUT, scene.to, torch.ones(2), (), ""))
    scene.client.say((m.ARRIVED, scene.to))
    answer = scene.client.say((m.GET, 1, [scene.to], True, None))[0]
    assert answer[0] == m.ERROR


def test_what_never_came_is_poisoned(scene):
    scene.expect()
    scene.client.say((m.ARRIVED, scene.to))
    answer = scene.client.say((m.GET, 1, [scene.to], True, None))[0]
    assert answer[0] == m.ERROR and "arrived" in answer[3]


def test_expectations_are_within_the_quota(scene):
    with pytest.raises(QuotaExceededError):
        scene.engine.arrivals.expect(scene.engine.open_session(Principal("dave", Role.SCIENTIST)), [(1, 1 << 60)])


def test_a_wrong_ticket_is_refused(pair):
    second = pair[1]
    with pytest.raises(AuthenticationError, match="ticket"):
        SocketTransport(second.transport.uri, "x" * 43, scheme="ticket")
