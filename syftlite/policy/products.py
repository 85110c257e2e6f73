"""Rules of products, least squares and layers.

    rows x constants          rowwise, of the rows' degree
    over the unit axis        AGG: rows of the same units up to degree 2 together, or weights that are selections (T3)
    mse_loss, its gradient    degree 2, affine
    convolution, pooling, layer norm over a batch of rows    rowwise, ANY
"""

from __future__ import annotations

from functools import partial

import torch

from syftlite._torch import aten
from syftlite.policy.call import Call, Given, Side, rule, varies
from syftlite.policy.contributions import lost, rounds, uneven, uneven_products
from syftlite.policy.elementwise import LARGE, LEVELS, MAX_REACH, Elementwise, mild, told, up
from syftlite.policy.labels import Class, Label
from syftlite.policy.lineage import ANY, gates_of, stripes


@rule(aten.mm.default, aten.mv.default, aten.dot.default, aten.bmm.default)
def _matmul(call: Call) -> Label:
    return _multiplied(call, 0)


@rule(aten.vdot.default)
def _dot(call: Call) -> Label:
    """Of real numbers as `dot`."""
    return call.joined if call.args[0].is_complex() else _multiplied(call, 0)


@rule(aten.addmm.default, aten.addmv.default, aten.baddbmm.default)
def _added(call: Call) -> Label:
    """A bias and a product: rowwise if the bias is a constant; of the product's degree if both factors are 1."""
    if call.side(call.args[0]).rows is not None:
        return call.joined
    plain = call.arg(3, "beta", 1) == 1 == call.arg(4, "alpha", 1)
    label = _multiplied(call, 1)
    if label.rows is not None and not plain:
        return label._replace(rows=label.rows._replace(degree=ANY))
    if plain or label.level is Class.PRIVATE:
        return label
    call.checks.clear()
    return call.joined


def _multiplied(call: Call, first: int) -> Label:
    """The factors are argument number ``first`` and the next; of a product with a bias that is argument 0."""
    a, b = call.args[first : first + 2]
    bias = call.args[0] if first else None
    one, other = call.side(a), call.side(b)
    if any(side.rows is not None and side.axis is None for side in (one, other)):
        return call.joined
    inner, outer = a.dim() - 1, max(b.dim() - 2, 0)  # the contracted axes
    contracts = (one.axis is not None and one.axis.axis == inner) or (other.axis is not None and other.axis.axis == outer)
    if contracts:
        return _contracted(call, first, one, other, inner, outer)
    if one.axis is not None and other.axis is not None and not (a.dim() == 3 and one.axis == other.axis and one.axis.axis == 0):
        return call.joined
    axis = one.axis or other.axis
    assert axis is not None
    place = axis.axis
    assert isinstance(call.out, torch.Tensor)
    sides = [one, other]
    degree = sum(side.degree for side in sides)
    batched = a.dim() == 3 and place == 0
    varying = batched and any(side.varies(-3) for side in sides)
    varying = varying or (isinstance(bias, torch.Tensor) and varies(bias, place - call.out.dim()))
    if degree >= ANY or varying or not axis.along.frame.aggregates or call.out.dtype not in MAX_REACH or not all(map(mild, sides)):
        return call.rows(stripes(axis.along, place, call.out), exposed=told(sides))
    reach = one.reach() * other.reach() * a.shape[-1] + (0.0 if bias is None else call.side(bias).reach())
    gates = one.gates | other.gates
    if reach >= MAX_REACH[call.out.dtype]:
        return call.rows(stripes(axis.along, place, call.out), exposed=True)
    rows = stripes(axis.along, place, call.out, degree=degree, gates=gates, reach=up(reach))
    if rounds(call.out.dtype, reach, 0.0):
        call.checks.append(partial(_product_lost, first, place, reach))
    return call.rows(rows)


def _product_lost(first: int, place: int, reach: float, given: Given) -> bool:
    a, b = given.args[first : first + 2]
    return lost(given.out, place, reach, lambda: _terms(a, b, given.args[0] if first else None))


def _terms(a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    sizes = a.abs() @ b.abs()
    return sizes if bias is None else sizes + bias.abs()


def _contracted(call: Call, first: int, one: Side, other: Side, inner: int, outer: int) -> Label:
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
    if call.out.numel() == 0 or (one.value.dim() == 3 and any(side.rows is None and not side.flat for side in sides)):
        return call.joined
    for side, along in zip(sides, at, strict=True):
        if side.flat and not mild(side):  # that it is not is told of private values
            return call.aggregate(sides, exposed=True)
        if side.rows is None and not side.flat:  # weights
            gates = None
            if side.rest is None and mild(side):
                gates = gates_of(axis.along, side.value.movedim(along, 0), derived=False, most=LEVELS)
            if gates is None:
                return call.joined
            call.joined = call.joined._replace(selections=call.joined.selections | gates)
    if sum(side.degree for side in sides) < ANY and (one.reach() * other.reach() * len(axis.along)) >= MAX_REACH.get(call.out.dtype, 0.0):
        return call.aggregate(sides, exposed=True)
    return call.aggregate(sides, partial(_uneven_products, first, inner, outer))


def _uneven_products(first: int, inner: int, outer: int, given: Given) -> bool:
    a, b = given.args[first : first + 2]
    return uneven_products(a.movedim(inner, 0), b.movedim(outer, 0))


@rule(aten.mse_loss.default)
def _mse(call: Call) -> Label:
    x, y = call.args[:2]
    sides = [call.side(x), call.side(y)]
    axis = next((side.axis for side in sides if side.axis is not None), None)
    if axis is None or x.shape != y.shape or any(side.rows is not None and side.axis != axis for side in sides):
        return call.joined
    if any(side.varies(axis.axis - x.dim()) for side in sides):
        return call.joined
    if call.arg(2, "reduction", 1) == 0:
        return call.rows(stripes(axis.along, axis.axis, call.out))
    if max(side.degree for side in sides) > 1 or not axis.along.frame.aggregates:
        return call.joined
    return call.aggregate(sides, partial(_uneven_squares, axis.axis, sum(side.reach() for side in sides)), degree=2)


def _uneven_squares(axis: int, reach: float, given: Given) -> bool:
    x, y = given.args[:2]
    return lost(x - y, axis, reach, lambda: x.abs() + y.abs()) or uneven((x - y).square(), axis, list(range(x.dim())))


@rule(aten.mse_loss_backward.default)
def _mse_backward(call: Call) -> Label:
    """2 (x - y) grad / n: affine."""
    it = Elementwise(call, call.args[1:3])
    grad = call.side(call.args[0])
    if not it.fit or grad.rows is not None or call.args[0].numel() != 1 or not mild(grad):
        return call.joined if not it.fit or grad.rows is not None else it.label()
    reach = 2 * (it.sides[0].reach() + it.sides[1].reach()) * grad.reach()
    if call.out.numel() > LARGE or not it.exact:
        return it.label()
    if rounds(call.out.dtype, reach, 0.0):
        call.checks.append(partial(_gradient_lost, it.place, reach, call.arg(3, "reduction", 1) == 1))
    return it.label(max(side.degree for side in it.sides), reach)


def _gradient_lost(place: int, reach: float, mean: bool, given: Given) -> bool:
    return lost(given.out, place, reach, lambda: _gradient_sizes(given, mean))


def _gradient_sizes(given: Given, mean: bool) -> torch.Tensor:
    grad, x, y = given.args[:3]
    scale = 2 * grad.abs() / (given.out.numel() if mean else 1)
    sizes: torch.Tensor = scale * (x.abs() + y.abs())
    return sizes


@rule(
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
