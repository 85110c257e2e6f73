"""Scores of which some were filled with a public number far below the others: to a softmax they are nothing, whatever moved them since."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch.nn import functional as F

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
MASK = torch.tensor([True, False, False, True])
OTHER = torch.tensor([False, True, False, False])
LATER = torch.triu(torch.ones(3, 3, dtype=torch.bool), 1)


@pytest.fixture(scope="module")
def parties():
    parties = Parties("masks")
    yield parties
    parties.close()


def assigned(x, far):
    y = x * 1
    y[..., MASK] = far
    return y


def written_over(x, far):
    y = x.masked_fill(MASK, far)
    y[..., 0], y[..., 3] = 0.25, -0.25
    return y


FILLED = {
    "masked_fill": lambda x, far: x.masked_fill(MASK, far), "in place": lambda x, far: (x * 1).masked_fill_(MASK, far),
    "where": lambda x, far: torch.where(MASK, far, x), "where a tensor": lambda x, far: torch.where(~MASK, x, torch.full((4,), far)),
    "added": lambda x, far: x + MASK * far, "subtracted": lambda x, far: x - MASK * -far, "added in place": lambda x, far: (x * 1).add_(MASK * far),
    "assigned": assigned, "padded": lambda x, far: F.pad(x, (1, 2), value=far), "written over": written_over,
    "twice": lambda x, far: x.masked_fill(MASK, far).masked_fill(OTHER, 2 * far), "added twice": lambda x, far: x + MASK * far + OTHER * far,
    "unmasked": lambda x, far: x.masked_fill(MASK, far).masked_fill(torch.tensor([True, True, False, False]), 0.5),
    "of products": lambda x, far: x @ x.transpose(1, 2) + LATER * far, "of quotients": lambda x, far: x @ x.transpose(1, 2) / 2 + LATER * far,
}  # fmt: skip
MOVED = {
    "view": lambda x: x.reshape(-1, x.shape[-1]), "transpose": lambda x: x.transpose(0, 1), "clone": lambda x: x.clone(),
    "detach": lambda x: x.detach(), "part": lambda x: x[1, :2], "index": lambda x: x[:, [2, 0]], "split": lambda x: x.split(1)[1],
    "cat": lambda x: torch.cat([x, x * 0 + 0.5], -1), "stack": lambda x: torch.stack([x, x * 1]), "flip": lambda x: x.flip(-1),
    "quotient": lambda x: x / 8, "multiple": lambda x: x * 0.35, "whole multiple": lambda x: x * 2, "moved": lambda x: x + 1.5,
}  # fmt: skip


@pytest.mark.parametrize("child", ["plain", "two", "replicated"])
@pytest.mark.parametrize("name", FILLED)
def test_however_they_were_filled(parties, name, child):
    for far in (-1e9, -2e5, -1.5e4):
        got, want = (FILLED[name](make(X), far) for make in (parties.fix(child), torch.clone))
        assert_close(got.softmax(-1), want.softmax(-1), 60, 1 << 16)
        assert_close(got.logsumexp(-1), want.logsumexp(-1), 60, 1 << 16)


@pytest.mark.parametrize("name", MOVED)
def test_however_they_were_moved(parties, name):
    for filled in (FILLED["masked_fill"], FILLED["added"]):
        got, want = (MOVED[name](filled(make(X), -1e9)) for make in (parties.fix("two"), torch.clone))
        assert_close(got.softmax(-1), want.softmax(-1), 60, 1 << 16)
    near = parties.fix("two")(X).masked_fill(MASK, -2e4) * 1e-3  # -20: scores like others
    assert_close(near.log_softmax(-1), (X.masked_fill(MASK, -2e4) * 1e-3).log_softmax(-1), 60, 1 << 16)


@pytest.mark.parametrize("name", FILLED)
def test_gradients_of_what_is_masked_are_none(parties, name):
    mine, theirs = (make(X).requires_grad_() for make in (parties.fix("two"), torch.clone))
    weights = torch.rand(7, generator=torch.Generator().manual_seed(1))
    for x in (mine, theirs):
        rows = FILLED[name](x, -1e9).softmax(-1)
        (rows * rows * weights[: rows.shape[-1]]).sum().backward()
    assert_close(mine.grad, theirs.grad, 60, 1 << 16)
