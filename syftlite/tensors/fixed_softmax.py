"""softmax and what is made with it: attention, and the rows of a table that a secret index chooses.

    softmax, log_softmax          one kernel, over any axis; the gradient from the value
    scaled_dot_product_attention  softmax(q k^T / sqrt(d)) v, with public masks
    embedding, one_hot            a secret index becomes a one-hot vector in one round, and chooses by a product

Losses: fixed_losses.py.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from syftlite._torch import aten, axes
from syftlite.errors import Misuse
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import Form
from syftlite.tensors.fixed_gradients import differentiated_once, through
from syftlite.tensors.fixed_masks import masked_places
from syftlite.tensors.fixed_memory import held
from syftlite.tensors.fixed_nn import needs_history
from syftlite.tensors.fixed_ops import Args, Named, implements

Fixed = FixedPrecisionTensor
HIDDEN = 240.0
"""What a masked score is set below 0, and below all others: those between -220 and 240 stay in softmax's range."""


def normalised(x: Fixed, dim: int, soft: bool, log: bool) -> tuple[Fixed, ...]:
    """(softmax, its logarithm) over one axis: those that are wanted, without history."""
    if not x.dim():  # a single score is all there is
        row: Any = x.unsqueeze(0)
        whole: Any = normalised(row, 0, soft, log)
        return tuple(y.squeeze(0) for y in whole)
    child, form = x._child, Form.of(x.scale)
    found = arithmetic(child).softmax(form.enter(child), form.f, dim, soft, log)
    return tuple(Fixed.of(form.leave(y), x.attributes()) for y in found)


@differentiated_once("softmax")
class _Softmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Fixed, dim: int) -> Fixed:
        (y,) = normalised(x, dim, True, False)
        ctx.y, ctx.dim = held(y), dim
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _softmax_gradient(grads[0], ctx.y, ctx.dim), None


@differentiated_once("log_softmax")
class _LogSoftmax(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Fixed, dim: int) -> Fixed:
        soft, log = normalised(x, dim, True, True)
        ctx.soft, ctx.dim = soft, dim
        return log

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0] - ctx.soft * grads[0].sum(ctx.dim, keepdim=True), None


def _softmax_gradient(grad: Any, y: Any, dim: int) -> Any:
    weighted = grad * y
    return weighted - y * weighted.sum(dim, keepdim=True)


