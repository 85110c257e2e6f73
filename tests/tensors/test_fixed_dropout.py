"""Dropout and padding in fixed precision."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close, value
from torch import nn
from torch.nn import functional as F

X = torch.ones(2, 50, 4)


@pytest.fixture(scope="module")
def parties():
    parties = Parties("dropout")
    yield parties
    parties.close()


def test_all_is_dropped(parties):
    x = parties.fix("two")(X).requires_grad_()
    out = F.dropout(x, 1.0)
    out.sum().backward()
    for got in (out.detach(), x.grad):
        assert_close(got, torch.zeros_like(X), 0, 1 << 16)


def test_what_is_dropped_in_place(parties):
    x = parties.fix("two")(X)
    assert F.dropout(x, 0.5, inplace=True) is x
    assert value(x)[0].unique().tolist() == [0, 2]


@pytest.mark.parametrize("p", [-0.5, 1.5])
def test_what_is_no_probability_says_so(parties, p):
    with pytest.raises(ValueError, match="dropout: p is a probability"):
        F.dropout(parties.fix("two")(X), p)


@pytest.mark.parametrize(("function", "axes"), [(F.dropout1d, 1), (F.dropout2d, 2), (F.dropout3d, 3)], ids=["1d", "2d", "3d"])
def test_whole_channels_are_dropped(parties, function, axes):
    x = torch.ones(2, 50, *[2] * axes)
    (got,) = value(function(parties.fix("two")(x), 0.5))
    assert got.unique().tolist() == [0, 2]
    assert torch.equal(got, got.flatten(2)[..., 0].reshape(2, 50, *[1] * axes).expand_as(x))
    with pytest.raises(NotImplementedError, match=rf"{function.__name__} of \(N, C, ...\), .* unsqueeze"):
        function(parties.fix("two")(x[0]), 0.5)


@pytest.mark.parametrize("module", [nn.AlphaDropout(), nn.FeatureAlphaDropout()])
def test_dropout_that_keeps_moments_is_refused_in_training(parties, module):
    x = parties.fix("two")(X)
    with pytest.raises(NotImplementedError, match="alpha_dropout after training"):
        module(x)
    assert module.eval()(x) is x


@pytest.mark.parametrize("make", [lambda: nn.Conv1d(2, 2, 3, padding=1, padding_mode="circular"),
                                  lambda: nn.Conv2d(2, 1, 3, padding=(2, 1), padding_mode="circular")], ids=["1d", "2d"])  # fmt: skip
def test_circular_convolutions(parties, make):
    torch.manual_seed(3)
    plain, secret = make(), make()
    secret.load_state_dict(plain.state_dict())
    secret.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    x = torch.randn(2, 2, *[5] * (plain.weight.dim() - 2))
    mine, theirs = parties.fix("two")(x).requires_grad_(), x.clone().requires_grad_()
    for model, given in ((secret, mine), (plain, theirs)):
        (model(given) ** 2).sum().backward()
    for got, want in ((mine.grad, theirs.grad), (secret.weight.grad, plain.weight.grad)):
        assert_close(got, want, 200, 1 << 16)


def test_circular_padding_beyond_what_there_is_says_so(parties):
    with pytest.raises(ValueError, match=r"circular padding of axis 2 of \(2, 50, 4\) is 0 ... 4 at an end, and not \(5, 0\)"):
        F.pad(parties.fix("two")(X), (5, 0), mode="circular")
