"""Plans over shares of which something is known: comparisons, and values filled with a public number; and plans that write to what they get."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, value

import syftlite as sy
from syftlite.errors import Misuse

CHILDREN = ("two", "replicated")


@pytest.fixture(scope="module")
def parties():
    parties = Parties("knowledge")
    yield parties
    parties.close()


def rows(seed):
    return torch.randn(3, 4, generator=torch.Generator().manual_seed(seed))


MASKED = {
    "in": (lambda x: x.masked_fill(x.new_tensor([1, 0, 0, 1]).bool(), -1e9), lambda x: x.softmax(-1), lambda y: y),
    "out": (lambda x: x, lambda x: x + torch.tensor([-1e9, 0.0, 0.0, -1e9]), lambda y: y.softmax(-1)),
    "through": (lambda x: x + torch.tensor([0.0, -1e9, 0.0, 0.0]), lambda x: x[:2].t() / 2, lambda y: y.softmax(0)),
}


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("name", MASKED)
def test_masked_scores_in_and_out_of_a_plan(parties, name, child):
    before, function, after = MASKED[name]
    if name == "in":
        before = lambda x: x.masked_fill(torch.tensor([True, False, False, True]), -1e9)  # noqa: E731
    plan = sy.func2plan()(function)
    for seed in range(4):
        found = value(after(plan(before(parties.fix(child)(rows(seed))))))[0]
        assert torch.allclose(found, after(function(before(rows(seed)))), atol=1e-3)


def test_masks_are_part_of_the_form(parties):
    plan = sy.func2plan()(lambda x: x.softmax(-1))
    masks = [torch.zeros(3, 4).bool(), torch.eye(3, 4).bool(), torch.tensor([[False, True, True, False]])]
    for call in range(9):
        mask = masks[call % 3]
        scores = parties.fix("two")(rows(call))
        found = value(plan(scores.masked_fill(mask, -1e9) if mask.any() else scores))[0]
        assert torch.allclose(found, rows(call).masked_fill(mask, -1e9).softmax(-1), atol=1e-3)


@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize("child", CHILDREN)
def test_comparisons_in_and_out_of_a_plan(parties, child, fix):
    place = parties.fix(child) if fix else parties.place(child)
    plan = sy.func2plan()(lambda both, x: (~both | (x > 0), torch.logical_and(x, both)))
    for seed in range(4):
        x, y = (rows(s) if fix else (rows(s) * 10).long() for s in (seed, seed + 9))
        one, two = plan((place(x) > 0) & (place(y) > 0), place(y))
        both = (x > 0) & (y > 0)
        assert torch.equal(value(one & True)[0].bool(), ~both | (y > 0))
        assert torch.equal(value(~two)[0].bool(), ~torch.logical_and(y, both))


def test_other_numbers_are_not_taken_for_comparisons(parties):
    plan = sy.func2plan()(lambda x, y: torch.logical_and(x, y))
    for call in range(6):
        x, y = ((rows(seed) * 3).long() for seed in (call, call + 9))
        given = parties.place("two")(x)
        found = value(plan(given > 0 if call % 2 else given, parties.place("two")(y)))[0]
        assert torch.equal(found.bool(), torch.logical_and(x > 0 if call % 2 else x, y))


def writes_all(x):
    x.add_(1)
    return x * 2


def writes_a_part(x):
    x[0] = 7
    return x.sum(0)


def writes_a_view(x):
    return x[1].mul_(2)


@pytest.mark.parametrize("fix", [True, False])
@pytest.mark.parametrize("function", [writes_all, writes_a_part, writes_a_view])
def test_a_plan_that_writes_to_its_input(parties, function, fix):
    """What waits, computed from the old value, is that of the old; a comparison that is written to is none any more."""
    place, plain = (parties.fix("two"), rows(3)) if fix else (parties.place("two"), (rows(3) * 10).long())
    plan, secret = sy.func2plan()(function), place(plain)
    for _ in range(4):
        waits, old, view = secret * secret, plain * plain, secret[2]
        assert torch.allclose(value(plan(secret))[0].double(), function(plain).double(), atol=1e-3)
        assert torch.allclose(value(waits)[0].double(), old.double(), atol=1e-3)
        assert torch.allclose(value(secret)[0].double(), plain.double(), atol=1e-3)
        assert torch.allclose(value(view)[0].double(), plain[2].double(), atol=1e-3)
    for _ in range(3):
        compared = place(plain) > 0
        plan(compared)
        with pytest.raises(NotImplementedError, match="of comparisons"):
            compared & True


def test_what_a_plan_writes_is_for_whom_all_of_it_is(parties):
    def write(x, y):
        x.add_(y)
        return x + 0

    plan, (alice, bob), dealer = sy.func2plan()(write), parties.all[:2], parties.dealer
    for call in range(3):
        lent = torch.tensor([1, 2]).share(alice, bob, crypto_provider=dealer, reveal_to=["ben"])
        own = torch.tensor([3, 4]).share(alice, bob, crypto_provider=dealer)
        plan(lent, own)
        assert lent.reveal_to == set(), call
        tagged = torch.tensor([1, 2]).share(alice, bob, crypto_provider=dealer, reveal_to=["ben"]).tag("#lent")
        with pytest.raises(Misuse, match="tagged for ben"):
            plan(tagged, own)
