"""Layers of FixedPrecisionTensors that are sums of products and their roots.

    bilinear                  x W y + b
    embedding_bag             sums, means or maxima of a table's rows
    local_response_norm       x / (k + alpha mean x^2)^beta, over channels near by; beta in quarters
    lp_pool1d, 2d, 3d         (sum x^p)^(1/p) of windows, p = 1 or 2
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import applied, power
from syftlite.tensors.fixed_pools import avg_pool1d, avg_pool2d
from syftlite.tensors.fixed_volumes import avg_pool3d

Fixed = FixedPrecisionTensor


@Fixed.reexpresses(F.bilinear)
def bilinear(x1: Any, x2: Any, weight: Any, bias: Any = None) -> Any:
    """(..., i), (..., j), (o, i, j) -> (..., o)."""
    out, left, right = weight.shape
    if x1.shape[:-1] != x2.shape[:-1] or (x1.shape[-1], x2.shape[-1]) != (left, right):
        raise RuntimeError(f"bilinear: {tuple(x1.shape)} and {tuple(x2.shape)} do not match a weight of {tuple(weight.shape)}")
    rows = (x1 @ weight.permute(1, 0, 2).reshape(left, out * right)).unflatten(-1, (out, right))
    made = (rows @ x2.unsqueeze(-1)).squeeze(-1)
    return made if bias is None else made + bias


@Fixed.reexpresses(F.local_response_norm)
def local_response_norm(x: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Any:
    """x, divided by a power of what channels near by amount to."""
    if beta <= 0 or 4 * beta != int(4 * beta):
        raise NotImplementedError(f"FixedPrecisionTensor knows local_response_norm of a beta in quarters, such as 0.75, and not of {beta}")
    if x.dim() < 3:
        raise ValueError(f"local_response_norm is of (n, channels, ...), and this is {tuple(x.shape)}")
    around = [0] * (2 * x.dim() - 4) + [size // 2, (size - 1) // 2]
    near = F.pad(x * x, around).unfold(1, size, 1).sum(-1)
    inverse = applied("rsqrt", near * (alpha / size) + k)
    quarters = int(4 * beta)
    whole = power(inverse, quarters // 2) if quarters > 1 else None
    half = applied("sqrt", inverse) if quarters % 2 else None
    return x * (half if whole is None else whole if half is None else whole * half)


@Fixed.reexpresses(F.embedding_bag)
def embedding_bag(
    input: Any, weight: Any, offsets: Any = None, max_norm: Any = None, norm_type: float = 2, scale_grad_by_freq: bool = False,
    mode: str = "mean", sparse: bool = False, per_sample_weights: Any = None, include_last_offset: bool = False, padding_idx: Any = None,
) -> Any:  # fmt: skip
    """Sums, means or maxima of rows of ``weight``: of each row of places, or of those from one of the public ``offsets`` to the next."""
    if padding_idx is not None or max_norm is not None or scale_grad_by_freq:
        raise NotImplementedError("FixedPrecisionTensor knows embedding_bag without padding_idx, max_norm and scale_grad_by_freq")
    if mode not in ("sum", "mean", "max") or (input.dim() == 1) != (offsets is not None):
        raise ValueError(f"embedding_bag: mode is sum, mean or max, and offsets= are for places along one axis, and not mode {mode!r}")
    rows = F.embedding(input, weight)
    rows = rows if per_sample_weights is None else rows * per_sample_weights.unsqueeze(-1)
    if offsets is None:
        return _bagged(rows, mode)
    ends = [*offsets.tolist()[: -1 if include_last_offset else None], len(input)]
    if include_last_offset:
        ends[-1] = int(offsets[-1])
    return torch.stack([_bagged(rows[begin:end], mode) for begin, end in itertools.pairwise(ends)])


def _bagged(rows: Any, mode: str) -> Any:
    if not rows.shape[-2]:  # an empty bag is 0
        return rows.sum(-2)
    return rows.sum(-2) if mode == "sum" else rows.mean(-2) if mode == "mean" else rows.amax(-2)


def _pooled(pool: Callable[..., Any], sizes: int) -> Callable[..., Any]:
    def lp_pool(x: Any, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False) -> Any:
        """The p-norm of windows, without absolute values for p = 1, as torch has it."""
        if norm_type not in (1, 2):
            raise NotImplementedError(f"FixedPrecisionTensor knows lp_pool of norms 1 and 2, and not of {norm_type}")
        kernel = [kernel_size] * sizes if isinstance(kernel_size, int) else list(kernel_size)
        count = math.prod(kernel)
        sums = pool(x if norm_type == 1 else x * x, kernel, stride, 0, ceil_mode) * count
        return sums if norm_type == 1 else applied("sqrt", sums)

    return lp_pool


Fixed.reexpresses(F.lp_pool1d)(_pooled(avg_pool1d, 1))
Fixed.reexpresses(F.lp_pool2d)(_pooled(avg_pool2d, 2))
Fixed.reexpresses(F.lp_pool3d)(_pooled(avg_pool3d, 3))
