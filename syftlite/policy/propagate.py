"""What an operator does to labels: one pure function of the operator, its operands with their labels, and what it gave.

    no operand has rows         the join: an aggregate stays one whatever is made of it, and what is PRIVATE stays PRIVATE
    one that is rowwise         the result has the rows; its degree says whether sums of it may be aggregates
    a comparison                ... and the rows where it holds are a selection (its gates)
    a sum along the unit axis   AGG, with the selections that went into it; PRIVATE if the degree is ANY
    anything else               PRIVATE without rows: unlisted operators deny

Why the degree: with other functions, or with weights of one's own for each row, a sum is one row's value ("soft masks":
log(sum(exp(1000 x))) / 1000 is the maximum). A polynomial of degree 2 with the same coefficients for all rows of a combination of
selections cannot tell them apart. In floating point a sum is no polynomial where rounding takes what a row adds (x + 1e9 - 1e9 is a step
function), so what rounds away more than `LOST` of the rows' spread is exposed too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy
import torch

from syftlite._torch import aten
from syftlite.ops.operator import Kind, Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC
from syftlite.policy.contributions import Looks, lost, uneven, uneven_products
from syftlite.policy.labels import NONE, Class, Label, blind, join
from syftlite.policy.lineage import ANY, Axis, Rows, Selection, axis_of, gates_of, stripes

SMALL, LARGE = 2.0**-30, 2.0**30
"""Factors beyond these cost a value its degree: products of them would leave what floats can tell apart."""
LEVELS = 4
"""Different weights up to which a public weight counts as so many selections."""
MAX_REACH = {torch.float32: 2.0**96, torch.float64: 2.0**500, torch.int64: 2.0**62, torch.int32: 2.0**30, torch.bool: 2.0}
"""No element of these dtypes may come near to what they hold; others have no degree."""


class Side:
    """An operand: its value, and its rows if it has some. ``rest``: its label."""

    __slots__ = ("axis", "rest", "rows", "value")

    def __init__(self, value: Any, label: Label | None) -> None:
        self.value, self.rest = value, label
        self.rows = None if label is None else label.rows
        self.axis: Axis | None = axis_of(self.rows, value) if self.rows is not None else None

    @property
    def place(self) -> int:
        """The unit axis, from the right: -1 is the last."""
        assert self.axis is not None
        return self.axis.axis - int(self.value.dim())

    @property
    def degree(self) -> int:
        """Its rows' degree; of a constant, 0."""
        return self.rows.degree if self.rows is not None else 0

    @property
    def gates(self) -> frozenset[Selection]:
        """Its rows' gates."""
        return self.rows.gates if self.rows is not None else NONE

    def reach(self) -> float:
        """No element is larger."""
        if self.rows is not None:
            return self.rows.reach
        if not isinstance(self.value, torch.Tensor):
            return float(abs(self.value))
        Looks.count += 1
        if self.value.dtype is torch.bool:
            return 1.0
        return float(self.value.abs().amax()) if self.value.numel() else 0.0

    def least(self) -> float:
        """Of a constant: no element but 0 is smaller."""
        if not isinstance(self.value, torch.Tensor):
            return float(abs(self.value)) or 1.0
        Looks.count += 1
        if self.value.dtype is torch.bool:
            return 1.0
        sizes = self.value.abs()
        sizes = sizes[sizes > 0]
        return float(sizes.amin()) if sizes.numel() else 1.0


