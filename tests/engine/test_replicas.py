"""Three holders of replicated shares as a hostile conductor meets them: places, lies, PRIVATE data; the third holder hears nothing."""

import pytest
import torch
from engine._parties import Scene

from syftlite.engine.session import Role
from syftlite.errors import GetNotPermittedError, Misuse, ProtocolError, SendNotPermittedError, SharingAbortedError, code_of
from syftlite.mpc.kernels import NUMBERS
from syftlite.randomness import random_like
from syftlite.testing.peer import number_of
from syftlite.wire import messages as m

X = torch.tensor([5, -7, 0, 2**40])
ABORTED, REFUSED, NOT_SENT = (code_of(e()) for e in (SharingAbortedError, GetNotPermittedError, SendNotPermittedError))
NAMES = ("alice", "bob", "carol")


class Three(Scene):
    """All of ``names`` hold: ids of shares are pairs."""

    def __init__(self, role=Role.SCIENTIST):
        super().__init__(NAMES, role)
        self.holders = NAMES

    def join_messages(self):
        joins = super().join_messages()
        return {name: (m.REPLICATE, self.group, i, None, join[-1]) for i, (name, join) in enumerate(joins.items())}

    def share(self, x):
        parts = [random_like(tuple(x.shape)) for _ in range(2)]
        parts.append(x - sum(parts))
        return tuple((self.put(name, parts[i]), self.put(name, parts[(i + 1) % 3])) for i, name in enumerate(NAMES))

    def told(self, kernel, operands, static, outs):
        number = NUMBERS[f"replicated_{kernel}"]
        ids = {name: tuple(part for o in operands for part in o[i]) for i, name in enumerate(NAMES)}
        return {name: (m.COMPUTE, self.group, number, ids[name], static, outs[i]) for i, name in enumerate(NAMES)}

    def compute(self, kernel, *operands, **static):
        outs = tuple((self.id(name), self.id(name)) for name in NAMES)
        self.say(**self.told(kernel, operands, static, outs))
        return outs

    def value(self, shares):
        return super().value([own for own, _ in shares])


@pytest.fixture
def parties():
    made = Three()
    try:
        assert [a[0] for a in made.join()] == [m.DONE] * 3
        yield made
    finally:
        made.close()


def test_they_compute_and_reveal(parties):
    x, y = parties.share(X), parties.share(X + 1)
    z = parties.compute("mul", x, y, f=0)
    assert torch.equal(parties.value(z), X * (X + 1)) and torch.equal(parties.value(z), X * (X + 1))
    assert torch.equal(parties.value(parties.compute("relu", z, f=0)), (X * (X + 1)).clamp(min=0))
    assert torch.equal(parties.value(x), X)


def test_the_third_hears_nothing_and_holder_0_nothing_from_it(parties):
    parties.passed.clear()
    x = parties.share(X)
    parties.compute("relu", parties.compute("mul", x, x, f=0), f=0)
    ways = {(p.sender, p.receiver) for p in parties.passed}
    assert ways == {("alice", "bob"), ("bob", "alice"), ("carol", "bob")}


def test_no_share_leaves_as_it_is(parties):
    made = parties.compute("mul", parties.share(X), parties.share(X), f=0)
    for name, pair in zip(NAMES, made, strict=True):
        for share in pair:
            assert parties.ask(name, m.GET, 1, (share,), True, None)[2] == REFUSED


@pytest.mark.parametrize("message", ["twice", "beyond"])
def test_a_place_that_is_none_ends_the_connection(parties, message):
    told = {"twice": (m.REPLICATE, parties.group, 0, None, ()), "beyond": (m.REPLICATE, parties.group + 1, 3, None, ())}[message]
    assert parties.ask("alice", *told)[:3] == (m.ERROR, 0, code_of(ProtocolError()))


