"""Losses in fixed precision: targets with gradients, and those that do not add up to one."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch.nn import functional as F

X = torch.tensor([[1.0, 2.0, 3.0]])
Y = torch.tensor([[0.5, 2.0, 1.0]])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("losses")
    yield parties
    parties.close()


@pytest.mark.parametrize("loss", [F.cross_entropy, F.binary_cross_entropy_with_logits])
@pytest.mark.parametrize("scores", [True, False], ids=["both", "the target alone"])
def test_a_target_has_its_gradient(parties, loss, scores):
    mine = [parties.fix("two")(v) for v in (X, Y)]
    theirs = [v.clone() for v in (X, Y)]
    for x, y in (mine, theirs):
        x.requires_grad_(scores)
        y.requires_grad_()
        loss(x, y.softmax(1)).backward()
    for got, want in list(zip(mine, theirs, strict=True))[0 if scores else 1 :]:
        assert_close(got.grad, want.grad, 60, 1 << 16)


ONE = torch.tensor([[0.25, 0.5, 0.25]])


@pytest.mark.parametrize(("target", "secret"), [(Y, False), (ONE, False), (ONE, True)], ids=["public, more than one", "public", "secret"])
def test_probabilities_as_a_target(parties, target, secret):
    fix = parties.fix("two")
    mine, theirs = fix(X).requires_grad_(), X.clone().requires_grad_()
    F.cross_entropy(mine, fix(target) if secret else target).backward()
    F.cross_entropy(theirs, target).backward()
    assert_close(mine.grad, theirs.grad, 100, 1 << 16)


def test_a_soft_margin_far_off(parties):
    x, y = torch.tensor([-12.0, 12.0, 100.0]), torch.tensor([1.0, 1.0, -1.0])
    for reduction in ("mean", "sum", "none"):
        got, want = (F.soft_margin_loss(v, y, reduction=reduction) for v in (parties.fix("two")(x), x))
        assert_close(got, want, 20, 1 << 16)


def test_a_loss_that_torch_takes_apart_wrongly_is_refused(parties):
    with pytest.raises(NotImplementedError, match="multilabel_margin_loss"):
        F.multilabel_margin_loss(parties.fix("two")(torch.randn(3, 4)), torch.tensor([[1, -1, -1, -1]] * 3))


@pytest.mark.parametrize("kind", ["two", "replicated"])
def test_what_ends_in_a_line_has_no_end(parties, kind):
    x = torch.tensor([0.0, -90.0, 100.0, 113.0, 117.0, 122.0, -122.0, 490.0, 757.0, -3000.0, 16000.0])
    fixed, ones = parties.fix(kind)(x), torch.ones(11)
    for function in (F.softplus, F.logsigmoid, lambda v: F.binary_cross_entropy_with_logits(v, ones, reduction="none")):
        assert_close(function(fixed), function(x), 20, 1 << 16)
    near = x[x.abs() < 1000]
    assert_close(F.mish(parties.fix(kind)(near)), F.mish(near), 200, 1 << 16)


def test_a_softplus_that_bends_early_is_refused(parties):
    x = parties.fix("two")(X)
    with pytest.raises(NotImplementedError, match="softplus of a threshold of 12 or more, and not of 1"):
        F.softplus(x, 2, 1)
    assert_close(F.softplus(x, 2, 30), F.softplus(X, 2, 30), 20, 1 << 16)
