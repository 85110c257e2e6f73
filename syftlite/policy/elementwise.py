"""Rules of elementwise operators: rows keep their axis; the degree of the result; comparisons are selections.

    +  -           the larger degree          rounding must take little of what rows differ by
    *  ^2  / c     the sum of the degrees     factors are neither so large nor so small that floats lose count
    where, fill    the larger of both         the mask is a selection
    anything else  ANY                        a result of booleans is a selection
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.ops.table import BY_FUNC
from syftlite.policy.call import Call, Given, Side, rule
from syftlite.policy.contributions import Looks, lost, rounds
from syftlite.policy.labels import NONE, Label
from syftlite.policy.lineage import ANY, Axis, Rows, Selection, axis_of, gates_of, stripes

SMALL, LARGE = 2.0**-30, 2.0**30
"""Factors beyond these cost a value its degree: products of them would leave what floats can tell apart."""
LEVELS = 4
"""Different weights up to which a public weight counts as so many selections."""
MAX_REACH = {torch.float32: 2.0**96, torch.float64: 2.0**500, torch.int64: 2.0**62, torch.int32: 2.0**30, torch.bool: 2.0}
"""No element of these dtypes may come near to what they hold; others have no degree."""


def _aligned(call: Call, sides: Sequence[Side]) -> tuple[Axis, int] | None:
    """The unit axis of an elementwise result, and its place from the right; None if operands' rows do not run side by side."""
    if not isinstance(call.out, torch.Tensor):
        return None
    found: tuple[Axis, int] | None = None
    for side in sides:
        if side.rows is None:
            continue
        if side.axis is None or (found is not None and (side.axis.along is not found[0].along or side.place != found[1])):
            return None
        found = (side.axis, side.place)
    if found is None or call.out.dim() < -found[1] or call.out.shape[found[1]] != len(found[0].along):
        return None
    return found


class Elementwise:
    """An elementwise result whose rows run side by side with its operands'. ``fit``: whether they do; ``exact``: whether the weights
    that it has for rows are selections, so that its degree may count."""

    def __init__(self, call: Call, values: Sequence[Any]) -> None:
        self.call = call
        self.sides = [call.side(value) for value in values]
        found = _aligned(call, self.sides)
        self.fit = found is not None
        self.gates: frozenset[Selection] = NONE.union(*(side.gates for side in self.sides))
        self.exact = False
        if found is not None:
            self.axis, self.place = found
            self.exact = self.axis.along.frame.aggregates and all(side.degree < ANY for side in self.sides)
            if self.exact:
                for side in self.sides:
                    if side.varies(self.place):
                        self._weigh(side)

    def chosen_by(self, mask: Side) -> bool:
        """Where a row's own column says which of two it is, the rows where it says so are a selection. Whether that is none."""
        if mask.degree == 0 or not self.exact or mask.axis is None:
            return False
        gates = gates_of(mask.axis.along, mask.value.movedim(mask.axis.axis, 0), derived=True)
        self.exact = gates is not None
        self.gates |= gates or NONE
        return gates is None

    def _weigh(self, side: Side) -> None:
        gates = None
        if side.rest is None and side.value is not self.call.out:  # what it was before it was written to is gone
            gates = gates_of(self.axis.along, side.value.movedim(self.place, 0), derived=False, most=LEVELS)
        self.exact = self.exact and gates is not None
        self.gates |= gates or NONE

    def label(self, degree: int = ANY, reach: float = math.inf, fine: float = 0.0, *, exposed: bool = False) -> Label:
        """The result's label."""
        out = self.call.out
        if not self.exact or degree >= ANY or reach >= MAX_REACH.get(out.dtype, 0.0):
            self.call.checks.clear()  # what does not count is not looked at
            smaller = self.exact and degree < ANY and out.dtype in MAX_REACH  # it would have counted, were its values smaller
            return self.call.rows(_rows(self.call, self.axis, self.place), exposed=exposed or smaller)
        self._look_at_casts()
        rows = _rows(self.call, self.axis, self.place, degree=degree, gates=self.gates, reach=up(reach), fine=_down(fine))
        return self.call.rows(rows, exposed=exposed)

    def _look_at_casts(self) -> None:
        """Whole numbers that become floats are rounded, too."""
        for place, value in enumerate(self.call.args):
            side = next((side for side in self.sides if side.value is value and side.rows is not None), None)
            if side is None or side.value.dtype is self.call.out.dtype or side.rows is None:
                continue
            if rounds(self.call.out.dtype, side.rows.reach, side.rows.fine):
                self.call.checks.append(partial(_cast_lost, place, self.place, side.rows.reach))


