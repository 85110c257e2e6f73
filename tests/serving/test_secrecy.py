"""Every byte that each party of a served model receives, and that none of it tells of the input, the weights or the output.

The engines are those of nodes, their links pass a relay that keeps what it carries, and every message from and to a client is kept. The
secrets are as far from random as can be (all zeros, one number everywhere), so that a byte that is not covered by a mask stands out: bytes
received must be uniform, and no two things that one party received may add up to a secret. Each planted leak is caught by the same checks.
"""

import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import syftlite as sy
from syftlite.engine.session import Principal, Role
from syftlite.serving import client as clients
from syftlite.serving.graph import Builder, Input
from syftlite.transports.links import HEADER
from syftlite.transports.memory import MemoryTransport
from syftlite.wire import messages as m

sys.path.append(str(Path(__file__).parents[1] / "engine"))

from _parties import Scene

WIDTH, ROWS = 64, 8


class Wire(MemoryTransport):
    """A session whose messages are carried out on a thread of the node's, in order; ``seen`` keeps all tensors, by who gets them."""

    def __init__(self, engine, principal, seen):
        super().__init__(engine, principal)
        self.uri, self.seen = f"ws://{engine.name}", seen
        self._lane = ThreadPoolExecutor(1, f"{engine.name} lane")

    def cast(self, message, site=None):
        for part in message:
            if isinstance(part, torch.Tensor):
                self.seen[self.worker].append(part.clone())
        self._drop()
        self._lane.submit(self._handle, self.session, message)

    def _drop(self):
        """After what was cast before: ids of objects that are not needed any more."""
        gone = [self.drops.popleft() for _ in range(len(self.drops))]
        self._lane.submit(lambda: [self.session.drop(number) for number in gone])

    def settle(self):
        """Drops have their turn."""

    def begin(self, kind, *fields):
        self._drop()
        return self._lane.submit(super().begin, kind, *fields).result()

    def finish(self, request, within=None):
        answer = super().finish(request, within)
        if answer[0] == m.VALUES:
            self.seen[self.principal] += [t.clone() for t in answer[2]]
        return answer


class Play:
    """A linear model of one weight everywhere, shared and queried, with what everybody received."""

    def __init__(self, weight=0.0, x=0.0, relu=True):
        self.scene = Scene()
        self.seen = defaultdict(list)
        self.workers = {}
        for name, engine in self.scene.engines.items():
            self.workers[name] = sy.BaseWorker(name, Wire(engine, Principal("owner", Role.SCIENTIST), self.seen))
        build = Builder(Input((WIDTH,)))
        at = build.add("linear", "first", ["input"], {"weight": torch.full((WIDTH, WIDTH), weight), "bias": torch.full((WIDTH,), weight)})
        at = build.add("relu", "relu", [at]) if relu else at
        build.add("linear", "last", [at], {"weight": torch.full((4, WIDTH), weight), "bias": None})
        self.graph, self.x = build.graph(), torch.full((ROWS, WIDTH), x)
        alice, bob, carol = self.workers.values()
        self.served = sy.serve(self.graph, alice, bob, crypto_provider=carol, batch=ROWS)
        self.asker = [_holder(self.scene.engines[n], self.seen) for n in ("alice", "bob")]
        self.client = clients.ModelClient(self.asker, "model", 30.0)

    def query(self, times=6):
        for _ in range(times):
            answer = self.client.query(self.x)
            assert torch.allclose(answer, self.graph.run(self.x), atol=1e-2)
        for passing in self.scene.passed:
            tag = HEADER.unpack(passing.header)[1]
            if tag != b"errand\0\0":
                self.seen[passing.receiver].append(torch.frombuffer(bytearray(passing.payload), dtype=torch.uint8))
        return self

    def close(self):
        self.served.stop()
        for worker in self.workers.values():
            sy.remote.registry.forget(worker)


def _holder(engine, seen):
    transport = Wire(engine, Principal("client", Role.SCIENTIST), seen)
    numbers = iter(range((transport.prefix << 32) + 1, (transport.prefix << 32) + 10_000))
    return clients.Holder(transport, numbers.__next__, own=False)


