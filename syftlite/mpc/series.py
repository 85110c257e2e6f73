"""Functions by one opening: trigonometric series of a difference.

    open c = x + r (mod 2^period);   cos and sin of k w r are dealt, w = 2 pi / 2^period
    f(x) = a_0 + sum over k of a_k cos k w (c - r) + b_k sin k w (c - r)
         = a_0 + sum over k of [a_k cos k w c + b_k sin k w c] cos k w r + [a_k sin k w c - b_k cos k w c] sin k w r

The brackets are public, so f is linear in what is dealt: one round, 4 bytes an element each way, whatever the number of terms. A whole
period of the ring is a whole period of the series, so nothing has to be corrected where x + r passes 2^period. Several functions of one x
cost no more than one. The formula is that of the angle's difference; that a dealer deals functions of its mask is Beaver's idea for
products ("Efficient multiparty protocols using circuit randomization", 1991).

Coefficients: docs/fit_series.py. The series of sigmoid and of the normal distribution have odd harmonics alone, so in the other half of the
period they run backwards; where |x| is beyond ``end`` whoever asks must know better (curves.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from syftlite.mpc.correlations import ARITHMETIC, FREE, SENT, Fields, Q, Secrets, enter
from syftlite.mpc.party import Party
from syftlite.mpc.ring import Ring
from syftlite.mpc.steady import turns

DEALT = 20
"""Bits after the point of dealt cosines and sines."""


class Basis(NamedTuple):
    """Harmonics 1, 1 + step, ...: ``terms`` of them; the period is 2^period of the argument's units."""

    period: int
    terms: int
    step: int


class Series(NamedTuple):
    """a_0, the cosines' coefficients, the sines'; no coefficients: all zero."""

    constant: float
    cosines: tuple[float, ...]
    sines: tuple[float, ...]


def _wave_fields(n: int, period: int, terms: int, step: int) -> Fields:
    yield "r", (n,), torch.int32, FREE, ARITHMETIC
    yield "wave", (terms, 2, n), Q, SENT, ARITHMETIC


@enter("wave", _wave_fields)
def _wave(ring: Ring, s: Secrets, n: int, period: int, terms: int, step: int) -> None:
    """cos and sin of k w r, in units of 2^-DEALT. The provider's rounding is its own affair: its doubles need not be anybody else's."""
    angle = s["r"].double().mul_(2 * torch.pi / (1 << period))
    out = torch.empty(terms, 2, n, dtype=Q)
    cosine, sine = angle.cos(), angle.sin()
    for row, now in zip(out, _climb(torch.stack([cosine, sine]).mul_(1 << DEALT), cosine, step, (1 << DEALT, 0.0), terms)):
        row.copy_(now.round())
    s["wave"] = out


def _climb(first: Tensor, cosine: Tensor, step: int, at_zero: tuple[float, ...], terms: int) -> Iterator[Tensor]:
    """Rows of cos and sin of t, times any constant, -> those of k t for k = 1, 1 + step, ...; step is 1 or 2:
    cos (k + step) t = 2 cos step t cos k t - cos (k - step) t, and so sin. ``at_zero``: the rows of t = 0."""
    if step == 1:
        by, before = cosine * 2, torch.tensor(at_zero, dtype=torch.float64)[:, None].expand_as(first)
    else:  # the rows at -t: an even one is as at t, an odd one the opposite
        by = (cosine * cosine).mul_(4).sub_(2)
        before = first * torch.tensor([1.0 if even else -1.0 for even in at_zero], dtype=torch.float64)[:, None]
    now = first
    for k in range(terms):
        yield now
        if k + 1 < terms:
            before, now = now, (by * now).sub_(before)


async def series(p: Party, x: Tensor, basis: Basis, functions: Sequence[Series], units: Sequence[float]) -> list[Tensor]:
    """Each function of a vector ``x``, times its own of ``units`` and 2^DEALT: one round."""
    n = x.numel()
    k = p.correlated("wave", n, *basis)
    c = await p.open(k["r"] + x.to(torch.int32))
    wave = k["wave"]
    if c.is_meta:
        return [x.new_empty(n) for _ in functions]
    cosine, sine = turns(c.long().bitwise_and_((1 << basis.period) - 1), basis.period)
    rows, at_zero = torch.stack([cosine, sine, -cosine]), (1.0, 0.0, -1.0)
    totals = [torch.zeros(2, n, dtype=Q) for _ in functions]
    for i, now in enumerate(_climb(rows, cosine, basis.step, at_zero, basis.terms)):
        for function, unit, total in zip(functions, units, totals, strict=True):
            total.addcmul_(wave[i], _factors(now, function, unit, i).round_().long())
    return [_whole(p, total, function, unit) for function, unit, total in zip(functions, units, totals, strict=True)]


def _factors(rows: Tensor, f: Series, unit: float, i: int) -> Tensor:
    """What cos k w r and sin k w r are multiplied by, (2, n), from the ``rows`` cos, sin, -cos of k w c. The same doubles at every holder:
    one multiplication or addition at a time (steady.py)."""
    with_a = rows[:2] * (f.cosines[i] * unit) if f.cosines else None
    with_b = rows[1:] * (f.sines[i] * unit) if f.sines else None
    if with_a is None or with_b is None:
        found = with_b if with_a is None else with_a
        assert found is not None, "a series has cosines or sines"
        return found
    return with_a.add_(with_b)


