"""NumPy's functions as torch computes them, with NumPy's dtypes. On tensors: the arrays are `hooks/numpy.py`'s.

    UFUNCS      np.add, np.exp, ...          a torch function each
    FUNCTIONS   np.sum, np.concatenate, ...  a rule each, with the arguments that it honours; any other is a TypeError
                                             (statistics, linear algebra and stacking: numpy_library.py)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def _of_tensors(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """``function``, whose operands must be tensors, for numbers too: such a one takes the array's dtype."""

    def call(*operands: Any) -> torch.Tensor:
        (dtype, *_) = [o.dtype for o in operands if isinstance(o, torch.Tensor)]
        kept = [o if isinstance(o, torch.Tensor) else torch.tensor(o, dtype=None if dtype is torch.bool else dtype) for o in operands]
        return function(*kept)

    return call


UFUNCS: dict[np.ufunc, Callable[..., torch.Tensor]] = {
    np.add: torch.add,
    np.subtract: torch.sub,
    np.multiply: torch.mul,
    np.true_divide: torch.true_divide,
    np.floor_divide: torch.floor_divide,
    np.remainder: torch.remainder,
    np.fmod: torch.fmod,
    np.power: torch.pow,
    np.matmul: torch.matmul,
    np.maximum: _of_tensors(torch.maximum),
    np.minimum: _of_tensors(torch.minimum),
    np.negative: torch.neg,
    np.absolute: torch.abs,
    np.sign: torch.sgn,
    np.exp: torch.exp,
    np.expm1: torch.expm1,
    np.log: torch.log,
    np.log1p: torch.log1p,
    np.log2: torch.log2,
    np.log10: torch.log10,
    np.sqrt: torch.sqrt,
    np.square: torch.square,
    np.reciprocal: lambda x: torch.reciprocal(x) if x.is_floating_point() else torch.div(1, x, rounding_mode="trunc"),
    np.sin: torch.sin,
    np.cos: torch.cos,
    np.tan: torch.tan,
    np.arcsin: torch.asin,
    np.arccos: torch.acos,
    np.arctan: torch.atan,
    np.arctan2: _of_tensors(torch.atan2),
    np.sinh: torch.sinh,
    np.cosh: torch.cosh,
    np.tanh: torch.tanh,
    np.floor: torch.floor,
    np.ceil: torch.ceil,
    np.trunc: torch.trunc,
    np.rint: torch.round,
    np.isnan: torch.isnan,
    np.isinf: torch.isinf,
    np.equal: torch.eq,
    np.not_equal: torch.ne,
    np.less: torch.lt,
    np.less_equal: torch.le,
    np.greater: torch.gt,
    np.greater_equal: torch.ge,
    np.logical_and: _of_tensors(torch.logical_and),
    np.logical_or: _of_tensors(torch.logical_or),
    np.logical_xor: _of_tensors(torch.logical_xor),
    np.logical_not: torch.logical_not,
    np.bitwise_and: torch.bitwise_and,
    np.bitwise_or: torch.bitwise_or,
    np.bitwise_xor: torch.bitwise_xor,
    np.invert: torch.bitwise_not,
}
FLOATS = frozenset(
    f for f in UFUNCS if f.types and all(t.split("->")[1] not in "bhilqBHILQ?" for t in f.types if t.split("->")[1] not in ("O", "m", "M"))
)
"""Those whose result is floating whatever the operands are."""

