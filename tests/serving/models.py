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


class Of(nn.Module):
    """A function of parts."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def heads(**how):
    return nn.MultiheadAttention(8, 2, **how)


def layer(**how):
    return nn.TransformerEncoderLayer(8, 2, 16, **how)


def for_all(mask, x):
    return mask.expand(x.shape[0], *[-1] * mask.dim())


EARLIER, PADDING = nn.Transformer.generate_square_subsequent_mask(5), torch.tensor([False, False, True, False, True])
LATER, PER_HEAD = torch.ones(5, 5).triu(1).bool(), torch.arange(50).view(2, 5, 5) % 3 == 1
AFTER, HIDES = torch.arange(5) > 3, torch.tensor([[0.0, 0, -1e9, 1, -1e9], *[[1, -torch.finfo(torch.float32).max, -2, 0, 3]] * 4])
DISTANCE = (torch.arange(5.0) - torch.arange(5.0)[:, None]) / 2

ATTENTIONS = {
    "causal": (lambda: Of(lambda s, x: s.a(x, x, x, attn_mask=EARLIER)[0], a=heads(batch_first=True)), (5, 8)),
    "causal, of truths": (lambda: Of(lambda s, x: s.a(x, x, x, attn_mask=LATER, need_weights=False, is_causal=True)[0], a=heads(batch_first=True)), (5, 8)),
    "padding": (lambda: Of(lambda s, x: s.a(x, x, x, key_padding_mask=for_all(PADDING, x))[0], a=heads(batch_first=True)), (5, 8)),
    "padding and causal": (lambda: Of(lambda s, x: s.a(x, x, x, for_all(PADDING, x), attn_mask=LATER)[0], a=heads(batch_first=True)), (5, 8)),
    "a mask a head": (lambda: Of(lambda s, x: s.a(x, x, x, attn_mask=PER_HEAD.repeat(len(x), 1, 1))[0], a=heads(batch_first=True)), (5, 8)),
    "distances": (lambda: Of(lambda s, x: s.a(x, x, x, attn_mask=DISTANCE + EARLIER)[0], a=heads(batch_first=True)), (5, 8)),
    "mask by hand": (lambda: Of(lambda s, x: F.scaled_dot_product_attention(x, x, x, ~LATER)), (5, 8)),
    "nested": (lambda: Of(lambda s, x: s.e(x, src_key_padding_mask=for_all(AFTER, x)).masked_fill(AFTER[:, None], 0).mean(1), e=nn.TransformerEncoder(layer(batch_first=True), 1)), (5, 8)),
    "hidden by hand": (lambda: Of(lambda s, x: F.softmax(torch.where(PADDING, 2.0, x @ x.transpose(1, 2) + HIDES).masked_fill(AFTER, -torch.inf), -1) @ (x + HIDES[0, :, None]).softmax(1)), (5, 8)),
    "cross": (lambda: Of(lambda s, x, y: s.a(x, y, y)[0], a=heads(batch_first=True)), (5, 8), (3, 8)),
    "cross, other sizes": (lambda: Of(lambda s, x, y: s.a(x, y, y)[0], a=heads(batch_first=True, kdim=6, vdim=6, bias=False)), (5, 8), (3, 6)),
    "weights": (lambda: Of(lambda s, x: s.a(x, x, x)[1], a=heads(batch_first=True)), (5, 8)),
    "length first": (lambda: Of(lambda s, x: s.a(*[x.transpose(0, 1)] * 3)[0].transpose(0, 1), a=heads()), (5, 8)),
    "length first, and back": (lambda: Of(lambda s, x: s.h((2 * (t := x.permute(1, 0, 2)) + s.a(t, t, t)[0]).relu()).permute(1, 2, 0), a=heads(), h=nn.Linear(8, 3)), (5, 8)),
    "mean over the length": (lambda: Of(lambda s, x: s.e(x.transpose(0, 1)).mean(0), e=layer()), (5, 8)),
    "the last": (lambda: Of(lambda s, x: s.h(s.e(x.transpose(0, 1), src_mask=EARLIER)[-1]), e=layer(norm_first=True), h=nn.Linear(8, 2)), (5, 8)),
    "decoder": (lambda: Of(lambda s, x, y: s.d(x.transpose(0, 1), y.transpose(0, 1), tgt_mask=EARLIER)[-1], d=nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16), 2)), (5, 8), (3, 8)),
    "transformer": (lambda: Of(lambda s, x, y: s.t(x, y, tgt_mask=EARLIER[:3, :3]), t=nn.Transformer(8, 2, 1, 1, 16, batch_first=True)), (5, 8), (3, 8)),
    "places": (lambda: Of(lambda s, x: s.a(x + s.p, x * s.p - s.p, s.p - x / (s.p.abs() + 1))[0], a=heads(batch_first=True), p=nn.Parameter(torch.randn(5, 8))), (5, 8)),
    "places, length first": (lambda: Of(lambda s, x: s.e(x.transpose(0, 1) + s.p[: x.shape[1]]).mean((0,)), e=layer(), p=nn.Parameter(torch.randn(9, 1, 8))), (5, 8)),
    "adaptive": (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d((3, 2)), nn.Flatten()), (1, 7, 9)),
    "adaptive, of rows": (lambda: nn.Sequential(nn.AdaptiveAvgPool1d(3), nn.Flatten()), (2, 7)),
}  # fmt: skip
"""A module, and the shape of a row of each of its inputs."""

SEQUENCES = {
    "recurrent": (lambda: Of(lambda s, x: s.h(s.r(x)[0][:, -1]), r=nn.LSTM(8, 4, batch_first=True), h=nn.Linear(4, 2)), (2, 8)),
    "attention": (Attention, (5, 8)), "causal": (lambda: Attention(causal=True), (5, 8)), "by hand": (lambda: Attention(by_hand=True), (5, 8)), "heads": (Heads, (5, 8)),
    "encoder": (Encoder, (4, 8)), "norm first": (lambda: Encoder(activation="gelu", norm_first=True), (4, 8)), "samples": (samples, (3, 16)),
}  # fmt: skip
