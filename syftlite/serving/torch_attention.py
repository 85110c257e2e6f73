"""`nn.MultiheadAttention` while a module is written down: of steps that have a form, whatever torch would fuse them to.

    q, k, v     linear; of one input, one layer
    masks       known, and the same for all rows: of places that may not be seen, or numbers that are added
    weights     where they are asked for: of no mask alone
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from syftlite.errors import UnsupportedLayerError


@contextmanager
def unfused() -> Iterator[None]:
    """In the block no layer does what torch has fused, which leaves zeros at places that a padding mask hides."""
    fused = torch.backends.mha.get_fastpath_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(False)
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


@contextmanager
def by_hand(module: nn.Module) -> Iterator[None]:
    """In the block attention layers of ``module`` do `attended`, and no layer what torch has fused."""
    layers = [(name, part) for name, part in module.named_modules() if type(part) is nn.MultiheadAttention and "forward" not in vars(part)]
    try:
        for name, layer in layers:
            vars(layer)["forward"] = partial(attended, layer, name)
        with unfused():
            yield
    finally:
        for _, layer in layers:
            vars(layer).pop("forward", None)


def attended(
    layer: nn.MultiheadAttention, name: str, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
    need_weights: bool = True, attn_mask: Tensor | None = None, average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """What the layer's own `forward` gives of (rows, length, features), or with the first two the other way round."""
    if query.dim() != 3:
        raise UnsupportedLayerError(name, f"attention of rows has three axes, and this input has {query.dim()}: the rows would mix")
    if layer.bias_k is not None or layer.add_zero_attn:
        raise UnsupportedLayerError(name, "attention with add_bias_kv or add_zero_attn has no form in a served model")
    heads, alone = layer.num_heads, query is key is value
    if not layer.batch_first:
        query, key, value = (x.transpose(0, 1) for x in (query, key, value))
    q, k, v = (_apart(x, heads) for x in _projected(layer, query, key, value, alone))
    mask = _together(attn_mask, key_padding_mask, heads)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)
    out = F.linear(mixed, layer.out_proj.weight, layer.out_proj.bias)
    weights = None
    if need_weights and mask is None:
        weights = ((q @ k.transpose(-2, -1)) * q.shape[-1] ** -0.5).softmax(-1)
        weights = weights.mean(1) if average_attn_weights else weights
    return (out if layer.batch_first else out.transpose(0, 1)), weights


def _projected(layer: nn.MultiheadAttention, query: Tensor, key: Tensor, value: Tensor, alone: bool) -> list[Tensor]:
    weight, bias, size = layer.in_proj_weight, layer.in_proj_bias, layer.embed_dim
    if weight is not None and alone:
        together = F.linear(query, weight, bias)
        return [together[..., place * size : (place + 1) * size] for place in range(3)]
    own = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight) if weight is None else weight.chunk(3)
    biases: Any = (None,) * 3 if bias is None else bias.chunk(3)
    return [F.linear(*given) for given in zip((query, key, value), own, biases, strict=True)]


def _apart(x: Tensor, heads: int) -> Tensor:
    n, length, size = x.shape
    return x.reshape(n, length, heads, size // heads).transpose(1, 2)


def _together(seen: Tensor | None, padding: Tensor | None, heads: int) -> Tensor | None:
    """Both masks as `scaled_dot_product_attention` takes them: numbers that are added, or True for what is seen."""
    found: Tensor | None = None
    if seen is not None and seen.dim() == 3:
        seen = seen.unflatten(0, (-1, heads))
    for mask in (seen, None if padding is None else padding[:, None, None]):
        if mask is not None:
            added = torch.zeros(mask.shape).masked_fill(mask, -torch.inf) if mask.dtype == torch.bool else mask
            found = added if found is None else found + added
    return found