class Call:
    """One operator that has run: what it was given and gave."""

    def __init__(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], labels: Mapping[int, Label], out: Any) -> None:
        self.operator, self.args, self.kwargs, self.labels, self.out = operator, args, kwargs, labels, out
        self.joined = blind(join(labels.values()))

    def side(self, value: Any) -> Side:
        """An operand with what is known of it."""
        return Side(value, self.labels.get(id(value)) if isinstance(value, torch.Tensor) else None)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, wherever it was given."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def rows(self, rows: Rows | None, *, exposed: bool = False) -> Label:
        """The label of a result that has ``rows``."""
        return self.joined._replace(rows=rows, exposed=self.joined.exposed or exposed)

    def aggregate(self, sides: Sequence[Side], exposed: Callable[[], bool], degree: int | None = None) -> Label:
        """The label of a sum over the unit axis of a product of ``sides``, or of a polynomial of ``degree`` in them."""
        degree = sum(side.degree for side in sides) if degree is None else degree
        axis = next(side.axis for side in sides if side.axis is not None)
        if degree >= ANY or not axis.along.frame.aggregates:
            return self.joined
        selections = self.joined.selections.union(axis.along.selections, *(side.gates for side in sides))
        told = self.joined.exposed or (degree > 0 and exposed())
        return self.joined._replace(level=Class.AGG, selections=selections, exposed=told)

    def denied(self) -> Label:
        """The label of a result that would have counted for more, had its operands had other values."""
        return self.joined._replace(exposed=True)


Rule = Callable[[Call], Label]
RULES: dict[int, Rule] = {}


def _rule(*funcs: Any) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        for func in funcs:
            RULES[BY_FUNC[func].number] = rule
        return rule

    return register


MAX_KNOWN = 16_384
_known: dict[Any, tuple[Label, tuple[Label | None, ...]]] = {}


def propagate(operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], labels: Mapping[int, Label], out: Any) -> Label:
    """The label of what ``operator`` gave. ``args``, ``kwargs``: its operands' values; ``labels``: by `id`, of those tensors that have one;
    ``out``: the result, or for an operator in place the written tensor.

    Where a rule looked at no value, its answer is remembered for operands of the same specs and labels.
    """
    if operator.kind is Kind.INDEX or type(out) is not torch.Tensor:
        return _propagate(operator, args, kwargs, labels, out)
    key: list[Any] = [operator.number, Spec.of(out)]
    held: list[Label | None] = []  # a label's `id` is its own while it is held
    for value in (*args, *kwargs.values()) if kwargs else args:
        if type(value) is torch.Tensor:
            label = labels.get(id(value))
            held.append(label)
            key += (id(label), Spec.of(value))
        else:
            key.append(tuple(value) if type(value) is list else value)
            key.append(type(value))
    if kwargs:
        key += kwargs
    try:
        exact = tuple(key)
        known = _known.get(exact)
    except TypeError:  # a list of tensors, which have no hash of their values
        return _propagate(operator, args, kwargs, labels, out)
    if known is not None:
        return known[0]
    looks = Looks.count
    label = _propagate(operator, args, kwargs, labels, out)
    if Looks.count == looks and not any(type(v) is list and v and type(v[0]) is torch.Tensor for v in args):
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[exact] = label, tuple(held)
    return label


def _propagate(operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], labels: Mapping[int, Label], out: Any) -> Label:
    if all(label.rows is None for label in labels.values()):
        return join(labels.values())
    if any(label.level is Class.PRIVATE and label.rows is None for label in labels.values()):
        return blind(join(labels.values()))
    call = Call(operator, args, kwargs, labels, out)
    rule = RULES.get(operator.number)
    if rule is None:
        rule = _pointwise if operator.kind is Kind.POINTWISE and operator.number not in MIXING else _nothing
    return rule(call)


def _nothing(call: Call) -> Label:
    return call.joined


# -- rowwise


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


def _varies(value: Any, place: int) -> bool:
    """Whether a constant differs from row to row."""
    return isinstance(value, torch.Tensor) and value.dim() >= -place and value.shape[place] > 1 and value.stride(place) != 0


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
                    if side.rows is None and _varies(side.value, self.place):
                        self._weigh(side)

    def _weigh(self, side: Side) -> None:
        gates = None
        if side.rest is None:
            gates = gates_of(self.axis.along, side.value.movedim(self.place, 0), derived=False, most=LEVELS)
        self.exact = self.exact and gates is not None
        self.gates |= gates or NONE

    def label(self, degree: int = ANY, reach: float = math.inf, fine: float = 0.0, *, exposed: bool = False) -> Label:
        """The result's label."""
        out = self.call.out
        if not self.exact or degree >= ANY or reach >= MAX_REACH.get(out.dtype, 0.0):
            told = self.exact and degree < ANY and out.dtype in MAX_REACH  # it would have counted, were its values smaller
            return self.call.rows(_rows(self.call, self.axis, self.place), exposed=exposed or told)
        rows = _rows(self.call, self.axis, self.place, degree=degree, gates=self.gates, reach=_up(reach), fine=_down(fine))
        return self.call.rows(rows, exposed=exposed)