REDUCTIONS = {np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min, np.logical_and: np.all, np.logical_or: np.any}
"""The function that a ufunc's `reduce` is."""

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""NumPy functions by their rule on pointers. `rule` fills it."""


def rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Make what it decorates the rule of NumPy's ``functions``."""

    def register(given: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = given
        return given

    return register


def dtype_of(dtype: Any) -> torch.dtype:
    """torch's name for NumPy's ``dtype``."""
    return torch.from_numpy(np.empty(0, dtype)).dtype


def floating(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor``, integers as float64: what NumPy computes means and roots in."""
    return tensor if tensor.is_floating_point() or tensor.is_complex() else tensor.double()


def promoted(operands: list[Any]) -> list[Any]:
    """NumPy promotes int32 with float32, and integers with a Python float, to float64; torch is left to do the rest."""
    if any(type(o) is float for o in operands):
        operands = [o.double() if isinstance(o, torch.Tensor) and not (o.is_floating_point() or o.is_complex()) else o for o in operands]
    arrays = [o for o in operands if isinstance(o, torch.Tensor)]
    kinds = {o.dtype for o in arrays}
    if len(kinds) > 1:
        common = np.result_type(*[torch.empty(0, dtype=k).numpy().dtype for k in kinds])
        return [o.to(dtype_of(common)) if isinstance(o, torch.Tensor) else o for o in operands]
    return operands


def _axes(axis: Any) -> Any:
    return None if axis is None else tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)


def _over(tensor: torch.Tensor, function: Callable[..., torch.Tensor], axis: Any, keepdims: bool) -> Any:
    dims = _axes(axis)
    return function(tensor, dim=tuple(range(tensor.dim())) if dims is None else dims, keepdim=keepdims)


@rule(np.sum)
def _sum(a: Any, axis: Any = None, *, keepdims: bool = False, dtype: Any = None) -> Any:
    tensor = a if dtype is None else a.to(dtype_of(dtype))
    return _over(tensor, torch.sum, axis, keepdims)


@rule(np.mean)
def _mean(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _over(floating(a), torch.mean, axis, keepdims)


@rule(np.max, np.amax)
def _max(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _over(a, torch.amax, axis, keepdims)


@rule(np.min, np.amin)
def _min(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _over(a, torch.amin, axis, keepdims)


@rule(np.var)
def _var(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    return torch.var(floating(a), dim=_axes(axis), correction=ddof, keepdim=keepdims)


@rule(np.std)
def _std(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    return torch.std(floating(a), dim=_axes(axis), correction=ddof, keepdim=keepdims)


@rule(np.prod)
def _prod(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    tensor = a
    return torch.prod(tensor) if axis is None else torch.prod(tensor, axis, keepdim=keepdims)


@rule(np.all)
def _all(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    tensor = a
    return torch.all(tensor) if axis is None else torch.all(tensor, axis, keepdim=keepdims)


@rule(np.any)
def _any(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    tensor = a
    return torch.any(tensor) if axis is None else torch.any(tensor, axis, keepdim=keepdims)


@rule(np.argmax)
def _argmax(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    return torch.argmax(a, axis, keepdim=keepdims)


@rule(np.argmin)
def _argmin(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    return torch.argmin(a, axis, keepdim=keepdims)


@rule(np.cumsum)
def _cumsum(a: Any, axis: int | None = None) -> Any:
    tensor = a
    return torch.cumsum(tensor.reshape(-1), 0) if axis is None else torch.cumsum(tensor, axis)


@rule(np.dot)
def _dot(a: Any, b: Any) -> Any:
    return torch.matmul(*promoted([a, b]))


@rule(np.transpose)
def _transpose(a: Any, axes: Sequence[int] | None = None) -> Any:
    tensor = a
    return tensor.permute(*(axes or reversed(range(tensor.dim()))))


@rule(np.reshape)
def _reshape(a: Any, shape: Any) -> Any:
    return a.reshape(shape)


@rule(np.ravel)
def _ravel(a: Any) -> Any:
    return a.reshape(-1)


@rule(np.squeeze)
def _squeeze(a: Any, axis: int | None = None) -> Any:
    return a.squeeze() if axis is None else a.squeeze(axis)


@rule(np.expand_dims)
def _expand_dims(a: Any, axis: int) -> Any:
    return a.unsqueeze(axis)


@rule(np.concatenate)
def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Any:
    return torch.cat(promoted(list(arrays)), axis)


@rule(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    return torch.stack(promoted(list(arrays)), axis)


@rule(np.where)
def _where(condition: Any, x: Any, y: Any) -> Any:
    return torch.where(condition, *promoted([x, y]))


@rule(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    return torch.clamp(a, a_min, a_max)


@rule(np.sort)
def _sort(a: Any, axis: int = -1) -> Any:
    return torch.sort(a, axis)[0]


@rule(np.argsort)
def _argsort(a: Any, axis: int = -1) -> Any:
    return torch.sort(a, axis)[1]


@rule(np.zeros_like)
def _zeros_like(a: Any) -> Any:
    return torch.zeros_like(a)


@rule(np.ones_like)
def _ones_like(a: Any) -> Any:
    return torch.ones_like(a)


@rule(np.copy)
def _copy(a: Any) -> Any:
    return a.clone()


@rule(np.shape)
def _shape(a: Any) -> tuple[int, ...]:
    return tuple(a.shape)


@rule(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    return torch.linalg.vector_norm(floating(x), 2 if ord is None else ord, _axes(axis), keepdims)
