"""Rounding, whole quotients and what they leave: exactly as plain torch's, of what the scale has."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, value

from syftlite.errors import Misuse

CHILDREN = ("plain", "pointer", "two", "three", "replicated")
SCHEMES = [{}, {"base": 10, "precision_fractional": 3}, {"base": 3, "precision_fractional": 5}]
HALVES = torch.tensor([0.5, -0.5, 1.5, 2.5, -1.5, -2.5, 3.0, -3.0, 0.0, 1e5 + 0.5, -1e5 - 0.5])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("rounding")
    yield parties
    parties.close()


def of_the_scale(scale):
    """Numbers that a scheme of ``scale`` has."""
    some = torch.randn(40, generator=torch.Generator().manual_seed(scale)) * 5
    return ((torch.cat([some, HALVES]).double() * scale).round() / scale).float()


@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize(
    "program",
    [
        torch.floor, torch.ceil, torch.round, torch.trunc, torch.frac, lambda x: x % 1, lambda x: x % -3, lambda x: torch.fmod(x, 2), lambda x: x // 2,
        lambda x: torch.div(x, -3, rounding_mode="trunc"), lambda x: torch.div(x, 4.0, rounding_mode="floor"), lambda x: x.clone().floor_(),
        lambda x: x.clone().remainder_(2), lambda x: x[1::2].round().view(-1, 5), lambda x: (x * 2).floor(),
    ],
)  # fmt: skip
def test_exactly(parties, program, child, scheme):
    scale = scheme.get("base", 2) ** scheme.get("precision_fractional", 16)
    x = of_the_scale(scale)[:-1]
    got, want = value(program(parties.fix(child, **scheme)(x)))[0], program((x.double() * scale).round() / scale)
    assert got.shape == want.shape and ((got.double() - want).abs() < 1e-3 * (1 / scale + want.abs())).all()


@pytest.mark.parametrize("child", ["plain", "two"])
def test_public_divisors_of_several_and_gradients(parties, child):
    x, by = of_the_scale(1 << 16)[:48].view(12, 4), torch.tensor([2.0, -1.5, 0.25, 7.0])
    assert torch.equal(value(parties.fix(child)(x) // by)[0], x // by)
    assert torch.equal(value(parties.fix(child)(x) % by)[0], x % by)
    plain, fixed = x.clone().requires_grad_(), parties.fix(child)(x).requires_grad_()
    for one in (plain, fixed):
        (one.floor() * one + one % 3 + one.frac()).sum().backward()
    assert torch.allclose(value(fixed.grad)[0], plain.grad, atol=1e-4)


@pytest.mark.parametrize("child", ["plain", "two"])
def test_a_divisor_that_the_scale_has_not_is_refused(parties, child):
    x = parties.fix(child)(torch.tensor([1.0, 2.0]))
    for program in (lambda: x % 0.3, lambda: x // 0.3, lambda: x % torch.tensor([0.5, 0.1]), lambda: x % x, lambda: 2 // x):
        with pytest.raises((Misuse, NotImplementedError), match="a multiple of 1 / 65536|by what is public|does not know|rounding_mode"):
            program()
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        (x // 0).child


@pytest.mark.parametrize("child", CHILDREN)
def test_there_is_no_infinity(parties, child):
    x = parties.fix(child)(torch.tensor([1.5, -2.0]))
    assert value(torch.isnan(x))[0].tolist() == value(torch.isinf(x))[0].tolist() == [0, 0]
    assert value(torch.isfinite(x))[0].tolist() == [1, 1]
    assert value(torch.nan_to_num(x))[0].tolist() == [1.5, -2.0]


@pytest.mark.parametrize("child", ["two", "three", "replicated"])
def test_order_is_of_all_that_a_comparison_sees(parties, child):
    x = torch.tensor([[1.5, 3.0, -0.25, 8.0], [-1e8, 2.0, 1e9 / 2, 1.0]])
    hidden = torch.tensor([[False, True, False, True], [False, False, False, True]])
    fixed = parties.fix(child)(x)
    for program in (lambda v: v.sort(1)[1], lambda v: v.masked_fill(hidden, -1e9).topk(1)[0], lambda v: v.masked_fill(hidden, 1e9).argsort(0), lambda v: v.median(1)[1]):
        assert torch.equal(value(program(fixed))[0], program(x))
