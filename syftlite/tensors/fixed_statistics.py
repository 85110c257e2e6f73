"""Statistics of FixedPrecisionTensors: variances, deviations, norms, products along an axis. Gradients are those of their parts.

    var = mean of (x - mean)^2       std = sqrt(var)       norm = sqrt(sum of squares)       prod: halves, log2(n) products in a row
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from syftlite._torch import aten
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import applied, divided
from syftlite.tensors.fixed_ops import Args, Named, implements

Fixed = FixedPrecisionTensor


def _axes(x: Any, dim: Any) -> list[int]:
    return list(range(x.dim())) if dim is None or dim == () or dim == [] else [dim] if isinstance(dim, int) else list(dim)


def _correction(unbiased: Any, correction: Any) -> float:
    return float(correction) if correction is not None else float(unbiased is not False)


def _centred(x: Any, dims: list[int]) -> tuple[Any, int]:
    return x - x.mean(dims, keepdim=True), math.prod(x.shape[d] for d in dims)


@Fixed.reexpresses(torch.var, torch.Tensor.var)
def var(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The variance over some axes, or all."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    dims = _axes(x, dim)
    centred, count = _centred(x, dims)
    return (centred * centred).sum(dims, keepdim=keepdim) / (count - _correction(unbiased, correction))


@Fixed.reexpresses(torch.std, torch.Tensor.std)
def std(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """The standard deviation."""
    return applied("sqrt", var(x, dim, unbiased, keepdim, correction=correction))


@Fixed.reexpresses(torch.var_mean)
def var_mean(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """(the variance, the mean)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return var(x, dim, unbiased, keepdim, correction=correction), x.mean(_axes(x, dim), keepdim=keepdim)


@implements(aten.var.correction)
def _var(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return var(*args, **kwargs)


@Fixed.reexpresses(torch.norm, torch.Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm)
def norm(x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False, out: Any = None, dtype: Any = None, *, ord: Any = None) -> Any:
    """The norm of a vector, or along some axes: 1, 2 or infinity; "fro" is 2."""
    p, dims = p if ord is None else ord, _axes(x, dim)
    if p in (2, None, "fro"):
        return applied("sqrt", (x * x).sum(dims, keepdim=keepdim))
    if p == 1:
        return x.abs().sum(dims, keepdim=keepdim)
    if p == math.inf:
        return x.abs().amax(dims, keepdim=keepdim)
    raise NotImplementedError(f"FixedPrecisionTensor knows norms of 1, 2 and infinity, and not of {p}")


@Fixed.reexpresses(F.normalize)
def normalize(x: Any, p: float = 2.0, dim: Any = 1, eps: float = 1e-12, out: Any = None) -> Any:
    """x divided by its norm."""
    if p != 2:
        return divided(x, norm(x, p, dim, keepdim=True))
    return x * applied("rsqrt", (x * x).sum(dim, keepdim=True))


@Fixed.reexpresses(torch.prod, torch.Tensor.prod)
def prod(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The product of all elements, or along one axis."""
    if dim is None or not x.dim():
        return prod(x.reshape(-1), 0)
    if not x.shape[dim]:
        return x.sum(dim, keepdim=keepdim) + 1
    while x.shape[dim] > 1:
        half = x.shape[dim] // 2
        both = x.narrow(dim, 0, half) * x.narrow(dim, half, half)
        x = torch.cat([both, x.narrow(dim, 2 * half, 1)], dim) if x.shape[dim] % 2 else both
    return x if keepdim else x.squeeze(dim)


@implements(aten.prod.default, aten.prod.dim_int)
def _prod(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return prod(*args)


