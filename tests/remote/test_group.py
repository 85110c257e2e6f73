"""Groups of real nodes: parties that are killed, clients that go, and what passes whom while a value is shared and computed on."""

import functools
import itertools
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch

import syftlite as sy
from syftlite.errors import ConnectionLostError, Misuse, SharingAbortedError
from syftlite.mpc.bits import tensor
from syftlite.mpc.correlations import FREE, SENT, layout
from syftlite.remote.group import Group
from syftlite.storage.tokens import discover
from syftlite.transports.client import SocketTransport
from syftlite.transports.links import StreamLink
from syftlite.wire import messages as m

PATIENCE = 30.0
_number = itertools.count()


class Nodes:
    """Nodes of this process, and the client's face of each by name."""

    def __init__(self, *names):
        self.nodes = {n: sy.WebsocketServerWorker(id=f"{n}{next(_number)}", port=0).start(wait=False) for n in names}
        self.faces = {n: self.connect(n) for n in names}

    def connect(self, name):
        node = self.nodes[name]
        return sy.BaseWorker(f"{name} {next(_number)}", SocketTransport(node.uri, discover("127.0.0.1", node.port, "scientist")))

    def close(self):
        for closing in (*self.faces.values(), *self.nodes.values()):
            closing.close()


@pytest.fixture
def nodes(tmp_path, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path))
    made = Nodes("alice", "bob", "carol", "dana")
    yield made
    made.close()


# -- members that go


def shared(x, *holders, provider):
    return x.fix_precision().share(*holders, crypto_provider=provider)


@pytest.mark.parametrize(("victim", "runs"), [("alice", 0), ("bob", 0), ("bob", 3), ("carol", 0), ("carol", 2)])
def test_a_killed_process_ends_the_computation(victim, runs):
    """The victim is stopped, so that it stays in the run that is sent next, and killed there; `runs` went well before."""
    cluster = sy.LocalCluster("alice", "bob", "carol", threads=1)
    with cluster as (alice, bob, carol):
        x = torch.tensor([1.5, -2.0, 3.0])
        value = shared(x, alice, bob, provider=carol)
        for _ in range(runs + 1):
            assert torch.allclose(value.relu().get().float_precision(), x.relu(), atol=1e-3)
        process = cluster.process(victim)
        process.send_signal(signal.SIGSTOP)
        result = (value * value).relu()
        process.kill()
        process.wait()
        with pytest.raises((SharingAbortedError, ConnectionLostError)):
            result.get()
        for worker in (alice, bob):
            if worker.id != victim:  # nobody hangs
                assert torch.equal((torch.ones(2).send(worker) + 1).get(), torch.full((2,), 2.0))
        if victim == "carol":  # another provider
            again = shared(x, alice, bob, provider=sy.local_worker)
            assert torch.allclose(again.relu().get().float_precision(), x.relu(), atol=1e-3)


def test_a_client_that_goes_in_a_run_leaves_no_thread_at_its_nodes(nodes):
    shared(torch.ones(2), nodes.faces["alice"], nodes.faces["bob"], provider=nodes.faces["carol"]).relu().get()
    before = set(threading.enumerate())
    mine = Nodes.__new__(Nodes)
    mine.nodes = nodes.nodes
    faces = [mine.connect(name) for name in ("alice", "bob", "carol")]
    group = Group.of(faces[:2], faces[2])
    group.join()
    pointer = torch.ones(4, dtype=torch.int64).send(faces[0])
    faces[0].cast((m.COMPUTE, group.number, 3, (pointer.id,), {"f": 0}, (faces[0].next_id(),)))  # bob never hears of it
    faces[0].transport.flush()
    for face in faces:
        face.close()
    deadline = time.monotonic() + PATIENCE
    while left := [t for t in threading.enumerate() if t not in before and " lane_" not in t.name]:  # a node's pool stays
        assert time.monotonic() < deadline, left
        left[0].join(0.1)