def _rows(call: Call, axis: Axis, place: int, **told: Any) -> Rows | None:
    out = call.out
    written = call.labels.get(id(out))
    if call.operator.writes and written is not None and written.rows is not None:  # in place: the stripes stay as they lie
        same = axis_of(written.rows, out) == Axis(out.dim() + place, axis.along)
        return Rows(written.rows.along, written.rows.inner, **told) if same else None
    return stripes(axis.along, out.dim() + place, out, **told)


def _up(value: float) -> float:
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

_DIVIDES = {
    operator.number
    for operator in BY_FUNC.values()
    if operator.name.split(".")[1].rstrip("_") in ("remainder", "fmod", "floor_divide", "pow") or "_mode" in operator.name
}
"""Of whole numbers these fail where a divisor is 0: that they have not would tell of all rows."""


def _pointwise(call: Call) -> Label:
    """Elementwise, of no degree; a comparison's result is a selection."""
    it = Elementwise(call, [*call.args, *call.kwargs.values()])
    if not it.fit or (call.operator.number in _DIVIDES and not call.out.dtype.is_floating_point):
        return call.joined
    if call.out.dtype is torch.bool and it.axis.along.frame.aggregates:
        gates = gates_of(it.axis.along, call.out.movedim(it.place, 0), derived=True)
        if gates is not None:
            return call.rows(_rows(call, it.axis, it.place, degree=0, gates=gates | it.gates, reach=1.0))
        return call.rows(_rows(call, it.axis, it.place), exposed=True)
    return call.rows(_rows(call, it.axis, it.place))


@_rule(
    aten.add.Tensor, aten.add.Scalar, aten.add_.Tensor, aten.add_.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.sub_.Tensor,
    aten.sub_.Scalar, aten.rsub.Scalar, aten.rsub.Tensor,
)  # fmt: skip
def _sum_of_two(call: Call) -> Label:
    it = Elementwise(call, call.args[:2])
    alpha = call.arg(2, "alpha", 1)
    if not it.fit:
        return call.joined
    if not it.exact or isinstance(alpha, complex) or not SMALL <= abs(alpha) <= LARGE:
        return it.label()
    one, other = it.sides
    reach = one.reach() * max(1.0, abs(alpha)) + other.reach() * max(1.0, abs(alpha))
    alone = [side for side in it.sides if side.rows is not None]
    fine = alone[0].rows.fine if len(alone) == 1 and alpha in (1, -1) and alone[0].rows is not None else 0.0
    return it.label(max(one.degree, other.degree), reach, fine, exposed=lost(call.out, it.place, reach, fine, lambda: _sizes(call, alpha)))


def _sizes(call: Call, alpha: Any) -> torch.Tensor:
    """|a| + |b| at least, of what has been added to ``call.out``: its first operand may be gone."""
    other = call.args[1]
    sizes: torch.Tensor = call.out.abs() + 2 * abs(alpha) * (other.abs() if isinstance(other, torch.Tensor) else abs(other))
    return sizes + (call.args[0].abs() if call.operator.name.startswith("aten.rsub") and isinstance(call.args[0], torch.Tensor) else 0)