def _whole(p: Party, total: Tensor, f: Series, unit: float) -> Tensor:
    found = total[0].add_(total[1])
    return found.add_(round(f.constant * unit * (1 << DEALT))) if p.first else found


TABLE: dict[str, tuple[float, tuple[float, ...], tuple[float, ...]]] = {
    "sigmoid": (  # to within 9.9e-06
        0.5,
        (),
        (
            0.380218753, 0.420871822, -0.12880663, 0.236515191, -0.135519542, 0.141492476, -0.090667334, 0.074522433,
            -0.046116402, 0.031920188, -0.017684091, 0.010285889, -0.004703986, 0.002179082, -0.000680118, 0.000211149,
        ),
    ),
    "sigmoid'": (  # to within 4.0e-05
        0.033578254,
        (
            0.003533842, 0.112489274, -0.03254635, 0.12060502, -0.072929618, 0.106570639, -0.074238759, 0.075595268,
            -0.051109483, 0.04158469, -0.025110497, 0.016789126, -0.008345537, 0.004439947, -0.001507197, 0.000561818,
        ),
        (),
    ),
    "silu'": (  # to within 1.2e-04
        0.5,
        (),
        (
            -1.344744299, 2.145191972, -1.609563353, 1.652680765, -1.240263912, 1.100276339, -0.782002622, 0.608883321,
            -0.396419697, 0.270097177, -0.154814684, 0.090202738, -0.042549202, 0.01997786, -0.006465948, 0.00206808,
        ),
    ),
    "normal": (  # to within 9.4e-07
        0.5,
        (),
        (
            0.620599866, 0.181976661, 0.075598559, 0.037736329, 0.01315406, 0.006702888, 0.001264314, 0.000860915,
            1.7826e-05, 6.9755e-05,
        ),
    ),
    "gelu'": (  # to within 1.9e-05
        0.5,
        (),
        (
            0.572882958, 0.310144288, 0.095043246, 0.148507775, 0.028240755, 0.052961508, 0.002126439, 0.011284433,
            -0.000663018, 0.001192431,
        ),
    ),
    "reciprocal 4": (  # to within 3.2e-05
        1.351493507,
        (
            1.975787594, 0.996810954, -0.122589509, -0.333775317, -0.089767418, -0.001106342,
        ),
        (
            -0.481274724, -1.201107331, -0.913565524, -0.187164506, 0.045699575, 0.012829436,
        ),
    ),
    "rsqrt 4": (  # to within 8.5e-06
        0.825264392,
        (
            0.74290417, 0.567888039, 0.072751616, -0.117101351, -0.040777282, -0.001176823,
        ),
        (
            0.174150714, -0.286091216, -0.379596796, -0.111171208, 0.01191016, 0.005292282,
        ),
    ),
    "sqrt 4": (  # to within 2.8e-06
        1.216525942,
        (
            -0.929020122, -0.055455202, 0.108908183, 0.014888361, -0.003789608, 0.000133743,
        ),
        (
            0.179979017, 0.365809565, 0.051298356, -0.022360383, -0.001201134, 0.000584986,
        ),
    ),
    "log 4": (  # to within 7.4e-06
        0.388343411,
        (
            -1.561635208, -0.659359242, -0.003407779, 0.130451376, 0.03946742, 0.001275877,
        ),
        (
            -0.035805313, 0.5753434, 0.435007096, 0.100644444, -0.012922329, -0.005097122,
        ),
    ),
    "reciprocal 16": (  # to within 2.0e-04
        2.672411336,
        (
            5.447117329, 3.414383934, 2.060756246, 1.416765946, -2.174408779, -2.729432415, -3.69230355, -5.712269283,
            -0.878395885, 3.279256899, 1.368523111, -0.299272263, -0.15342834, -0.001471772,
        ),
        (
            -1.78216125, -3.881414804, -3.429313834, -4.990677738, -4.788912682, -2.307449239, -2.356409603, 1.667244931,
            5.488340573, 1.834685179, -1.277708869, -0.597875826, 0.02942657, 0.018284134,
        ),
    ),
    "log 16": (  # to within 3.7e-05
        0.557563187,
        (
            -2.052733224, -0.951244634, -1.259172002, -0.283667304, -0.399037051, 0.425118404, 0.708013027, 0.756447383,
            1.344038061, 0.133128981, -0.706503843, -0.180397644, 0.059590809, 0.009872932,
        ),
        (
            1.374721599, 0.348191864, 1.031055885, 1.076554989, 1.00423114, 1.296416499, 0.50400299, 0.575869514,
            -0.336160664, -1.236842644, -0.276149738, 0.263156541, 0.062451809, -0.006288207,
        ),
    ),
}
"""By docs/fit_series.py."""
SERIES = {name: Series(*row) for name, row in TABLE.items()}
