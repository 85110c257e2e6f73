"""Norms on FixedPrecisionTensors: over a batch, a layer, groups; and batch norms as they are once trained.

    in training, and of layers     y = (x - mean) / sqrt(var + eps):  one rsqrt for all of a norm's elements, one product
    a trained batch norm           y = x * s + t        s = weight / sqrt(running_var + eps),  t = bias - running_mean * s

A trained one needs no root: `fix_precision` of a module computes 1 / sqrt(running_var + eps) where the variance still is floats, and keeps
it with it (`Deviation`); after secret training it is taken of the secret variance. s and t are computed once for a model. Public
statistics stay public.

The way back (Ioffe & Szegedy, "Batch normalization", 2015, section 3), where g is y's gradient and every mean is over the norm's elements:

    x's gradient = (g - mean g - y mean (g y)) / sqrt(var + eps)
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from syftlite._torch import below_functions
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import computed
from syftlite.tensors.fixed_gradients import differentiated_once
from syftlite.tensors.fixed_memory import held
from syftlite.tensors.fixed_nn import needs_history

Fixed = FixedPrecisionTensor


class Deviation(NamedTuple):
    """1 / sqrt(var + eps) of a fixed-precision ``var``, computed from the floats; ``writes``: of ``var``, when that was."""

    inverse: Fixed
    eps: float
    writes: int


def deviation(module: nn.Module) -> dict[int, tuple[torch.Tensor, float]]:
    """By the id of each running variance of ``module`` that is still floats: 1 / sqrt(var + eps), and eps."""
    found: dict[int, tuple[torch.Tensor, float]] = {}
    for part in module.modules():
        variance, eps = getattr(part, "running_var", None), getattr(part, "eps", None)
        if isinstance(variance, torch.Tensor) and not isinstance(variance, Fixed) and isinstance(eps, float):
            found[id(variance)] = (variance.detach() + eps).rsqrt(), eps
    return found


def keep(variance: Fixed, inverse: Fixed, eps: float) -> Fixed:
    """``variance``, with what was computed from its floats."""
    variance.__dict__["_deviation"] = Deviation(inverse, eps, variance._memory.writes)
    return variance


def kept(variance: Any) -> Deviation | None:
    """What was kept with ``variance``, if it was not written to since."""
    found: Deviation | None = getattr(variance, "__dict__", {}).get("_deviation")
    return found if found is not None and found.writes == variance._memory.writes else None


def _inverse(variance: Any, eps: float) -> Any:
    if not isinstance(variance, Fixed):
        return (variance + eps).rsqrt()
    found = kept(variance)
    return _rsqrt(variance + eps) if found is None or found.eps != eps else found.inverse


def _rsqrt(x: Any) -> Any:
    return computed("rsqrt", x)[0]


def _version(tensor: Any) -> Any:
    return (id(tensor), tensor._memory.writes if isinstance(tensor, Fixed) else getattr(tensor, "_version", 0))


def _folded(mean: Any, variance: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """(s, t), kept with the variance until one of the four is written to."""
    version = (eps, *map(_version, (mean, variance, weight, bias)))
    history = torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in (weight, bias))
    known = getattr(variance, "__dict__", {}).get("_folded")
    if not history and known is not None and known[0] == version:
        folded: tuple[Any, Any] = known[1]
        return folded
    inverse = _inverse(variance, eps)
    by = inverse if weight is None else weight * inverse
    shift = -mean * by if bias is None else bias - mean * by
    if isinstance(by, Fixed):
        by._child  # noqa: B018  divided once, here, and not with each batch
    if isinstance(shift, Fixed):
        shift._child  # noqa: B018
    if not history and isinstance(variance, Fixed):
        variance.__dict__["_folded"] = (version, (by, shift))
    return by, shift


# -- by the elements themselves


@differentiated_once("a layer, group or batch norm")
class _Normed(torch.autograd.Function):
    """(y, mean, variance); the statistics are without gradients."""

    @staticmethod
    def forward(ctx: Any, x: Any, dims: list[int], eps: float) -> Any:
        y, mean, variance, inverse = _norm(x, dims, eps)
        ctx.y, ctx.inverse, ctx.dims = held(y), inverse, dims
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        g, y, dims = grads[0], ctx.y, ctx.dims
        centred = g - g.mean(dims, keepdim=True) - y * (g * y).mean(dims, keepdim=True)
        return centred * ctx.inverse, None, None


def _norm(x: Any, dims: list[int], eps: float) -> Any:
    mean = x.mean(dims, keepdim=True)
    centred = x - mean
    variance = (centred * centred).mean(dims, keepdim=True)
    inverse = _rsqrt(variance + eps)
    return centred * inverse, mean, variance, inverse


def normed(x: Any, dims: list[int], eps: float) -> Any:
    """((x - mean) / sqrt(variance + eps), mean, variance) over ``dims``."""
    return _Normed.apply(x, dims, eps) if needs_history(x) else _norm(x, dims, eps)[:3]  # type: ignore[no-untyped-call]


def _affine(y: Any, weight: Any, bias: Any, shape: list[int]) -> Any:
    y = y if weight is None else y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


def _follow(running: Any, new: Any, momentum: float) -> None:
    """running = running (1 - momentum) + new momentum, in place."""
    if running is not None:
        with torch.no_grad():
            running += (new.detach() - running) * momentum


def _unbiased(variance: Any, count: int) -> Any:
    return variance * (count / max(count - 1, 1))


@Fixed.reexpresses(F.layer_norm)
def layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Over the last axes."""
    shape = list(normalized_shape)
    return _affine(normed(x, list(range(-len(shape), 0)), eps)[0], weight, bias, shape)


