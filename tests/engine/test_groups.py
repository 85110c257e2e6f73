"""What a session may and may not do in a sharing group; what a hostile conductor comes to."""

import threading
import time

import pytest
import torch
from engine._parties import PATIENCE, Scene, honest, kernel_to, local, scene

from syftlite.engine import sharing
from syftlite.engine.session import Role
from syftlite.engine.sharing import MAX_GROUPS
from syftlite.errors import (
    EmptyCryptoPrimitiveStoreError,
    GetNotPermittedError,
    NotOwnerError,
    ProtocolError,
    QuotaExceededError,
    SendNotPermittedError,
    SharingAbortedError,
    code_of,
)
from syftlite.mpc.kernels import NUMBERS
from syftlite.testing.peer import number_of
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_HOLDERS

aten = torch.ops.aten
X = torch.tensor([5, -7, 0, 2**40])
ABORTED, REFUSED, NOT_SENT = (code_of(e()) for e in (SharingAbortedError, GetNotPermittedError, SendNotPermittedError))


@pytest.fixture(params=[Role.SCIENTIST, Role.OWNER], ids=["scientist", "owner"])
def either(request):
    with scene(role=request.param) as made:
        yield made


@pytest.fixture
def parties():
    with scene() as made:
        yield made


def errors(answers):
    """The codes of answers, all of which are errors."""
    assert all(a[0] == m.ERROR for a in answers), answers
    return {a[2] for a in answers}


# -- what a group is for


@pytest.mark.parametrize("names", [("alice", "bob", "carol"), ("alice", "bob", "dan", "carol")], ids=["two", "three"])
def test_holders_compute_and_reveal(names):
    with scene(names) as parties:
        x, y = parties.share(X), parties.share(X + 1)
        assert torch.equal(parties.value(parties.compute("mul", x, y, f=0)), X * (X + 1))
        assert torch.equal(parties.value(parties.compute("relu", x, f=0)), X.clamp(min=0))
        assert torch.equal(parties.value(x), X) and torch.equal(parties.value(x), X), "a value may be revealed again"


def test_the_revealed_shares_differ_each_time_and_from_the_stored(parties):
    x = parties.share(X)
    seen = [parties.reveal(x)[0][2][0] for _ in range(3)] + [parties.engines["alice"].objects[x[0]][0]]
    assert len({tuple(s.tolist()) for s in seen}) == 4


def test_a_fixed_weight_serves_many_products_and_goes_when_dropped(parties):
    w = parties.share(torch.arange(6).view(2, 3))
    ids = {name: parties.id(name) for name in parties.names}
    fix = NUMBERS["fix_weight"]
    parties.say(
        alice=(m.COMPUTE, parties.group, fix, (w[0],), {}, (ids["alice"],)),
        bob=(m.COMPUTE, parties.group, fix, (w[1],), {}, (ids["bob"],)),
        carol=(m.DEAL, parties.group, fix, ((2, 3),), {}, (ids["carol"],)),
    )
    before = parties.peers["carol"].door.session.used
    for _ in range(2):
        x = parties.share(torch.ones(1, 2, dtype=torch.int64))
        outs = [parties.id(name) for name in parties.holders]
        linear = NUMBERS["linear"]
        parties.say(
            alice=(m.COMPUTE, parties.group, linear, (x[0], ids["alice"]), {"f": 0}, (outs[0],)),
            bob=(m.COMPUTE, parties.group, linear, (x[1], ids["bob"]), {"f": 0}, (outs[1],)),
            carol=(m.DEAL, parties.group, linear, ((1, 2), ids["carol"]), {"f": 0}, (parties.id("carol"),)),
        )
        assert parties.value(outs).tolist() == [[3, 5, 7]]
    parties.say(**{name: (m.DROP, (number,)) for name, number in ids.items()})
    assert before and not parties.peers["carol"].door.session.used
    assert not any(parties.peers[name].door.session.weights for name in parties.names)


def test_a_poisoned_operand_on_one_side_ends_the_run_for_all(parties):
    x = parties.share(X)
    bad = parties.id("bob")
    parties.say(bob=(m.OP, number_of(aten.mm.default), (x[1], x[1]), None, bad))
    answers = parties.reveal(parties.compute("relu", (x[0], bad), f=0))
    assert errors(answers) == {ABORTED} and "operand" in answers[0][3]
    parties.join()
    assert torch.equal(parties.value(parties.compute("relu", x, f=0)), X.clamp(min=0)), "the shares are still good"


