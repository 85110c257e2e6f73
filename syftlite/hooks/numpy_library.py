"""More of NumPy's library as torch computes it: statistics, linear algebra, and making arrays of arrays.

The rules are as in numpy_rules.py: each names the arguments that it honours, and any other is a TypeError.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from syftlite.hooks.numpy_rules import floating, promoted
from syftlite.hooks.numpy_rules import rule as _rule

# -- statistics


@_rule(np.quantile)
def _quantile(a: Any, q: float, axis: int | None = None, *, method: str = "linear", keepdims: bool = False) -> Any:
    return torch.quantile(floating(a), q, axis, keepdim=keepdims, interpolation=method)


@_rule(np.percentile)
def _percentile(a: Any, q: float, axis: int | None = None, *, method: str = "linear", keepdims: bool = False) -> Any:
    return _quantile(a, q / 100, axis, method=method, keepdims=keepdims)


@_rule(np.median)
def _median(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    return _quantile(a, 0.5, axis, keepdims=keepdims)


@_rule(np.cov)
def _cov(m: Any) -> Any:
    return torch.cov(m.double())


@_rule(np.unique)
def _unique(ar: Any) -> Any:
    return torch.unique(ar)


@_rule(np.bincount)
def _bincount(x: Any, *, minlength: int = 0) -> Any:
    return torch.bincount(x, minlength=minlength)


@_rule(np.count_nonzero)
def _count_nonzero(a: Any, axis: Any = None) -> Any:
    return torch.count_nonzero(a, axis)


@_rule(np.cumprod)
def _cumprod(a: Any, axis: int | None = None) -> Any:
    return torch.cumprod(a.reshape(-1), 0) if axis is None else torch.cumprod(a, axis)


@_rule(np.diff)
def _diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    return torch.diff(a, n, axis)


@_rule(np.round, np.around)
def _round(a: Any, decimals: int = 0) -> Any:
    return torch.round(a, decimals=decimals)


@_rule(np.isclose)
def _isclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Any:
    first, second = promoted([a, b])
    return torch.isclose(first, second, rtol, atol)


@_rule(np.allclose)
def _allclose(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8) -> Any:
    return _isclose(a, b, rtol, atol).all()


@_rule(np.nan_to_num)
def _nan_to_num(x: Any, *, nan: float = 0.0) -> Any:
    return torch.nan_to_num(x, nan)


# -- linear algebra


@_rule(np.einsum)
def _einsum(subscripts: str, *operands: Any) -> Any:
    return torch.einsum(subscripts, *promoted(list(operands)))


@_rule(np.outer)
def _outer(a: Any, b: Any) -> Any:
    return torch.outer(*[x.reshape(-1) for x in promoted([a, b])])


@_rule(np.trace)
def _trace(a: Any) -> Any:
    return torch.diagonal(a).sum()


@_rule(np.diagonal)
def _diagonal(a: Any, offset: int = 0) -> Any:
    return torch.diagonal(a, offset)


@_rule(np.tril)
def _tril(m: Any, k: int = 0) -> Any:
    return torch.tril(m, k)


@_rule(np.triu)
def _triu(m: Any, k: int = 0) -> Any:
    return torch.triu(m, k)


@_rule(np.linalg.inv)
def _inv(a: Any) -> Any:
    return torch.linalg.inv(floating(a))


@_rule(np.linalg.det)
def _det(a: Any) -> Any:
    return torch.linalg.det(floating(a))


@_rule(np.linalg.solve)
def _solve(a: Any, b: Any) -> Any:
    return torch.linalg.solve(*promoted([floating(a), floating(b)]))


# -- arrays of arrays


@_rule(np.vstack)
def _vstack(tup: Sequence[Any]) -> Any:
    return torch.vstack(promoted(list(tup)))


@_rule(np.hstack)
def _hstack(tup: Sequence[Any]) -> Any:
    return torch.hstack(promoted(list(tup)))


@_rule(np.tile)
def _tile(A: Any, reps: Any) -> Any:
    return torch.tile(A, (reps,) if isinstance(reps, int) else tuple(reps))


@_rule(np.repeat)
def _repeat(a: Any, repeats: int, axis: int | None = None) -> Any:
    return torch.repeat_interleave(a.reshape(-1) if axis is None else a, repeats, 0 if axis is None else axis)


@_rule(np.flip)
def _flip(m: Any, axis: Any = None) -> Any:
    return torch.flip(m, tuple(range(m.dim())) if axis is None else (axis,) if isinstance(axis, int) else tuple(axis))


@_rule(np.roll)
def _roll(a: Any, shift: Any, axis: Any = None) -> Any:
    return torch.roll(a, shift) if axis is None else torch.roll(a, shift, axis)


@_rule(np.swapaxes)
def _swapaxes(a: Any, axis1: int, axis2: int) -> Any:
    return a.transpose(axis1, axis2)


@_rule(np.broadcast_to)
def _broadcast_to(array: Any, shape: Any) -> Any:
    return array.expand((shape,) if isinstance(shape, int) else tuple(shape))