def test_links_that_are_not_those_of_the_place_are_refused(parties):
    for change in (
        lambda joins: joins.update(alice=(*joins["alice"][:2], 1, *joins["alice"][3:])),  # alice says that she is member 1
        lambda joins: joins.update(alice=(*joins["alice"][:4], joins["alice"][4][:1])),  # a link is missing
        lambda joins: joins.update(alice=(*joins["alice"][:3], "a place", joins["alice"][4])),  # of one process
    ):
        parties.group += 1000
        joins = parties.join_messages()
        change(joins)
        assert any(a[0] == m.ERROR and a[2] == ABORTED for a in parties.joined(joins))


# -- a conductor that tells them different things


def test_two_that_are_told_different_things_open_nothing(parties):
    x, y = parties.share(X), parties.share(X + 1)
    outs = tuple((parties.id(name), parties.id(name)) for name in NAMES)
    told, other = parties.told("mul", [x, y], {"f": 0}, outs), parties.told("square", [x], {"f": 0}, outs)  # messages of one size
    parties.passed.clear()
    parties.say(**(told | {"bob": other["bob"]}))
    answers = parties.reveal([own for own, _ in outs])
    assert all(a[0] == m.ERROR and a[2] == ABORTED for a in answers[:2])
    opened = {p.sender: p.header for p in parties.passed if p.sender != "carol"}
    assert len(opened) < 2 or opened["alice"] != opened["bob"]


@pytest.mark.parametrize("lie", ["kernel", "shapes", "nothing"])
def test_a_third_that_is_told_something_else_makes_noise_of_the_result(parties, lie):
    """What it deals is masked for what it was told; with the others' masks it is noise, or of another size."""
    x, y = parties.share(X), parties.share(X + 1)
    outs = tuple((parties.id(name), parties.id(name)) for name in NAMES)
    told = parties.told("mul", [x, y], {"f": 0}, outs)
    told["carol"] = {
        "shapes": parties.told("mul", [y, parties.share(X[:1])], {"f": 0}, outs)["carol"],
        "kernel": parties.told("square", [x], {"f": 16}, outs)["carol"],
        "nothing": (m.SYNC, 1),
    }[lie]
    if lie == "nothing":  # bob waits for what carol never sends, until she leaves
        told["carol"] = (m.LEAVE, parties.group)
    parties.say(**told)
    answers = parties.reveal([own for own, _ in outs])
    if all(a[0] == m.VALUES for a in answers):
        total = torch.stack([a[2][0] for a in answers]).sum(0)
        assert (total.double().abs() > 2**50).all(), "of 64 bits"
    else:
        assert parties.broken("bob")


def test_a_third_that_is_told_other_operands_makes_the_result_another(parties):
    """Nobody can tell: it is a sum of products that the conductor chose, of what it may reveal anyhow."""
    x, y = parties.share(X), parties.share(X + 1)
    outs = tuple((parties.id(name), parties.id(name)) for name in NAMES)
    told = parties.told("mul", [x, y], {"f": 0}, outs)
    told["carol"] = parties.told("mul", [y, y], {"f": 0}, outs)["carol"]
    parties.say(**told)
    assert not torch.equal(parties.value(outs), X * (X + 1))


def test_a_kernel_of_other_shares_is_told_of(parties):
    """A fixed weight has no place here; a provider neither."""
    x, out = parties.share(X), parties.id("alice")
    parties.say(alice=(m.DEAL, parties.group, NUMBERS["mul"], ((4,), (4,)), {"f": 0}, (out,)))
    parties.say(alice=(m.CORRECT, parties.group, 0, parties.put("alice", torch.zeros(8, dtype=torch.uint8))))
    assert torch.equal(parties.value(parties.compute("square", x, f=0)), X * X), "and nothing has changed"


# -- PRIVATE data


