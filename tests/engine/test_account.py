"""What a session takes besides its objects' bytes is priced, on its account, or gone with it."""

import json

import pytest
import torch
from engine._parties import scene

from syftlite.engine import executor, governing
from syftlite.engine.engine import Engine
from syftlite.errors import QuotaExceededError, code_of
from syftlite.mpc.kernel import plan
from syftlite.mpc.kernels import NUMBERS
from syftlite.policy.rules import approve
from syftlite.testing.peer import Peer, number_of
from syftlite.wire import messages as m

aten = torch.ops.aten
POLICY = json.dumps(approve().tables())
QUOTA = code_of(QuotaExceededError())


def test_a_convolutions_patches_are_priced():
    """16 x 16 windows of an image take 256 times its bytes while it runs."""
    image, weight = (1, 1, 256, 256), (1, 1, 16, 16)
    assert plan(NUMBERS["conv2d"], [image, weight]).memory > 8 * 241 * 241 * 256
    with scene(max_bytes=64 << 20) as parties:
        x, w = (parties.share(torch.ones(*shape, dtype=torch.int64)) for shape in (image, weight))
        answers = parties.reveal(parties.compute("conv2d", x, w))
        assert all(a[0] == m.ERROR for a in answers) and any("do not fit" in a[3] for a in answers)


def test_what_a_weight_was_prepared_for_is_on_the_account():
    with scene() as parties:
        w = parties.share(torch.ones(4, 1, 3, 3, dtype=torch.int64))
        ids = {name: parties.id(name) for name in parties.names}
        fix, conv = NUMBERS["fix_weight"], NUMBERS["conv2d_fixed"]
        parties.say(
            **{n: (m.COMPUTE, parties.group, fix, (w[i],), {}, (ids[n],)) for i, n in enumerate(parties.holders)},
            carol=(m.DEAL, parties.group, fix, ((4, 1, 3, 3),), {}, (ids["carol"],)),
        )
        before = {name: parties.peers[name].door.session.used for name in parties.names}
        for size in (8, 9):  # each is another form; what the first took is on the account when the second runs
            x = parties.share(torch.ones(1, 1, size, size, dtype=torch.int64))
            outs = [parties.id(name) for name in parties.holders]
            told = {n: (m.COMPUTE, parties.group, conv, (x[i], ids[n]), {}, (outs[i],)) for i, n in enumerate(parties.holders)}
            parties.say(**told, carol=(m.DEAL, parties.group, conv, ((1, 1, size, size), ids["carol"]), {}, (parties.id("carol"),)))
            parties.say(**{n: (m.DROP, (x[i], outs[i])) for i, n in enumerate(parties.holders)})
        for name in parties.names:
            session = parties.peers[name].door.session
            assert session.used > before[name] and session.weights[ids[name]].nbytes > 8 * 36
        parties.say(**{name: (m.DROP, (ids[name], *((w[i],) if (i := parties.names.index(name)) < 2 else ()))) for name in parties.names})
        assert not any(parties.peers[name].door.session.used for name in parties.names)


def test_a_provider_of_many_holders_makes_the_parts_of_all():
    with scene(("a", "b", "c", "d", "e", "f", "provider"), max_bytes=1 << 20) as parties:
        session = parties.peers["provider"].door.session
        size = 3 * (1 << 20) // plan(NUMBERS["mul"], [(8,), (8,)]).memory * 8 // 6
        parties.say(provider=(m.DEAL, parties.group, NUMBERS["mul"], ((size,), (size,)), {}, (parties.id("provider"),)))
        assert "do not fit" in session.members[parties.group].broken