def test_a_holder_whose_quota_does_not_fit_ends_the_run_for_all():
    with scene(max_bytes=1 << 20) as parties:
        x = parties.share(torch.zeros(40_000, dtype=torch.int64))
        answers = parties.reveal(parties.compute("relu", x, f=16))
        assert errors(answers) <= {ABORTED, code_of(QuotaExceededError())}
        assert any("do not fit" in a[3] for a in answers)
        used = {name: parties.peers[name].door.session.used for name in parties.holders}
        assert max(used.values()) < 400_000, "nothing of it was kept"
        parties.join()
        small = parties.share(X)
        assert torch.equal(parties.value(parties.compute("relu", small, f=0)), X.clamp(min=0))


@pytest.mark.parametrize("gone", ["alice", "bob", "carol"])
def test_a_member_that_goes_in_a_run_ends_it_for_all_and_leaves_no_thread(gone):
    """Its client's connection breaks while the others wait for it: `leave` of its lane, as a socket that closed calls it."""
    before = {t.ident for t in threading.enumerate()}
    parties = Scene()
    parties.join()
    x = parties.share(X)
    outs = tuple(parties.id(name) for name in parties.holders)
    held = threading.Event()

    def meddle(passing):
        if passing.sender in (gone, "alice"):
            held.set()
        return None if passing.sender == gone else honest(passing)

    parties.meddle = meddle
    told = parties.told("relu", [x], {"f": 0}, outs)
    futures = {name: parties.pool[name].submit(parties.peers[name].say, message) for name, message in told.items()}
    assert held.wait(PATIENCE)
    parties.peers[gone].door.interrupt()
    for future in futures.values():
        future.result(PATIENCE)
    for name in parties.holders:
        if name != gone:
            assert parties.peers[name].door.session.objects[outs[parties.holders.index(name)]][1].mark.poison is not None
    for peer in parties.peers.values():
        peer.leave()
    for pool in parties.pool.values():
        pool.shutdown()
    deadline = time.monotonic() + PATIENCE
    while left := [t for t in threading.enumerate() if t.ident not in before]:
        assert time.monotonic() < deadline, left
        left[0].join(0.1)


# -- a raw share never leaves


def attempts(parties, name, number):
    """Every message that could tell of object ``number`` at ``name``, and its answers."""
    fresh = parties.id(name)
    yield "GET", parties.ask(name, m.GET, 1, (number,), False, None)
    yield "GET, taking", parties.ask(name, m.GET, 1, (number,), True, None)
    yield "GET for another", parties.ask(name, m.GET, 1, (number,), False, "ben")
    yield "ASK", parties.ask(name, m.ASK, 1, number_of(aten.equal.default), (number, number), None, ())
    yield "SHIP", parties.ask(name, m.SHIP, 1, ((number, 1),), "ws://127.0.0.1:1", "ticket")
    yield "SPLIT", parties.ask(name, m.SPLIT, 1, number, (("", "", fresh),))
    yield "STORE", parties.ask(name, m.STORE, 1, number, f"stolen {fresh}", (), "", False)


def derived(parties, name, share):
    """The share, and objects made of it, by operators, views, writes and a plan."""
    ids = [parties.id(name) for _ in range(7)]
    add, mul, view, cat, copy = (
        number_of(f) for f in (aten.add.Tensor, aten.mul.Tensor, aten.view.default, aten.cat.default, aten.copy_.default)
    )
    parties.say(
        **{
            name: [
                (m.OP, mul, (share, 0.0), None, ids[0]),
                (m.OP, view, (share, (2, 2)), None, ids[1]),
                (m.OP, cat, ((share, share),), None, ids[2]),
                (m.PUT, ids[3], torch.zeros(4, dtype=torch.int64), (), ""),
                (m.OP, copy, (ids[3], share), None, None),
                (m.PLAN, ids[4], 1, ((add, (1, 1), None, 2),), (2,)),
                (m.RUN, ids[4], (share,), ids[5] + (1 << 20), (ids[5],)),
                (m.OP, mul, (ids[5], ids[5]), None, ids[6]),
            ]
        }
    )
    return [share, *ids[:4], ids[5], ids[6]]


