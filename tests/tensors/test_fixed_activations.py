"""Activations in fixed precision, where they bend, and far from there."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch.nn import functional as F

X = torch.tensor([0.0, 1.0, -1.0, 6.0, 7.0, 3.0, -3.0, 0.5, -0.5, 2.0**-16, -(2.0**-16)])

BENDS = {
    "relu": torch.relu, "leaky_relu": F.leaky_relu, "relu6": F.relu6, "hardtanh": F.hardtanh, "hardsigmoid": F.hardsigmoid,
    "hardswish": F.hardswish, "softshrink": F.softshrink, "hardshrink": F.hardshrink, "elu": F.elu, "clamp": lambda x: x.clamp(-1, 1),
    "prelu": lambda x: F.prelu(x, torch.tensor([0.25])), "threshold": lambda x: F.threshold(x, 0.5, 0.0),
}  # fmt: skip


@pytest.fixture(scope="module")
def parties():
    parties = Parties("activations")
    yield parties
    parties.close()


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("name", BENDS)
def test_slopes_where_functions_bend(parties, name, child):
    mine, theirs = parties.fix(child)(X).requires_grad_(), X.clone().requires_grad_()
    got, want = (BENDS[name](x) for x in (mine, theirs))
    got.sum().backward()
    want.sum().backward()
    assert_close(got.detach(), want.detach(), 20, 1 << 16)
    assert_close(mine.grad, theirs.grad, 20, 1 << 16)


def test_biases_of_zero_get_no_gradient_through_a_relu(parties):
    bias = parties.fix("two")(torch.zeros(3)).requires_grad_()
    (parties.fix("two")(torch.zeros(2, 3)) + bias).relu().sum().backward()
    assert_close(bias.grad, torch.zeros(3), 0, 1 << 16)


def test_slopes_of_ties(parties):
    """As docs/encrypted.md states them."""
    x = parties.fix("two")(torch.zeros(2)).requires_grad_()
    x.abs().sum().backward()
    assert_close(x.grad, torch.ones(2), 0, 1 << 16)


def test_mish_far_below_zero(parties):
    x = torch.tensor([-1000.0, -100.0, -20.0, -16.0, -10.0])
    assert_close(F.mish(parties.fix("two")(x)), F.mish(x), 60, 1 << 16)
