"""Choices among FixedPrecisionTensors, and the logic of comparisons.

    where(public, a, b)     each holder by itself; masked_fill, scatter, a[public] = b are such choices, too
    where(x > y, a, b)      b + (x > y) (a - b): one product; a[x > y] = b likewise
    &  |  ^  ~              of comparisons: a b, a + b - a b, a + b - 2 a b, 1 - a
    any, all                whether a sum of comparisons is not 0, or is their number

A comparison is noted to be (`Value.truths`), and stays so through views and copies. To logical_and and its like, as in torch, any other
number is true where it is not 0, which takes a comparison more; & | ^ ~ refuse numbers, as torch does.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from syftlite._torch import aten, below_functions
from syftlite.errors import Misuse
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_linear import is_truth, linear
from syftlite.tensors.fixed_ops import Args, Named, implements, number

Fixed = FixedPrecisionTensor
LEAST = -1e12


def noted(x: Any) -> Any:
    """``x``, all of whose values are 0 or 1, noted to be so."""
    x._value.note_truths()
    return x


def truth(x: Any) -> Any:
    """1 where ``x`` is not 0, else 0: of a comparison, itself; of what is public, bools."""
    if isinstance(x, Fixed):
        return x if x._value.truths else x != 0
    return x != 0


# -- choices


@implements(aten.where.self)
def _where(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    condition, x, y = args
    if not isinstance(condition, Fixed):
        return linear(cls, func, args, kwargs)
    made = y + truth(condition) * (x - y)
    return noted(made) if is_truth(x) and is_truth(y) else made


@implements(aten.scatter.value)
def _scatter(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, dim, index, number = args
    return aten.scatter.src(x, dim, index, x.new_full(index.shape, number))


@Fixed.reexpresses(torch.Tensor.__setitem__)
def _write(x: Any, index: Any, value: Any) -> None:
    """Of a secret mask of no axes, all or nothing; of any other index, torch's."""
    if isinstance(x, Fixed) and isinstance(index, Fixed) and not index.dim() and index._value.truths:
        x.copy_(torch.where(index, value, x))
        return
    with below_functions():
        torch.Tensor.__setitem__(x, index, value)


@implements(aten.index_put.default)
def _put(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, indices, values, *accumulate = args
    (mask, *more) = indices
    if more or not isinstance(mask, Fixed) or any(accumulate):
        return linear(cls, func, args, kwargs)
    if not mask._value.truths or math.prod(values.shape) != 1:
        raise Misuse(f"{func}: a secret mask is a comparison, and what is written there one value: use torch.where(mask, values, x)")
    return torch.where(mask.reshape(*mask.shape, *[1] * (x.dim() - mask.dim())), values, x)


def _fill(function: Any, x: Any, mask: Any, value: Any) -> Any:
    by = number(value)
    if by is not None and not by >= LEAST:
        what = f"{function.__name__}: {by:g} has no fixed precision"
        raise ValueError(f"{what}: fill with a number such as -1e9, which a softmax takes for nothing")
    with below_functions():
        return function(x, mask, value)


@Fixed.reexpresses(torch.masked_fill, torch.Tensor.masked_fill)
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """``value`` where ``mask`` is true."""
    return _fill(torch.masked_fill, x, mask, value)


@Fixed.reexpresses(torch.Tensor.masked_fill_)
def _masked_fill(x: Any, mask: Any, value: Any) -> Any:
    return _fill(torch.Tensor.masked_fill_, x, mask, value)


@Fixed.reexpresses(torch.masked_select, torch.Tensor.masked_select)
def masked_select(x: Any, mask: Any) -> Any:
    """The elements where a public mask is true."""
    if isinstance(mask, Fixed):
        raise NotImplementedError("FixedPrecisionTensor knows masked_select of a public mask: how many there are would tell a secret one")
    x, mask = torch.broadcast_tensors(x, mask)
    return x[mask]


# -- logic


def _both(x: Any, y: Any) -> Any:
    x, y = (x, y) if isinstance(x, Fixed) else (y, x)
    if isinstance(y, torch.Tensor) and not isinstance(y, Fixed):
        return Fixed.of(x._child * y.long(), x.attributes())
    return x * y


def _and(x: Any, y: Any) -> Any:
    return noted(_both(x, y))


def _or(x: Any, y: Any) -> Any:
    return noted(x + y - _both(x, y))


def _xor(x: Any, y: Any) -> Any:
    return noted(x + y - _both(x, y) * 2)


def _not(x: Any) -> Any:
    return noted(1 - x)


def _enter(name: str, combine: Any, *bitwise: Any, written: Any = None) -> None:
    """Register ``combine`` for logical_``name`` of numbers, for functions ``bitwise`` of comparisons alone, and for ``written``, which
    writes to its first operand."""

    def logical(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
        return combine(*map(truth, args))

    implements(getattr(aten, f"logical_{name}").default)(logical)

    def function(*args: Any) -> Any:
        if not all(v._value.truths if isinstance(v, Fixed) else getattr(v, "dtype", None) == torch.bool or type(v) is bool for v in args):
            raise NotImplementedError(
                f"FixedPrecisionTensor knows aten.bitwise_{name} of comparisons, such as x > 0, and not of numbers: use logical_{name}()"
            )
        return combine(*args)

    function.__name__, function.__doc__ = name, f"{name} of comparisons."
    Fixed.reexpresses(*bitwise)(function)
    if written is not None:
        Fixed.reexpresses(written)(lambda x, y: noted(x.copy_(function(x, y))))


_enter("and", _and, torch.bitwise_and, torch.Tensor.bitwise_and, torch.Tensor.__and__, torch.Tensor.__rand__, written=torch.Tensor.__iand__)
_enter("or", _or, torch.bitwise_or, torch.Tensor.bitwise_or, torch.Tensor.__or__, torch.Tensor.__ror__, written=torch.Tensor.__ior__)
_enter("xor", _xor, torch.bitwise_xor, torch.Tensor.bitwise_xor, torch.Tensor.__xor__, torch.Tensor.__rxor__, written=torch.Tensor.__ixor__)
_enter("not", _not, torch.bitwise_not, torch.Tensor.bitwise_not, torch.Tensor.__invert__)


@implements(aten.any.default, aten.any.dim, aten.any.dims)
def _any(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return noted(_counted(*args) != 0)


@implements(aten.all.default, aten.all.dim, aten.all.dims)
def _all(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    total = _counted(*args)
    return noted(total == args[0].numel() / max(total.numel(), 1))


def _counted(x: Fixed, dim: Any = None, keepdim: bool = False) -> Any:
    """How many are true, over some axes or all."""
    dims = list(range(x.dim())) if dim is None else dim
    return truth(x).sum(dims, keepdim=keepdim)
