"""What is made of functions and comparisons that there are: activations, logarithms of other bases, distances.

    relu6 hardtanh hardsigmoid hardswish threshold softshrink hardshrink     bounds: one comparison each
    leaky_relu prelu elu selu celu                                           relu(x) and what is below it
    log2 log10 log1p logit xlogy exp2 expm1 n ** x logsumexp                 of log, exp and log_softmax
    mish logsigmoid gelu(tanh)                                               of softplus, tanh and sigmoid
    cosine_similarity pairwise_distance dist cdist std_mean                  of roots

Gradients are those of their parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from syftlite._torch import aten, axes
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import applied
from syftlite.tensors.fixed_losses import reduced, softplus
from syftlite.tensors.fixed_softmax import log_softmax, within
from syftlite.tensors.fixed_statistics import norm, small, std

Fixed = FixedPrecisionTensor
SELU = 1.0507009873554805, 1.6732632423543772
"""Its scale and its alpha (Klambauer et al., "Self-normalizing neural networks", 2017)."""


def _activation(*functions: Any, operator: Any = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function for torch's ``functions``, which may be told to write to their operand, and for ``operator``."""

    def decorate(own: Callable[..., Any]) -> Callable[..., Any]:
        def function(x: Any, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
            y = own(x, *args, **kwargs)
            return x.copy_(y) if inplace else y

        function.__name__, function.__doc__ = own.__name__, own.__doc__
        Fixed.reexpresses(*functions)(function)
        if operator is not None:
            Fixed.implements(operator)(lambda cls, func, args, kwargs: own(*args))
        return own

    return decorate


# -- within bounds


@_activation(F.hardtanh)
def hardtanh(x: Any, min_val: float = -1.0, max_val: float = 1.0) -> Any:
    """No less than ``min_val``, no more than ``max_val``, whose slope is 0 at both."""
    return max_val - torch.relu(max_val - min_val - torch.relu(x - min_val))


@_activation(F.relu6)
def relu6(x: Any) -> Any:
    """No less than 0, no more than 6."""
    return hardtanh(x, 0, 6)


@_activation(F.hardsigmoid)
def hardsigmoid(x: Any) -> Any:
    """x / 6 + 1 / 2 between 0 and 1."""
    return hardtanh(x + 3, 0, 6) / 6


@_activation(F.hardswish)
def hardswish(x: Any) -> Any:
    """x hardsigmoid(x)."""
    return x * hardsigmoid(x)


@_activation(F.threshold)
def threshold(x: Any, threshold: float, value: float) -> Any:
    """x above ``threshold``, else ``value``."""
    return (x.detach() > threshold) * (x - value) + value


@_activation(F.softshrink)
def softshrink(x: Any, lambd: float = 0.5) -> Any:
    """x, nearer to 0 by ``lambd``, or 0."""
    return x - torch.clamp(x, -lambd, lambd)


@_activation(F.hardshrink, torch.hardshrink)
def hardshrink(x: Any, lambd: float = 0.5) -> Any:
    """x beyond ``lambd`` on either side, else 0."""
    return (torch.abs(x.detach()) > lambd) * x


# -- below 0


@_activation(F.leaky_relu)
def leaky_relu(x: Any, negative_slope: float = 0.01) -> Any:
    """x above 0, x ``negative_slope`` below."""
    return torch.relu(x) * (1 - negative_slope) + x * negative_slope


@_activation(F.prelu, torch.Tensor.prelu)
def prelu(x: Any, weight: Any) -> Any:
    """The same, with a slope for each channel, or one."""
    above = torch.relu(x)
    if not x.dim() or (weight.numel() > 1 and x.dim() > 1):
        weight = weight.view(-1, *[1] * (x.dim() - 2)) if x.dim() else weight.reshape([])
    return above + (x - above) * weight


@_activation(F.elu)
def elu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha (e^x - 1) below, down to -109."""
    above = torch.relu(x)
    return above + (applied("exp", x - above) - 1) * alpha


@_activation(F.selu, torch.selu)
def selu(x: Any) -> Any:
    """elu of an alpha of its own, scaled."""
    return elu(x, SELU[1]) * SELU[0]


@_activation(F.celu, torch.celu)
def celu(x: Any, alpha: float = 1.0) -> Any:
    """x above 0, alpha (e^(x / alpha) - 1) below."""
    return elu(x / alpha) * alpha


# -- of functions


@_activation(F.mish)
def mish(x: Any) -> Any:
    """x tanh(log(1 + e^x)); below -16 it is 0, where a unit of the tanh would be felt."""
    return torch.clamp(x, min=-16) * applied("tanh", softplus(x))


@_activation(F.logsigmoid)
def logsigmoid(x: Any) -> Any:
    """-log(1 + e^-x)."""
    return -softplus(-x)


@_activation(torch.log2, torch.Tensor.log2, operator=aten.log2.default)
def log2(x: Any) -> Any:
    """The logarithm of base 2."""
    return applied("log", x) * (1 / math.log(2))


@_activation(torch.log10, torch.Tensor.log10, operator=aten.log10.default)
def log10(x: Any) -> Any:
    """The logarithm of base 10."""
    return applied("log", x) * (1 / math.log(10))


@_activation(torch.log1p, torch.Tensor.log1p, operator=aten.log1p.default)
def log1p(x: Any) -> Any:
    """log(1 + x)."""
    return applied("log", x + 1)


@_activation(torch.logit, torch.Tensor.logit, torch.special.logit)
def logit(x: Any, eps: Any = None) -> Any:
    """log(x / (1 - x)); of ``eps``, of x between it and 1 - eps."""
    x = x if eps is None else torch.clamp(x, eps, 1 - eps)
    return applied("log", x) - applied("log", 1 - x)


@Fixed.reexpresses(torch.xlogy, torch.Tensor.xlogy, torch.special.xlogy)
def xlogy(x: Any, y: Any) -> Any:
    """x log(y), which is 0 where x is."""
    return x * (applied("log", y) if isinstance(y, Fixed) else torch.where(y == 0, 0.0, torch.log(torch.as_tensor(y))))


@_activation(torch.exp2, torch.Tensor.exp2, operator=aten.exp2.default)
def exp2(x: Any) -> Any:
    """2^x."""
    return applied("exp", x * math.log(2))


@_activation(torch.expm1, torch.Tensor.expm1, operator=aten.expm1.default)
def expm1(x: Any) -> Any:
    """e^x - 1."""
    return applied("exp", x) - 1


@Fixed.reexpresses(torch.Tensor.__rpow__)
def power_of(exponent: Any, base: Any) -> Any:
    """A public number to a secret power."""
    if isinstance(base, torch.Tensor) or not base > 0:
        raise NotImplementedError(f"FixedPrecisionTensor knows pow of public bases above 0, and not of {base}: use exp() of a multiple")
    return applied("exp", exponent * math.log(base))


@Fixed.reexpresses(torch.logsumexp, torch.Tensor.logsumexp)
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """log(sum(e^x)): any score, less its log_softmax. Scores as softmax has them."""
    x = within(x)
    dims = axes(x, dim)
    if not x.dim():
        return x.clone()
    if not math.prod(x.shape[d] for d in dims):
        raise ValueError(f"logsumexp over axes {dims} of shape {tuple(x.shape)}: the sum of no numbers is 0, which has no logarithm")
    rows = x.movedim(dims, list(range(-len(dims), 0))).flatten(-len(dims))
    total = rows.select(-1, 0) - log_softmax(rows, -1).select(-1, 0)
    for d in dims if keepdim else ():
        total = total.unsqueeze(d)
    return total


# -- distances


@Fixed.reexpresses(F.cosine_similarity)
def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """x y / |x| |y|."""
    x1, x2 = torch.broadcast_tensors(x1, x2)
    small("cosine_similarity", eps)
    lengths = [torch.rsqrt((x * x).sum(dim)) for x in (x1, x2)]
    return (x1 * x2).sum(dim) * lengths[0] * lengths[1]


@Fixed.reexpresses(F.pairwise_distance)
def pairwise_distance(x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False) -> Any:
    """The norm of x - y + eps over the last axis."""
    return norm(x1 - x2 + eps, p, -1, keepdim)


@Fixed.reexpresses(F.triplet_margin_loss)
def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2.0, eps: float = 1e-6, swap: bool = False,
    size_average: Any = None, reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """By how much the negative is not farther off than the positive and ``margin``."""
    near, far = pairwise_distance(anchor, positive, p, eps), pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = torch.minimum(far, pairwise_distance(positive, negative, p, eps))
    return reduced(torch.relu(near - far + margin), reduction)


@Fixed.reexpresses(torch.dist, torch.Tensor.dist)
def dist(x: Any, other: Any, p: float = 2.0) -> Any:
    """The norm of x - y."""
    return norm(x - other, p)


@Fixed.reexpresses(torch.cdist)
def cdist(x1: Any, x2: Any, p: float = 2.0, compute_mode: Any = None) -> Any:
    """(..., n, m): the norms of all differences of n rows and m."""
    return norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


@Fixed.reexpresses(torch.std_mean)
def std_mean(x: Any, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *, correction: Any = None) -> Any:
    """(the standard deviation, the mean)."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    over = range(x.dim()) if dim is None else dim
    return std(x, dim, unbiased, keepdim, correction=correction), x.mean(over if isinstance(over, int) else list(over), keepdim=keepdim)