def _cast_lost(operand: int, place: int, reach: float, given: Given) -> bool:
    cast = given.args[operand].to(given.out.dtype)
    return lost(cast, place, reach, cast.abs)


def _rows(call: Call, axis: Axis, place: int, **told: Any) -> Rows | None:
    out = call.out
    written = call.labels.get(id(out))
    if call.operator.writes and written is not None and written.rows is not None:  # in place: the stripes stay as they lie
        same = axis_of(written.rows, out) == Axis(out.dim() + place, axis.along)
        return Rows(written.rows.along, written.rows.inner, **told) if same else None
    return stripes(axis.along, out.dim() + place, out, **told)


def up(value: float) -> float:
    """``value`` or a little more, so that there are few different ones."""
    if not 0 < value < math.inf:
        return value
    mantissa, exponent = math.frexp(value)
    return math.ldexp(math.ceil(mantissa * 16) / 16, exponent)


def _down(value: float) -> float:
    return 0.0 if not 0 < value < math.inf else math.ldexp(0.5, math.frexp(value)[1])


MIXING = {
    operator.number
    for operator in BY_FUNC.values()
    if "reduction" in operator.keywords or "glu" in operator.name or "cross" in operator.name or "_foreach" in operator.name
}
"""Pointwise by kind, but one element may depend on several, or whether it fails on values."""

_FAILS = {
    operator.number
    for operator in BY_FUNC.values()
    if operator.name.split(".")[1].rstrip("_") in ("remainder", "fmod", "floor_divide", "pow", "encode") or "_mode" in operator.name
}
"""Where these give whole numbers they fail for some operands (a divisor of 0, a number that is too large): that they have not would tell
of all rows."""


def pointwise(call: Call) -> Label:
    """Elementwise, of no degree; a comparison's result is a selection."""
    it = Elementwise(call, [*call.args, *call.kwargs.values()])
    if not it.fit or (call.operator.number in _FAILS and not call.out.dtype.is_floating_point):
        return call.joined
    if call.out.dtype is torch.bool and it.axis.along.frame.aggregates:
        gates = gates_of(it.axis.along, call.out.movedim(it.place, 0), derived=True)
        if gates is not None:
            return call.rows(_rows(call, it.axis, it.place, degree=0, gates=gates | it.gates, reach=1.0))
        return call.rows(_rows(call, it.axis, it.place), exposed=True)
    return call.rows(_rows(call, it.axis, it.place))


@rule(
    aten.add.Tensor, aten.add.Scalar, aten.add_.Tensor, aten.add_.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.sub_.Tensor,
    aten.sub_.Scalar, aten.rsub.Scalar, aten.rsub.Tensor,
)  # fmt: skip
def _sum_of_two(call: Call) -> Label:
    it = Elementwise(call, call.args[:2])
    alpha = call.arg(2, "alpha", 1)
    if not it.fit:
        return call.joined
    if not it.exact or narrowed(call) or isinstance(alpha, complex) or not SMALL <= abs(alpha) <= LARGE:
        return it.label()
    one, other = it.sides
    reach = one.reach() * max(1.0, abs(alpha)) + other.reach() * max(1.0, abs(alpha))
    alone = [side for side in it.sides if side.rows is not None]
    fine = alone[0].rows.fine if len(alone) == 1 and alpha in (1, -1) and alone[0].rows is not None else 0.0
    if rounds(call.out.dtype, reach, fine):
        call.checks.append(partial(_sum_lost, it.place, reach, abs(alpha)))
    return it.label(max(one.degree, other.degree), reach, fine)


def narrowed(call: Call) -> bool:
    """Whether an operator in place rounds its result to fewer bits: a step function, where a column lies far from zero."""
    return call.operator.inplace and torch.result_type(*call.args[:2]) is not call.out.dtype


def _sum_lost(place: int, reach: float, alpha: float, given: Given) -> bool:
    return lost(given.out, place, reach, lambda: _sizes(given, alpha))


def _sizes(given: Given, alpha: float) -> torch.Tensor:
    """|a| + |b| at least, of what has been added to ``given.out``: its first operand may be gone."""
    first, other = given.args[:2]
    sizes: torch.Tensor = given.out.abs() + 2 * alpha * (other.abs() if isinstance(other, torch.Tensor) else abs(other))
    return sizes + (first.abs() if given.operator.name.startswith("aten.rsub") and isinstance(first, torch.Tensor) else 0)


