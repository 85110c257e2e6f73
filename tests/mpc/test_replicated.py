"""Replicated shares of three: every kernel as between two holders, nobody but the client learns anything, planted flaws, releases."""

import pytest
import torch

from syftlite.errors import Misuse, ProtocolError
from syftlite.mpc import replicated
from syftlite.mpc.correlations import FREE, Field
from syftlite.mpc.kernels import KERNELS, NUMBERS
from syftlite.mpc.party import group_keys
from syftlite.mpc.release import release
from syftlite.mpc.replicated import THIRD, Replica, Third, dealer_of
from syftlite.mpc.ring import reveal, share

from .equivocation import equivocate_replicated
from .group import Group, Tape, Trio, pairs
from .test_kernels import EXAMPLES

F = 16
FUNCTIONS = [
    ("exp", [(40,)], {"f": F}),
    ("curve", [(40,)], {"f": F, "which": 0, "slope": 1}),
    ("roots", [(40,)], {"f": F, "what": 3}),
    ("divide", [(5, 7), (5, 1)], {"f": F}),
    ("softmax", [(3, 6)], {"f": F, "dim": 1, "what": 3}),
    ("one_hot", [(40,)], {"count": 6}),
    ("sort", [(4, 6)], {"dim": 1}),
    ("linear", [(2, 5, 6), (6, 4)], {"f": F}),
    ("conv2d_fixed", [(2, 4, 6, 6), (4, 2, 3, 3)], {"padding": (1, 1), "pool": (2, 2), "groups": 2}),
]
EVERY = [*EXAMPLES, *FUNCTIONS]
IDS = [f"{e[0]}{i}" for i, e in enumerate(EVERY)]


def operands(name, shapes):
    """In the range of every kernel: what is divided by and what has roots is not near 0, what 32 bits are compared of not right below it."""
    low = 2**15 if name in ("divide", "roots") else -(2**18)
    scale = 2**17 if name == "negative" else 1
    return [torch.randint(low, 2**18, shape) * scale for shape in shapes] if name != "one_hot" else [torch.randint(0, 6, shapes[0])]


def between_two(name, values, static):
    """What two holders with a provider make of the same."""
    group = Group()
    if name in ("linear", "conv2d_fixed"):
        fixed = group.kernel("fix_weight", share(values[1], 2))
        return reveal(group.kernel(name, share(values[0], 2), fixed, **static))
    return group.plain(name, *values, **static)


@pytest.mark.parametrize("name,shapes,static", EVERY, ids=IDS)
def test_every_kernel_is_as_between_two_holders(name, shapes, static):
    values = operands(name, shapes)
    want, got = between_two(name, values, static), Trio().plain(name, *values, **static)
    wants, gots = (v if isinstance(v, tuple) else (v,) for v in (want, got))
    for one, other in zip(wants, gots, strict=True):
        assert one.shape == other.shape
        rounded = one.abs() * 2**-12 + 8 if name in {e[0] for e in FUNCTIONS} else torch.tensor(int("f" in static or name == "quotient"))
        assert ((one - other).abs() <= rounded).all(), "rounding is random: it may differ by a unit, and a function's by its error twice"


def test_every_kernel_but_that_for_weights_has_a_replicated_one():
    names = {kernel.name for number, kernel in KERNELS.items() if number < 64}
    assert {kernel.name.removeprefix("replicated_") for number, kernel in KERNELS.items() if number > 64} == names - {"fix_weight"}
    assert {name for name, *_ in EVERY} == names - {"fix_weight"}


def test_wrapping_is_the_rings():
    top = torch.tensor([2**63 - 1, -(2**63), 2**62])
    assert torch.equal(Trio().plain("mul", top, top), top * top) and torch.equal(Trio().plain("square", top), top * top)


@pytest.mark.parametrize("f", [1, 16, 40, 61])
def test_products_truncate_in_their_whole_range(f):
    x = torch.tensor([2**62 - 1, -(2**62), -1, 0, 1])
    error = Trio().plain("mul", x, torch.ones(5, dtype=torch.int64), f=f) - (x >> f)
    assert ((error == 0) | (error == 1)).all()


@pytest.mark.parametrize(
    "name,shapes,static,rounds,sent,dealt",
    [
        ("mul", [(1000,), (1000,)], {}, 1, 8000, 8000),
        ("mul", [(1000,), (1000,)], {"f": 16}, 2, 16000, 18000),
        ("matmul", [(10, 500), (500, 10)], {}, 1, 800, 800),
        ("truncate", [(1000,)], {"f": 16}, 2, 16000, 10000),
        ("refresh", [(1000,)], {}, 1, 8000, 0),
    ],
)
def test_what_it_costs(name, shapes, static, rounds, sent, dealt):
    """A product's cost is its result's, whatever the factors' sizes."""
    group = Trio()
    group.plain(name, *operands(name, shapes), **static)
    assert [(p.rounds, p.sent) for p in group.parties] == [(rounds, sent)] * 2
    assert group.parties[1].corrected - dealt in range(16) and group.parties[0].corrected == 0


# -- what each sees


def kernel(name, **static):
    return lambda group, xs: group.kernel(name, *xs, **static)


def layers(group, xs):
    """What one kernel makes is another's operand."""
    w, x = xs
    h = group.kernel("relu", group.kernel("matmul", x, w), f=16)
    return group.kernel("mul", h, group.kernel("square", h), f=8)


VIEWS = {
    **{ident: (kernel(name, **static), shapes) for ident, (name, shapes, static) in zip(IDS, EVERY, strict=True)},
    "layers": (layers, [(7, 3), (5, 7)]),
}


