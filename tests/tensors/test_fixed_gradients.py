"""Second derivatives of fixed-precision tensors: right, or refused."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch.nn import functional as F

X = torch.tensor([[0.5, 1.2, -0.7, 2.0]])
TABLE = torch.tensor([[1.0, -2.0], [0.5, 3.0]])

RIGHT = {
    "products": (lambda w: (w * w * w).sum(), X),
    "pow": (lambda w: (w**4).sum(), X),
    "linear": (lambda w: (F.linear(w, torch.eye(4) * 2) ** 3).sum(), X),
    "relu": (lambda w: (w.relu() ** 3).sum(), X),
    "abs": (lambda w: (w.abs() ** 3).sum(), X),
    "clamp": (lambda w: (w.clamp(-1, 1) ** 3).sum(), X),
    "max": (lambda w: (w.max() * w * w).sum(), X),
    "amax": (lambda w: (w.amax(1) ** 3).sum(), X),
    "sort": (lambda w: (w.sort(1)[0] ** 3 * torch.tensor([1.0, 2, 3, 4])).sum(), X),
    "topk": (lambda w: (w.topk(2, 1)[0] ** 3 * torch.tensor([1.0, 2])).sum(), X),
    "max_pool2d": (lambda w: (F.max_pool2d(w.reshape(1, 1, 2, 2), 2, 1, 1) ** 3).sum(), X.abs()),
    "overlapping": (lambda w: (F.max_pool1d(w.reshape(1, 1, 4), 3, 1) ** 3).sum(), X),
}
REFUSED = {
    "exp": lambda w: w.exp().sum(),
    "sigmoid": lambda w: w.sigmoid().sum(),
    "division": lambda w: (w / (w * w + 1)).sum(),
    "reciprocal": lambda w: (1 / (w * w + 1)).sum(),
    "sqrt": lambda w: (w.norm() * w).sum(),
    "softmax": lambda w: (w.softmax(1) * w).sum(),
    "log_softmax": lambda w: w.logsumexp(1).sum(),
    "softplus": lambda w: F.softplus(w).sum(),
    "cross_entropy": lambda w: F.cross_entropy(w, torch.tensor([1])),
    "binary_cross_entropy_with_logits": lambda w: F.binary_cross_entropy_with_logits(w, torch.ones(1, 4)),
    "a layer, group or batch norm": lambda w: (F.layer_norm(w, [4]) ** 3).sum(),
}


@pytest.fixture(scope="module")
def parties():
    parties = Parties("gradients")
    yield parties
    parties.close()


def penalty(function, w):
    """Of the first derivative, which is part of what is differentiated again."""
    (first,) = torch.autograd.grad(function(w), w, create_graph=True)
    return (first * first * w).sum()


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("name", RIGHT)
def test_second_derivatives(parties, name, child):
    function, x = RIGHT[name]
    mine, theirs = parties.fix(child)(x).requires_grad_(), x.clone().requires_grad_()
    for w in (mine, theirs):
        penalty(function, w).backward()
    assert_close(mine.grad, theirs.grad, 40 + 2e-4 * theirs.grad.abs().max().item() * 2**16, 1 << 16)


def test_second_derivatives_by_a_secret_index(parties):
    index = torch.tensor([1, 0, 1]).share(parties.alice, parties.bob, crypto_provider=parties.dealer)
    mine, theirs = parties.fix("two")(TABLE).requires_grad_(), TABLE.clone().requires_grad_()
    for w, places in ((mine, index), (theirs, torch.tensor([1, 0, 1]))):
        penalty(lambda w, places=places: (F.embedding(places, w) ** 3).sum(), w).backward()
    assert_close(mine.grad, theirs.grad, 2e-4 * theirs.grad.abs().max().item() * 2**16, 1 << 16)


@pytest.mark.parametrize("child", ["plain", "two"])
@pytest.mark.parametrize("name", REFUSED)
def test_second_derivatives_that_are_refused(parties, name, child):
    function = REFUSED[name]
    w, x = parties.fix(child)(X).requires_grad_(), X.clone().requires_grad_()
    refused = f"no second derivative of {name}, .* in the open"
    with pytest.raises(NotImplementedError, match=refused):
        penalty(function, w).backward()
    with pytest.raises(NotImplementedError, match=refused):  # where autograd goes to w alone
        torch.autograd.grad(penalty(function, w), w)
    (first,), (want,) = torch.autograd.grad(function(w), w, create_graph=True), torch.autograd.grad(function(x), x)
    assert_close(first.detach(), want, 250, 1 << 16)