@rule(aten.mul.Tensor, aten.mul.Scalar, aten.mul_.Tensor, aten.mul_.Scalar)
def _product(call: Call) -> Label:
    return _times(call, call.args[:2])


@rule(aten.pow.Tensor_Scalar, aten.pow_.Scalar)
def _power(call: Call) -> Label:
    """A square is the product of two, the first power is the same; others are of no degree."""
    base, exponent = call.args[0], call.arg(1, "exponent")
    if exponent not in (1, 2) or call.out.dtype is not base.dtype:
        return pointwise(call)
    return _times(call, [base, base]) if exponent == 2 else _same(call)


def _times(call: Call, factors: Sequence[Any]) -> Label:
    it = Elementwise(call, factors)
    if not it.fit:
        return call.joined
    degree = sum(side.degree for side in it.sides)
    if not it.exact or narrowed(call) or degree >= ANY or not all(mild(side) for side in it.sides):
        return it.label(exposed=it.exact and told(it.sides))
    one, other = it.sides
    fine = next((side.rows.fine for side in it.sides if side.rows is not None), 0.0)
    plain = [side for side in it.sides if side.rows is None]
    fine = fine * plain[0].least() if plain and not _has_zero(plain[0].value) else 0.0
    return it.label(degree, one.reach() * other.reach(), fine)


def mild(side: Side) -> bool:
    """Whether a constant factor is neither so large nor so small that floats lose count."""
    if side.rows is not None:
        return True
    if isinstance(side.value, complex) or (isinstance(side.value, torch.Tensor) and side.value.is_complex()):
        return False
    return side.reach() <= LARGE and side.least() >= SMALL


def told(sides: Sequence[Side]) -> bool:
    """Whether a constant is itself made of private values."""
    return any(side.rows is None and side.rest is not None for side in sides)


def _has_zero(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        Looks.count += 1
        return bool((value == 0).any())
    return bool(value == 0)


@rule(aten.div.Tensor, aten.div.Scalar, aten.div_.Tensor, aten.div_.Scalar)
def _quotient(call: Call) -> Label:
    it = Elementwise(call, call.args[:2])
    if not it.fit:
        return call.joined
    top, bottom = it.sides
    if not it.exact or narrowed(call) or bottom.rows is not None or not mild(bottom) or _has_zero(bottom.value):
        return it.label(exposed=it.exact and told(it.sides))
    return it.label(top.degree, top.reach() / bottom.least(), (top.rows.fine if top.rows else 0.0) / max(bottom.reach(), SMALL))


@rule(aten.neg.default, aten.neg_.default, aten.clone.default, aten.copy_.default, aten._to_copy.default)
def _same(call: Call) -> Label:
    source = call.args[1] if call.operator.func is aten.copy_.default else call.args[0]
    it = Elementwise(call, [source])
    if not it.fit:
        return call.joined
    (side,) = it.sides
    if call.out.dtype is torch.bool and side.value.dtype is not torch.bool:
        return pointwise(call)
    kept = side.value.dtype is call.out.dtype or (call.out.dtype in (torch.float32, torch.float64))
    if not it.exact or not kept or side.rows is None:
        return it.label()
    if side.value.dtype is not call.out.dtype and rounds(call.out.dtype, side.reach(), side.rows.fine):
        call.checks.append(partial(_copy_lost, it.place, side.reach()))
    return it.label(side.degree, side.reach(), side.rows.fine)


def _copy_lost(place: int, reach: float, given: Given) -> bool:
    return lost(given.out, place, reach, given.out.abs)


@rule(
    aten.where.self, aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.masked_fill_.Scalar, aten.masked_fill_.Tensor,
)  # fmt: skip
def _chosen(call: Call) -> Label:
    """Within every combination of the mask's selections it is one of the two, or the other."""
    mask, values = (call.args[0], call.args[1:3]) if call.operator.func is aten.where.self else (call.args[1], [call.args[0], call.args[2]])
    it = Elementwise(call, [mask, *values])
    if not it.fit:
        return call.joined
    unknown = it.chosen_by(it.sides[0])
    return it.label(max(side.degree for side in it.sides[1:]), max(side.reach() for side in it.sides[1:]), exposed=unknown)


