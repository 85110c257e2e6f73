"""Rules for ATen operators on rows of things, as torch_rules.py has them for others.

    conv1d, pools and pads of (N, C, L)                 as of images of one row
    scaled_dot_product_attention, matmul of two         attention
    MultiheadAttention, TransformerEncoderLayer         with batch_first: one operator each, in inference, made of layers here
    max, min, amin over an axis; select                 of amax, slice
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from syftlite.serving.torch_call import Call, Value, rule
from syftlite.serving.torch_rules import axes_of, pair, same_padding


class Chain:
    """Nodes of one call, one after the other; shapes are without the batch."""

    def __init__(self, at: Call) -> None:
        self.at = at

    def add(self, operator: str, inputs: list[str], weights: dict[str, Tensor | None] | None = None, **static: Any) -> str:
        """A node's name."""
        return self.at.build.add(operator, self.at.layer, inputs, weights, **static)

    def linear(self, x: str, weight: Any, bias: Any) -> str:
        """A linear layer of a module."""
        return self.add("linear", [x], {"weight": self.at.weight(weight, "weight"), "bias": self.at.weight(bias, "bias")})

    def done(self, name: str) -> Value:
        """What the call gives."""
        return Value(name, self.at.shape)


def _real(at: Call, *values: Any) -> None:
    """Refuse what is no tensor that depends on the input."""
    at.refuse(operands=any(not isinstance(v, Value) or v.known is not None for v in values))


# -- (N, C, L)


