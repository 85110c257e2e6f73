"""Functions that a node of a graph may apply, as operators.py has others.

    softmax sigmoid tanh exp ...          `client`: where they come last they are the asker's, who does them for nothing
    elu silu gelu power ...               never the asker's
    layer_norm group_norm rms_norm        of the data's own statistics
    prelu                                 with a weight

What they are right for on shares, and how exact they are: docs/encrypted.md.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from syftlite.serving.operators import operator


@operator(client=True)
def _softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.softmax(axis)


@operator(client=True)
def _log_softmax(x: Tensor, *, axis: int = -1) -> Tensor:
    return x.log_softmax(axis)


@operator(client=True)
def _sigmoid(x: Tensor) -> Tensor:
    return x.sigmoid()


@operator(client=True)
def _tanh(x: Tensor) -> Tensor:
    return x.tanh()


@operator(client=True)
def _softplus(x: Tensor) -> Tensor:
    return F.softplus(x)


@operator(client=True)
def _exp(x: Tensor) -> Tensor:
    return x.exp()


@operator()
def _elu(x: Tensor, *, alpha: float = 1.0) -> Tensor:
    """x where it is positive, alpha (e^x - 1) elsewhere."""
    positive = F.relu(x)
    return torch.add(positive, ((x - positive).exp() - 1) * alpha)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
"""Klambauer, Unterthiner, Mayr & Hochreiter, "Self-normalizing neural networks", 2017, section 2."""


@operator()
def _selu(x: Tensor) -> Tensor:
    return torch.mul(_elu(x, alpha=SELU_ALPHA), SELU_SCALE)


@operator()
def _silu(x: Tensor) -> Tensor:
    return F.silu(x)


@operator()
def _gelu(x: Tensor, *, approximate: bool = False) -> Tensor:
    """x Phi(x). ``approximate``: x (1 + tanh u) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), which is x sigmoid(2 u)."""
    if not approximate:
        return F.gelu(x)
    argument = x * (x * x * 0.044715 + 1) * (2 * math.sqrt(2 / math.pi))
    return torch.mul(x, argument.sigmoid())


# -- of ordinary numbers


@operator()
def _power(x: Tensor, *, exponent: float) -> Tensor:
    """x to a whole power, or to a half of one."""
    return x ** (int(exponent) if exponent == int(exponent) else exponent)


@operator("slope")
def _prelu(x: Tensor, slope: Tensor) -> Tensor:
    """x where it is positive, slope * x elsewhere: one for all, or one for each place along the first axis of a row."""
    return F.prelu(x, slope)


# -- norms


@operator("scale?", "shift?")
def _layer_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, axes: int = 1, eps: float) -> Tensor:
    """Over the last ``axes`` axes, whose shape scale and shift have."""
    return F.layer_norm(x, x.shape[x.dim() - axes :], scale, shift, eps)


@operator("scale?", "shift?")
def _group_norm(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, groups: int, eps: float) -> Tensor:
    """Over groups of the channels of (N, C, ...), each with a scale and a shift."""
    return F.group_norm(x, groups, scale, shift, eps)


@operator("scale?")
def _rms_norm(x: Tensor, scale: Tensor | None = None, *, axes: int = 1, eps: float) -> Tensor:
    """x / sqrt(mean(x^2) + eps) over the last ``axes`` axes, whose shape the scale has."""
    squares = (x * x).mean(list(range(-axes, 0)), keepdim=True)
    y = x * (squares + eps).rsqrt()
    return y if scale is None else y * scale
