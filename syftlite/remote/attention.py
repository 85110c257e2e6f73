"""Attention by its formula, in place of kernels for one kind of processor, which trust their operands.

    softmax(q k' c + mask) v            what `scaled_dot_product_attention` picks on a CPU, forward and backward
    MultiheadAttention                  its fast path, and that of TransformerEncoderLayer: only taken without gradients, below autograd
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F

from syftlite._torch import aten
from syftlite.remote.dispatch import handles


def _scores(q: torch.Tensor, k: torch.Tensor, causal: bool, mask: torch.Tensor | None, scale: float | None) -> torch.Tensor:
    """q (n, h, t, e) and k (n, h, s, e) to (n, h, t, s)."""
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        seen = k.new_ones((q.shape[-2], k.shape[-2]), dtype=torch.bool).tril()
        scores = scores.masked_fill(seen.logical_not(), float("-inf"))
    if mask is None:
        return scores
    return scores.masked_fill(mask.logical_not(), float("-inf")) if mask.dtype is torch.bool else scores + mask.to(scores.dtype)


def _for_each_head(q: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``x`` (n, kv heads, s, e) with a copy for each of q's heads that share one."""
    return x if x.shape[1] == q.shape[1] else x.repeat_interleave(q.shape[1] // x.shape[1], 1)


def _at_least_single(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype.itemsize >= 4 else x.float()


def _probabilities(scores: torch.Tensor, logsumexp: torch.Tensor) -> torch.Tensor:
    """A row that sees nothing has none."""
    return (scores - logsumexp.masked_fill(logsumexp == float("-inf"), 0.0).unsqueeze(-1)).exp()


@handles(aten._scaled_dot_product_flash_attention_for_cpu.default)
def _flash(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    q, k, v, _, causal = (*args, 0.0, False)[:5] if len(args) < 5 else args
    causal = kwargs.get("is_causal", causal)
    dtype = q.dtype
    q, k, v = (_at_least_single(x) for x in (q, _for_each_head(q, k), _for_each_head(q, v)))
    scores = _scores(q, k, causal, kwargs.get("attn_mask"), kwargs.get("scale"))
    logsumexp = scores.logsumexp(-1)
    return (_probabilities(scores, logsumexp) @ v).to(dtype).transpose(1, 2).contiguous().transpose(1, 2), logsumexp


@handles(aten._scaled_dot_product_flash_attention_for_cpu_backward.default)
def _flash_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """o = p v, p = softmax(s), s = q k' c: dv = p' do, dp = do v', ds = p (dp - sum of do o), dq = ds k c, dk = ds' q c."""
    grad, q, k, v, out, logsumexp, _, causal = args
    scale = q.shape[-1] ** -0.5 if kwargs.get("scale") is None else kwargs["scale"]
    dtype, keys, values = q.dtype, _for_each_head(q, k), _for_each_head(q, v)
    grad, q, keys, values, out = (_at_least_single(x) for x in (grad, q, keys, values, out))
    p = _probabilities(_scores(q, keys, causal, kwargs.get("attn_mask"), scale), logsumexp)
    ds = p * (grad @ values.transpose(-2, -1) - (grad * out).sum(-1, keepdim=True)) * scale
    grads = (ds.transpose(-2, -1) @ q, p.transpose(-2, -1) @ grad)
    grad_k, grad_v = (x if x.shape == y.shape else x.unflatten(1, (y.shape[1], -1)).sum(2) for x, y in zip(grads, (k, v), strict=True))
    return (ds @ keys).to(dtype), grad_k.to(dtype), grad_v.to(dtype)


# -- attention's fast paths: only taken without gradients, below autograd


def _heads(x: Any, heads: int) -> Any:
    return x.unflatten(-1, (heads, -1)).transpose(-2, -3)


def _attention_mask(mask: torch.Tensor | None, kind: int | None) -> torch.Tensor | None:
    """``mask`` of a fast path, True where nothing may be seen, as what is added to the scores: (n or 1, heads or 1, t, t)."""
    if mask is None:
        return None
    mask = mask[:, None, None, :] if kind == 1 else mask[None, None] if mask.dim() == 2 else mask
    return torch.zeros_like(mask, dtype=torch.float32).masked_fill(mask, float("-inf")) if mask.dtype is torch.bool else mask


def _attend(qkv: Iterable[torch.Tensor], heads: int, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, t, e) each to (n, t, e) and the weights (n, heads, t, s)."""
    q, k, v = (_heads(x, heads) for x in qkv)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    weights = torch.softmax(scores if mask is None else scores + mask.to(scores.dtype), -1)
    return (weights @ v).transpose(1, 2).flatten(2), weights


@handles(aten._nested_tensor_from_mask_left_aligned.default)
def _ragged(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether `nn.TransformerEncoder` may go on with tensors of uneven rows: not with pointers."""
    return False


@handles(aten._native_multi_head_attention.default)
def _multi_head(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    query, key, value, width, heads, w_in, b_in, w_out, b_out = args[:9]
    named: dict[str, Any] = dict(zip(("mask", "need_weights", "average_attn_weights", "mask_type"), (None, True, True, None), strict=True))
    named |= dict(zip(named, args[9:], strict=False)) | kwargs
    parts = zip((query, key, value), w_in.split(width), b_in.split(width), strict=True)
    out, weights = _attend([F.linear(x, w, b) for x, w, b in parts], heads, _attention_mask(named["mask"], named["mask_type"]))
    if named["average_attn_weights"]:
        weights = weights.mean(1)
    return F.linear(out, w_out, b_out), weights if named["need_weights"] else None


@handles(aten._transformer_encoder_layer_fwd.default)
def _encoder_layer(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, width, heads, w_in, b_in, w_out, b_out, gelu, first, eps, w1, b1, w2, b2, w_up, b_up, w_down, b_down = args[:18]
    named = {"mask": None, "mask_type": None} | dict(zip(("mask", "mask_type"), args[18:], strict=False)) | kwargs

    def attention(x: torch.Tensor) -> torch.Tensor:
        seen = _attention_mask(named["mask"], named["mask_type"])
        return F.linear(_attend(F.linear(x, w_in, b_in).chunk(3, -1), heads, seen)[0], w_out, b_out)

    def feed(x: torch.Tensor) -> torch.Tensor:
        up = F.linear(x, w_up, b_up)
        return F.linear(F.gelu(up) if gelu else F.relu(up), w_down, b_down)

    def norm(x: torch.Tensor, w: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return F.layer_norm(x, (width,), w, b, eps)

    if first:
        x = x + attention(norm(x, w1, b1))
        return x + feed(norm(x, w2, b2))
    x = norm(x + attention(x), w1, b1)
    return norm(x + feed(x), w2, b2)
