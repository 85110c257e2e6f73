"""The parts that functions are made of: tables that are the same everywhere, series as they were fitted, bins, places, ranks; what kernels refuse."""

from __future__ import annotations

import math
import runpy
from decimal import Decimal, getcontext
from pathlib import Path

import pytest
import torch

from syftlite.mpc.exponential import ANY, NEGATIVE
from syftlite.mpc.kernel import NUMBERS, plan
from syftlite.mpc.ranking import greatest_of, ranks
from syftlite.mpc.ring import Ring, reveal, share
from syftlite.mpc.roots import LOG_2, below, bins
from syftlite.mpc.series import SERIES
from syftlite.mpc.steady import growth, pi, turns

from .group import Group

FIT = runpy.run_path(str(Path(__file__).parents[2] / "docs" / "fit_series.py"))


def test_pi_and_log_2_have_all_their_digits():
    getcontext().prec = 60
    assert abs(Decimal(pi()) / 2**160 - Decimal("3.14159265358979323846264338327950288419716939937510582")) < Decimal(10) ** -46
    assert abs(Decimal(LOG_2) / 2**64 - Decimal(2).ln()) < Decimal(2) ** -64


@pytest.mark.parametrize("bits", [4, 18, 22, 31])
def test_turns(bits):
    c = torch.randint(0, 1 << bits, (2000,))
    cosine, sine = turns(c, bits)
    angle = c.double() * (2 * math.pi / (1 << bits))
    off = 2 * math.pi / (1 << 22) if bits > 22 else 1e-12
    assert ((cosine - angle.cos()).abs() <= off).all() and ((sine - angle.sin()).abs() <= off).all()


@pytest.mark.parametrize("f,bits", [(16, 19), (16, 20), (2, 5), (22, 26)])
def test_growth(f, bits):
    c = torch.randint(0, 1 << bits, (2000,))
    want = torch.exp(c.double() / (1 << f))
    assert ((growth(c, f, bits) / want - 1).abs() < 1e-13).all()


def test_public_factors_use_no_vector_library(monkeypatch):
    """torch.cos, sin and exp differ between processors in the last bit: a holder's factors must not come from them."""
    for name in ("cos", "sin", "exp", "polar"):
        monkeypatch.setattr(torch, name, None)
        monkeypatch.setattr(torch.Tensor, name, None, raising=False)
    turns(torch.arange(100), 22)
    growth(torch.arange(100), 16, 19)


@pytest.mark.parametrize("fit", FIT["FITS"], ids=[fit.name for fit in FIT["FITS"]])
def test_series_are_what_was_fitted(fit):
    found, error = FIT["coefficients"](fit)
    series = SERIES[fit.name]
    assert abs(series.constant - found[0]) < 1e-4
    t = torch.linspace(fit.low, fit.high, 5000, dtype=torch.float64)
    total = torch.full_like(t, series.constant)
    for function, coefficients in ((torch.cos, series.cosines), (torch.sin, series.sines)):
        for i, a in enumerate(coefficients):
            total += a * function((2 * i + 1 if fit.odd else i + 1) * 2 * math.pi / fit.period * t)
    want = torch.from_numpy(fit.function(t.numpy()))
    off = (total - want).abs() / (want.abs() if fit.relative else 1)
    assert off.max() < 1.2 * error + 1e-6


@pytest.mark.parametrize("within", [ANY, NEGATIVE])
def test_an_exponentials_products_fit_the_ring(within):
    top = 10 if within is ANY else 0
    assert top / math.log(2) + within.public + within.dealt < 61  # bits
    assert within.digit / math.log(2) - within.dealt <= -17  # half a unit of what is dealt, times the largest factor: below 2^-18
    assert within.public >= 17