@rule("conv1d")
def _conv1d(
    at: Call, x: Value, weight: Value, bias: Value | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> Value:
    w, apart = at.weight(weight, "weight"), pair(dilation)[0]
    at.refuse(dimensions=len(x.shape) != 3)
    assert w is not None
    if isinstance(padding, str):
        around = same_padding(padding, (1, apart), (1, w.shape[2]))
    else:
        around = (0, 0, pair(padding)[0], pair(padding)[0])
    weights = {"weight": w.unsqueeze(2), "bias": at.weight(bias, "bias")}
    return at.add("conv1d", [x], weights, stride=(1, pair(stride)[0]), padding=around, dilation=(1, apart), groups=groups)


def _as_image(at: Call, operator: str, x: Value, **static: Any) -> Value:
    """What ``operator`` makes of (N, C, L) as images of one row."""
    at.refuse(dimensions=len(x.shape) != 3)
    chain = Chain(at)
    image = chain.add("reshape", [x.name], shape=(x.shape[1], 1, x.shape[2]))
    return chain.done(chain.add("reshape", [chain.add(operator, [image], **static)], shape=at.shape[1:]))


@rule("max_pool1d")
def _max_pool1d(at: Call, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False) -> Value:
    at.refuse(dilation=pair(dilation)[0] != 1, ceil_mode=ceil)
    static = _window(kernel, stride, padding)
    return _as_image(at, "max_pool2d", x, **static)


@rule("avg_pool1d")
def _avg_pool1d(
    at: Call, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, count: bool = True
) -> Value:
    at.refuse(ceil_mode=ceil)
    return _as_image(at, "avg_pool2d", x, **_window(kernel, stride, padding), count_padding=bool(count))


@rule("adaptive_avg_pool1d")
def _adaptive(at: Call, x: Value, size: Any) -> Value:
    to = pair(size)[0]
    at.refuse(output_size=x.shape[-1] % to != 0)
    return _as_image(at, "avg_pool2d", x, **_window(x.shape[-1] // to, (), 0))


def _window(kernel: Any, stride: Any, padding: Any) -> dict[str, Any]:
    around, step = pair(padding)[0], pair(stride or kernel)[0]
    return {"kernel": (1, pair(kernel)[0]), "stride": (1, step), "padding": (0, 0, around, around)}


# -- attention


@rule("bmm")
def _bmm(at: Call, x: Value, y: Value) -> Value:
    _real(at, x, y)
    return at.add("matmul", [x, y])


@rule("scaled_dot_product_attention")
def _attention(
    at: Call, query: Value, key: Value, value: Value, mask: Any = None, dropout: float = 0.0, causal: bool = False, *,
    scale: float | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    _real(at, query, key, value)
    at.refuse(attn_mask=mask is not None, dropout_p=bool(dropout), enable_gqa=enable_gqa, query=len(query.shape) < 3)
    return at.add("attention", [query, key, value], scale=scale, causal=bool(causal))


@rule("_native_multi_head_attention")
def _heads(
    at: Call, query: Value, key: Value, value: Value, features: int, heads: int, qkv_weight: Any, qkv_bias: Any, weight: Any, bias: Any,
    mask: Any = None, *_: Any,
) -> Value:  # fmt: skip
    at.refuse(mask=mask is not None, key=not query.name == key.name == value.name)
    _real(at, query)
    chain = Chain(at)
    return chain.done(_attended(chain, query.name, query.shape[1], features, heads, (qkv_weight, qkv_bias, weight, bias)))


def _attended(chain: Chain, x: str, length: int, features: int, heads: int, weights: tuple[Any, ...]) -> str:
    """Self-attention of (N, length, features)."""
    qkv_weight, qkv_bias, weight, bias = weights
    together = chain.linear(x, qkv_weight, qkv_bias)
    parts = []
    for place in range(3):
        cut = chain.add("slice", [together], axis=2, start=place * features, stop=(place + 1) * features)
        cut = chain.add("reshape", [cut], shape=(length, heads, features // heads))
        parts.append(chain.add("permute", [cut], order=(0, 2, 1, 3)))
    mixed = chain.add("permute", [chain.add("attention", parts)], order=(0, 2, 1, 3))
    return chain.linear(chain.add("reshape", [mixed], shape=(length, features)), weight, bias)


@rule("_transformer_encoder_layer_fwd")
def _encoder_layer(
    at: Call, x: Value, features: int, heads: int, qkv_weight: Any, qkv_bias: Any, weight: Any, bias: Any, gelu: bool, norm_first: bool,
    eps: float, scale1: Any, shift1: Any, scale2: Any, shift2: Any, weight1: Any, bias1: Any, weight2: Any, bias2: Any,
    mask: Any = None, *_: Any,
) -> Value:  # fmt: skip
    at.refuse(mask=mask is not None)
    _real(at, x)
    chain = Chain(at)

    def norm(x: str, scale: Any, shift: Any) -> str:
        return chain.add("layer_norm", [x], {"scale": at.weight(scale, "weight"), "shift": at.weight(shift, "bias")}, eps=eps)

    def attended(x: str) -> str:
        return _attended(chain, x, at.shape[1], features, heads, (qkv_weight, qkv_bias, weight, bias))

    def fed_forward(x: str) -> str:
        return chain.linear(chain.add("gelu" if gelu else "relu", [chain.linear(x, weight1, bias1)]), weight2, bias2)

    def beside(x: str, y: str) -> str:
        return chain.add("add", [x, y])

    if norm_first:
        first = beside(x.name, attended(norm(x.name, scale1, shift1)))
        return chain.done(beside(first, fed_forward(norm(first, scale2, shift2))))
    first = norm(beside(x.name, attended(x.name)), scale1, shift1)
    return chain.done(norm(beside(first, fed_forward(first)), scale2, shift2))


# -- over axes


@rule("max")
def _max(at: Call, x: Value, dim: Any = None, keep: bool = False) -> Value:
    if isinstance(dim, Value):
        return at.add("maximum", [x, dim])
    return at.add("amax", [x], dims=axes_of(at, x, dim), keep=keep)


@rule("min", "amin")
def _min(at: Call, x: Value, dim: Any = None, keep: bool = False) -> Value:
    if isinstance(dim, Value):
        return at.add("minimum", [x, dim])
    dims, chain = axes_of(at, x, dim), Chain(at)
    negative = chain.add("scale", [x.name], factor=-1.0)
    return chain.done(chain.add("scale", [chain.add("amax", [negative], dims=dims, keep=keep)], factor=-1.0))


@rule("select")
def _select(at: Call, x: Value, dim: int, index: int) -> Value:
    axis, place, chain = dim % len(x.shape), index % x.shape[dim], Chain(at)
    at.refuse(dim=axis == 0)
    cut = chain.add("slice", [x.name], axis=axis, start=place, stop=place + 1)
    if len(at.shape) == 2:
        return chain.done(chain.add("flatten", [cut]))
    at.refuse(shape=not math.prod(at.shape[1:]))
    return chain.done(chain.add("reshape", [cut], shape=at.shape[1:]))