def test_no_share_leaves_nor_what_is_made_of_one(either):
    x = either.share(X)
    (share, _) = either.compute("refresh", x)
    for number in derived(either, "alice", share):
        for what, answer in attempts(either, "alice", number):
            assert answer[0] == m.ERROR, (what, answer)
            assert answer[2] in {REFUSED, 8} or "share" in answer[3], (what, answer)
    bare = either.engines["alice"].objects[share][0].numpy().tobytes()
    told = b"".join(either.peers["alice"].frames)
    assert not any(bare[i : i + 8] in told for i in range(0, len(bare), 8))


def test_no_approval_lets_a_share_go(parties):
    from syftlite.testing.peer import Peer

    share, _ = parties.compute("refresh", parties.share(X))
    filed = parties.ask("alice", m.FILE, 1, (share,), "please")
    owner = Peer(parties.engines["alice"], "alice", Role.OWNER)
    owner.say((m.DECIDE, 1, filed[2], True, ""))
    assert parties.ask("alice", m.GET, 1, (share,), False, None)[2] == REFUSED


def test_a_search_shows_shape_and_no_more(parties):
    share, _ = parties.compute("refresh", parties.share(X))
    parties.say(alice=(m.DESCRIBE, share, ("#s",), "text"))
    found = parties.ask("alice", m.FIND, 1, ("#s",), 0)
    assert [row[:2] for row in found[3]] == [(share, (8, (4,), (1,), 0))] and found[3][0][4] is True


def test_what_was_made_of_private_data_is_not_lent(parties):
    parties.engines["alice"].load("icu", X.clone(), ["#icu"], private=True)
    icu = parties.ask("alice", m.FIND, 1, ("#icu",), 0)[3][0][0]
    made = parties.id("alice")
    parties.say(alice=(m.OP, number_of(aten.add.Tensor), (icu, icu), None, made))
    assert parties.ask("alice", m.LEND, 1, made, ("eve",))[2] == NOT_SENT
    assert errors([parties.ask("alice", m.LEND, 1, icu, ("eve",))]) == {code_of(NotOwnerError())}


# -- PRIVATE data stays out of groups


def test_private_data_is_no_operand_and_nobody_hears_of_it(parties):
    """A conductor that holds bob's place and carol's keys would otherwise read alice's masked opening."""
    parties.engines["alice"].load("icu", X.clone(), ["#icu"], private=True)
    icu = parties.ask("alice", m.FIND, 1, ("#icu",), 0)[3][0][0]
    made = parties.id("alice")
    parties.say(alice=(m.OP, number_of(aten.add.Tensor), (icu, parties.share(X)[0]), None, made))
    for secret in (icu, made):
        parties.passed.clear()
        answers = parties.reveal(parties.compute("refresh" if secret == icu else "relu", (secret, parties.share(X)[1])))
        assert answers[0][0] == m.ERROR and "PRIVATE" in answers[0][3] and answers[0][2] in (NOT_SENT, ABORTED)
        assert not [p for p in parties.passed if p.sender == "alice"], "nothing was opened"
        parties.join()


def test_what_failed_on_private_data_is_told_to_no_group(parties):
    """That an operation failed may depend on values: neither the other holders nor a REVEAL may tell."""
    parties.engines["alice"].load("rows", torch.tensor([99]), ["#rows"], private=True)
    rows = parties.ask("alice", m.FIND, 1, ("#rows",), 0)[3][0][0]
    table, bad = parties.put("alice", torch.zeros(5, 1)), parties.id("alice")
    parties.say(alice=(m.OP, number_of(aten.embedding.default), (table, rows), None, bad))
    out = parties.id("alice")
    parties.say(alice=(m.REVEAL, parties.group, bad, out))
    answer = parties.ask("alice", m.GET, 1, (out,), True, None)
    assert answer[2] == REFUSED and "range" not in answer[3]
    parties.compute("relu", (bad, parties.share(torch.zeros(1, 1, dtype=torch.int64))[1]), f=0)
    assert "range" not in parties.broken("bob") and "index" not in parties.broken("bob")


