"""Rules for ATen operators on rows of things, as torch_rules.py has them for others.

    conv1d, pools and pads of (N, C, L)                 as of images of one row
    scaled_dot_product_attention, matmul of two         attention
    MultiheadAttention, layers of Transformer           made of these (torch_attention.py)
    softmax of what a mask hides; where                 of masked_fill
    max, min, amin over an axis                         of amax
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from syftlite.errors import UnsupportedLayerError
from syftlite.serving.sequences import LEAST, NOT_SEEN
from syftlite.serving.torch_call import Call, Value, known, rule
from syftlite.serving.torch_rules import axes_of, flat, pair, plus, same_padding, together


class Chain:
    """Nodes of one call, one after the other; shapes are without the batch."""

    def __init__(self, at: Call) -> None:
        self.at = at

    def add(self, operator: str, inputs: list[str], weights: dict[str, Tensor | None] | None = None, **static: Any) -> str:
        """A node's name."""
        return self.at.build.add(operator, self.at.layer, inputs, weights, **static)

    def done(self, name: str) -> Value:
        """What the call gives."""
        return self.at.result(name)


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
    at.refuse(ceil_mode=ceil)
    return _as_image(at, "max_pool2d", x, **_window(kernel, stride, padding), dilation=(1, pair(dilation)[0]))


@rule("avg_pool1d")
def _avg_pool1d(
    at: Call, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, count: bool = True
) -> Value:
    at.refuse(ceil_mode=ceil)
    return _as_image(at, "avg_pool2d", x, **_window(kernel, stride, padding), count_padding=bool(count))


@rule("adaptive_avg_pool1d")
def _adaptive(at: Call, x: Value, size: Any) -> Value:
    to = pair(size)[0]
    if x.shape[-1] % to:
        return _as_image(at, "adaptive_avg_pool2d", x, size=(1, to))
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
    at.refuse(dropout_p=bool(dropout), enable_gqa=enable_gqa, query=not 3 <= len(query.shape) <= 4)
    weights, how = ({}, {}) if mask is None else _masks(at, mask, (*query.shape[1:-1], key.shape[-2]))
    return at.add("attention", [query, key, value], weights, scale=scale, causal=bool(causal), **how)


def _masks(at: Call, mask: Any, shape: tuple[int, ...]) -> tuple[dict[str, Tensor | None], dict[str, Any]]:
    """(what is added to scores of one row, of that ``shape``; what of them is seen), of a mask that does not depend on the input."""
    found = at.weight(mask, "mask")
    assert found is not None
    added = torch.zeros(found.shape).masked_fill(~found, -math.inf) if found.dtype == torch.bool else found.float()
    at.refuse(attn_mask=added.dim() > len(shape) + 1)
    if added.dim() > len(shape):
        at.refuse(attn_mask=not bool((added == added[:1]).all()))
        added = added[0]
    ways = added.shape[:-2] if added.dim() > 2 else ()
    added = added.expand(*ways, *shape[-2:])
    seen = added > LEAST
    bias = torch.where(seen, added, 0.0)
    how = {} if bool(seen.all()) else {"mask": tuple(seen.long().flatten().tolist())}
    return ({"bias": bias} if bool(bias.any()) else {}), how


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def _softmax(at: Call, x: Value, dim: int, *_: Any) -> Value:
    at.refuse(dim=dim % len(x.shape) == 0)
    return at.add(at.name.strip("_"), [_scores(at, x)], axis=dim)


GREATEST = float(1 << 14)
"""Below which scores are (docs/encrypted.md)."""
ADDS = {"plus": "weight", "affine": "shift"}
"""Operators that add a weight, and its role."""


def _scores(at: Call, x: Value) -> Value:
    """``x``; of numbers that were added last, those that hide what they are added to leave nothing of it."""
    node = next((n for n in at.build.nodes if n.name == x.name), None)
    if node is not None and node.operator == "masked_fill":
        _must_be_score(at, node.attributes["value"])
    if node is None or node.operator not in ADDS or set(node.weights) != {ADDS[node.operator]}:
        return x
    added = at.build.weights[node.weights[ADDS[node.operator]]]
    _must_be_score(at, float(added.max()))
    return x if bool((added > LEAST).all()) else plus(at, x._replace(name=node.inputs[0]), added, LEAST, **node.attributes)


def _must_be_score(at: Call, number: float) -> None:
    if number > GREATEST:
        told = f"{at.name} of a score of {number:g}: scores are below {GREATEST:g}, and others are hidden by numbers below {LEAST:g}"
        raise UnsupportedLayerError(at.layer, told)


@rule("masked_fill", "masked_fill_")
def _masked_fill(at: Call, x: Value, mask: Value, number: Any) -> Value:
    found = at.weight(mask, "mask")
    assert found is not None
    by = float(torch.as_tensor(known(number)))
    found = found.expand(at.shape) if found.dim() == len(at.shape) and len(found) > 1 else found.expand(1, *at.shape[1:])
    at.refuse(mask=at.shape != x.shape or not bool((found == found[:1]).all()), value=not by < math.inf)
    return at.add("masked_fill", [x], mask=flat(found[0]), shape=at.shape[1:], value=by if by > LEAST else NOT_SEEN)


@rule("where")
def _where(at: Call, seen: Value, x: Value, y: Any) -> Value:
    choice = at.weight(seen, "condition")
    assert choice is not None
    swapped = not isinstance(x, Value) or x.known is not None
    other, of = (x, y) if swapped else (y, x)
    one = torch.as_tensor(known(other)) if not isinstance(other, Value) or other.known is not None else torch.zeros(2)
    at.refuse(operands=one.numel() != 1 or not isinstance(of, Value))
    mask = choice if swapped else ~choice
    return _masked_fill(at, of, Value("constant", tuple(mask.shape), mask), float(one))


# -- over axes


@rule("max")
def _max(at: Call, x: Value, dim: Any = None, keep: bool = False) -> Value:
    if isinstance(dim, Value):
        return together(at, "maximum", x, dim)
    return at.add("amax", [x], dims=axes_of(at, x, dim), keep=keep)


@rule("min", "amin")
def _min(at: Call, x: Value, dim: Any = None, keep: bool = False) -> Value:
    if isinstance(dim, Value):
        return together(at, "minimum", x, dim)
    dims, chain = axes_of(at, x, dim), Chain(at)
    negative = chain.add("scale", [x.name], factor=-1.0)
    return chain.done(chain.add("scale", [chain.add("amax", [negative], dims=dims, keep=keep)], factor=-1.0))