def test_uploads_under_a_policy_of_their_own_go_with_their_session(monkeypatch):
    engine = Engine("alice")
    for _ in range(3):
        peer = Peer(engine)
        for n in (1, 2):
            peer.say((m.PUT, peer.id(n), torch.ones(4, 2), (), ""), (m.PROTECT, n, peer.id(n), POLICY))
        assert len(engine.policies._policies) == 2
        peer.leave()
        assert not engine.policies._policies and not engine.policies._frames
    monkeypatch.setattr(governing, "MAX_PROTECTED", 1)
    peer = Peer(engine)
    answers = []
    for n in (1, 2):
        answers += peer.say((m.PUT, peer.id(n), torch.ones(4, 2), (), ""), (m.PROTECT, n, peer.id(n), POLICY))
    assert answers[0][0] == m.DONE and answers[1][2] == QUOTA


def test_what_is_left_of_them_elsewhere_keeps_its_policy():
    engine = Engine("alice")
    peer, other = Peer(engine), Peer(engine)
    peer.say((m.PUT, peer.id(1), torch.ones(4, 2), ("#mine",), ""), (m.PROTECT, 1, peer.id(1), POLICY))
    assert other.say((m.FIND, 1, ("#mine",), 0))[0][2] == 1
    (kept,) = engine.policies._policies
    peer.leave()
    assert list(engine.policies._policies) == [kept]
    other.leave()


def test_an_id_that_comes_again_brings_no_looser_policy():
    """What was made of an upload stays under its policy, whatever is put under another in its place."""
    peer = Peer(Engine("alice"))
    peer.say((m.PUT, peer.id(1), torch.ones(4, 2), (), ""), (m.PROTECT, 1, peer.id(1), "[{}]"))
    peer.say((m.OP, number_of(torch.ops.aten.neg.default), (peer.id(1),), None, peer.id(2)), (m.DROP, (peer.id(1),)))
    (refused,) = peer.say((m.PUT, peer.id(1), torch.ones(4, 2), (), ""), (m.PROTECT, 2, peer.id(1), '[{"free": true}]'))
    assert refused[0] == m.ERROR and "an id of its own" in refused[3]
    assert peer.say((m.GET, 3, (peer.id(2),), False, None))[0][0] == m.ERROR


def test_tags_and_descriptions_are_on_the_account():
    peer = Peer(Engine("alice", max_bytes=1000))
    session = peer.door.session
    peer.say((m.PUT, peer.id(1), torch.zeros(0), ("#a", "#bc"), "what it is"))
    assert session.used == 2 + 3 + 10
    peer.say((m.DESCRIBE, peer.id(1), ("#a",), "x" * 100))
    assert session.used == 102
    peer.say((m.PUT, peer.id(2), torch.zeros(0), (), "x" * 900))
    assert session.used == 102 and session.objects[peer.id(2)][1].poisoned
    peer.say((m.DROP, (peer.id(1),)))
    assert session.used == 0


def test_an_owners_datasets_are_on_no_quota():
    engine = Engine("alice", max_bytes=1000)
    engine.load("large", torch.zeros(1000), ["#large"], "what it is")
    engine.load("more", torch.zeros(10), ["#more"])
    assert Peer(engine).say((m.FIND, 1, ("#large",), 0))[0][2] == 1


@pytest.mark.parametrize("kind", [m.RUN, m.SCAN])
def test_a_program_stops_when_its_client_is_gone(kind, monkeypatch):
    peer = Peer(Engine("alice"))
    session, door, ran, real = peer.door.session, peer.door, [], executor.run
    neg = number_of(aten.neg.default)
    peer.say(
        (m.PUT, peer.id(1), torch.ones(8, 2), (), ""),
        (m.PLAN, peer.id(2), 1, [(neg, (1,), None, 2), (neg, (2,), None, 3)], [3]),
    )

    def run(session, number, *rest):
        ran.append(number)
        door.interrupt()
        return real(session, number, *rest)

    monkeypatch.setattr(executor, "run", run)
    over = ((0,),) if kind == m.SCAN else ()
    peer.say((kind, peer.id(2), (peer.id(1),), *over, peer.id(100), (peer.id(50),)))
    assert session.gone and len(ran) == 1 and door.closing