def seen(case, honest):
    run, shapes = VIEWS[case]
    one, other = ([torch.randint(-(2**63), 2**63 - 1, shape) for shape in shapes] for _ in range(2))
    if case.startswith("equal"):  # half of them equal, or a bit that never differs would hide nothing
        one[0][::2] = one[1][::2] if len(one) > 1 and one[0].shape == one[1].shape else 0
    return equivocate_replicated(run, one, other, honest)


@pytest.mark.parametrize("honest", [0, 1])
@pytest.mark.parametrize("case", VIEWS)
def test_any_other_secret_explains_the_same_view(case, honest):
    """Of the holder beside ``honest``; the third hears nothing, as `Trio.kernel` asserts."""
    verdict = seen(case, honest)
    assert verdict, verdict


def _known(monkeypatch):
    """The third deals its part of a product bare: holder 0's share of it is nothing."""
    take = Tape.take

    def changed(self, nbytes, *purpose):
        out = take(self, nbytes, *purpose)
        return out.zero_() if purpose[-1] == "sent" else out

    monkeypatch.setattr(Tape, "take", changed)


def _bare(monkeypatch):
    """Raised with components that are nothing: holders open what they have."""
    memory = Field.memory

    def changed(self, parts):
        x = memory(self, parts)
        if self.name == "y" and self.part == FREE:
            x[...] = 0
        return x

    monkeypatch.setattr(Field, "memory", changed)


def _repeated(monkeypatch):
    """Correlations of one kind and shape are one."""
    monkeypatch.setattr(Tape, "key", lambda self, purpose: purpose[1:])


@pytest.mark.parametrize("flaw,case", [(_known, "layers"), (_bare, "layers"), (_repeated, "layers"), (_known, IDS[1]), (_bare, IDS[1])])
def test_a_planted_flaw_is_caught(flaw, case, monkeypatch):
    """All of them compute the right result."""
    flaw(monkeypatch)
    assert not all(seen(case, honest) for honest in (0, 1))
    x = torch.arange(-5, 5)
    assert torch.equal(Trio(tapes=[Tape(0), Tape(1)]).plain("mul", x, x), x * x)


def test_each_component_alone_is_uniform():
    """After a kernel every holder's two shares are new, whatever the value is."""
    group, x = Trio(), torch.zeros(4000, dtype=torch.int64)
    made = [part for pair in group.kernel("mul", *[pairs(share(x, 3))] * 2) for part in pair]
    for part in made:
        assert part.unique().numel() > 3990 and 0.45 < (part < 0).double().mean() < 0.55


# -- releases


def test_what_is_released_adds_up_and_is_masked_by_every_pair():
    group, x = Trio(), torch.arange(-50, 50)
    shares = group.kernel("refresh", pairs(share(x, 3)))
    owners = [*group.parties, group.third]
    for _ in range(2):
        released = [release(owner, pair.own) for owner, pair in zip(owners, shares, strict=True)]
        assert torch.equal(reveal(released), x)
        for part, pair in zip(released, shares, strict=True):
            assert not (part == pair.own).any()
    for one, other in ((0, 1), (0, 2), (1, 2)):  # a mask that a pair does not share would leave two of three bare together
        both = release(owners[one], torch.zeros(4, dtype=torch.int64)) + release(owners[other], torch.zeros(4, dtype=torch.int64))
        release(owners[3 - one - other], torch.zeros(4, dtype=torch.int64))
        assert both.all()


def test_the_keys_of_a_holder_are_all_different():
    keys = group_keys(bytes(range(32)), 3)
    replica, third = Replica(0, keys[0].peers), Third(keys[2].peers, dealer_of(keys[2].peers), lambda *a, **k: None)
    drawn = [s.take(16, "x").tolist() for s in (replica.source, *replica.peers.values(), *third.peers.values(), *third.dealer.sources)]
    assert drawn[0] == drawn[5] and drawn[2] == drawn[3], "with the third: what it deals with, what it releases with"
    assert len({tuple(d) for d in drawn}) == 5


# -- what does not fit


def test_a_third_that_deals_for_another_kernel_makes_noise():
    group, x = Trio(), torch.arange(8)
    shares = pairs(share(x, 3))
    entry, other = KERNELS[NUMBERS["replicated_mul"]], KERNELS[NUMBERS["replicated_matmul"]]
    with pytest.raises(StopIteration):
        other.run(group.third, *[part.view(2, 4) for part in shares[2]], *[part.view(4, 2) for part in shares[2]]).send(None)
    with pytest.raises(ProtocolError, match="bytes"):
        group.run(entry.run, *[[shares[i][j] for i in (0, 1)] for j in (0, 1, 0, 1)])


def test_shapes_that_do_not_fit_are_refused_before_anything_is_dealt():
    group = Trio()
    x, y = pairs(share(torch.ones(3, 2, dtype=torch.int64), 3)), pairs(share(torch.ones(3, 4, dtype=torch.int64), 3))
    with pytest.raises(ValueError, match="cannot be multiplied"):
        group.kernel("matmul", x, y)
    with pytest.raises(Misuse, match="int64"):
        group.kernel("relu", [type(pair)(pair.own.double(), pair.next.double()) for pair in x])
    assert not group.corrections and group.third.number == 0


def test_nothing_is_computed_of_nothing():
    empty = torch.zeros(0, 3, dtype=torch.int64)
    group = Trio()
    assert group.plain("mul", empty, empty).shape == (0, 3) and group.plain("relu", empty).shape == (0, 3)
    assert torch.equal(group.plain("matmul", empty.t(), empty), torch.zeros(3, 3, dtype=torch.int64))
    assert replicated.HOLDERS == THIRD + 1
