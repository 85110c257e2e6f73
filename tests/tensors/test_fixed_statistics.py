"""Norms, of vectors and of matrices, distances, deviations and what is normed by them: as plain torch's, as exact as docs/encrypted.md states,
in the ranges that it states; or refused by name."""

from __future__ import annotations

import math

import pytest
import torch
from _sharing import Parties, assert_close, value
from torch.nn import functional as F

UNIT = 2.0**-16
X = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -9.0]])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("statistics")
    yield parties
    parties.close()


def rows(least, most, size):
    """Rows of mean 0 whose ``size`` goes from 2^least to 2^most, in whole units."""
    x = torch.randn(200, 24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = x - x.mean(1, keepdim=True)
    x = x / size(x) * torch.logspace(least, most, 200, base=2, dtype=torch.float64)[:, None]
    return (x / UNIT).round() * UNIT


def norm(x):
    return x.norm(dim=1, keepdim=True)


def deviation(x):
    return x.std(1, keepdim=True)


def distances(x):
    return torch.cdist(x[None], x[None] * 0)[0, :, :1]


@pytest.mark.parametrize(("function", "size"), [(norm, norm), (distances, norm), (deviation, deviation)])
def test_norms_and_deviations(parties, function, size):
    """Of 2^-6 to 127: a unit, 1e-4 of the value, and a unit of its square."""
    x = rows(-6, 6.98, size)
    got, want = value(function(parties.fix("two")(x)))[0].double(), function(x)
    assert ((got - want).abs() <= UNIT + 1e-4 * want + UNIT / want).all()


@pytest.mark.parametrize(("function", "size"), [(lambda x: F.normalize(x), norm), (lambda x: F.layer_norm(x, (24,)), deviation)])
@pytest.mark.parametrize(("least", "most", "relative"), [(-3, 5, 1.5e-3), (-6, 6.9, 0.04)])
def test_what_is_normed(parties, function, size, least, most, relative):
    """To a part of the largest of its row."""
    x = rows(least, most, size)
    got, want = value(function(parties.fix("two")(x)))[0].double(), function(x)
    assert ((got - want).abs() <= relative * want.abs().amax(1, keepdim=True) + 2 * UNIT).all()


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


ALONG = ("amax", "amin", "argmax", "argmin", "prod", "var", "std", "norm", "logsumexp", "softmax", "log_softmax")


@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize("child", ["plain", "two"])
@pytest.mark.parametrize("name", ALONG)
def test_axes_are_those_that_there_are(parties, name, child, gradients):
    """An axis out of range, or named twice, is an error as in torch, and no other axis instead; a number has one, which counts for none."""
    for x in (torch.tensor([0.5, 2.0, 1.25]), torch.tensor([[0.5, 2.0], [1.25, 4.0]]), torch.tensor(1.75)):
        secret = parties.fix(child)(x).requires_grad_(gradients)
        for dim in range(-x.dim() - 2, x.dim() + 3):
            how = {"correction": 0} if name in ("var", "std") else {}
            try:
                want = getattr(x, name)(dim=dim, **how)
            except IndexError:
                with pytest.raises(IndexError):
                    getattr(secret, name)(dim=dim, **how)
                continue
            if name != "std" or x.dim():
                assert_close(getattr(secret, name)(dim=dim, **how), want, 400, 1 << 16)
    if name in ("amax", "amin", "logsumexp", "norm", "var"):
        with pytest.raises(RuntimeError, match="appears multiple times"):
            getattr(parties.fix(child)(X).requires_grad_(gradients), name)(dim=(0, -2))


@pytest.mark.parametrize("order", [1, -1, math.inf])
def test_matrix_norms_over_axes_in_either_order(parties, order):
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(5))
    for dims in ((0, 1), (1, 0), (2, 0), (-1, -2)):
        for function in (torch.linalg.norm, torch.linalg.matrix_norm):
            assert_close(function(parties.fix("two")(x), order, dims), function(x, order, dims), 40, 1 << 16)


def test_no_variance_without_freedom(parties):
    for x in (torch.tensor([2.0]), torch.tensor(3.0), X[:1]):
        for function in (torch.var, torch.std):
            with pytest.raises(ValueError, match="degrees of freedom: say correction=0"):
                function(parties.fix("two")(x), 0)
