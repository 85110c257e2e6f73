"""Holders: keys, order, rounds that travel together, and what a hostile conductor gains from mixing them up."""

import os

import pytest
import torch

from syftlite.errors import ForkedConnectionError, ProtocolError
from syftlite.mpc import selection, truncation
from syftlite.mpc.bits import tensor
from syftlite.mpc.comparison import FOURS, LEAVES, PAIRS, ROOT, negative
from syftlite.mpc.correlations import FREE, SENT, layout
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.party import Keys, Party, Recorder, group_keys
from syftlite.mpc.products import fix_weight, product
from syftlite.mpc.ring import reveal, share
from syftlite.mpc.rounds import message_bytes, run_dry, run_local, together
from syftlite.mpc.selection import relu
from syftlite.randomness import Stream

from .group import Group

TREES = (PAIRS, LEAVES, FOURS, ROOT)


def ints(*shape):
    return torch.randint(-(2**40), 2**40, shape)


# -- keys


@pytest.mark.parametrize("holders", [2, 3, 5])
def test_a_groups_keys_are_all_distinct_and_pairs_agree(holders):
    keys = group_keys(os.urandom(32), holders)
    pairs = {tuple(sorted((i, j))): keys[i].peers[j] for i in range(holders) for j in keys[i].peers}
    assert all(keys[i].peers[j] == keys[j].peers[i] for i in range(holders) for j in keys[i].peers)
    everything = [*[k.provider for k in keys], *pairs.values()]
    assert len(set(everything)) == len(everything) == holders + holders * (holders - 1) // 2
    assert all(len(key) == 32 for key in everything)


def test_bad_keys_are_refused():
    a, b = os.urandom(32), os.urandom(32)
    with pytest.raises(ValueError, match="two holders with one key"):
        Dealer([a, a])
    with pytest.raises(ValueError, match="two keys of one holder are equal"):
        Party(0, 3, Keys(a, {1: b, 2: b}))
    with pytest.raises(ValueError, match="needs a key with each other holder"):
        Party(0, 3, Keys(a, {1: b}))
    with pytest.raises(ValueError, match="numbered from 0"):
        Party(2, 2, Keys(a, {1: b}))
    with pytest.raises(ValueError, match="at least two"):
        Dealer([a])
    with pytest.raises(ValueError, match="32 bytes"):
        Party(0, 2, Keys(b"short", {1: b}))


def test_one_key_for_both_holders_would_give_the_input_away():
    """Why the dealer refuses it: holder 0 would expand holder 1's mask."""
    group, x = Group(2), ints(64)
    group.parties[1].source = group.parties[0].source
    group.dealer.sources[1] = group.dealer.sources[0]
    shares = share(x, 2)
    group.run(truncation.truncate, shares, f=16)
    mask = group.fields(0, 0)["r"]
    assert torch.equal(group.messages[1][0] - mask + shares[0], x)


def test_a_forked_holder_refuses():
    party = Party(0, 2, group_keys(bytes(32), 2)[0])
    party.correlated("trunc", 4, 16)
    child = os.fork()
    if child == 0:
        refused = 0
        for act in (lambda: party.correlated("trunc", 4, 16), lambda: party.zeros((4,))):
            try:
                act()
            except ForkedConnectionError:
                refused += 1
            except BaseException:
                os._exit(99)
        os._exit(refused)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


# -- correlations


@pytest.mark.parametrize("holders", [2, 3, 5])
def test_correlations_satisfy_their_equations(holders):
    group = Group(holders)
    for kind, args in (("trunc", (100, 16)), ("product", ("matmul", (3, 4), (4, 5), ())), ("square", (7,)), ("equal", (3, 64)), *[("relu", (3, 18, 64, 0, tree)) for tree in TREES]):
        number = len(group.asked)
        dealt = [p.correlated(kind, *args) for p in group.parties]
        total = {}
        for field in layout(kind, args).fields:
            values = [tensor(d[field.name]) for d in dealt]
            total[field.name] = values[0].clone()
            for v in values[1:]:
                total[field.name] = total[field.name] ^ v if field.xor else total[field.name] + v
        assert all(torch.equal(tensor(group.fields(number, i)[name]), tensor(d[name])) for i, d in enumerate(dealt) for name in d)
        if kind == "product":
            assert torch.equal(total["ab"], total["a"] @ total["b"])
        if kind == "square":
            assert torch.equal(total["aa"], total["a"] * total["a"])
        if kind in ("trunc", "relu"):
            r, f = total["r"], args[1]
            shifted = (r >> f) & ((1 << (64 - f)) - 1)
            assert torch.equal((total["m"].long() & ((1 << f) - 1)) << (64 - f), (r >> 63 & 1) << (64 - f))
            assert torch.equal(total["t"], -shifted)
        if kind in ("equal", "relu"):
            assert set(total["rho"].view(-1).tolist()) == {0, 1}


