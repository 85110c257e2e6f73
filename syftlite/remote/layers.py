"""Layers and losses that torch runs by kernels that trust indices: by their formulas, as reviewed operators, which check theirs.

    Bilinear             y_o = sum over i, j of a_i w_oij b_j
    EmbeddingBag         rows of a table, summed, averaged or compared by bag
    RReLU                a random slope below zero
    MaxUnpool            values written where a pool had found them
    AdaptiveAvgPool      to one point, where channels come last
    affine_grid          an affine map of the points of a grid
    MultiMarginLoss      sum over c != y of max(0, margin - x_y + x_c)^p / C
    MultiLabelMarginLoss sum over labels y and classes c that are none of max(0, 1 - x_y + x_c) / C
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from syftlite._torch import aten
from syftlite.remote.rules import at_worker, first_remote, formula_of, rule_of

# -- products


@formula_of(aten._trilinear.default)
def _trilinear(
    a: torch.Tensor, b: torch.Tensor, c: torch.Tensor, expand_a: Sequence[int], expand_b: Sequence[int], expand_c: Sequence[int],
    summed: Sequence[int], unroll_dim: int = 1,
) -> torch.Tensor:  # fmt: skip
    dims = range(a.dim() + len(expand_a))
    names = ["".join(chr(97 + d) for d in dims if d not in expanded) for expanded in (expand_a, expand_b, expand_c)]
    kept = "".join(chr(97 + d) for d in dims if d not in summed)
    return torch.einsum(f"{','.join(names)}->{kept}", a, b, c)


# -- tables


@rule_of(aten.embedding_bag.default, aten.embedding_bag.padding_idx)
def _embedding_bag(
    func: Any, weight: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, scale_grad_by_freq: bool = False, mode: int = 0,
    sparse: bool = False, per_sample_weights: torch.Tensor | None = None, include_last_offset: bool = False, padding_idx: int | None = None,
) -> tuple[torch.Tensor, ...]:  # fmt: skip
    """``mode``: 0 sum, 1 mean, 2 max. The rows of bag i are those from offsets[i] up to the next bag's."""
    if indices.dim() != 1 or offsets.dim() != 1:
        raise RuntimeError("embedding_bag takes vectors of indices and of offsets")
    remote = first_remote((weight, indices))
    offsets = offsets if remote is None else at_worker(offsets, remote)
    starts = offsets[:-1] if include_last_offset else offsets
    bags = torch.searchsorted(starts, starts.new_ones(indices.shape[0]).cumsum(0).to(starts.dtype) - 1, right=True) - 1
    if padding_idx is not None:
        padding_idx %= weight.shape[0]
    rows = F.embedding(indices, weight, padding_idx, scale_grad_by_freq=scale_grad_by_freq, sparse=sparse)
    counted = torch.ones_like(indices, dtype=torch.bool) if padding_idx is None else indices != padding_idx
    sizes = starts.new_zeros(starts.shape[0]).index_add(0, bags, counted.to(starts.dtype))
    shape = (starts.shape[0], weight.shape[1])
    if mode == 2:
        lowest = rows.masked_fill(counted.logical_not().unsqueeze(1), -math.inf)
        most = rows.new_zeros(shape).scatter_reduce(0, bags.unsqueeze(1).expand_as(rows), lowest, "amax", include_self=False)
        return torch.where(sizes.unsqueeze(1) > 0, most, 0.0), bags, sizes, bags
    factors = counted.to(rows.dtype)
    if per_sample_weights is not None:
        factors = factors * per_sample_weights
    out = rows.new_zeros(shape).index_add(0, bags, rows * factors.unsqueeze(1))
    if mode == 1:
        out = out / sizes.clamp_min(1).unsqueeze(1)
    return out, bags, sizes, bags


