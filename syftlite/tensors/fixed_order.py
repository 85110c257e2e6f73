"""Order among FixedPrecisionTensors that need gradients: torch's formulas would compare once more, or read secret indices.

    abs x         2 relu(x) - x                  maximum(x, y)   y + relu(x - y)         clamp   of relu, too
    max, amax     the one-hot mask of the maximum is kept, and the gradient is multiplied by it: of several the first has all of it
    min, amin     -max(-x)

Without gradients these are operators like others (fixed_ops.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from syftlite._torch import axes, below_functions
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_compare import bounds
from syftlite.tensors.fixed_gradients import through
from syftlite.tensors.fixed_nn import masked, needs_history, rising

Fixed = FixedPrecisionTensor


class _Max(torch.autograd.Function):
    """(maxima over one axis, which stays with size 1, and their indices)"""

    @staticmethod
    def forward(ctx: Any, x: Fixed, dim: int) -> Any:
        child = x._child
        best, mask, place = arithmetic(child).max_and_mask(child, dim, lowest_bit(current(), x.scale))
        ctx.mask = mask
        place = place.unsqueeze(dim)
        ctx.mark_non_differentiable(place)
        return Fixed.of(best.unsqueeze(dim), x.attributes()), place

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return masked(grads[0], ctx.mask), None


def _otherwise(function: Callable[..., Any]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The decorated function where gradients are needed, torch's ``function`` elsewhere."""

    def decorate(own: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            if needs_history(*args, *kwargs.values()):
                return own(*args, **kwargs)
            with below_functions():
                return function(*args, **kwargs)

        call.__name__, call.__doc__ = own.__name__, own.__doc__
        return call

    return decorate


@Fixed.reexpresses(torch.abs, torch.Tensor.abs, torch.Tensor.__abs__)
@_otherwise(torch.abs)
def absolute(x: Any) -> Any:
    """|x|."""
    return rising(x) * 2 - x


@Fixed.reexpresses(torch.maximum, torch.Tensor.maximum)
@_otherwise(torch.maximum)
def maximum(x: Any, other: Any) -> Any:
    """The greater of two; of equal ones the first."""
    return other + rising(x - other)


@Fixed.reexpresses(torch.minimum, torch.Tensor.minimum)
@_otherwise(torch.minimum)
def minimum(x: Any, other: Any) -> Any:
    """The smaller of two."""
    return x - rising(x - other)


@Fixed.reexpresses(torch.clamp, torch.Tensor.clamp)
@_otherwise(torch.clamp)
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """No less than ``min``, no more than ``max``."""
    min, max = bounds(min, max)
    x = x.clone() if min is None else rising(x - min) + min
    return x if max is None else max - rising(max - x)


@Fixed.reexpresses(torch.amax, torch.Tensor.amax)
@_otherwise(torch.amax)
def amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """Maxima over some axes."""
    dims = axes(x, dim)
    if not x.dim():
        return x.clone()
    for d in dims:
        x = _Max.apply(x, d)[0]  # type: ignore[no-untyped-call]
    return x if keepdim else x.squeeze(dims)


@Fixed.reexpresses(torch.max, torch.Tensor.max)
@_otherwise(torch.max)
def maximum_over(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The maximum; or (maxima, indices) over one axis; or the greater of two."""
    dim = dim if other is None else other
    if isinstance(dim, torch.Tensor):
        return maximum(x, dim)
    if dim is None:
        return _Max.apply(x.reshape(-1), 0)[0].squeeze(0)  # type: ignore[no-untyped-call]
    best, place = _Max.apply(x if x.dim() else x.reshape(1), dim)  # type: ignore[no-untyped-call]
    return torch.return_types.max((best, place) if keepdim and x.dim() else (best.squeeze(dim), place.squeeze(dim)))


@Fixed.reexpresses(torch.min, torch.Tensor.min)
@_otherwise(torch.min)
def minimum_over(x: Any, dim: Any = None, keepdim: bool = False, *, other: Any = None) -> Any:
    """The minimum; or (minima, indices) over one axis; or the smaller of two."""
    dim = dim if other is None else other
    if isinstance(dim, torch.Tensor):
        return minimum(x, dim)
    if dim is None:
        return -maximum_over(-x)
    best, place = maximum_over(-x, dim, keepdim)
    return torch.return_types.min((-best, place))


@Fixed.reexpresses(torch.amin, torch.Tensor.amin)
def amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """Minima over some axes."""
    return -amax(-x, dim, keepdim)


@Fixed.reexpresses(torch.aminmax, torch.Tensor.aminmax)
def aminmax(x: Any, *, dim: Any = (), keepdim: bool = False) -> Any:
    """(minima, maxima) over one axis, or all."""
    dims = () if dim is None else dim
    return torch.return_types.aminmax((amin(x, dims, keepdim), amax(x, dims, keepdim)))


# -- sorting


class _Sorted(torch.autograd.Function):
    """(the ``count`` first along an axis, ascending or descending; their places): by a permutation, by which the gradient goes back."""

    @staticmethod
    def forward(ctx: Any, x: Fixed, dim: int, descending: bool, count: int) -> Any:
        ordered, places, moved = _ordered(x, dim, descending, count)
        ctx.moved, ctx.dim = moved, dim
        ctx.mark_non_differentiable(places)
        return ordered, places

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        moved, dim = ctx.moved, ctx.dim

        def by(permutation: Any) -> Any:
            def permuted(child: Any) -> Any:
                column = child.movedim(dim, -1).unsqueeze(-1)
                return arithmetic(permutation, column).matmul(permutation, column, 0).squeeze(-1).movedim(-1, dim)

            return permuted

        return through(grads[0], by(moved), by(moved.transpose(-2, -1))), None, None, None


def _ordered(x: Fixed, dim: int, descending: bool, count: int) -> tuple[Fixed, Any, Any]:
    """Of equal ones the first stays first, whichever way."""
    child = -x._child if descending else x._child
    ordered, places, moved = arithmetic(child).sort(child, dim, lowest_bit(current(), x.scale))
    ordered = -ordered if descending else ordered
    return Fixed.of(ordered.narrow(dim, 0, count), x.attributes()), places.narrow(dim, 0, count), moved[..., :count]


def _first(name: str, x: Any, dim: int, descending: bool, count: int | None = None) -> Any:
    """Raises ValueError for an axis of fewer elements than are wanted."""
    if not x.dim():
        best, place = _first(name, x.reshape(1), dim, descending, count)
        return best.squeeze(0), place.squeeze(0)
    count = x.shape[dim] if count is None else count
    if not 0 <= count <= x.shape[dim]:
        raise ValueError(f"{name} over axis {dim} of shape {tuple(x.shape)}: {count} elements are wanted")
    if not x.numel() or not count:
        return x.narrow(dim, 0, count).clone(), x._child.narrow(dim, 0, count).clone()
    if needs_history(x):
        return _Sorted.apply(x, dim, descending, count)  # type: ignore[no-untyped-call]
    return _ordered(x, dim, descending, count)[:2]


@Fixed.reexpresses(torch.sort, torch.Tensor.sort)
def sort(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """(sorted, places): the places are shared too, as whole numbers below the layer. Up to 128 elements along the axis."""
    return torch.return_types.sort(_first("sort", x, dim, descending))


@Fixed.reexpresses(torch.msort, torch.Tensor.msort)
def msort(x: Any) -> Any:
    """Sorted along the first axis."""
    return _first("msort", x, 0, False)[0]


@Fixed.reexpresses(torch.argsort, torch.Tensor.argsort)
def argsort(x: Any, dim: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """The places alone."""
    return _first("argsort", x.detach(), dim, descending)[1]


@Fixed.reexpresses(torch.topk, torch.Tensor.topk)
def topk(x: Any, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """(the ``k`` greatest, or least, in order; their places)."""
    return torch.return_types.topk(_first("topk", x, dim, largest, k))
