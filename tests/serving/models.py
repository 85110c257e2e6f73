"""Small models, and workers to serve them."""

import itertools

import torch

from syftlite.serving.graph import Builder, Input


def rows(*shape, scale=1.0, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def mlp(*widths, last="softmax", seed=0):
    """Linear layers with relus between, and what the client does last."""
    build = Builder(Input((widths[0],)))
    at = "input"
    for i, (wide, out) in enumerate(itertools.pairwise(widths)):
        weights = {"weight": rows(out, wide, scale=wide**-0.5, seed=seed + i), "bias": rows(out, scale=0.1, seed=seed + i)}
        at = build.add("linear", f"fc{i}", [at], weights)
        if i < len(widths) - 2:
            at = build.add("relu", f"relu{i}", [at])
    if last:
        build.add(last, last, [at])
    return build.graph()


def cnn():
    """Two convolutions on (8, 8, 1) images, channels last, as Keras has them."""
    build = Builder(Input((8, 8, 1)))
    at = build.add("permute", "channels first", ["input"], order=(0, 3, 1, 2))
    for i, (channels, out) in enumerate(((1, 4), (4, 6))):
        weights = {"weight": rows(out, channels, 3, 3, scale=0.3, seed=i), "bias": rows(out, scale=0.1, seed=i)}
        at = build.add("conv2d", f"conv{i}", [at], weights, padding=(1, 1, 1, 1))
        at = build.add("avg_pool2d" if i == 0 else "max_pool2d", f"pool{i}", [at], kernel=(2, 2), stride=(2, 2))
        at = build.add("relu", f"relu{i}", [at])
    at = build.add("flatten", "flatten", [at], order=(0, 2, 3, 1))
    build.add("linear", "dense", [at], {"weight": rows(3, 24, scale=0.2), "bias": None})
    return build.graph()