@formula_of(aten.max_unpool2d.default, aten.max_unpool3d.default)
def _unpool(
    x: torch.Tensor, indices: torch.Tensor, output_size: Sequence[int], stride: Any = None, padding: Any = None
) -> torch.Tensor:  # fmt: skip
    if x.shape != indices.shape:
        raise RuntimeError(f"Expected shape of indices to be that of the input ({list(x.shape)}), got {list(indices.shape)}")
    lead = x.shape[: -len(output_size)]
    plane = x.new_zeros((*lead, math.prod(output_size)))
    return plane.scatter(-1, indices.flatten(len(lead)), x.flatten(len(lead))).view(*lead, *output_size)


# -- pools


@rule_of(aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool3d.default)
def _adaptive_pool(func: Any, x: torch.Tensor, output_size: Sequence[int]) -> torch.Tensor:
    """To one point: where channels come last, torch would change the strides of a mean."""
    last = torch.channels_last if func is aten.adaptive_avg_pool2d.default else torch.channels_last_3d
    lies_so = x.dim() == len(output_size) + 2 and x.is_contiguous(memory_format=last) and not x.is_contiguous()
    pooled: torch.Tensor
    if not lies_so or set(output_size) != {1}:
        pooled = func.decompose(x, output_size)
    else:
        kernel = aten._adaptive_avg_pool2d.default if func is aten.adaptive_avg_pool2d.default else aten._adaptive_avg_pool3d.default
        pooled = kernel(x, output_size)
    return pooled


# -- grids