def test_what_is_revealed_keeps_being_private(parties):
    parties.engines["alice"].load("icu", X.clone(), ["#icu"], private=True)
    icu = parties.ask("alice", m.FIND, 1, ("#icu",), 0)[3][0][0]
    out = parties.id("alice")
    parties.say(alice=(m.REVEAL, parties.group, icu, out))
    assert parties.ask("alice", m.GET, 1, (out,), True, None)[2] == REFUSED
    assert parties.ask("alice", m.SPLIT, 1, icu, (("", "", parties.id("alice")),))[2] == REFUSED


# -- a conductor that tells members different things


@pytest.mark.parametrize("lie", ["kernel", "order", "shape", "argument", "run"])
def test_holders_that_are_told_different_things_open_nothing(parties, lie):
    x, y = parties.share(X), parties.share(X + 1)
    long = parties.share(torch.arange(8))
    pair = {"operands": (x[0], y[0])}, {"operands": (x[1], y[1])}
    first, second = {
        "kernel": (pair[0], {"kernel": "relu", "operands": (x[1],)}),
        "order": (pair[0], {"kernel": "square", "operands": (x[1],)}),
        "shape": (pair[0], {"operands": (long[1], long[1])}),
        "argument": (pair[0], {**pair[1], "static": {"f": 16}}),
        "run": pair,
    }[lie]
    if lie == "run":  # bob has already run one that alice never heard of, as far as he knows
        parties.peers["bob"].door.session.members[parties.group].runs += 1
    outs = parties.id("alice"), parties.id("bob")
    deal = {"carol": (m.DEAL, parties.group, NUMBERS["mul"], ((4,), (4,)), {"f": 0}, (parties.id("carol"),))}
    parties.say(**kernel_to(parties, "alice", outs[0], **first), **kernel_to(parties, "bob", outs[1], **second), **deal)
    assert errors(parties.reveal(outs)) == {ABORTED}
    opened = {p.sender: p.header for p in parties.passed if p.sender != "carol"}
    assert len(opened) < 2 or opened["alice"] != opened["bob"], "the first messages did not belong together"
    assert parties.broken("alice") and parties.broken("bob")


def test_a_provider_told_another_program_makes_the_result_no_secret(parties):
    """Its corrections do not fit: the run ends, or its result is noise; the inputs stay masked."""
    x = parties.share(X)
    outs = tuple(parties.id(name) for name in parties.holders)
    told = parties.told("relu", [x], {"f": 0}, outs)
    told["carol"] = (m.DEAL, parties.group, NUMBERS["square"], ((4,),), {"f": 0}, (parties.id("carol"),))
    parties.say(**told)
    answers = parties.reveal(outs)
    assert errors(answers) <= {ABORTED, code_of(ProtocolError())} and answers[1][0] == m.ERROR
    assert "bytes" in parties.broken("bob")


def told_apart(parties):
    """Alice is holder 0, and carol her provider; carol is holder 0, and alice hers, over the same link. Bob takes what the client deals."""
    (alice_bob, bob_alice), (alice_carol, carol_alice), (carol_bob, bob_carol) = (
        linked(parties, *names) for names in (("alice", "bob"), ("alice", "carol"), ("carol", "bob"))
    )
    first, second, key = parties.group + 1001, parties.group + 1002, bytes(range(32)).hex()
    answers = parties.say(
        alice=[(m.JOIN, first, 0, 2, None, None, (alice_bob(1), alice_carol(2))), (m.JOINED, 1, first)],
        carol=[(m.JOIN, second, 0, 2, None, None, (carol_alice(2), carol_bob(1))), (m.JOINED, 1, second)],
        bob=[(m.JOIN, g, 1, 2, None, key, (peer(0),)) for g, peer in ((first, bob_alice), (second, bob_carol))] + [(m.JOINED, 1, first), (m.JOINED, 1, second)],
    )
    assert all(a[0] == m.DONE for given in answers.values() for a in given)
    return first, second


def linked(parties, host, guest):
    """How each end of a link is told of it: functions of the other's number."""
    ticket, port = parties.ask(host, m.INVITE, 1, parties.group)[2:]
    return (lambda peer: (peer, "", 0, ticket)), (lambda peer: (peer, f"ws://{host}", port, ticket))


def member(parties, name, group):
    return parties.peers[name].door.session.members[group]


def test_who_is_told_another_place_than_the_other_end_masks_nothing_alike(parties):
    """Otherwise alice's mask in one group would be carol's in another, and of her own to reveal."""
    first, second = told_apart(parties)
    alice, carol = member(parties, "alice", first).party, member(parties, "carol", second).party
    assert not torch.equal(alice.source.take(64, "x"), carol.source.take(64, "x"))