def test_only_the_last_holder_is_sent_anything():
    group = Group(3)
    group.kernel("relu", share(ints(100), 3))
    assert [p.corrected for p in group.parties] == [0, 0, layout(*group.asked[0]).sent]


def test_bytes_that_no_field_uses_are_zero():
    """They would be a holder's keystream otherwise."""
    dealer = Dealer([os.urandom(32), os.urandom(32)])
    padded = 0
    for kind, args in (("trunc", (3, 16)), *[("relu", (1, 16, 64, 0, tree)) for tree in TREES], ("product", ("mul", (5,), (1,), ())), ("equal", (1, 32))):
        found = layout(kind, args)
        correction = dealer.deal(0, kind, *args)
        for pad in found.pads:
            padded += pad.stop - pad.start
            assert not correction[pad].any()
    assert padded > 0


def test_a_correlation_is_bound_to_its_number_kind_arguments_and_part():
    keys = group_keys(bytes(32), 2)
    taken = []
    for number, kind, args in ((0, "trunc", (64, 16)), (1, "trunc", (64, 16)), (0, "trunc", (64, 17)), (0, "square", (64,)), (0, "weight", ((64,),))):
        party = Party(0, 2, keys[0])
        party.number = number
        fields = party.correlated(kind, *args)
        taken += [tensor(f).reshape(-1).view(torch.uint8)[:128].numpy().tobytes() for f in fields.values()]
    assert len(set(taken)) == len(taken)
    again = Party(0, 2, keys[0]).correlated("trunc", 64, 16)
    assert again["r"].tobytes()[:128] == taken[0]


def test_every_use_counts_on():
    party = Party(0, 2, group_keys(bytes(32), 2)[0])
    first, second = party.correlated("square", 9)["a"], party.correlated("square", 9)["a"]
    assert party.number == 2 and first.tobytes() != second.tobytes()


def test_a_correction_of_the_wrong_size_is_refused():
    party = Party(1, 2, group_keys(bytes(32), 2)[1], lambda number, nbytes: torch.zeros(nbytes - 1, dtype=torch.uint8))
    with pytest.raises(ProtocolError, match="has 80 bytes"):
        party.correlated("square", 10)["aa"]
    with pytest.raises(ProtocolError, match="no provider"):
        Party(1, 2, group_keys(bytes(32), 2)[1]).correlated("square", 10)["aa"]


# -- a conductor that tells the holders different things


class OneStream:
    """What a `Source` must not be: one stream for all purposes, consumed in order."""

    def __init__(self, key):
        self.stream = Stream(key[:16])

    def array(self, nbytes, *purpose):
        return self.take(nbytes, *purpose).numpy()

    def take(self, nbytes, *purpose):
        return self.stream.take(nbytes)


