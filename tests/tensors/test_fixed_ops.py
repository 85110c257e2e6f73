"""Sums and products of FixedPrecisionTensors: right in all of the ranges that docs/encrypted.md states, whatever waits to be divided."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import Misuse

CHILDREN = ("plain", "two", "replicated")
SCHEMES = {"binary": {}, "decimal": {"base": 10, "precision_fractional": 3}}


@pytest.fixture(scope="module")
def parties():
    parties = Parties("ops")
    yield parties
    parties.close()


def opened(x, less=0):
    """The value, less another of ring elements, which may be larger than floats are exact for."""
    x = x.get() if x.is_secret else x
    return (x.child - less).double() / x.scale


WAIT = {
    "mean": (lambda fix: fix(torch.ones(1000)).mean(), 1.0),
    "whole": (lambda fix: fix(torch.tensor(7.0)) / 7, 1.0),
    "third": (lambda fix: fix(torch.tensor(7.0)) / 3, 7 / 3),
    "fraction": (lambda fix: fix(torch.tensor(7.0)) * 0.3, 2.1),
    "small": (lambda fix: fix(torch.tensor(2.0**20)) * 1e-5, 10.48576),
    "product": (lambda fix: fix(torch.tensor(7.0)) * fix(torch.tensor(0.5)), 3.5),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("name", WAIT)
def test_what_waits_is_added_to_what_is_large(parties, name, child, scheme):
    fix = parties.fix(child, **SCHEMES[scheme])
    make, want = WAIT[name]
    near = {"abs": 0.004 if scheme == "decimal" else 2**-12}
    for bits in (20.5, 25, 27, 29, 45):
        large = fix(torch.tensor(2.0 ** min(bits, 29))) * (1 << max(0, round(bits - 29)))
        before = (large.get() if large.is_secret else large).child
        assert float(opened(large + make(fix), before)) == pytest.approx(want, **near)
        assert float(opened(make(fix) - large, -before)) == pytest.approx(want, **near)
        assert (make(fix) < large).get().decode() == 1 and (large > make(fix)).get().decode() == 1
        assert (large <= make(fix)).get().decode() == 0
    for public in (2.0**20, 2.0**40, torch.full((2,), 2.0**40)):
        assert opened(make(fix) + public - public).tolist() == pytest.approx(torch.full_like(torch.as_tensor(public), want).tolist(), **near)
        assert (make(fix) < public).get().decode().all() and (public > make(fix)).get().decode().all()


@pytest.mark.parametrize("child", CHILDREN)
def test_large_deviations_from_a_mean(parties, child):
    x = torch.full((1000,), 7.0)
    x[:4] = torch.tensor([3e6, 2.5e6, -2e6, 1.9e6])
    fixed = parties.fix(child)(x)
    assert torch.allclose((opened(fixed - fixed.mean())), x.double() - x.double().mean(), rtol=0, atol=2**-5)  # 2^-18 of the mean


@pytest.mark.parametrize("child", CHILDREN)
def test_what_waits_meets_a_product_as_large_as_products_are(parties, child):
    fix = parties.fix(child)
    x, y, z = (fix(torch.full((200,), value)) for value in (16000.0, 32000.0, 0.5))
    for small in (z * 0.3, z / 3, z.mean(), z * 0.3 + z / 4):
        found = opened(x * y + small) - 16000.0 * 32000.0
        assert (found - opened(small)).abs().max() <= 2 * 2**-16


@pytest.mark.parametrize(("make", "rounds"), [
    (lambda x: x / 3 + x / 3 + 1, 1),
    (lambda x: x / 4 - x / 8 - 0.5, 1),
    (lambda x: x * x + x / 4, 2),
    (lambda x: x * 0.3 + x, 1),
    (lambda x: x * x * 0.5 + x, 2),
])  # fmt: skip
def test_what_waits_for_one_divisor_is_divided_once(parties, make, rounds):
    x = parties.fix("two")(torch.ones(4))
    with sy.mpc.count() as cost:
        y = make(x)
        y.child
    assert cost.rounds == rounds
    assert torch.allclose(opened(y), make(torch.ones(4)).double(), atol=2**-14)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("factor", [700.3, 1.7, 0.3, -0.017, 1e-3, 1e-4, -1.1e-6, 1e-9, 1e-15, 1e-30])
def test_factors_that_are_no_whole_numbers(parties, factor, child):
    """Operands below 2^30 and results below 2^20: one unit, and 2^-20 of the value, or 2^-16 where the factor is below 2^-6."""
    x = torch.full((50,), min(2.0**30 - 64, (2.0**20 - 1) / abs(factor)))
    fix = parties.fix(child)
    error = 2**-16 + (2**-20 if abs(factor) >= 2**-6 else 2**-16) * x.double() * abs(factor)
    assert ((opened(fix(x) * factor) - x.double() * factor).abs() <= error).all()


def test_factors_of_what_waits(parties):
    fix = parties.fix("two")
    x, y = fix(torch.full((50,), 2.0**15)), fix(torch.full((50,), 2.0**14))
    for factor in (2.0**-10, 5 / 2**30, 1e-4, -2.0**-30):
        want = 2.0**29 * factor
        assert (opened(x * y * factor) - want).abs().max() <= 3 * 2**-16 + 2**-16 * abs(want)
        assert (opened(x * y / 1024 * factor) - want / 1024).abs().max() <= 3 * 2**-16 + 2**-15 * abs(want / 1024)


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("alpha", [0.5, -3, 1])
def test_index_add_takes_any_alpha(parties, alpha, child):
    fix, index = parties.fix(child), torch.tensor([0, 2, 0])
    x, source = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([4.0, 0.25, 8.5])
    want = x.index_add(0, index, source, alpha=alpha).tolist()
    assert opened(fix(x).index_add(0, index, fix(source), alpha=alpha)).tolist() == pytest.approx(want, abs=2**-14)
    assert opened(fix(x).index_add(0, index, source, alpha=alpha)).tolist() == pytest.approx(want, abs=2**-14)
    assert opened((fix(x) * 1).index_add_(0, index, fix(source), alpha=alpha)).tolist() == pytest.approx(want, abs=2**-14)


DIVISORS = {
    "few": [200000.0, 1000.0, -3.0, 1.0],
    "small": [1e-3, 2.0**-14, -0.3, 2000.0],
    "alike": [3e6, 4e6, -2.5e6, 3.1e6],
    "large": [1e6, 2.0**34, -1e9, 1e12],
    "endless": [torch.inf, 7.0, 1e30, -3000.0],
}


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("name", DIVISORS)
def test_division_by_public_tensors(parties, name, child):
    """Operands below 2^30 and results below 2^20: two units, and 2^-16 of the value."""
    y = torch.tensor(DIVISORS[name])
    fix = parties.fix(child)
    for most in (1.0, 2.0**20 - 1):
        x = ((y.abs().double() * most).clamp(max=2.0**30 - 64).float() * 2**16).round() / 2**16
        want = x.double() / y.double()
        error = 2 * 2**-16 + 2**-16 * want.abs()
        for _ in range(5):
            assert ((opened(fix(x) / y) - want).abs() <= error).all()
    assert opened(fix(torch.tensor([[6.0], [3.0]])) / torch.tensor([2.0, 3e3])).flatten().tolist() == pytest.approx([3, 0.002, 1.5, 0.001], abs=2**-14)


def test_divisors_too_far_apart_are_refused(parties):
    x = parties.fix("two")(torch.ones(2))
    with pytest.raises(Misuse, match=r"aten.div.Tensor: public divisors of 0.001 to 1e\+09 are too far apart .* divide by small and by large"):
        x / torch.tensor([1e-3, 1e9])


MASK = torch.tensor([True, False])
CHOICES = {
    "masked_fill": lambda x, value: x.masked_fill(MASK, value),
    "where": lambda x, value: torch.where(MASK, x, torch.tensor([1.0, value])),
    "pad": lambda x, value: F.pad(x, (1, 1), value=value),
    "cat": lambda x, value: torch.cat([x, torch.tensor([value])]),
    "index_put": lambda x, value: x.index_put((torch.tensor([0]),), torch.tensor([value])),
    "index_add": lambda x, value: x.index_add(0, torch.tensor([0]), torch.tensor([value])),
    "stack": lambda x, value: torch.stack([x, torch.tensor([value, 0.5])]),
}


@pytest.mark.parametrize("child", CHILDREN)
@pytest.mark.parametrize("choose", CHOICES.values(), ids=list(CHOICES))
@pytest.mark.parametrize("wait", [lambda x: x / 3, lambda x: x * 0.3, lambda x: x * x, lambda x: x / 3000])
def test_large_public_values_join_what_waits(parties, wait, choose, child):
    x = torch.tensor([1.0, 2.0])
    for value in (-1e9, 2.0**40, 0.25):
        found = opened(choose(wait(parties.fix(child)(x)), value))
        assert torch.allclose(found, choose(wait(x), value).double(), rtol=1e-7, atol=2**-14)


@pytest.mark.parametrize("child", ["plain", "pointer", "two", "replicated"])
@pytest.mark.parametrize("scheme", [{"base": 10}, {"base": 10, "precision_fractional": 4}, {"base": 3, "precision_fractional": 8}], ids=str)
def test_large_products_at_a_scale_that_is_no_power_of_two(parties, scheme, child):
    """To one unit and 2^-36, whatever follows them: quotients, sums, relu, maxima."""
    scale = scheme["base"] ** scheme.get("precision_fractional", 3)
    most = (2.0**60 / scale**2) ** 0.5
    x = (torch.tensor([1.0, -1.0, 0.5, 0.0, 1e-3]) * most).round()
    y = (torch.tensor([-0.75, -1.0, 0.3, 1.0, 1.0]) * most).round()
    a, b = (parties.fix(child, **scheme)(v) for v in (x, y))
    exact = x.double() * y.double()
    for got, want in (
        (a * b, exact), ((a * b).relu(), exact.relu()), ((a * b).max(), exact.max()), (a @ b / 2, (exact / 2).sum()),
        ((a * b).mean(), exact.mean()), (a * b - a, exact - x), ((a * b / 10).relu(), (exact / 10).relu()),
    ):  # fmt: skip
        assert_close(got, want, 2 + 2**-18 * scale, scale)


@pytest.mark.parametrize("scheme", [{}, {"base": 10, "precision_fractional": 4}])
def test_a_public_product_and_a_secret_are_secret(parties, scheme):
    """Before their sum is computed, and after."""
    x, y = (torch.tensor(v).fix_precision(**scheme) for v in ([1.5, -2.0], [0.5, 3.0]))
    for made in (x * y + parties.fix("two", **scheme)(torch.ones(2)), parties.fix("two", **scheme)(torch.ones(2)) - x * y):
        assert made.is_secret
        with pytest.raises(Misuse, match="a shared value becomes floats"):
            made.float_precision()
        assert made.decrypt().abs().sum() in (6.75, 7.25)