def test_private_data_takes_no_part(parties):
    """Neither by SPREAD, nor as an operand: bob and carol together could give what is made of it to the conductor."""
    parties.engines["alice"].load("icu", X.clone(), ["#icu"], private=True)
    icu = parties.ask("alice", m.FIND, 1, ("#icu",), 0)[3][0][0]
    places = tuple(("", "", parties.id("alice")) for _ in range(6))
    answer = parties.ask("alice", m.SPREAD, 1, icu, places)
    assert answer[0] == m.ERROR and answer[2] in (REFUSED, NOT_SENT)
    x = parties.share(X)
    shares = ((icu, x[0][1]), *x[1:])
    parties.passed.clear()
    answers = parties.reveal([own for own, _ in parties.compute("relu", shares, f=0)])
    assert answers[0][0] == m.ERROR and "PRIVATE" in answers[0][3]
    assert not [p for p in parties.passed if p.sender == "alice"], "nothing was opened"


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 8])
def test_places_that_are_not_two_for_each_of_three_are_refused(parties, count):
    number = parties.put("alice", X)
    answer = parties.ask("alice", m.SPREAD, 1, number, tuple(("", "", parties.id("alice")) for _ in range(count)))
    assert answer[0] == m.ERROR and answer[2] == code_of(Misuse())


def test_spread_gives_each_its_two(parties):
    ids = [parties.id("alice") for _ in range(6)]
    parties.say(alice=(m.SPREAD, 1, parties.put("alice", X), tuple(("", "", number) for number in ids)))
    parts = [parties.engines["alice"].objects[number][0] for number in ids]
    for i in range(3):
        assert torch.equal(parts[2 * i + 1], parts[2 * (i + 1) % 6])
    assert torch.equal(parts[0] + parts[2] + parts[4], X)


def spread(parties):
    """Six shares of zero, all at alice, of a value that is not contiguous."""
    ids = [parties.id("alice") for _ in range(6)]
    parties.say(alice=(m.SPREAD, 1, parties.put("alice", torch.zeros_like(X)), tuple(("", "", number) for number in ids)))
    return ids


def test_what_is_written_to_one_share_is_written_to_no_other(parties):
    """PRIVATE data that is written to one of them would be read from the other, which has no label."""
    parties.engines["alice"].load("icu", X.clone(), ["#icu"], private=True)
    icu = parties.ask("alice", m.FIND, 1, ("#icu",), 0)[3][0][0]
    ids = spread(parties)
    parties.say(alice=(m.OP, number_of(torch.ops.aten.copy_.default), (ids[0], icu), None, None))
    zeros = [parties.put(name, torch.zeros_like(X)) for name in ("bob", "carol")]
    answers = parties.reveal([ids[5], *zeros])
    assert not torch.isin(torch.stack([a[2][0] for a in answers]).sum(0), X[X != 0]).any()


@pytest.mark.parametrize("kernel", ["refresh", "max_and_mask", "sort"])
def test_no_two_objects_of_a_session_lie_in_one_memory(parties, kernel):
    """By SPREAD, or as the results of a kernel: each has a label, and a size that is charged, of its own."""
    spread(parties)
    x = parties.share(torch.arange(6).view(2, 3))
    results = {"refresh": 1, "max_and_mask": 3, "sort": 3}[kernel]
    outs = tuple(tuple(parties.id(name) for _ in range(2 * results)) for name in NAMES)
    parties.say(**parties.told(kernel, [x], {} if kernel == "refresh" else {"dim": 1}, outs))
    for name in NAMES:
        memories = [t.untyped_storage().data_ptr() for t, _ in parties.engines[name].objects.values() if t is not None and t.numel()]
        assert len(set(memories)) == len(memories)


def test_a_value_in_another_order_of_memory_is_shared_alike(parties):
    number, turned = parties.put("bob", torch.arange(6).view(2, 3)), parties.id("bob")
    parties.say(bob=(m.OP, number_of(torch.ops.aten.t.default), (number,), None, turned))
    ids = [parties.id("bob") for _ in range(6)]
    parties.say(bob=(m.SPREAD, 1, turned, tuple(("", "", i) for i in ids)))
    assert all(parties.engines["bob"].objects[i][0].is_contiguous() for i in ids)