def test_without_that_they_would(parties, monkeypatch):
    monkeypatch.setattr(sharing, "derive", lambda secret, *purpose, length: secret)
    first, second = told_apart(parties)
    alice, carol = member(parties, "alice", first).party, member(parties, "carol", second).party
    assert torch.equal(alice.source.take(64, "x"), carol.source.take(64, "x"))


def test_holders_that_have_other_providers_open_nothing(parties):
    """A conductor that deals for bob alone would choose what is computed of alice's data."""
    parties.identities.update({name: name.encode() * 8 for name in parties.names})
    first, _ = told_apart(parties)
    x, outs = parties.share(X), (parties.id("alice"), parties.id("bob"))
    parties.say(**{name: (m.COMPUTE, first, NUMBERS["square"], (x[i],), {"f": 0}, (outs[i],)) for i, name in enumerate(("alice", "bob"))})
    assert "another run" in member(parties, "alice", first).broken and "another run" in member(parties, "bob", first).broken


def test_kernels_of_the_other_kind_of_shares_are_refused(parties):
    x, out = parties.share(X), (parties.id("alice"), parties.id("alice"))
    parties.say(alice=(m.COMPUTE, parties.group, NUMBERS["replicated_refresh"], (x[0], x[0]), None, out))
    assert "replicated shares" in parties.broken("alice")


def test_a_value_is_shared_in_two_places_at_least(parties):
    """In one it would be no share, and carry the label of one."""
    for places in ((), (("", "", parties.id("alice")),)):
        answer = parties.ask("alice", m.SPLIT, 1, parties.put("alice", X), places)
        assert answer[0] == m.ERROR and "is not shared in" in answer[3]


def test_reveals_of_different_objects_add_up_to_no_value(parties):
    """No message passes between holders at a release, so none can object; what the conductor gets is the sum of two unrelated shares."""
    x, y = parties.compute("refresh", parties.share(X)), parties.compute("refresh", parties.share(X + 1))
    for mixed in ((x[0], y[1]), (y[0], x[1])):
        value = parties.value(mixed)
        assert not torch.isin(value, torch.cat([X, X + 1])).any()
    parties.say(alice=[(m.REVEAL, parties.group, x[0], parties.id("alice"))])  # and one that only one holder hears of ...
    assert not torch.isin(parties.value(x), X).any(), "... puts their zero-shares out of step for good: noise"


def test_only_ring_elements_are_revealed(parties):
    number = parties.put("alice", torch.ones(3))
    answers = parties.reveal((number, parties.put("bob", torch.ones(3))))
    assert all("int64" in a[3] for a in answers)
    assert errors(parties.reveal((number + 1000, 5))) == {3}


# -- places in a group


def test_messages_to_the_wrong_member_are_refused(parties):
    x, out = parties.share(X), parties.id("carol")
    number = parties.put("carol", X)
    parties.say(carol=(m.COMPUTE, parties.group, NUMBERS["square"], (number,), {"f": 0}, (out,)))
    answer = parties.ask("carol", m.GET, 1, (out,), True, None)
    assert answer[2] == ABORTED and "provider" in answer[3]
    revealed = parties.id("carol")
    parties.say(carol=(m.REVEAL, parties.group, number, revealed))
    assert parties.ask("carol", m.GET, 1, (revealed,), True, None)[2] == ABORTED
    parties.say(alice=(m.DEAL, parties.group, NUMBERS["square"], ((4,),), {"f": 0}, (parties.id("alice"),)))
    correction = parties.put("bob", torch.zeros(64, dtype=torch.uint8))
    parties.say(bob=(m.CORRECT, parties.group, 0, correction))
    assert torch.equal(parties.value(parties.compute("square", x, f=0)), X * X), "and nothing has changed"


def test_a_group_that_one_is_not_in_is_told_to_the_reader(parties):
    out = parties.id("alice")
    parties.say(alice=(m.COMPUTE, 999_999, NUMBERS["square"], (parties.share(X)[0],), {"f": 0}, (out,)))
    answer = parties.ask("alice", m.GET, 1, (out,), True, None)
    assert answer[2] == ABORTED and "no sharing group 999999" in answer[3]


