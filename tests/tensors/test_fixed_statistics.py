"""Norms, distances, deviations and what is normed by them: as exact as docs/encrypted.md states, in the ranges that it states."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, value
from torch.nn import functional as F

UNIT = 2.0**-16


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