def _out_of_order(source_of):
    """Provider and holder 1 are told "relu"; holder 0 "fix a weight of that size; truncate x". Holder 1's guess of x."""
    key = os.urandom(32)
    dealer = Dealer([key, os.urandom(32)])
    dealer.sources[0] = source_of(key)
    kind, args = "relu", (1, 0, 64, 0, FOURS)
    found = layout(kind, args)
    correction = dealer.deal(0, kind, *args)
    rho = next(f for f in found.fields if f.name == "rho")
    bit_share = tensor(rho.view({SENT: correction.numpy()})).view(-1)  # what holder 1 lawfully has
    alice = Party(0, 2, Keys(key, {1: os.urandom(32)}))
    alice.source = source_of(key)
    fixing = fix_weight(alice, torch.zeros((found.free + rho.start) // 8, dtype=torch.int64))
    fixing.send(None)
    fixing.close()
    x = ints(64)
    shares = share(x, 2)
    opening = truncation.truncate(alice, shares[0], 16)
    message = tensor(opening.send(None).parts[0])
    opening.close()
    guess = message + bit_share + shares[1]
    return ((guess - x == 0) | (guess - x == 1)).double().mean()


def test_different_orders_at_two_holders_reveal_nothing():
    from syftlite.randomness import Source

    assert _out_of_order(Source) == 0


def test_with_one_stream_for_all_they_would_reveal_the_input():
    """The attack works, so the test before means something."""
    assert _out_of_order(OneStream) == 1


def test_holders_out_of_step_are_an_error_and_nothing_is_left_running():
    group, x = Group(2), share(ints(64), 2)
    mixed = [truncation.truncate(group.parties[0], x[0], 16), negative(group.parties[1], x[1])]
    with pytest.raises((ProtocolError, KeyError)):
        run_local(mixed)
    assert all(co.cr_frame is None for co in mixed)
    group = Group(2)
    group.deal(0, "trunc", (65, 16))
    mixed = [truncation.truncate(group.parties[0], x[0], 16), truncation.truncate(group.parties[1], torch.cat([x[1], x[1]]), 16)]
    group.asked.clear()
    with pytest.raises(ProtocolError):
        run_local(mixed)


def test_a_failure_of_one_holder_ends_all():
    group = Group(2)

    async def failing(party, x):
        if party.last:
            raise ZeroDivisionError
        return await party.open(x)

    started = [failing(p, ints(4)) for p in group.parties]
    with pytest.raises(ZeroDivisionError):
        run_local(started)
    assert all(co.cr_frame is None for co in started)


# -- together


@pytest.mark.parametrize("holders", [2, 3])
def test_independent_protocols_share_their_rounds(holders):
    group, x, y = Group(holders), ints(130), torch.randint(-(2**20), 2**20, (63,))
    shares = share(x, holders), share(y, holders)

    def both(p, a, b):
        return together(p, relu(p, a), negative(p, b, 0), product(p, "mul", b, b), truncation.truncate(p, a, 16))

    out = group.run(both, *shares)
    values = [reveal([o[k] for o in out]) for k in range(4)]
    assert torch.equal(values[0], x.clamp(min=0)) and torch.equal(values[1], (y < 0).long()) and torch.equal(values[2], y * y)
    error = values[3] - (x >> 16)
    assert ((error == 0) | (error == 1)).all()
    assert all(p.rounds == 4 for p in group.parties)
    assert group.parties[0].sent == (holders - 1) * sum(m.numel() * m.itemsize for m in group.messages[0])


def _as_a_link_would(coroutines):
    """Like `run_local`, but every part is copied: what a driver over links does."""
    waiting, results = [None] * len(coroutines), []
    while True:
        outs = []
        for coroutine, got in zip(coroutines, waiting):
            try:
                outs.append([tensor(part).clone() for part in coroutine.send(got).count()])
            except StopIteration as done:
                results.append(done.value)
        if not outs:
            return results
        waiting = [[[o[k].clone() for j, o in enumerate(outs) if j != i] for k in range(len(outs[0]))] for i in range(len(outs))]


@pytest.mark.parametrize("holders", [2, 3])
def test_joint_rounds_within_joint_rounds_are_one_message(holders):
    counts = []
    for drive in (run_local, _as_a_link_would):
        group, x = Group(holders, secret=bytes(32)), torch.arange(-100, 101)
        shares = share(x, holders)

        def inner(p, a):
            return together(p, relu(p, a), truncation.truncate(p, a, 1), negative(p, a[:3]))

        def outer(p, a):
            return together(p, inner(p, a), selection.maximum(p, a, -a))

        out = drive([outer(p, s) for p, s in zip(group.parties, shares)])
        assert torch.equal(reveal([o[0][0] for o in out]), x.clamp(min=0))
        assert torch.equal(reveal([o[0][2] for o in out]), torch.ones(3, dtype=torch.int64))
        assert torch.equal(reveal([o[1] for o in out]), x.abs())
        counts.append((group.parties[0].rounds, group.parties[0].sent))
    assert counts[0] == counts[1] and counts[0][0] == 4


def test_parts_of_a_message_are_counted_as_they_are_aligned():
    parts = [torch.arange(3, dtype=torch.int8), torch.arange(5), torch.arange(7, dtype=torch.int16).view(7, 1)]
    assert message_bytes(parts) == 8 + 40 + 16 and message_bytes(parts[:1]) == 3


def test_a_recorder_computes_shapes_and_draws_nothing():
    recorder = Recorder()
    out = run_dry(relu(recorder, torch.empty(130, dtype=torch.int64, device="meta"), 16), recorder)
    assert out.shape == (130,) and out.is_meta
    assert recorder.requests == [("relu", (3, 16, 64, 0, FOURS))] and FREE != SENT


# -- ahead of time


@pytest.mark.parametrize("kind, args", [("product", ("mul", (8,), (8,), ())), ("relu", (1, 12, 64, 0, FOURS)), ("trunc", (8, 12))])
def test_a_correlation_that_was_expanded_ahead_is_the_one_that_would_have_been_taken(kind, args):
    secret = os.urandom(32)
    for index in range(2):
        early, late = (Group(2, secret=secret) for _ in range(2))
        for group in (early, late) if index else ():  # holder 0 of a test's group has it dealt by itself
            group.deal(0, kind, args)
        party = early.parties[index]
        party.expand(0, kind, args)
        ours, theirs = party.correlated(kind, *args), late.parties[index].correlated(kind, *args)
        for field in layout(kind, args).fields:
            assert torch.equal(tensor(ours[field.name]), tensor(theirs[field.name]))
        assert not party._expanded and party.number == 1


def test_whoever_asks_for_another_correlation_than_was_expanded_gets_what_it_asks_for():
    group = Group(2)
    group.parties[1].expand(0, "trunc", (8, 12))
    group.deal(0, "trunc", (4, 12))
    assert group.parties[1].correlated("trunc", 4, 12)["r"].shape == (4,)
    group.parties[1].expand(0, "trunc", (4, 12))  # too late: it is used
    assert not group.parties[1]._expanded