@pytest.mark.parametrize("join", ["twice", "beyond", "alone", "crowd"])
def test_a_place_that_is_none_ends_the_connection(parties, join):
    message = {
        "twice": (m.JOIN, parties.group, 0, 2, None, None, ()),
        "beyond": (m.JOIN, parties.group + 1, 3, 2, None, None, ()),
        "alone": (m.JOIN, parties.group + 1, 0, 1, None, None, ()),
        "crowd": (m.JOIN, parties.group + 1, 0, MAX_HOLDERS + 1, None, None, ()),
    }[join]
    answer = parties.ask("alice", *message)
    assert answer[:3] == (m.ERROR, 0, code_of(ProtocolError()))


def test_links_that_are_not_those_of_the_place_are_refused(parties):
    for change in (
        lambda joins: joins.update(alice=(*joins["alice"][:2], 1, *joins["alice"][3:])),  # alice says that she is member 1
        lambda joins: joins.update(bob=(*joins["bob"][:5], "00" * 32, joins["bob"][6])),  # the client's key beside a provider
        lambda joins: joins.update(alice=(*joins["alice"][:6], joins["alice"][6][:1])),  # a link is missing
        lambda joins: joins.update(alice=(*joins["alice"][:4], "a place", *joins["alice"][5:])),  # of one process
    ):
        parties.group += 1000
        joins = parties.join_messages()
        change(joins)
        answers = parties.joined(joins)
        assert any(a[0] == m.ERROR and a[2] == ABORTED for a in answers)


def test_a_session_is_in_so_many_groups(parties):
    session = parties.peers["alice"].door.session
    for number in range(MAX_GROUPS - 1):
        session.members[10**6 + number] = session.members[parties.group]
    another = parties.group + 1
    answer = parties.say(alice=[(m.JOIN, another, 0, 2, None, None, ()), (m.JOINED, 1, another)])["alice"][0]
    assert answer[2] == ABORTED and f"at most {MAX_GROUPS}" in answer[3]


def test_leaving_ends_the_group_for_all(parties):
    x = parties.share(X)
    parties.say(alice=(m.LEAVE, parties.group))
    out = parties.id("bob")
    parties.say(bob=(m.COMPUTE, parties.group, NUMBERS["square"], (x[1],), {"f": 0}, (out,)))
    assert "stopped" in parties.broken("bob") or "broke" in parties.broken("bob")


# -- corrections from the client


def test_a_correction_is_bytes_that_the_client_sent(parties):
    """A share or PRIVATE data as a "correction" would come out again in the result, which is revealed."""
    dealer = local(parties)
    parties.engines["bob"].load("icu", torch.zeros(48, dtype=torch.uint8), ["#icu"], private=True)
    icu = parties.ask("bob", m.FIND, 1, ("#icu",), 0)[3][0][0]
    x = parties.share(X)
    outs = parties.id("alice"), parties.id("bob")
    hidden = parties.id("bob")
    parties.say(bob=(m.SPLIT, 1, parties.put("bob", X), (("", "", hidden), ("", "", parties.id("bob")))))
    correction = dealer.deal(0, "square", 4)
    bad = parties.put("bob", correction.view(torch.int64))
    for number in (icu, hidden, bad):
        parties.say(bob=(m.CORRECT, parties.group, 0, number))
    good = parties.put("bob", correction)
    used = parties.peers["bob"].door.session.used
    parties.say(bob=(m.CORRECT, parties.group, 0, good))
    assert parties.peers["bob"].door.session.used == used, "what waits counts"
    square = [kernel_to(parties, name, outs[i], kernel="square", operands=(x[i],)) for i, name in enumerate(parties.holders)]
    parties.say(**square[0], **square[1])
    assert torch.equal(parties.value(outs), X * X)
    assert parties.peers["bob"].door.session.used == used - len(correction) + 8 * 4


def test_without_its_correction_a_run_ends_for_all(parties):
    local(parties)
    x, outs = parties.share(X), (parties.id("alice"), parties.id("bob"))
    square = [kernel_to(parties, name, outs[i], kernel="square", operands=(x[i],)) for i, name in enumerate(parties.holders)]
    parties.say(**square[0], **square[1])
    answer = parties.reveal(outs)[1]
    assert answer[2] == code_of(EmptyCryptoPrimitiveStoreError()) and "has not dealt correlation 0" in answer[3]
    assert parties.broken("bob")