@pytest.mark.parametrize("signed", [False, True])
def test_bins(signed):
    group = Group()
    x = torch.cat([2 ** torch.arange(4, 30), 2 ** torch.arange(5, 31) - 1, torch.randint(16, 1 << 30, (300,))])
    x = torch.cat([x, -x]) if signed else x

    async def scaled(p, x):
        near = await bins(p, x, signed)
        return near.chosen(p, near.scales), near.bits

    scales, bits = zip(*group.run(scaled, share(x, 2)))
    normal = x * reveal(scales)
    assert ((normal >= 1 << 28) & (normal <= 1 << 30)).all()
    assert set(reveal(bits).unique().tolist()) == {0, 1}


def test_below_on_a_small_ring():
    group = Group(ring=Ring(8))
    x = torch.arange(-40, 40).repeat(8)
    found = reveal(group.run(below, share(x, 2), thresholds=[-30, 0, 7]))
    assert torch.equal(found & 255, torch.stack([(x < t).long() for t in (-30, 0, 7)]))


@pytest.mark.parametrize("n", [1, 2, 5, 16, 17, 40, 130])
def test_ranks_and_the_greatest(n):
    group, x = Group(), torch.randint(-5, 5, (6, n))
    found = reveal(group.run(ranks, share(x, 2), low=0)) if n > 1 else torch.zeros_like(x)
    assert torch.equal(found, x.sort(dim=1, stable=True)[1].argsort(1))
    assert torch.equal(reveal(group.run(greatest_of, share(x, 2), low=0)), x.amax(1))


@pytest.mark.parametrize("holders", [2, 3])
@pytest.mark.parametrize("count", [1, 3, 8, 100])
def test_one_hot(holders, count):
    x = torch.randint(0, count, (4, 5))
    assert torch.equal(Group(holders).plain("one_hot", x, count=count), torch.nn.functional.one_hot(x, count))


def test_large_operands_run_a_part_at_a_time(monkeypatch):
    from syftlite.mpc import function_kernels

    x = torch.randint(1 << 12, 1 << 18, (50,))
    whole = Group().plain("roots", x, f=16, what=5)
    monkeypatch.setattr(function_kernels, "PART", 16)
    plan.__globals__["_dry"].cache_clear()
    try:
        parts = Group().plain("roots", x, f=16, what=5)
        y = Group().plain("divide", x, x, f=16)
    finally:
        plan.__globals__["_dry"].cache_clear()
    assert all(((a - b).abs() <= 2 + a.abs() // 2000).all() for a, b in zip(whole, parts))
    assert ((y - (1 << 16)).abs() < 40).all()


REFUSED = [
    ("exp", ((3,),), {"f": 23}, "22 bits"), ("exp", ((3,),), {"f": 1}, "2 to 22"), ("curve", ((3,),), {"f": 16, "which": 9}, "no number 9"),
    ("roots", ((3,),), {"f": 16, "what": 16}, "within 1"), ("softmax", ((3, 4),), {"f": 16, "dim": 2, "what": 1}, "axis 2"),
    ("softmax", ((3, 1 << 15),), {"f": 16, "dim": 1, "what": 1}, "elements along it"), ("softmax", ((3, 4),), {"f": 16, "dim": 0, "what": 4}, "not 4"),
    ("sort", ((3, 129),), {"dim": 1}, "1 to 128"), ("sort", ((),), {"dim": 0}, "axis 0"), ("one_hot", ((3,),), {"count": 1 << 17}, "places"),
    ("divide", ((3,), (4,)), {"f": 16}, "divide"),
]  # fmt: skip


@pytest.mark.parametrize("name,shapes,static,text", REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_drawn(name, shapes, static, text):
    with pytest.raises(ValueError, match=text):
        plan(NUMBERS[name], shapes, **static)


@pytest.mark.parametrize("name,static", [("exp", {"f": 16}), ("curve", {"f": 16, "which": 2, "slope": 1}), ("roots", {"f": 16, "what": 9}), ("divide", {"f": 16})])
def test_nothing_of_nothing(name, static):
    empty = torch.empty(0, 3, dtype=torch.int64)
    found = Group().plain(name, *[empty] * (2 if name == "divide" else 1), **static)
    for y in found if isinstance(found, tuple) else (found,):
        assert y.shape == (0, 3)