def test_a_group_has_a_provider_that_holds_nothing(nodes):
    alice, bob = nodes.faces["alice"], nodes.faces["bob"]
    with pytest.raises(Misuse, match="cannot hold shares and provide"):
        shared(torch.ones(2), alice, bob, provider=alice)
    with pytest.raises(Misuse, match="names one twice"):
        shared(torch.ones(2), alice, alice, provider=bob)


# -- what passes whom


class Wiretap:
    """Every byte of the client's connections, of links and of deliveries, by who received or sent it."""

    def __init__(self, nodes, monkeypatch):
        self.client, self.received, self.sent, self.said = [], {}, {}, {}
        for face in nodes.faces.values():
            self._tap(face.transport._socket)
        for name, node in nodes.nodes.items():
            self.received[name], self.sent[name], self.said[name] = [], [], []
            self._tap_node(name, node.engine, monkeypatch)
        fill, send = StreamLink._fill, StreamLink._send

        def filled(link, target, **options):
            whole = target
            fill(link, target, **options)
            self.received.get(getattr(link, "owner", ""), []).append(bytes(whole))

        def sent(link, *parts):
            self.sent.get(getattr(link, "owner", ""), []).append(b"".join(bytes(p) for p in parts))
            send(link, *parts)

        monkeypatch.setattr(StreamLink, "_fill", filled)
        monkeypatch.setattr(StreamLink, "_send", sent)

    def _tap(self, socket):
        receive, send = socket.receive, socket.send

        def received(wait):
            got = receive(wait)
            self.client += got
            return got

        def sent(buffers):
            buffers = [bytes(b) for b in buffers]
            self.client.append(b"".join(buffers))
            send(buffers)

        socket.receive, socket.send = received, sent

    def _tap_node(self, name, engine, monkeypatch):
        handle, deliver = engine.handle, engine.arrivals.deliver

        def handled(session, message):
            answer = handle(session, message)  # first: what is deferred comes again
            self.said[name].append(message)
            return answer

        def delivered(expected, tensor, **options):
            self.received[name].append(tensor.numpy().tobytes())
            deliver(expected, tensor, **options)

        monkeypatch.setattr(engine, "handle", handled)
        monkeypatch.setattr(engine.arrivals, "deliver", delivered)
        for way in ("dial", "accept"):
            monkeypatch.setattr(engine.peers, way, self._owned(name, getattr(engine.peers, way)))

    def _owned(self, name, make):
        def made(*args):
            link = make(*args)
            link.owner = name
            return link

        return made


def words(frames):
    """Every 8 bytes in a row as an int, at any offset."""
    return {int.from_bytes(f[i : i + 8], "little") for f in frames for i in range(len(f) - 7)}


def adds_up(seen, secret):
    """Whether two of ``seen`` sum to ``secret`` modulo 2^64."""
    return any((secret - w) % 2**64 in seen for w in seen)


SECRET = [0x5EC2E7 / 2**8, -0x1DE5 / 2**7, 12345.671875]


def test_the_client_never_sees_a_value_nor_shares_of_it_before_the_second_get(nodes, monkeypatch):
    alice, bob, carol, dana = (nodes.faces[n] for n in ("alice", "bob", "carol", "dana"))
    values = torch.tensor(SECRET)
    nodes.nodes["dana"].load(values, "#x")
    tap = Wiretap(nodes, monkeypatch)
    (x,) = dana.search("#x")
    located = x.fix_precision().share(alice, bob, crypto_provider=carol)
    located.relu()
    brought = located.get()
    assert type(brought) is not torch.Tensor, "the first get reveals nothing"
    product = brought * 2
    product.relu()
    for face in (alice, bob, carol, dana):
        face.ask(m.SYNC)
    fixed = [int(v * 2**16) % 2**64 for v in SECRET]
    seen = words(tap.client)
    raw = values.numpy().tobytes()
    assert not any(raw[i : i + 4] in f for i in range(0, len(raw), 4) for f in tap.client if raw[i : i + 4] != bytes(4))
    assert not seen & set(fixed) and not any(adds_up(seen, v) for v in fixed)
    for party in ("alice", "bob", "carol"):  # nor does any party alone
        mine = words(tap.received[party])
        assert not mine & set(fixed) and not any(adds_up(mine, v) for v in fixed)
    assert tap.received["alice"] and tap.received["bob"]
    together = words(tap.received["alice"]) | words(tap.received["bob"])
    assert all(adds_up(together, v) for v in fixed), "the control: both together do"

    assert torch.allclose(brought.get().float_precision(), values, atol=1e-3)
    assert all(adds_up(words(tap.client), v) for v in fixed), "the control: revealed shares do"