@Fixed.reexpresses(F.softmax, torch.softmax, torch.Tensor.softmax)
def softmax(x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """softmax over one axis."""
    x, dim = within(x), _axis(x, dim)
    return _Softmax.apply(x, dim) if needs_history(x) else normalised(x, dim, True, False)[0]  # type: ignore[no-untyped-call]


@Fixed.reexpresses(F.log_softmax, torch.log_softmax, torch.Tensor.log_softmax)
def log_softmax(x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
    """The logarithm of softmax."""
    given, x, dim = x, within(x), _axis(x, dim)
    log = _LogSoftmax.apply(x, dim) if needs_history(x) else normalised(x, dim, False, True)[0]  # type: ignore[no-untyped-call]
    places = masked_places(given)
    return log if places is None else log + torch.where(places, given + HIDDEN, 0.0)  # as far below as it was


def within(x: Any) -> Any:
    """``x``, what was masked by a number far below set to one within softmax's range."""
    mask = masked_places(x)
    return x if mask is None else masked(x, mask.logical_not())


def _axis(x: Any, dim: Any) -> int:
    if dim is None:
        raise ValueError("softmax needs to know the axis: dim=-1 for the last")
    axes(x, dim)
    return int(dim)


@implements(aten._softmax.default)
def _soft(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return normalised(args[0], args[1], True, False)[0]


@implements(aten._log_softmax.default)
def _log_soft(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return normalised(args[0], args[1], False, True)[0]


# -- attention


@Fixed.reexpresses(F.scaled_dot_product_attention)
def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None,
    enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """softmax(q k^T scale) v of (..., length, features); masks are public. Where all is masked, it is 0."""
    if enable_gqa:
        raise NotImplementedError("FixedPrecisionTensor knows scaled_dot_product_attention without enable_gqa: repeat_interleave the keys")
    scores = query @ key.transpose(-2, -1) * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    weights = softmax(scores, -1) if attn_mask is None else attending(softmax(masked(scores, attn_mask), -1), attn_mask)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


def masked(scores: Any, mask: torch.Tensor) -> Any:
    """Scores with a public mask: of truths, which stay; or of numbers, which are added."""
    if isinstance(mask, Fixed) or type(mask) is not torch.Tensor:
        raise NotImplementedError("FixedPrecisionTensor knows attention with public masks")
    if mask.dtype != torch.bool:
        if (mask >= -HIDDEN).all():
            return scores + mask
        keep, mask = mask > -HIDDEN, mask.clamp(min=-HIDDEN)
        return masked(scores, keep) + mask * keep
    keep = mask.float()
    return scores * keep + (keep - 1) * HIDDEN


def attending(weights: Any, *masks: torch.Tensor) -> Any:
    """Weights, 0 in rows of which public masks leave nothing."""
    seen = torch.ones(weights.shape[-1], dtype=torch.bool)
    for mask in masks:
        seen = seen & (mask if mask.dtype == torch.bool else mask > -math.inf)
    rows = seen.any(-1, keepdim=True)
    return weights if rows.all() else torch.where(rows, weights, 0.0)


@Fixed.reexpresses(F.multi_head_attention_forward)
def multi_head_attention_forward(
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int, in_proj_weight: Any, in_proj_bias: Any, bias_k: Any,
    bias_v: Any, add_zero_attn: bool, dropout_p: float, out_proj_weight: Any, out_proj_bias: Any, training: bool = True,
    key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None, use_separate_proj_weight: bool = False,
    q_proj_weight: Any = None, k_proj_weight: Any = None, v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> Any:  # fmt: skip
    """`nn.MultiheadAttention`, (length, batch, features), as torch computes it."""
    if bias_k is not None or bias_v is not None or add_zero_attn or static_k is not None or static_v is not None:
        raise NotImplementedError("FixedPrecisionTensor knows attention without add_bias_kv, add_zero_attn and static keys")
    own = (q_proj_weight, k_proj_weight, v_proj_weight) if use_separate_proj_weight else in_proj_weight.chunk(3)
    biases = (None,) * 3 if in_proj_bias is None else in_proj_bias.chunk(3)
    batched = query.dim() == 3
    parts = [v if batched else v.unsqueeze(1) for v in (query, key, value)]
    q, k, v = (_heads(F.linear(x, w, b), num_heads) for x, w, b in zip(parts, own, biases, strict=True))
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    masks = []
    for mask in (attn_mask, None if key_padding_mask is None else key_padding_mask.reshape(-1, 1, 1, k.shape[2])):
        if mask is not None:
            mask = mask.view(-1, num_heads, *mask.shape[1:]) if mask.dim() == 3 else mask
            masks.append(~mask if mask.dtype == torch.bool else mask)
            scores = masked(scores, masks[-1])
    weights = attending(softmax(scores, -1), *masks)
    weights = F.dropout(weights, dropout_p) if training and dropout_p else weights
    mixed = (weights @ v).permute(2, 0, 1, 3).flatten(2)
    out = F.linear(mixed, out_proj_weight, out_proj_bias)
    out, weights = (out, weights) if batched else (out.squeeze(1), weights.squeeze(0))
    return out, (weights.mean(-3) if average_attn_weights else weights) if need_weights else None


def _heads(x: Any, heads: int) -> Any:
    """(length, batch, features) -> (batch, heads, length, features / heads)."""
    return x.unflatten(-1, (heads, -1)).permute(1, 2, 0, 3)


# -- secret indices


def one_hot(index: Any, classes: int, like: Fixed) -> Fixed:
    """One-hot vectors of the layer, of whole numbers that are shared."""
    child = arithmetic(index).one_hot(index, classes)
    return Fixed.of(child * like.scale, like.attributes())


class _Embedding(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, weight: Any, hot: Any) -> Any:
        ctx.hot = hot
        return Fixed.of(_chosen(hot, weight._child), weight.attributes())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        hot = ctx.hot.reshape(-1, ctx.hot.shape[-1])

        def gathered(child: Any) -> Any:
            return arithmetic(hot, child).matmul(hot.t(), child.reshape(-1, child.shape[-1]), 0)

        return through(grads[0], gathered, lambda child: _chosen(ctx.hot, child)), None


def _chosen(hot: Any, table: Any) -> Any:
    """Rows of ``table``: a product of whole numbers, that needs no division."""
    flat = hot.reshape(-1, hot.shape[-1])
    return arithmetic(flat, table).matmul(flat, table, 0).reshape(*hot.shape[:-1], table.shape[-1])


@Fixed.reexpresses(F.embedding)
def embedding(
    index: Any, weight: Any, padding_idx: Any = None, max_norm: Any = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:  # fmt: skip
    """Rows of ``weight``: of a public index, or of a shared one. The row ``padding_idx`` gets no gradient."""
    if not isinstance(weight, Fixed):
        raise Misuse("embedding: an index is a whole number, shared as int64, and the table is in fixed precision: fix_precision() that")
    if max_norm is not None or scale_grad_by_freq:
        raise NotImplementedError("FixedPrecisionTensor knows embedding without max_norm and scale_grad_by_freq: leave them out")
    if padding_idx is not None and needs_history(weight):
        row = range(weight.shape[0])[padding_idx]
        weight = torch.where((torch.arange(weight.shape[0]) == row).unsqueeze(-1), weight.detach(), weight)
    if type(index) is torch.Tensor:
        return weight[index]
    if isinstance(index, Fixed):
        raise ValueError("an index is a whole number: share() it as int64, without fix_precision()")
    hot = arithmetic(index).one_hot(index, weight.shape[0])
    if needs_history(weight):
        return _Embedding.apply(weight, hot)  # type: ignore[no-untyped-call]
    return Fixed.of(_chosen(hot, weight._child), weight.attributes())


@Fixed.reexpresses(torch.embedding)
def _embedding(weight: Any, index: Any, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False) -> Any:
    return embedding(index, weight, None if padding_idx < 0 else padding_idx, scale_grad_by_freq=scale_grad_by_freq)