@Fixed.reexpresses(torch.layer_norm)
def _layer_norm(x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enable: bool = True) -> Any:
    return layer_norm(x, normalized_shape, weight, bias, eps)


@Fixed.reexpresses(F.group_norm)
def group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    """Over groups of the channels of (N, C, ...)."""
    y = normed(x.reshape(x.shape[0], num_groups, -1), [2], eps)[0].reshape(x.shape)
    return _affine(y, weight, bias, [1, -1] + [1] * (x.dim() - 2))


@Fixed.reexpresses(torch.group_norm)
def _group_norm(x: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, cudnn_enabled: bool = True) -> Any:
    return group_norm(x, num_groups, weight, bias, eps)


@Fixed.reexpresses(F.batch_norm)
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """A batch norm of (N, C, ...): by the batch's statistics, which the running ones then follow, or by the running ones."""
    shape = [1, -1] + [1] * (x.dim() - 2)
    if training or running_mean is None or running_var is None:
        dims = [d for d in range(x.dim()) if d != 1]
        y, mean, variance = normed(x, dims, eps)
        _follow(running_mean, mean.reshape(-1), momentum)
        _follow(running_var, _unbiased(variance.reshape(-1), x.numel() // x.shape[1]), momentum)
        return _affine(y, weight, bias, shape)
    if not any(isinstance(v, Fixed) for v in (x, running_mean, running_var, weight, bias)):
        with below_functions():
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    by, shift = _folded(running_mean, running_var, weight, bias, eps)
    return x * by.view(shape) + shift.view(shape)


@Fixed.reexpresses(torch.batch_norm)
def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float, cudnn: bool) -> Any:
    return batch_norm(x, mean, variance, weight, bias, training, momentum, eps)


@Fixed.reexpresses(F.instance_norm)
def instance_norm(
    x: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None, bias: Any = None, use_input_stats: bool = True,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """A norm of each channel of each of (N, C, ...): by its own statistics, which the running ones then follow, or by the running ones."""
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    count = math.prod(x.shape[2:])
    if count < 2:
        raise ValueError(f"instance_norm of shape {tuple(x.shape)}: a channel has {count} elements, and needs more than one")
    y, mean, variance = normed(x, list(range(2, x.dim())), eps)
    _follow(running_mean, mean.mean(0).reshape(-1), momentum)
    _follow(running_var, _unbiased(variance.mean(0).reshape(-1), count), momentum)
    return _affine(y, weight, bias, [1, -1] + [1] * (x.dim() - 2))
