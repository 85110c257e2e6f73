"""Fixed-precision tensors that lie in one memory: what is written to one is written to all, and so is what is known of it."""

from __future__ import annotations

import itertools

import pytest
import torch
from _sharing import Parties, assert_close, value
from torch.nn import functional as F

from syftlite.errors import Misuse
from syftlite.tensors.fixed_memory import strided

X = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
VIEWS = {
    "part": lambda x: x[1:, :3], "every other": lambda x: x[:, ::2, 1::2], "column": lambda x: x[..., 2], "transposed": lambda x: x.transpose(0, 2),
    "flat": lambda x: x.view(-1), "one": lambda x: x[2, 3, 4], "diagonal": lambda x: x.diagonal(0, 1, 2), "windows": lambda x: x.unfold(2, 2, 3),
    "more axes": lambda x: x[1].unsqueeze(1)[:, :, 1:], "none": lambda x: x[:0], "all": lambda x: x[:],
}  # fmt: skip


@pytest.fixture(scope="module")
def parties():
    parties = Parties("memory")
    yield parties
    parties.close()


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("name", VIEWS)
def test_what_is_filled_through_a_view(parties, name, child):
    """Of a base and all of its views, whichever is filled, and whichever is read."""
    for far, later in ((-1e9, 0.5), (-2e4, -1.5)):
        seen = []
        for x in (parties.fix(child)(X), X.clone()):
            views = [x, *(view(x) for view in VIEWS.values())]
            VIEWS[name](x).fill_(far)
            x[:, 1:3, 3] = later
            seen.append([v.softmax(v.dim() - 1) for v in views if v.dim() and v.numel()])
        assert_close(*seen, 60, 1 << 16)


@pytest.mark.parametrize("write", [
    lambda x: x[..., 1].copy_(torch.tensor(-1e9)), lambda x: x[..., 1:].masked_fill_(torch.arange(4) > 1, -1e9), lambda x: x.t().copy_(torch.full((5, 3), -1e9)),
    lambda x: x[:, :2].sub_(torch.tensor([0, 1e9])), lambda x: x[:, :2].sub_(1e9), lambda x: x[1, 2:].add_(-5e8, alpha=2), lambda x: x.add_(-1e3), lambda x: x[:, 1].fill_(-1e9).add_(1), lambda x: x.copy_(torch.where(torch.arange(5) > 2, x, torch.full_like(x, -1e9))),
])  # fmt: skip
def test_however_a_part_is_filled(parties, write):
    mine, theirs = parties.fix("two")(X[0, :3].clone()), X[0, :3].clone()
    for x in (mine, theirs):
        write(x)
    assert_close(mine.softmax(1), theirs.softmax(1), 60, 1 << 16)


@pytest.mark.parametrize("number", [-1.0, -3.5, 2.0])
def test_padding_with_an_ordinary_number_is_a_score(parties, number):
    got, want = (F.pad(x, (1, 2), value=number).softmax(-1) for x in (parties.fix("two")(X), X))
    assert_close(got, want, 60, 1 << 16)


# -- comparisons

STAYS = {
    "a row": lambda m, x: m[0].copy_(x[1] > 0), "of a view": lambda m, x: m.t()[1:].copy_((x.t() < 0)[:-1]), "a constant": lambda m, x: m[1].fill_(1),
    "assigned": lambda m, x: m.__setitem__((0, 2), True), "bools": lambda m, x: m[:, 0].copy_(torch.tensor([True, False, True, False])), "zeros": lambda m, x: m[2].zero_(),
    "by a mask": lambda m, x: m.__setitem__(torch.tensor([True, False, True, False]), False), "by a secret mask": lambda m, x: m.__setitem__(x > 1, False),
    "filled": lambda m, x: m.masked_fill_(torch.tensor([True, False, False, True, False]), 1), "chosen": lambda m, x: m.copy_(torch.where(x > 1, x < 2, x < 0)),
    "publicly chosen": lambda m, x: m.copy_(torch.where(torch.arange(5) > 2, x > 0, m)),
}  # fmt: skip
ENDS = {
    "numbers": lambda m, x: m[0].copy_(x[1]), "a number": lambda m, x: m[1].fill_(2), "added": lambda m, x: m[:1].add_(x[:1] > 0),
    "accumulated": lambda m, x: m.index_put_((torch.tensor([1, 1]),), m[:2], accumulate=True), "chosen": lambda m, x: m.copy_(torch.where(x > 1, x, x)),
    "one place": lambda m, x: m.__setitem__((0, 0), 3),
}  # fmt: skip


