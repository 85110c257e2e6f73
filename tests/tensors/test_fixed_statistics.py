"""Norms in fixed precision: of vectors and of matrices, as plain torch's, or refused by name."""

from __future__ import annotations

import math

import pytest
import torch
from _sharing import Parties, assert_close
from torch.nn import functional as F

X = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -9.0]])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("statistics")
    yield parties
    parties.close()


@pytest.mark.parametrize("where", [{}, {"dim": (0, 1)}, {"dim": (1, 0), "keepdim": True}], ids=str)
@pytest.mark.parametrize("order", [None, "fro", 1, -1, math.inf, -math.inf])
def test_norms_of_matrices(parties, order, where):
    mine, theirs = parties.fix("two")(X).requires_grad_(), X.clone().requires_grad_()
    got, want = (torch.linalg.norm(x, order, **where) for x in (mine, theirs))
    assert got.shape == want.shape
    assert_close(got.detach(), want.detach(), 100, 1 << 16)
    got.sum().backward()
    want.sum().backward()
    assert_close(mine.grad, theirs.grad, 100, 1 << 16)


def test_norms_of_vectors_and_of_all(parties):
    fix, stack = parties.fix("two"), X.reshape(1, 2, 3)
    for order, x, where in ((1, X[0], {}), (2, X[0], {}), (2, X, {"dim": 1}), (None, stack, {}), (None, X, {"dim": [1]})):
        assert_close(torch.linalg.norm(fix(x), order, **where), torch.linalg.norm(x, order, **where), 100, 1 << 16)
    with pytest.raises(RuntimeError, match="of a vector or a matrix, .* say dim="):
        torch.linalg.norm(fix(stack), 1)


@pytest.mark.parametrize("order", [2, -2, "nuc"])
def test_norms_of_singular_values_are_refused(parties, order):
    for norm in (torch.linalg.norm, torch.linalg.matrix_norm):
        with pytest.raises(NotImplementedError, match=f"not of {order!r}, .* decrypt"):
            norm(parties.fix("two")(X), order)


@pytest.mark.parametrize("function", [F.normalize, lambda x, eps: F.cosine_similarity(x, x, eps=eps)], ids=["normalize", "cosine_similarity"])
def test_an_eps_that_would_be_felt_is_refused(parties, function):
    with pytest.raises(NotImplementedError, match="of an eps up to 1e-06, .* not of 0.5"):
        function(parties.fix("two")(X), eps=0.5)