def uniform(tensors):
    """Chi-square of all bytes, in standard deviations from what uniform bytes give: noise stays below 6."""
    data = torch.cat([t.contiguous().view(-1).view(torch.uint8) for t in tensors if t.numel()])
    counts = torch.bincount(data.long(), minlength=256).double()
    expected = len(data) / 256
    chi = ((counts - expected) ** 2 / expected).sum()
    return float((chi - 255) / (2 * 255) ** 0.5)


def adds_up(tensors, secret):
    """Whether one, or the sum of two, of the whole tensors that were received is ``secret`` in fixed precision."""
    wanted = (secret.double() * 2**16).round().long()
    same = [t for t in tensors if t.dtype == torch.int64 and t.shape == wanted.shape]
    return any(torch.equal(a, wanted) for a in same) or any(torch.equal(a + b, wanted) for i, a in enumerate(same) for b in same[:i])


@pytest.fixture
def play():
    plays = []

    def make(**options):
        plays.append(Play(**options))
        return plays[-1]

    yield make
    for made in plays:
        made.close()


def leaks(seen, play):
    """Who learned something, of what."""
    found = set()
    for name in ("alice", "bob", "carol"):
        got = [t for t in seen[name] if t.numel() > 16]
        if got and uniform(got) > 6:
            found.add(name)
        if any(adds_up(got, secret) for secret in (play.x, *play.graph.weights.values(), play.graph.run(play.x))):
            found.add(name)
    return found


@pytest.mark.parametrize("weight, x", [(0.0, 0.0), (0.25, 1.0), (-1.0, 3.0)])
def test_no_worker_receives_anything_that_depends_on_a_secret(play, weight, x):
    played = play(weight=weight, x=x).query()
    assert not leaks(played.seen, played)
    assert sum(t.numel() for t in played.seen["alice"]) > 10_000 and sum(t.numel() for t in played.seen["bob"]) > 10_000
    assert not played.seen["carol"], "the provider receives no tensor at all"
    assert not played.seen["owner"], "who made the model receives nothing of what is asked"


def test_the_client_receives_two_uniform_shares_and_nothing_of_the_model(play):
    played = play(weight=0.25, x=1.0).query(times=40)
    got = played.seen["client"]
    assert len(got) == 80 and all(t.shape == (ROWS, 4) for t in got)
    assert uniform(got) < 6, "each share alone is random, though all answers are the same"


def test_a_client_that_sends_one_holder_everything_is_caught(play, monkeypatch):
    played = play(x=1.0)
    monkeypatch.setattr(clients, "random_like", lambda shape: torch.zeros(shape, dtype=torch.int64))
    assert leaks(played.query().seen, played) & {"alice", "bob"}


def test_both_shares_through_one_holder_are_caught(play):
    played = play(x=1.0)
    first, second = played.asker
    whole = second.transport.cast
    second.transport.cast = lambda message, site=None: (played.seen["alice"].extend(t for t in message if isinstance(t, torch.Tensor)), whole(message, site))
    assert leaks(played.query().seen, played) == {"alice"}


def test_weights_that_are_not_shared_are_caught(play, monkeypatch):
    from syftlite.remote import sharing

    monkeypatch.setattr(sharing, "random_like", lambda shape: torch.zeros(shape, dtype=torch.int64))
    played = play(weight=0.25)
    assert leaks(played.query().seen, played) & {"alice", "bob"}


def test_an_answer_without_its_share_of_zero_is_told_from_one_with_it(play, monkeypatch):
    """Without it the output's shares are those of the last truncation: the provider's keys and the client's shares together tell more."""
    from syftlite.engine import streams

    taken = []
    original = streams.release

    def kept(party, x):
        released = original(party, x)
        taken.append((party.index, x, released))
        return released

    monkeypatch.setattr(streams, "release", kept)
    played = play(weight=0.25, x=1.0).query(times=2)
    shares = {index: (x, released) for index, x, released in taken}
    (x0, r0), (x1, r1) = shares[0], shares[1]
    assert torch.equal(x0 + x1, r0 + r1) and not (x0 == r0).any() and not (x1 == r1).any()
    assert any(torch.equal(t, r0) for t in played.seen["client"]) and not any(torch.equal(t, x0) for t in played.seen["client"])