@pytest.mark.parametrize("place", ["plain fixed", "two fixed", "replicated fixed", "two", "replicated"])
@pytest.mark.parametrize("name", STAYS)
def test_what_stays_a_comparison(parties, name, place):
    """Read by whichever is a view of the other."""
    child, _, fixed = place.partition(" ")
    plain = (X[0] * 4).round() if fixed else (X[0] * 4).long()
    secret = (parties.fix(child) if fixed else parties.place(child))(plain)
    mine, theirs = secret > 0, plain > 0
    kept = mine.t()
    STAYS[name](mine, secret)
    STAYS[name](theirs, plain)
    for got, want in ((~mine, ~theirs), (kept & True, theirs.t())):
        assert torch.equal(value(got)[0], want.to(value(got)[0].dtype))


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("name", ENDS)
def test_what_is_no_comparison_any_more(parties, name, fixed):
    x = parties.fix("two")(X[0]) if fixed else parties.place("two")((X[0] * 8).long())
    mask = x > 0
    view = mask[1:]
    ENDS[name](mask, x)
    for tensor in (mask, view):
        with pytest.raises(NotImplementedError, match="of comparisons"):
            tensor & True


# -- public memory


@pytest.mark.parametrize("child", ["two", "replicated"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_secret_in_a_part_of_what_is_public(parties, name, child):
    """All that lies in the memory is secret then, and writes go on to be seen by all."""
    fix, seen = parties.fix(child), []
    for x, secret in ((X.fix_precision(), fix(X * 2)), (X.clone(), X * 2)):
        views = [x, *(view(x) for view in VIEWS.values())]
        VIEWS[name](x).copy_(VIEWS[name](secret))
        views[1][0, 0] = 7.0
        x[2] += 1
        seen.append(views)
    assert all(view.is_secret for view in seen[0] if name != "none")
    assert_close(*seen, 2, 1 << 16)


@pytest.mark.parametrize("child", ["two", "replicated"])
def test_views_that_have_a_place_several_times(parties, child):
    seen = []
    for x, secret in ((X[0].fix_precision(), parties.fix(child)(X[1])), (X[0].clone(), X[1])):
        views = [x, x[:1].expand(3, 5), x.unfold(1, 3, 1), x.t()]
        x[0, 1:] = secret[0, 1:]
        x[1, 2] = -1e9
        seen.append([*views, *(view.softmax(-1) for view in views)])
    assert_close(seen[0][4:], seen[1][4:], 60, 1 << 16)
    assert_close(seen[0][:4], seen[1][:4], 2, 1 << 16)


def test_of_a_program_that_begins_with_zeros(parties):
    def rows(x, zeros):
        for i in range(3):
            zeros[i] = x[i] * (i + 1)
        zeros[:, 1] *= x[:, 0]
        return zeros

    mine, theirs = parties.fix("two")(X[:, :, 0]).requires_grad_(), X[:, :, 0].clone().requires_grad_()
    for x, zeros in ((mine, torch.zeros(3, 4).fix_precision()), (theirs, torch.zeros(3, 4))):
        out = rows(x, zeros)
        (out * out).sum().backward()
    assert_close(mine.grad, theirs.grad, 60, 1 << 16)


def test_what_no_tensor_has_of_the_memory_stays_here(parties):
    """The other columns are nobody's by now, and the holders get none of them."""
    table = torch.full((4, 3), 5.0).fix_precision()
    column, part = table[:, 1], table[1:, 1]
    del table
    column[0] = parties.fix("two")(X[0, 0, 0])
    assert column.is_secret and part.is_secret
    assert_close(part, torch.full((3,), 5.0), 0, 1 << 16)


def test_a_secret_in_a_part_of_what_is_at_a_worker(parties):
    x = parties.fix("pointer")(X)
    part = x[1]
    with pytest.raises(Misuse, match="a part of what is at a worker: begin with a shared tensor"):
        part.copy_(parties.fix("two")(X[1]))


def test_views_by_strides():
    row = torch.arange(60)
    for axes in itertools.permutations(range(3)):
        for view in (row.view(3, 4, 5), row.view(3, 4, 5)[1:, ::2, 1:4], row.view(60, 1, 1)[::7], row.view(3, 4, 5)[:, :1, 2:3], row.view(3, 20, 1)[:0]):
            view = view.permute(axes)
            size = sum((n - 1) * s for n, s in zip(view.shape, view.stride(), strict=True)) + 1 if view.numel() else 0
            at = view.storage_offset()
            got = strided(row[at : at + size], tuple(view.shape), view.stride())
            assert torch.equal(got, view) and (not size or got.data_ptr() == view.data_ptr())
    assert torch.equal(strided(row[:3], (3, 2), (1, 0)), row[:3, None].expand(3, 2))


# -- memory of one's own

SAME = {
    "power": lambda x: x**1, "product": lambda x: x[:1].prod(0), "kept": lambda x: x[:1].prod(0, keepdim=True), "quotient": lambda x: x / 1,
    "resized": lambda x: F.interpolate(x[None], x.shape[1], mode="linear")[0],
}  # fmt: skip


@pytest.mark.parametrize("name", SAME)
def test_what_an_operator_gives_lies_apart_from_its_operand(parties, name):
    """However little it does."""
    whole = [] if name in ("quotient", "resized") else [parties.place("two")]
    for place in (parties.fix("two"), parties.fix("plain"), *whole):
        seen, plain = [], (X[0] * 8).round()
        for x in (place(plain.long() if place in whole else plain), plain.clone()):
            made = SAME[name](x)
            made += 4
            x[0, 0] += 1
            seen.append([x, made])
        assert_close(*seen, 1, 1 << 16)


@pytest.mark.parametrize("source", ["all", "row", "number", "transposed"])
def test_a_secret_over_what_is_public_is_copied(parties, source):
    take = {"all": lambda x: x, "row": lambda x: x[0], "number": lambda x: x[0, 0], "transposed": lambda x: x.t().contiguous().t()}[source]
    seen = []
    for x, secret in ((X[1].fix_precision(), take(parties.fix("two")(X[0]))), (X[1].clone(), take(X[0].clone()))):
        x.copy_(secret)
        secret += 2
        x[0, 1] = 7.0
        seen.append([x, secret])
    assert_close(*seen, 1, 1 << 16)


@pytest.mark.parametrize("function", [lambda x: x.exp(), lambda x: x.softmax(1), lambda x: F.layer_norm(x, (5,)), lambda x: x / (x * x + 1)], ids=range(4))
def test_a_gradient_is_of_the_value_that_was_computed(parties, function):
    """Whatever is written to that later, directly or through a view."""
    x, y = parties.fix("two")(X[0]).requires_grad_(), X[0].clone().requires_grad_()
    made, want = function(x), function(y)
    F.relu(made, inplace=True)
    made[1:] *= 2
    want = torch.cat([want.relu()[:1], want.relu()[1:] * 2])
    for out in (made, want):
        (out * out).sum().backward()
    assert_close(x.grad, y.grad, 400, 1 << 16)