def _base(like: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    """Homogeneous coordinates (points, dims + 1) of a grid's points, each axis from -1 to 1, the last axis first."""
    axes = []
    for position, steps in enumerate(size):
        axis = like.new_ones(steps).cumsum(0) - 1
        axis = axis * (2 / (steps - 1)) - 1 if align_corners and steps > 1 else axis * 0.0 if align_corners else (axis * 2 + 1) / steps - 1
        axes.append(axis.view([-1 if d == position else 1 for d in range(len(size))]).expand(list(size)))
    return torch.stack([*reversed(axes), like.new_ones(list(size))], -1).view(-1, len(size) + 1)


@formula_of(aten.affine_grid_generator.default)
def _affine_grid(theta: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    count, _, *spatial = size
    points = _base(theta, spatial, align_corners) @ theta.transpose(1, 2)
    return points.view(count, *spatial, len(spatial))


@rule_of(aten.affine_grid_generator_backward.default)
def _affine_grid_backward(func: Any, grad: torch.Tensor, size: Sequence[int], align_corners: bool) -> torch.Tensor:
    count, _, *spatial = size
    return (_base(grad, spatial, align_corners).mT @ grad.reshape(count, -1, len(spatial))).transpose(1, 2)


# -- noise


def _slope(lower: Any, upper: Any) -> float:
    return float(lower + upper) / 2


@formula_of(aten.rrelu_with_noise.default)
def _rrelu(
    x: torch.Tensor, noise: torch.Tensor, lower: Any = 0.125, upper: Any = 1 / 3, training: bool = False, generator: Any = None
) -> torch.Tensor:  # fmt: skip
    if not training:
        return F.leaky_relu(x, _slope(lower, upper))
    noise.copy_(torch.where(x <= 0, torch.empty_like(x).uniform_(lower, upper), 1.0))
    return x * noise


@formula_of(aten.rrelu_with_noise_backward.default)
def _rrelu_backward(
    grad: torch.Tensor, x: torch.Tensor, noise: torch.Tensor, lower: Any, upper: Any, training: bool, self_is_result: bool
) -> torch.Tensor:  # fmt: skip
    if training and upper - lower > 1e-6:
        return grad * noise
    slopes: torch.Tensor = aten.leaky_relu_backward(grad, x, _slope(lower, upper), self_is_result)
    return slopes


# -- margins


def _reduced(each: torch.Tensor, reduction: int) -> torch.Tensor:
    return each.mean() if reduction == 1 else each.sum() if reduction == 2 else each


def _spread(grad: torch.Tensor, each: torch.Tensor, reduction: int) -> torch.Tensor:
    """The gradient of each sample's loss, from that of the reduced one."""
    grad = grad.expand(each.shape[:1])
    return grad / max(each.shape[0], 1) if reduction == 1 else grad


def _margins(
    x: torch.Tensor, target: torch.Tensor, p: Any, margin: Any, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(n, c): margin - x_y + x_c where it is positive and c is not y; and the targets (n, 1), and the factors (n, 1) of their classes."""
    if p not in (1, 2):
        raise RuntimeError("only p == 1 and p == 2 supported")
    rows, target = (x.unsqueeze(0), target.reshape(1, 1)) if x.dim() < 2 else (x, target.unsqueeze(1))
    excess = (margin - rows.gather(1, target) + rows).clamp_min(0).scatter(1, target, 0.0)
    factors = rows.new_ones(target.shape) if weight is None else weight[target]
    return excess, target, factors / rows.shape[1]


@formula_of(aten.multi_margin_loss.default)
def _multi_margin(
    x: torch.Tensor, target: torch.Tensor, p: Any = 1, margin: Any = 1, weight: torch.Tensor | None = None, reduction: int = 1
) -> torch.Tensor:
    excess, _, factors = _margins(x, target, p, margin, weight)
    each = (excess**p * factors).sum(1)
    return _reduced(each, reduction) if x.dim() > 1 else each.squeeze(0)


@formula_of(aten.multi_margin_loss_backward.default)
def _multi_margin_backward(
    grad: torch.Tensor, x: torch.Tensor, target: torch.Tensor, p: Any, margin: Any, weight: torch.Tensor | None = None, reduction: int = 1
) -> torch.Tensor:
    excess, target, factors = _margins(x, target, p, margin, weight)
    slopes = ((excess > 0).to(x.dtype) if p == 1 else excess * 2) * factors
    slopes = slopes.scatter(1, target, -slopes.sum(1, keepdim=True)) * _spread(grad, slopes, reduction).unsqueeze(1)
    return slopes.view(x.shape)


def _labels(target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, c) targets that end at the first -1: which of them count, with 0 for the rest, and (n, c) which classes are among them."""
    counted = (target >= 0).cumprod(1).bool()
    target = torch.where(counted, target, 0)
    present = target.new_zeros((target.shape[0], target.shape[1])).scatter_add(1, target, counted.to(target.dtype)) > 0
    return counted, present


def _label_excess(x: torch.Tensor, target: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """(n, labels, c): 1 - x_y + x_c where it is positive, y a label and c none."""
    counted, _ = _labels(target)
    excess = (1 - x.gather(1, torch.where(counted, target, 0)).unsqueeze(2) + x.unsqueeze(1)).clamp_min(0)
    return excess * (counted.unsqueeze(2) & present.logical_not().unsqueeze(1)).to(x.dtype)


@formula_of(aten.multilabel_margin_loss_forward.default)
def _multilabel_margin(x: torch.Tensor, target: torch.Tensor, reduction: int) -> tuple[torch.Tensor, torch.Tensor]:
    if x.shape != target.shape or not 0 < x.dim() < 3:
        raise RuntimeError(f"inconsistent target size {list(target.shape)} for an input of {list(x.shape)}")
    rows, labels = x.view(-1, x.shape[-1]), target.view(-1, x.shape[-1])
    _, present = _labels(labels)
    each = _label_excess(rows, labels, present).sum((1, 2)) / rows.shape[1]
    return _reduced(each, reduction) if x.dim() > 1 else each.squeeze(0), present.to(x.dtype).view(target.shape)


@formula_of(aten.multilabel_margin_loss_backward.default)
def _multilabel_margin_backward(
    grad: torch.Tensor, x: torch.Tensor, target: torch.Tensor, reduction: int, is_target: torch.Tensor
) -> torch.Tensor:
    rows, labels = x.view(-1, x.shape[-1]), target.view(-1, x.shape[-1])
    counted, present = _labels(labels)
    slopes = (_label_excess(rows, labels, present) > 0).to(x.dtype) / rows.shape[1]
    each = slopes.sum(1).scatter_add(1, torch.where(counted, labels, 0), -slopes.sum(2))
    return (each * _spread(grad, each, reduction).unsqueeze(1)).view(x.shape)
