"""Operators of rows of things, such as words or samples: (N, C, L) as convolutions have them, (N, L, D) or (N, H, L, D) as attention.

    conv1d       a convolution of an image of one row; weight (O, C / groups, 1, k)
    matmul       of two inputs, whose first axis is the batch of both
    attention    softmax(q k^T scale) v
    masked_fill  such as scores, of which some are of nothing
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from syftlite.serving.operators import OPERATORS, Ints, Limit, Pair, Quad, operator

NOT_SEEN = -1e9
"""A score of nothing."""
LEAST = -1e4
"""Below which a number that is added to a score hides it."""


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


@operator("bias?", arity=3)
def _attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, *, scale: Limit = None, causal: bool = False, mask: Ints = ()
) -> Tensor:
    """(N, ..., L, D), (N, ..., S, D), (N, ..., S, E) -> (N, ..., L, E). ``scale``: None for 1 / sqrt(D). ``bias`` (..., L, S) is added to
    scores; ``mask``, as many numbers, is 1 for what is seen, and everybody may know it. Both are the same in all rows."""
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    seen = torch.tensor(mask).view(-1, query.shape[-2], key.shape[-2]) == 1 if mask else None
    if bias is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=seen, is_causal=causal, scale=factor)
    scores = query @ key.transpose(-2, -1) * factor + bias
    return (scores if seen is None else scores.masked_fill(~seen, NOT_SEEN)).softmax(-1) @ value


@operator()
def _masked_fill(x: Tensor, *, mask: Ints, shape: Ints, value: float) -> Tensor:
    """x, and ``value`` where ``mask``, of that ``shape`` or one that broadcasts with a row, is 1: all of that everybody may know. Scores of
    `NOT_SEEN` a softmax takes for nothing."""
    return x.masked_fill(torch.tensor(mask).view(shape) == 1, value)
