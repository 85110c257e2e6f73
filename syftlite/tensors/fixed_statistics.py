"""Statistics of FixedPrecisionTensors: variances, deviations, norms, products along an axis. Gradients are those of their parts.

    var = mean of (x - mean)^2       std = sqrt(var)       norm = sqrt(sum of squares)       prod: halves, log2(n) products in a row
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from syftlite._torch import aten, axes
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import applied, divided
from syftlite.tensors.fixed_ops import Args, Named, implements

Fixed = FixedPrecisionTensor
EPS = 1e-6
"""Below every norm that a root is right for."""


def _correction(unbiased: Any, correction: Any) -> float:
    return float(correction) if correction is not None else float(unbiased is not False)


def _centred(x: Any, dims: list[int]) -> tuple[Any, int]:
    return x - x.mean(dims, keepdim=True), math.prod(x.shape[d] for d in dims)


@Fixed.reexpresses(torch.var, torch.Tensor.var)
def var(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The variance over some axes, or all."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = axes(x, dim)
    centred, count = _centred(x, dims)
    left = count - _correction(unbiased, correction)
    if not left > 0:
        raise ValueError(f"the variance of {count} elements of shape {tuple(x.shape)} has {left:g} degrees of freedom: say correction=0")
    return (centred * centred).sum(dims, keepdim=keepdim) / left


@Fixed.reexpresses(torch.std, torch.Tensor.std)
def std(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The standard deviation."""
    return applied("sqrt", var(x, dim, unbiased, keepdim, correction=correction))


@Fixed.reexpresses(torch.var_mean)
def var_mean(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """(the variance, the mean)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return var(x, dim, unbiased, keepdim, correction=correction), x.mean(axes(x, dim), keepdim=keepdim)


@implements(aten.var.correction)
def _var(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return var(*args, **kwargs)


@Fixed.reexpresses(torch.norm, torch.Tensor.norm)
def norm(x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The norm of a vector, or along some axes: 1, 2 or infinity; "fro" is 2."""
    dims = axes(x, dim)
    if p in (2, None, "fro"):
        return applied("sqrt", (x * x).sum(dims, keepdim=keepdim))
    if p == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    if p == math.inf:
        return x.abs().amax(dims, keepdim=keepdim)
    raise NotImplementedError(f"FixedPrecisionTensor knows norms of 1, 2 and infinity, and not of {p}")


@Fixed.reexpresses(torch.linalg.vector_norm)
def _vector_norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    return norm(x, ord, dim, keepdim)


@Fixed.reexpresses(torch.linalg.matrix_norm)
def matrix_norm(x: Any, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None) -> Any:
    """The norm of matrices: "fro"; 1 and -1, of the greatest and the least column; infinity and its negative, of rows."""
    axes(x, dim)
    rows, columns = dims = [d % x.dim() for d in dim]
    if ord == "fro":
        return norm(x, 2, dims, keepdim)
    if ord not in (1, -1, math.inf, -math.inf):
        raise NotImplementedError(
            f"FixedPrecisionTensor knows matrix norms of 'fro', 1, -1 and the infinities, and not of {ord!r}, which takes singular values: "
            "decrypt() the matrix if it may be known"
        )
    summed, over = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = x.abs().sum(summed, keepdim=True)
    found = sums.amax(over, keepdim=True) if ord > 0 else sums.amin(over, keepdim=True)
    return found if keepdim else found.squeeze(dims)


@Fixed.reexpresses(torch.linalg.norm)
def _linalg_norm(x: Any, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if ord is not None and dim is None and x.dim() > 2:
        raise RuntimeError(f"linalg.norm: ord={ord} without dim is of a vector or a matrix, and this is {tuple(x.shape)}: say dim=")
    dims = axes(x, dim)
    if len(dims) != 2 or (ord is None and dim is None):
        return norm(x, 2 if ord is None else ord, dims, keepdim)
    return matrix_norm(x, "fro" if ord is None else ord, dims if dim is None else dim, keepdim)


def small(name: str, eps: float) -> None:
    """Raises NotImplementedError for an ``eps`` that would be felt."""
    if not eps <= EPS:
        raise NotImplementedError(f"FixedPrecisionTensor knows {name} of an eps up to {EPS}, which no norm here is below, and not of {eps}")


@Fixed.reexpresses(F.normalize)
def normalize(x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12) -> Any:
    """x divided by its norm."""
    small("normalize", eps)
    if p != 2:
        return divided(x, norm(x, p, dim, keepdim=True))
    return x * applied("rsqrt", (x * x).sum(dim, keepdim=True))


@Fixed.reexpresses(torch.prod, torch.Tensor.prod)
def prod(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The product of all elements, or along one axis."""
    axes(x, dim)
    if dim is None or not x.dim():
        return prod(x.reshape(-1), 0)
    if not x.shape[dim]:
        return x.sum(dim, keepdim=keepdim) + 1
    alone = x.shape[dim] == 1
    while x.shape[dim] > 1:
        half = x.shape[dim] // 2
        both = x.narrow(dim, 0, half) * x.narrow(dim, half, half)
        x = torch.cat([both, x.narrow(dim, 2 * half, 1)], dim) if x.shape[dim] % 2 else both
    x = x if keepdim else x.squeeze(dim)
    return x.clone() if alone else x


@implements(aten.prod.default, aten.prod.dim_int)
def _prod(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return prod(*args)
