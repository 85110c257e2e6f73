"""Comparisons of whole secrets: their logic, what chooses by it, and what reads all along an axis, as plain torch's."""

from __future__ import annotations

import itertools
import operator

import pytest
import torch
from _sharing import Parties, value

import syftlite as sy
from syftlite.errors import Misuse

X = torch.tensor([[3, -2, 7, 0], [5, 5, -9, 1]])
Y = torch.tensor([[3, 4, -7, 2], [5, -6, 9, 1]])
MASK = torch.tensor([[True, False, True, False], [True, True, False, False]])
LOGIC = {"and": operator.and_, "or": operator.or_, "xor": operator.xor}
IN_PLACE = {"and": operator.iand, "or": operator.ior, "xor": operator.ixor}
CHILDREN = ("two", "three", "replicated")


@pytest.fixture(scope="module")
def parties():
    parties = Parties("logic")
    yield parties
    parties.close()


def as_plain(program, place, *operands):
    """``program`` of shares is as that of whole numbers, if truths are 0 and 1."""
    found, want = value(program(*map(place, operands))), value(program(*(t.clone() for t in operands)))
    assert len(found) == len(want)
    for mine, theirs in zip(found, want, strict=True):
        assert mine.shape == theirs.shape
        assert torch.equal(mine.double(), theirs.double())


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("name", LOGIC)
def test_logic_of_comparisons(parties, name, child):
    place, both = parties.place(child), LOGIC[name]
    for program in (
        lambda x, y: both(x > y, x != 0), lambda x, y: both(x >= 0, y[:1] < 3), lambda x, y: both(x > 0, x[0, 0] == 3),
        lambda x, y: both(x > 0, MASK), lambda x, y: both(MASK, x > 0), lambda x, y: both(x > 0, True), lambda x, y: both(False, y > 0),
        lambda x, y: ~both(~(x > 0), y > 0), lambda x, y: both((x > 0).t()[1:], torch.stack([y < 0, x < 0])[0].clone().t()[[1, 2, 3]]),
        lambda x, y: IN_PLACE[name](x > 0, y > 0) & (x < 6), lambda x, y: IN_PLACE[name](x > 0, MASK) | (x < -6),
        lambda x, y: getattr(torch, f"logical_{name}")(x, y), lambda x, y: getattr(x, f"logical_{name}")(Y),
        lambda x, y: getattr(torch, f"bitwise_{name}")(x > 0, y > 0), lambda x, y: torch.logical_not(x),
    ):  # fmt: skip
        as_plain(program, place, X, Y)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("shape", [(2, 3, 2), (4,), (), (0, 3)], ids=str)
def test_what_holds_for_any_and_for_all(parties, shape, child):
    place = parties.place(child)
    x = torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(4))
    dims = [None, *range(-len(shape), len(shape)), *itertools.combinations(range(len(shape)), 2)]
    for dim, keep, compared in itertools.product(dims, (False, True), (False, True)):
        how = {} if dim is None else {"dim": dim, "keepdim": keep}
        as_plain(lambda x, how=how, c=compared: [f(x > 0 if c else x, **how) for f in (torch.any, torch.all)], place, x)


def test_only_comparisons_have_bits(parties):
    place = parties.place("two")
    x = place(X)
    for program in (lambda: x & x, lambda: ~x, lambda: (x > 0) | 3, lambda: (x > 0) ^ X, lambda: x & True):
        with pytest.raises(NotImplementedError, match="of comparisons, such as x > 0, and not of numbers: use logical_"):
            program()


@pytest.mark.parametrize("fix", [False, True])
def test_what_is_written_to_is_no_comparison(parties, fix):
    place = parties.fix("two") if fix else parties.place("two")
    for write in (lambda c: c.add_(1), lambda c: c[0].mul_(3), lambda c: c.detach().sub_(1), lambda c: c.view(-1)[2:].copy_(c.view(-1)[:-2] * 2)):
        compared = place(X.float() if fix else X) > 0
        view = compared.t()
        write(compared)
        for tensor in (compared, view, compared.clone()):
            with pytest.raises(NotImplementedError, match="of comparisons"):
                tensor & True


def test_fixed_comparisons_take_logic_in_place(parties):
    for name, child in itertools.product(IN_PLACE, ("plain", "two")):
        compared = parties.fix(child)(X.float()) > 0
        again = IN_PLACE[name](compared, parties.fix(child)(Y.float()) > 0)
        want = LOGIC[name](X > 0, Y > 0)
        assert again is compared
        assert torch.equal(value(compared)[0], want.float())
        assert torch.equal(value(compared & True)[0], want.float())


