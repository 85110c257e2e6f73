"""Operators of rows of things, such as words or samples: (N, C, L) as convolutions have them, (N, L, D) or (N, H, L, D) as attention.

    conv1d       a convolution of an image of one row; weight (O, C / groups, 1, k)
    matmul       of two inputs, whose first axis is the batch of both
    attention    softmax(q k^T scale) v
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from syftlite.serving.operators import OPERATORS, Limit, Pair, Quad, operator


@operator("weight", "bias?")
def _conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Quad = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """(N, C, L) -> (N, O, L'); arguments are those of conv2d."""
    image = x.unsqueeze(2)
    return OPERATORS["conv2d"].function(
        image, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    ).squeeze(2)


@operator(arity=2)
def _matmul(x: Tensor, y: Tensor) -> Tensor:
    """(N, ..., a, b) and (N, ..., b, c) -> (N, ..., a, c)."""
    return x @ y


@operator(arity=3)
def _attention(query: Tensor, key: Tensor, value: Tensor, *, scale: Limit = None, causal: bool = False) -> Tensor:
    """(N, ..., L, D), (N, ..., S, D) and (N, ..., S, E) -> (N, ..., L, E). ``scale``: None for 1 / sqrt(D)."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    return F.scaled_dot_product_attention(query, key, value, is_causal=causal, scale=factor)