def test_the_provider_receives_nothing_that_depends_on_values(nodes, monkeypatch):
    alice, bob, carol = (nodes.faces[n] for n in ("alice", "bob", "carol"))
    shared(torch.ones(3), alice, bob, provider=carol).relu().get()
    tap = Wiretap(nodes, monkeypatch)
    views = []
    for values in (torch.zeros(5), torch.tensor([1e3, -2e3, 0.5, -1e-3, 77.0])):
        start = len(tap.said["carol"])
        x = shared(values, alice, bob, provider=carol)
        ((x * x).relu() + x).get()
        (x > 0).get()
        carol.ask(m.SYNC)
        told = [message for message in tap.said["carol"][start:] if message[0] not in (m.SYNC, m.DROP)]
        views.append([(message[0], *message[2:5]) for message in told])
    assert views[0] == views[1] and {message[0] for message in views[0]} == {m.DEAL}, "kernels, shapes and arguments"
    assert tap.received["carol"] == [], "no holder sends it a byte"


# -- a client that provides and receives


def inverse(a):
    """Of odd numbers, mod 2^64, by Newton's iteration."""
    y = a.clone()
    for _ in range(6):
        y = y * (2 - a * y)
    return y


def recovered(dealer, kept, shares):
    """What two output shares of relu(x) and all that the provider knows determine of x: (guesses, where they are certain)."""
    number, kind, args, correction = next(k for k in kept if k[1] == "relu")
    found, fields = layout(kind, args), []
    for i, source in enumerate(dealer.sources):
        sent = correction.numpy() if i == 1 else source.array(found.sent, number, found.label, SENT)
        parts = {FREE: source.array(found.free, number, found.label, FREE), SENT: sent}
        fields.append({f.name: tensor(f.view(parts)).reshape(-1) for f in found.fields if f.name in ("r", "rho", "t_rho")})
    r = fields[0]["r"] + fields[1]["r"]
    guess, sure = torch.zeros_like(r), torch.zeros(len(r), dtype=torch.bool)
    for i in (0, 1):
        (rho, t), (other_rho, other_t) = ((fields[k]["rho"], fields[k]["t_rho"]) for k in (i, 1 - i))
        c = (shares[i] + t) * inverse(rho | 1)
        fits = (rho & 1 == 1) & (c * other_rho - other_t == shares[1 - i])
        guess, sure = torch.where(fits, c - r, guess), sure | fits
    return guess, sure


def _tap_answers(transport, seen, monkeypatch):
    """Note every value that ``transport`` brings."""
    finish = transport.finish

    def finished(request, *limits):
        got = finish(request, *limits)
        if got[0] == m.VALUES:
            seen.extend(got[2])
        return got

    monkeypatch.setattr(transport, "finish", finished)


