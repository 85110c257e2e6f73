"""Rules of operators along an axis: over rows they make aggregates, over others they keep the rows.

    sum, mean, variance over rows     AGG, if the degree allows it; whether few rows dominate is looked at
    over other axes                   rowwise; sums keep the degree
    cat, stack, index                 rows side by side, behind each other, picked
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy
import torch

from syftlite._torch import aten
from syftlite.policy.call import Call, Given, dims_of, rule
from syftlite.policy.contributions import lost, rounds, uneven
from syftlite.policy.elementwise import MAX_REACH, up
from syftlite.policy.labels import NONE, Label
from syftlite.policy.lineage import ANY, stripes


@rule(aten.sum.default, aten.sum.dim_IntList, aten.mean.default, aten.mean.dim)
def _sum(call: Call) -> Label:
    side = call.side(call.args[0])
    if side.axis is None or side.rows is None:
        return call.joined
    x = call.args[0]
    dims, keep = dims_of(call.arg(1, "dim"), x.dim()), call.arg(2, "keepdim", False)
    exact = _keeps(x.dtype, call.out.dtype)
    if side.axis.axis in dims:
        if not exact:
            return call.joined
        if x.dtype is not call.out.dtype and rounds(call.out.dtype, side.reach(), side.rows.fine):
            return call.aggregate([side], partial(_uneven_sum, side.axis.axis, dims), partial(_cast_lost, side.axis.axis, side.reach()))
        return call.aggregate([side], partial(_uneven_sum, side.axis.axis, dims))
    axis = side.axis.axis - (0 if keep else sum(d < side.axis.axis for d in dims))
    scale = math.prod(x.shape[d] for d in dims)
    if side.rows.degree >= ANY or not side.axis.along.frame.aggregates or not exact:
        return call.rows(stripes(side.axis.along, axis, call.out))
    reach = side.rows.reach * scale
    told = {"degree": side.rows.degree, "gates": side.rows.gates, "reach": up(reach)}
    if call.out.dtype not in MAX_REACH or reach >= MAX_REACH[call.out.dtype]:
        return call.rows(stripes(side.axis.along, axis, call.out), exposed=True)
    if rounds(call.out.dtype, reach, 0.0):
        call.checks.append(partial(_sum_lost, axis, reach, dims, keep))
    if x.dtype is not call.out.dtype and rounds(call.out.dtype, side.rows.reach, side.rows.fine):
        call.checks.append(partial(_cast_lost, side.axis.axis, side.rows.reach))
    return call.rows(stripes(side.axis.along, axis, call.out, **told))


def _keeps(given: torch.dtype, summed: torch.dtype) -> bool:
    """Whether a sum in ``summed`` is linear in what it is given: a cast to whole numbers, or to fewer bits, is a step function."""
    whole = not given.is_floating_point and not given.is_complex
    return summed is given or (summed is torch.int64 and whole) or summed in (torch.float32, torch.float64)


def _cast_lost(axis: int, reach: float, given: Given) -> bool:
    cast = given.args[0].to(given.out.dtype)
    return lost(cast, axis, reach, cast.abs)


def _uneven_sum(axis: int, dims: Sequence[int], given: Given) -> bool:
    return uneven(given.args[0], axis, dims)


def _sum_lost(axis: int, reach: float, dims: list[int], keep: bool, given: Given) -> bool:
    return lost(given.out, axis, reach, lambda: given.args[0].abs().sum(dims, keep))


@rule(aten.var.correction, aten.std.correction, aten.var_mean.correction, aten.std_mean.correction)
def _variance(call: Call) -> Label:
    side = call.side(call.args[0])
    x = call.args[0]
    if side.axis is None or side.degree > 1 or side.axis.axis not in (dims := dims_of(call.arg(1, "dim"), x.dim())):
        return call.joined
    return call.aggregate([side, side], partial(_uneven_variance, side.axis.axis, dims))


def _uneven_variance(axis: int, dims: list[int], given: Given) -> bool:
    x = given.args[0]
    return uneven(x, axis, dims) or uneven((x - x.mean(dims, keepdim=True)).square(), axis, dims)


_OVER = {
    aten._softmax.default: 1, aten._log_softmax.default: 1, aten.cumsum.default: 1, aten.cumprod.default: 1, aten.amax.default: 1,
    aten.amin.default: 1, aten.logsumexp.default: 1, aten.any.dim: 1, aten.all.dim: 1, aten.prod.dim_int: 1, aten.argmax.default: 1,
    aten.linalg_vector_norm.default: 2,
}  # fmt: skip


@rule(*_OVER)
def _over_other_axes(call: Call) -> Label:
    """Rowwise where the unit axis is none of those that it works along."""
    side, x = call.side(call.args[0]), call.args[0]
    given = call.arg(_OVER[call.operator.func], "dim")
    dims = dims_of(given if given != [] else None, x.dim())
    if side.axis is None or side.axis.axis in dims:
        return call.joined
    gone = 0 if call.out.dim() == x.dim() else sum(d < side.axis.axis for d in dims)
    return call.rows(stripes(side.axis.along, side.axis.axis - gone, call.out))


@rule(aten.zeros_like.default, aten.ones_like.default, aten.full_like.default)
def _like(call: Call) -> Label:
    """As many rows, all alike: of degree 0."""
    side = call.side(call.args[0])
    if side.axis is None:
        return call.joined
    values = {aten.zeros_like.default: 0.0, aten.ones_like.default: 1.0}
    reach = abs(values[call.operator.func] if call.operator.func in values else call.arg(1, "fill_value"))
    exact = side.axis.along.frame.aggregates and reach < MAX_REACH.get(call.out.dtype, 0.0)
    told = {"degree": 0, "reach": up(reach)} if exact else {}
    return call.rows(stripes(side.axis.along, side.axis.axis, call.out, **told))


@rule(aten.cat.default, aten.stack.default)
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
        if side.rows is None and side.varies(first.axis - side.value.dim()):
            exact = False
    degree = max(side.degree for side in rowed)
    if not exact or degree >= ANY:
        return call.rows(stripes(index, axis, call.out))
    gates = NONE.union(*(side.gates for side in rowed))
    return call.rows(stripes(index, axis, call.out, degree=degree, gates=gates, reach=up(max(side.reach() for side in sides))))


@rule(aten.index_select.default, aten.index.Tensor)
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