@pytest.mark.parametrize("child", CHILDREN)
def test_choices_by_comparisons_cost_no_further_one(parties, child):
    place = parties.place(child)

    def assigned(x, y):
        made = x.clone()
        made[x > y] = 0
        made[(x[:, 1] > 0) & (y[:, 1] < 0)] = 7
        return made

    as_plain(assigned, place, X, Y)
    as_plain(lambda x, y: torch.where((x > 0) & (y > 0), x, y), place, X, Y)
    compared = place(X) > 0
    with sy.mpc.count() as chosen:
        torch.where(compared, place(X), 0)
    with sy.mpc.count() as multiplied:
        compared * place(X)
    assert chosen.rounds == multiplied.rounds
    with pytest.raises(Misuse, match="use torch.where"):
        place(X)[place(X) > 0] = torch.tensor([1, 2, 3, 4, 5])


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("shape", [(2, 3, 4), (5,), ()], ids=str)
def test_along_axes(parties, shape, child):
    place = parties.place(child)
    x = torch.randint(-5, 6, shape, generator=torch.Generator().manual_seed(2))
    for keep, name in itertools.product((False, True), ("amax", "amin", "argmax", "argmin", "prod")):
        for dim in range(-len(shape), len(shape)):
            as_plain(lambda x, n=name, d=dim, k=keep: getattr(x, n)(dim=d, keepdim=k), place, torch.randperm(x.numel()).view(shape) - 2)
        if name in ("argmax", "argmin"):
            as_plain(lambda x, n=name, k=keep: getattr(x, n)(keepdim=k), place, torch.randperm(x.numel()).view(shape))
    as_plain(lambda x: [x.amax(), x.amin(), x.prod()], place, x)
    if len(shape) == 3:
        as_plain(lambda x: [x.amax((0, -1)), x.amin((2, 1), keepdim=True)], place, x)
    for dim in (len(shape) + 1, -len(shape) - 2):
        for name in ("amax", "amin", "argmax"):
            with pytest.raises(IndexError):
                getattr(place(x), name)(dim)


@pytest.mark.parametrize("child", CHILDREN)
def test_constants_and_what_fills(parties, child):
    place = parties.place(child)

    def filled(x):
        y = x.clone()
        y[0] = 5
        y[:, 1] = torch.tensor(4)
        z = x.clone().fill_(3)
        z[1].fill_(x[0, 0])
        return y, z, torch.ones_like(x) + torch.full_like(x, 3), x.new_ones(2), x.new_full((2, 1), -4)

    as_plain(filled, place, X)
    shared = place(X)
    for wrong in (lambda: shared.fill_(2.5), lambda: shared[0].fill_(torch.tensor(0.5))):
        with pytest.raises(Misuse, match="whole ring elements"):
            wrong()
    assert torch.equal(value(shared)[0], X)


def test_sums_of_another_type(parties):
    shared = parties.place("two")(X)
    for program in (lambda x: x.sum(dtype=torch.float32) / 4, lambda x: x.cumsum(1, dtype=torch.float64) * 0.5, lambda x: x.sum(0, dtype=torch.long)):
        (found,) = value(program(shared))
        assert torch.allclose(found.double(), program(X).double(), atol=1e-3)
    for dtype in (torch.int32, torch.bool, torch.float16):
        with pytest.raises(Misuse, match="shares are ring elements"):
            shared.sum(dtype=dtype)
    assert torch.equal(value(shared.bool())[0], (X != 0).long())


@pytest.mark.parametrize("fix", [True, False])
def test_nothing_is_read_by_a_secret_mask(parties, fix):
    secret = (parties.fix("two") if fix else parties.place("two"))(X.float() if fix else X)
    with pytest.raises(Misuse, match=r"torch.where\(mask, x, 0\)"):
        secret[secret > 0]


@pytest.mark.parametrize("child", CHILDREN)
def test_masks_of_bytes_read_what_they_are_told(parties, child):
    some = torch.tensor([[1, 0, 3, 0], [0, 1, 0, 0]], dtype=torch.uint8)
    assert torch.equal(value((parties.place(child)(X) * 2)[some])[0], (X * 2)[some.bool()])


@pytest.mark.parametrize("child", ["two", "replicated"])
@pytest.mark.parametrize("compare", [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne], ids=lambda f: f.__name__)
def test_whole_secrets_are_compared_with_real_numbers(parties, compare, child):
    """On either side, and what comes of it is a comparison."""
    place = parties.place(child)
    for real in (2.5, -2.5, 2.0, torch.tensor(2.5), torch.tensor([[2.5], [-3.0]]), torch.tensor([2.0, -0.5, 7.0, 1e9], dtype=torch.float64)):
        as_plain(lambda x, real=real: [compare(x, real), compare(real, x), compare(x, real) & True], place, X)


def test_what_no_secret_is_compared_with(parties):
    x = parties.place("two")(X)
    for real in (float("inf"), float("nan"), 2.0**63, torch.tensor([1.0, float("nan"), 1.0, 0.0])):
        with pytest.raises(Misuse, match="numbers below 2"):
            _ = x < real