@pytest.mark.parametrize("flawed", [False, True], ids=["as it is", "without the zero-share"])
def test_who_provides_and_receives_learns_the_output_alone(nodes, monkeypatch, flawed):
    """The default set-up: this process provides. Bare output shares of relu would give it a fifth of the hidden negatives and more."""
    if flawed:
        monkeypatch.setattr("syftlite.engine.holder.release", lambda party, x: x.clone())
    alice, bob = nodes.faces["alice"], nodes.faces["bob"]
    x = torch.randint(-(2**40), 2**40, (6400,))
    secret = x.share(alice, bob, crypto_provider=sy.local_worker)
    group = secret.group
    group.join()
    dealer, kept = group._dealer.dealer, []
    deal = dealer.deal
    monkeypatch.setattr(dealer, "deal", lambda n, kind, *args: kept.append((n, kind, args, deal(n, kind, *args).clone())) or kept[-1][3].clone())
    seen = []
    for holder in (alice, bob):
        _tap_answers(holder.transport, seen, monkeypatch)
    assert torch.equal(secret.relu().get(), x.clamp(min=0))
    guess, sure = recovered(dealer, kept, seen)
    right = (sure & (guess == x)).double().mean()
    assert right > 0.2 if flawed else right == 0


# -- threads, and Ctrl-C


@pytest.fixture
def virtual():
    workers = [sy.VirtualWorker(id=f"in step {name}") for name in ("alice", "bob", "carol")]
    yield workers
    for worker in workers:
        worker.close()


KINDS = {
    "provider": lambda x, a, b, c: x.share(a, b, crypto_provider=c),
    "here": lambda x, a, b, c: x.share(a, b),
    "replicated": lambda x, a, b, c: x.share(a, b, c, protocol="aby3"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore:no crypto_provider")
def test_threads_share_compute_and_open_with_one_group(virtual, kind):
    wrong = []

    def work(number):
        for turn in range(30):
            x = torch.arange(20) + 100 * number
            y = KINDS[kind](x, *virtual)
            if not torch.equal((y * y if turn % 3 else y).get(), x * x if turn % 3 else x):
                wrong.append((number, turn))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_members_hear_of_one_group_at_a_time():
    """Of two that hear of two groups' computations in different orders, each would wait for the other."""
    ann, ben, cy, dan, eve = (SimpleNamespace(id=n, conducted=threading.RLock(), transport=SimpleNamespace(uri=n)) for n in "abcde")
    one, other, apart = Group((ann, ben), cy), Group((dan, ann), cy), Group((dan, eve), None)
    far, inside = threading.Event(), threading.Event()

    def tell():
        with apart.in_step():
            far.set()
        with other.in_step():
            inside.set()

    thread = threading.Thread(target=tell)
    with one.in_step(), one.in_step():
        thread.start()
        assert far.wait(PATIENCE) and not inside.wait(0.02)
    assert inside.wait(PATIENCE)
    thread.join()


TOLD = {"compute": m.COMPUTE, "reveal": m.REVEAL, "get": m.GET}


@pytest.mark.parametrize(("message", "kind"), [*itertools.product(TOLD, KINDS), ("deal", "provider")])
@pytest.mark.filterwarnings("ignore:no crypto_provider", "ignore:coroutine")
def test_ctrl_c_between_two_members_harms_nothing_that_follows(virtual, kind, message, monkeypatch):
    """One member has been told, the other has not; the next computation joins anew."""
    x = torch.arange(20)
    y = KINDS[kind](x, *virtual)
    told = []

    def interrupted(real, kind, *fields):
        if (kind[0] if isinstance(kind, tuple) else kind) == TOLD.get(message, m.DEAL):
            told.append(kind)
            if len(told) == 2 or message == "deal":
                raise KeyboardInterrupt
        return real(kind, *fields)

    for worker in virtual:
        for name in ("cast", "begin"):
            monkeypatch.setattr(worker.transport, name, functools.partial(interrupted, getattr(worker.transport, name)))
    with pytest.raises(KeyboardInterrupt):
        (y * y).get()
    monkeypatch.undo()
    for _ in range(3):
        assert torch.equal(y.get(), x) and torch.equal((y * y).get(), x * x)
