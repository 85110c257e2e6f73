"""Small models, and workers to serve them."""

import itertools

import torch
from torch import nn
from torch.nn import functional as F

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


class Attention(nn.Module):
    """Written by hand: heads by views, a product or torch's function."""

    def __init__(self, by_hand=False, causal=False):
        super().__init__()
        self.query, self.key, self.value, self.out = (nn.Linear(8, 8) for _ in range(4))
        self.by_hand, self.causal = by_hand, causal

    def forward(self, x):
        n, length, features = x.shape
        q, k, v = (layer(x).view(n, length, 2, 4).transpose(1, 2) for layer in (self.query, self.key, self.value))
        if self.by_hand:
            mixed = (q @ k.transpose(-2, -1) / 2).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(n, length, features)).max(1).values


class Heads(nn.Module):
    """torch's own module, and one word of what it gives."""

    def __init__(self):
        super().__init__()
        self.heads, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.heads(x, x, x)[0][:, -1])


class Encoder(nn.Module):
    def __init__(self, **how):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **how)
        self.layers, self.head = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.layers(x).amin(1))


def samples():
    """Convolutions of rows of samples."""
    return nn.Sequential(
        nn.Conv1d(3, 6, 3, stride=2, padding=1), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(6, 4, 3, padding="same", dilation=2, groups=2),
        nn.ReLU(), nn.AvgPool1d(2, 1, padding=1), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip


SEQUENCES = {
    "attention": (Attention, (5, 8)), "causal": (lambda: Attention(causal=True), (5, 8)), "by hand": (lambda: Attention(by_hand=True), (5, 8)), "heads": (Heads, (5, 8)),
    "encoder": (Encoder, (4, 8)), "norm first": (lambda: Encoder(activation="gelu", norm_first=True), (4, 8)), "samples": (samples, (3, 16)),
}  # fmt: skip