@_rule(aten.mul.Tensor, aten.mul.Scalar, aten.mul_.Tensor, aten.mul_.Scalar)
def _product(call: Call) -> Label:
    it = Elementwise(call, call.args[:2])
    if not it.fit:
        return call.joined
    degree = sum(side.degree for side in it.sides)
    if not it.exact or degree >= ANY or not all(_mild(side) for side in it.sides):
        return it.label(exposed=it.exact and _told(it.sides))
    one, other = it.sides
    fine = next((side.rows.fine for side in it.sides if side.rows is not None), 0.0)
    plain = [side for side in it.sides if side.rows is None]
    fine = fine * plain[0].least() if plain and not _has_zero(plain[0].value) else 0.0
    return it.label(degree, one.reach() * other.reach(), fine)


def _mild(side: Side) -> bool:
    """Whether a constant factor is neither so large nor so small that floats lose count."""
    if side.rows is not None:
        return True
    if isinstance(side.value, complex) or (isinstance(side.value, torch.Tensor) and side.value.is_complex()):
        return False
    return side.reach() <= LARGE and side.least() >= SMALL


def _told(sides: Sequence[Side]) -> bool:
    """Whether a constant is itself made of private values."""
    return any(side.rows is None and side.rest is not None for side in sides)


def _has_zero(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        Looks.count += 1
        return bool((value == 0).any())
    return bool(value == 0)


@_rule(aten.div.Tensor, aten.div.Scalar, aten.div_.Tensor, aten.div_.Scalar)
def _quotient(call: Call) -> Label:
    it = Elementwise(call, call.args[:2])
    if not it.fit:
        return call.joined
    top, bottom = it.sides
    if not it.exact or bottom.rows is not None or not _mild(bottom) or _has_zero(bottom.value):
        return it.label(exposed=it.exact and _told(it.sides))
    return it.label(top.degree, top.reach() / bottom.least(), (top.rows.fine if top.rows else 0.0) / max(bottom.reach(), SMALL))


@_rule(aten.neg.default, aten.neg_.default, aten.clone.default, aten.copy_.default, aten._to_copy.default)
def _same(call: Call) -> Label:
    source = call.args[1] if call.operator.func is aten.copy_.default else call.args[0]
    it = Elementwise(call, [source])
    if not it.fit:
        return call.joined
    (side,) = it.sides
    if call.out.dtype is torch.bool and side.value.dtype is not torch.bool:
        return _pointwise(call)
    kept = side.value.dtype is call.out.dtype or (call.out.dtype in (torch.float32, torch.float64))
    if not it.exact or not kept or side.rows is None:
        return it.label()
    rounded = side.value.dtype is not call.out.dtype and lost(call.out, it.place, side.reach(), side.rows.fine, call.out.abs)
    return it.label(side.degree, side.reach(), side.rows.fine, exposed=rounded)


@_rule(
    aten.where.self, aten.masked_fill.Scalar, aten.masked_fill.Tensor, aten.masked_fill_.Scalar, aten.masked_fill_.Tensor,
)  # fmt: skip
def _chosen(call: Call) -> Label:
    """Within every combination of the mask's selections it is one of the two, or the other."""
    mask, values = (call.args[0], call.args[1:3]) if call.operator.func is aten.where.self else (call.args[1], [call.args[0], call.args[2]])
    it = Elementwise(call, [mask, *values])
    if not it.fit:
        return call.joined
    return it.label(max(side.degree for side in it.sides[1:]), max(side.reach() for side in it.sides[1:]))


# -- along axes


def _dims(given: Any, count: int) -> list[int]:
    given = [given] if isinstance(given, int) else given
    return sorted({d % count for d in given}) if given else list(range(count))


@_rule(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim)
def _sum(call: Call) -> Label:
    side = call.side(call.args[0])
    if side.axis is None or side.rows is None:
        return call.joined
    x = call.args[0]
    dims, keep = _dims(call.arg(1, "dim"), x.dim()), call.arg(2, "keepdim", False)
    if side.axis.axis in dims:
        return call.aggregate([side], lambda: uneven(x, side.axis.axis, dims))  # type: ignore[union-attr]
    axis = side.axis.axis - (0 if keep else sum(d < side.axis.axis for d in dims))
    scale = math.prod(x.shape[d] for d in dims)
    if side.rows.degree >= ANY or not side.axis.along.frame.aggregates:
        return call.rows(stripes(side.axis.along, axis, call.out))
    reach = side.rows.reach * scale
    told = {"degree": side.rows.degree, "gates": side.rows.gates, "reach": _up(reach)}
    if call.out.dtype not in MAX_REACH or reach >= MAX_REACH[call.out.dtype]:
        return call.rows(stripes(side.axis.along, axis, call.out), exposed=True)
    rounded = lost(call.out, axis, reach, 0.0, lambda: x.abs().sum(dims, keep))
    return call.rows(stripes(side.axis.along, axis, call.out, **told), exposed=rounded)


@_rule(aten.var.correction, aten.std.correction, aten.var_mean.correction, aten.std_mean.correction)
def _variance(call: Call) -> Label:
    side = call.side(call.args[0])
    x = call.args[0]
    if side.axis is None or side.degree > 1 or side.axis.axis not in (dims := _dims(call.arg(1, "dim"), x.dim())):
        return call.joined
    squares = (x - x.mean(dims, keepdim=True)).square()
    return call.aggregate([side, side], lambda: uneven(x, side.axis.axis, dims) or uneven(squares, side.axis.axis, dims))  # type: ignore[union-attr]


_OVER = {
    aten._softmax.default: 1, aten._log_softmax.default: 1, aten.cumsum.default: 1, aten.cumprod.default: 1, aten.amax.default: 1,
    aten.amin.default: 1, aten.logsumexp.default: 1, aten.any.dim: 1, aten.all.dim: 1, aten.prod.dim_int: 1, aten.argmax.default: 1,
    aten.linalg_vector_norm.default: 2,
}  # fmt: skip


@_rule(*_OVER)
def _over_other_axes(call: Call) -> Label:
    """Rowwise where the unit axis is none of those that it works along."""
    side, x = call.side(call.args[0]), call.args[0]
    given = call.arg(_OVER[call.operator.func], "dim")
    dims = _dims(given if given != [] else None, x.dim())
    if side.axis is None or side.axis.axis in dims:
        return call.joined
    gone = 0 if call.out.dim() == x.dim() else sum(d < side.axis.axis for d in dims)
    return call.rows(stripes(side.axis.along, side.axis.axis - gone, call.out))


@_rule(aten.cat.default, aten.stack.default)
def _together(call: Call) -> Label:
    sides = [call.side(t) for t in call.args[0]]
    rowed = [side for side in sides if side.rows is not None]
    first = rowed[0].axis
    if first is None or any(side.axis is None or side.axis.axis != first.axis for side in rowed):
        return call.joined
    assert isinstance(call.out, torch.Tensor)
    dim = call.arg(1, "dim", 0) % call.out.dim()
    stacked = call.operator.func is aten.stack.default
    axis = first.axis + (1 if stacked and dim <= first.axis else 0)
    index = first.along
    exact = call.out.dtype in MAX_REACH and all(side.value.dtype is call.out.dtype for side in sides)
    if dim == axis and not stacked:
        if len(rowed) < len(sides) or any(side.axis.along.frame is not index.frame for side in rowed if side.axis):
            return call.joined
        index = index.frame.index(numpy.concatenate([side.axis.along.rows for side in rowed if side.axis]))
        exact = False  # one part's coefficients are not another's
    elif any(side.axis is not None and side.axis.along is not index for side in rowed):
        return call.joined
    for side in sides:
        if side.rows is None and _varies(side.value, first.axis - side.value.dim()):
            exact = False
    degree = max(side.degree for side in rowed)
    if not exact or degree >= ANY:
        return call.rows(stripes(index, axis, call.out))
    gates = NONE.union(*(side.gates for side in rowed))
    return call.rows(stripes(index, axis, call.out, degree=degree, gates=gates, reach=_up(max(side.reach() for side in sides))))


@_rule(aten.index_select.default, aten.index.Tensor)
def _picked(call: Call) -> Label:
    """Rows, or columns, by a public index."""
    x, side = call.args[0], call.side(call.args[0])
    if call.operator.func is aten.index_select.default:
        dim, picks = call.args[1] % max(x.dim(), 1), call.args[2]
    else:
        given = [(dim, i) for dim, i in enumerate(call.args[1]) if i is not None]
        if len(given) != 1:
            return call.joined
        dim, picks = given[0]
    if side.axis is None or side.rows is None or picks.dtype is not torch.int64 or picks.dim() != 1 or id(picks) in call.labels:
        return call.joined
    told = {"degree": side.rows.degree, "gates": side.rows.gates, "reach": side.rows.reach, "fine": 0.0}
    index = side.axis.along
    if dim == side.axis.axis:
        index = index.frame.index(index.rows[picks.cpu().numpy()])
    return call.rows(stripes(index, side.axis.axis, call.out, **told))


# -- products


@_rule(aten.mm.default, aten.mv.default, aten.dot.default, aten.bmm.default)
def _matmul(call: Call) -> Label:
    return _multiplied(call, call.args[0], call.args[1])


@_rule(aten.addmm.default, aten.addmv.default, aten.baddbmm.default)
def _added(call: Call) -> Label:
    """A bias and a product: rowwise if the bias is a constant; of the product's degree if both factors are 1."""
    if call.side(call.args[0]).rows is not None:
        return call.joined
    plain = call.arg(3, "beta", 1) == 1 == call.arg(4, "alpha", 1)
    label = _multiplied(call, call.args[1], call.args[2], call.args[0])
    if label.rows is not None and not plain:
        return label._replace(rows=label.rows._replace(degree=ANY))
    return label if plain or label.level is Class.PRIVATE else call.joined


def _multiplied(call: Call, a: Any, b: Any, bias: Any = None) -> Label:
    one, other = call.side(a), call.side(b)
    if any(side.rows is not None and side.axis is None for side in (one, other)):
        return call.joined
    inner, outer = a.dim() - 1, max(b.dim() - 2, 0)  # the contracted axes
    contracts = (one.axis is not None and one.axis.axis == inner) or (other.axis is not None and other.axis.axis == outer)
    if contracts:
        return _contracted(call, one, other, inner, outer)
    if one.axis is not None and other.axis is not None and not (a.dim() == 3 and one.axis == other.axis and one.axis.axis == 0):
        return call.joined
    axis = one.axis or other.axis
    assert axis is not None
    place = axis.axis
    assert isinstance(call.out, torch.Tensor)
    sides = [one, other]
    degree = sum(side.degree for side in sides)
    batched = a.dim() == 3 and place == 0
    varying = batched and any(side.rows is None and _varies(side.value, -3) for side in sides)
    varying = varying or (isinstance(bias, torch.Tensor) and _varies(bias, place - call.out.dim()))
    if degree >= ANY or varying or not axis.along.frame.aggregates or call.out.dtype not in MAX_REACH or not all(map(_mild, sides)):
        return call.rows(stripes(axis.along, place, call.out), exposed=_told(sides))
    reach = one.reach() * other.reach() * a.shape[-1] + (0.0 if bias is None else call.side(bias).reach())
    gates = one.gates | other.gates
    if reach >= MAX_REACH[call.out.dtype]:
        return call.rows(stripes(axis.along, place, call.out), exposed=True)
    rows = stripes(axis.along, place, call.out, degree=degree, gates=gates, reach=_up(reach))
    return call.rows(rows, exposed=lost(call.out, place, reach, 0.0, lambda: _terms(a, b, bias)))


def _terms(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    sizes = a.abs() @ b.abs()
    return sizes if bias is None else sizes + bias.abs()


def _contracted(call: Call, one: Side, other: Side, inner: int, outer: int) -> Label:
    """A product that sums over the unit axis (T3)."""
    sides = [one, other]
    at = [inner, outer]
    for side, along in zip(sides, at, strict=True):
        if side.axis is not None and side.axis.axis != along:
            return call.joined
    axis = one.axis or other.axis
    assert axis is not None
    if one.axis is not None and other.axis is not None and one.axis.along is not other.axis.along:
        return call.joined
    if one.value.dim() == 3 or call.out.numel() == 0:
        return call.joined
    for side, along in zip(sides, at, strict=True):
        if side.rows is None:  # weights
            gates = None
            if side.rest is None and _mild(side):
                gates = gates_of(axis.along, side.value.movedim(along, 0), derived=False, most=LEVELS)
            if gates is None:
                return call.joined
            call.joined = call.joined._replace(selections=call.joined.selections | gates)
    if sum(side.degree for side in sides) < ANY and (one.reach() * other.reach() * len(axis.along)) >= MAX_REACH.get(call.out.dtype, 0.0):
        return call.aggregate(sides, lambda: True)
    return call.aggregate(sides, lambda: uneven_products(one.value.movedim(inner, 0), other.value.movedim(outer, 0)))


# -- least squares, and layers whose first axis is the batch


@_rule(aten.mse_loss.default)
def _mse(call: Call) -> Label:
    x, y = call.args[:2]
    sides = [call.side(x), call.side(y)]
    axis = next((side.axis for side in sides if side.axis is not None), None)
    if axis is None or x.shape != y.shape or any(side.rows is not None and side.axis != axis for side in sides):
        return call.joined
    if any(side.rows is None and _varies(side.value, axis.axis - x.dim()) for side in sides):
        return call.joined
    if call.arg(2, "reduction", 1) == 0:
        return call.rows(stripes(axis.along, axis.axis, call.out))
    if max(side.degree for side in sides) > 1 or not axis.along.frame.aggregates:
        return call.joined
    if lost(x - y, axis.axis, sum(side.reach() for side in sides), 0.0, lambda: x.abs() + y.abs()):
        return call.denied()
    return call.aggregate(sides, lambda: uneven((x - y).square(), axis.axis, list(range(x.dim()))), 2)


@_rule(aten.mse_loss_backward.default)
def _mse_backward(call: Call) -> Label:
    """2 (x - y) grad / n: affine."""
    it = Elementwise(call, call.args[1:3])
    grad = call.side(call.args[0])
    if not it.fit or grad.rows is not None or call.args[0].numel() != 1 or not _mild(grad):
        return call.joined if not it.fit or grad.rows is not None else it.label()
    reach = 2 * (it.sides[0].reach() + it.sides[1].reach()) * grad.reach()
    if call.out.numel() > LARGE or not it.exact:
        return it.label()
    rounded = lost(call.out, it.place, reach, 0.0, lambda: _gradient_sizes(call))
    return it.label(max(side.degree for side in it.sides), reach, exposed=rounded)


def _gradient_sizes(call: Call) -> torch.Tensor:
    grad, x, y = call.args[:3]
    scale = 2 * grad.abs() / (call.out.numel() if call.arg(3, "reduction", 1) == 1 else 1)
    sizes: torch.Tensor = scale * (x.abs() + y.abs())
    return sizes


@_rule(
    aten.convolution.default, aten.max_pool2d_with_indices.default, aten.avg_pool2d.default, aten._adaptive_avg_pool2d.default,
    aten.native_layer_norm.default,
)  # fmt: skip
def _layer(call: Call) -> Label:
    """A batch of rows through a layer: rowwise, of no degree."""
    side, x = call.side(call.args[0]), call.args[0]
    least = len(call.args[1]) + 1 if call.operator.func is aten.native_layer_norm.default else 4
    others = [v for v in call.args[1:] if isinstance(v, torch.Tensor) and call.side(v).rows is not None]
    if side.axis is None or side.axis.axis != 0 or x.dim() < max(least, 2) or others:
        return call.joined
    out = call.out if isinstance(call.out, torch.Tensor) else call.out[0]
    rest = [o for o in ([] if out is call.out else call.out[1:]) if isinstance(o, torch.Tensor)]
    found = {stripes(side.axis.along, 0, o) for o in (out, *rest)}
    inner = stripes(side.axis.along, 0, out)
    return call.rows(inner if len(found) == 1 else None)
