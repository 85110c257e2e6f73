"""Functions of fixed-precision tensors: for each that is re-expressed, what calls it, operands, and how many units it may be off forwards and
backwards, where that is more than usual."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def f(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + len(shape)))


def positive(*shape):
    return f(*shape).abs() + 0.5


TARGET = torch.tensor([1, 0, 3])
MASK = torch.tensor([[True, False, True], [True, True, False], [False, True, True]])


def heads(x, w):
    e = 4
    return F.multi_head_attention_forward(
        x, x, x, e, 2, torch.cat([w, w * 0.5, w]), torch.cat([w[0], w[1], w[2]]), None, None, False, 0.0, w, w[0]
    )[0]


def lstm(x, w, **how):
    h = torch.zeros_like(x[0, :, :2])
    return torch.lstm(x, (torch.stack([h, h]), torch.stack([h, h + 1])), [w, w[:, :2], w[:, 0], w[:, 1]] * 2, True, 1, 0.0, False, True, False)[0]


FUNCTIONS = {
    F.hardtanh: [(lambda x, w: F.hardtanh(x, -0.5, 0.75) * w, f(3, 4), f(4)), (lambda x, w: F.hardtanh(x * w, inplace=True), f(3, 4), f(4))],
    F.relu6: [(lambda x, w: F.relu6(x * 5) * w, f(3, 4), f(4))],
    F.hardsigmoid: [(lambda x, w: F.hardsigmoid(x * 3) * w, f(3, 4), f(4))],
    F.hardswish: [(lambda x, w: F.hardswish(x * 3) * w, f(3, 4), f(4))],
    F.threshold: [(lambda x, w: F.threshold(x, 0.25, -1.5) * w, f(3, 4), f(4))],
    F.softshrink: [(lambda x, w: F.softshrink(x) * w, f(3, 4), f(4))],
    F.hardshrink: [(lambda x, w: F.hardshrink(x, 0.25) * w, f(3, 4), f(4))],
    torch.hardshrink: [(lambda x, w: torch.hardshrink(x) * w, f(3, 4), f(4))],
    F.leaky_relu: [(lambda x, w: F.leaky_relu(x) * w, f(3, 4), f(4)), (lambda x, w: F.leaky_relu(x * w, 0.25, inplace=True), f(3, 4), f(4))],
    F.prelu: [(lambda x, w: F.prelu(x, w), f(3, 4), f(4)), (lambda x, w: F.prelu(x, w), f(2, 4, 3), f(1))],
    torch.Tensor.prelu: [(lambda x, w: x.prelu(w), f(2, 4, 3, 3), f(4))],
    F.elu: [(lambda x, w: F.elu(x, 0.75) * w, f(3, 4) * 3, f(4))],
    F.selu: [(lambda x, w: F.selu(x) * w, f(3, 4), f(4))],
    torch.selu: [(lambda x, w: torch.selu(x) * w, f(3, 4), f(4))],
    F.celu: [(lambda x, w: F.celu(x, 0.5) * w, f(3, 4), f(4))],
    torch.celu: [(lambda x, w: torch.celu(x) * w, f(3, 4), f(4))],
    F.mish: [(lambda x, w: F.mish(x) * w, f(3, 4), f(4))],
    F.logsigmoid: [(lambda x, w: F.logsigmoid(x) * w, f(3, 4), f(4))],
    torch.log2: [(lambda x, w: torch.log2(x) * w, positive(3, 4), f(4))],
    torch.Tensor.log2: [(lambda x, w: x.log2() + w, positive(3, 4), f(4))],
    torch.log10: [(lambda x, w: torch.log10(x) * w, positive(3, 4), f(4))],
    torch.Tensor.log10: [(lambda x, w: x.log10() + w, positive(3, 4), f(4))],
    torch.log1p: [(lambda x, w: torch.log1p(x) * w, positive(3, 4), f(4))],
    torch.Tensor.log1p: [(lambda x, w: x.log1p() + w, positive(3, 4), f(4))],
    torch.exp2: [(lambda x, w: torch.exp2(x) * w, f(3, 4), f(4))],
    torch.Tensor.exp2: [(lambda x, w: x.exp2() + w, f(3, 4), f(4))],
    torch.expm1: [(lambda x, w: torch.expm1(x) * w, f(3, 4), f(4))],
    torch.Tensor.expm1: [(lambda x, w: x.expm1() + w, f(3, 4), f(4))],
    torch.Tensor.__rpow__: [(lambda x, w: 1.5**x * w, f(3, 4), f(4))],
    torch.logsumexp: [(lambda x, w: torch.logsumexp(x, 1) * w, f(3, 4), f(3)), (lambda x, w: torch.logsumexp(x, (0, 2)) * w, f(2, 3, 4), f(3))],
    torch.Tensor.logsumexp: [(lambda x, w: x.logsumexp(0, keepdim=True) * w, f(3, 4), f(1, 4)), (lambda x, w: x.logsumexp((0, 2), True) * w, f(2, 3, 4), f(3, 1))],
    F.cosine_similarity: [(lambda x, w: F.cosine_similarity(x, w), f(3, 4), f(3, 4)), (lambda x, w: F.cosine_similarity(x, w, 0), f(3, 4), f(3, 4) + 1),
                          (lambda x, w: F.cosine_similarity(x, w, dim=0), f(1, 4), f(3, 4))],
    F.pairwise_distance: [(lambda x, w: F.pairwise_distance(x, w), f(3, 4), f(3, 4) + 1), (lambda x, w: F.pairwise_distance(x, w, 1, keepdim=True), f(3, 4), f(4)),
                          (lambda x, w: F.pairwise_distance(x, w, eps=0.5), f(3, 4), f(3, 4) + 1)],
    torch.dist: [(lambda x, w: torch.dist(x, w), f(3, 4), f(3, 4) + 1)],
    torch.Tensor.dist: [(lambda x, w: x.dist(w), f(3, 4), f(3, 4) + 1)],
    torch.cdist: [(lambda x, w: torch.cdist(x, w), f(3, 4), f(2, 4) + 1)],
    torch.std_mean: [(lambda x, w: torch.std_mean(x, 1)[0] * w, f(3, 4), f(3)), (lambda x, w: sum(torch.std_mean(x, correction=0)) * w, f(3, 4), f(3))],
    F.smooth_l1_loss: [(lambda x, w: F.smooth_l1_loss(x, w, beta=0.5), f(3, 4), f(3, 4) + 1), (lambda x, w: F.smooth_l1_loss(x, w, beta=0.0), f(3, 4), f(3, 4) + 1)],
    F.huber_loss: [(lambda x, w: F.huber_loss(x, w, "sum", 0.5), f(3, 4), f(3, 4) + 1)],
    torch.max_pool1d: [(lambda x, w: torch.max_pool1d(x, 2) * w, f(2, 3, 6), f(3)), (lambda x, w: torch.max_pool1d(x, 3, 2, 1) * w, f(3, 6), f(3))],
    F.max_pool1d: [(lambda x, w: F.max_pool1d(x.relu(), 2, stride=1) * w, f(2, 3, 4), f(3))],
    F.avg_pool1d: [(lambda x, w: F.avg_pool1d(x, 2) * w, f(2, 3, 6), f(3)), (lambda x, w: F.avg_pool1d(x, 3, 2, 1) * w, f(3, 6), f(3))],
    F.adaptive_avg_pool1d: [(lambda x, w: F.adaptive_avg_pool1d(x, 3) * w, f(2, 3, 6), f(3))],
    F.adaptive_max_pool1d: [(lambda x, w: F.adaptive_max_pool1d(x, 3) * w, f(2, 3, 6), f(3))],
    F.adaptive_max_pool2d: [(lambda x, w: F.adaptive_max_pool2d(x, (2, None)) * w, f(2, 3, 4, 3), f(3)), (lambda x, w: F.adaptive_max_pool2d(x, 1) * w, f(3, 4, 4), f(3, 1, 1))],
    torch.masked_select: [(lambda x, w: torch.masked_select(x, MASK) * w, f(3, 3), f(6))],
    torch.Tensor.masked_select: [(lambda x, w: x.masked_select(MASK[0]) * w, f(3, 3), f(6))],
    torch.bitwise_and: [(lambda x, w: torch.bitwise_and(x > 0, w > 0) * w * x, f(3, 4), f(4))],
    torch.Tensor.bitwise_and: [(lambda x, w: (x > 0).bitwise_and(w > 0) * w * x, f(3, 4), f(4))],
    torch.Tensor.__and__: [(lambda x, w: ((x > 0) & (x < w) & True) * w * x, f(3, 4), f(4)), (lambda x, w: ((x > 0)[:, :3] & MASK) * w * w, f(3, 4), f(3))],
    torch.Tensor.__rand__: [(lambda x, w: (True & (x > w)) * w * x, f(3, 4), f(4))],
    torch.bitwise_or: [(lambda x, w: torch.bitwise_or(x > 0, w > 0) * w * x, f(3, 4), f(4))],
    torch.Tensor.bitwise_or: [(lambda x, w: (x > 0).bitwise_or(w > 0) * w * x, f(3, 4), f(4))],
    torch.Tensor.__or__: [(lambda x, w: ((x > 0) | (x < w)) * w * x, f(3, 4), f(4)), (lambda x, w: ((x > 0)[:, :3] | MASK) * w * w, f(3, 4), f(3))],
    torch.Tensor.__ror__: [(lambda x, w: (False | (x > w)) * w * x, f(3, 4), f(4))],
    torch.bitwise_xor: [(lambda x, w: torch.bitwise_xor(x > 0, w > 0) * w * x, f(3, 4), f(4))],
    torch.Tensor.bitwise_xor: [(lambda x, w: (x > 0).bitwise_xor(w > 0) * w * x, f(3, 4), f(4))],
    torch.Tensor.__xor__: [(lambda x, w: ((x > 0) ^ (x < w)) * w * x, f(3, 4), f(4)), (lambda x, w: ((x > 0)[:, :3] ^ MASK) * w * w, f(3, 4), f(3))],
    torch.Tensor.__rxor__: [(lambda x, w: (True ^ (x > w)) * w * x, f(3, 4), f(4))],
    torch.bitwise_not: [(lambda x, w: torch.bitwise_not(x > w) * w * x, f(3, 4), f(4))],
    torch.Tensor.bitwise_not: [(lambda x, w: (x > w).bitwise_not() * w * x, f(3, 4), f(4))],
    torch.Tensor.__invert__: [(lambda x, w: ~(x > w) * w * x, f(3, 4), f(4))],
    torch.lstm: [(lstm, f(3, 2, 4), f(8, 4))],
    torch.exp: [(lambda x, w: torch.exp(x) * w, f(3, 4), f(4))],
    torch.Tensor.exp: [(lambda x, w: (x * w).exp(), f(3, 4), f(4))],
    torch.log: [(lambda x, w: torch.log(x) * w, positive(3, 4), f(4))],
    torch.Tensor.log: [(lambda x, w: x.log() + w, positive(3, 4), f(4))],
    torch.sqrt: [(lambda x, w: torch.sqrt(x) * w, positive(3, 4), f(4))],
    torch.Tensor.sqrt: [(lambda x, w: x.sqrt() + w, positive(3, 4), f(4))],
    torch.rsqrt: [(lambda x, w: torch.rsqrt(x) * w, positive(3, 4), f(4))],
    torch.Tensor.rsqrt: [(lambda x, w: x.rsqrt() + w, positive(3, 4), f(4))],
    torch.reciprocal: [(lambda x, w: torch.reciprocal(x) * w, positive(3, 4), f(4))],
    torch.Tensor.reciprocal: [(lambda x, w: (-x).reciprocal() + w, positive(3, 4), f(4))],
    torch.sigmoid: [(lambda x, w: torch.sigmoid(x) * w, f(3, 4) * 5, f(4))],
    torch.Tensor.sigmoid: [(lambda x, w: (x * w).sigmoid(), f(3, 4), f(4))],
    torch.special.expit: [(lambda x, w: torch.special.expit(x * w), f(3, 4), f(4))],
    torch.tanh: [(lambda x, w: torch.tanh(x) * w, f(3, 4) * 3, f(4))],
    torch.Tensor.tanh: [(lambda x, w: (x * w).tanh(), f(3, 4), f(4))],
    F.silu: [(lambda x, w: F.silu(x) * w, f(3, 4) * 3, f(4)), (lambda x, w: F.silu(x * w, inplace=True), f(3, 4), f(4))],
    F.gelu: [(lambda x, w: F.gelu(x) * w, f(3, 4) * 3, f(4)), (lambda x, w: F.gelu(x, approximate="tanh") * w, f(3, 4) * 3, f(4))],
    torch.div: [(lambda x, w: torch.div(x, w), f(3, 4), positive(4)), (lambda x, w: torch.div(x, 3) + w, f(3, 4), f(4))],
    torch.true_divide: [(lambda x, w: torch.true_divide(x, w), f(3, 4), positive(3, 1))],
    torch.Tensor.div: [(lambda x, w: x.div(w), f(3, 4), positive(4))],
    torch.Tensor.true_divide: [(lambda x, w: x.true_divide(w), f(3, 4), positive(4))],
    torch.Tensor.__truediv__: [(lambda x, w: x / w, f(3, 4), -positive(4)), (lambda x, w: (x * w) / 2, f(3, 4), f(4))],
    torch.Tensor.__rtruediv__: [(lambda x, w: (2 / x) * w, positive(3, 4), f(4))],
    torch.pow: [(lambda x, w: torch.pow(x, -2) * w, positive(3, 4), f(4)), (lambda x, w: torch.pow(x, 1.5) * w, positive(3, 4), f(4))],
    torch.Tensor.pow: [(lambda x, w: x.pow(-0.5) * w, positive(3, 4), f(4)), (lambda x, w: x.pow(0) * w, f(3, 4), f(4))],
    torch.Tensor.__pow__: [(lambda x, w: x**3 * w, f(3, 4), f(4))],
    F.softmax: [(lambda x, w: F.softmax(x, 1) * w, f(3, 4), f(4)), (lambda x, w: F.softmax(x, 0) * w, f(3, 4) * 4, f(4)),
                (lambda x, w: F.softmax(x, -1) * w, f(2, 20), f(20))],
    torch.softmax: [(lambda x, w: torch.softmax(x, 1) * w, f(3, 4, 2), f(2))],
    torch.Tensor.softmax: [(lambda x, w: x.softmax(-1) * w, f(3, 1), f(1))],
    F.log_softmax: [(lambda x, w: F.log_softmax(x, 1) * w, f(3, 4), f(4)), (lambda x, w: F.log_softmax(x, -1) * w, f(2, 20), f(20))],
    torch.log_softmax: [(lambda x, w: torch.log_softmax(x, 0) * w, f(3, 4), f(4))],
    torch.Tensor.log_softmax: [(lambda x, w: x.log_softmax(-1) * w, f(4), f(4))],
    F.cross_entropy: [(lambda x, w: F.cross_entropy(x * w, TARGET), f(3, 4), f(4)),
                      (lambda x, w: F.cross_entropy(x, w.detach(), reduction="sum") * w.sum(), f(3, 4), torch.eye(4)[TARGET]),
                      (lambda x, w: F.cross_entropy(x * w, TARGET[:1].expand(2, 3), reduction="none"), f(2, 4, 3), f(4, 1)),
                      (lambda x, w: F.cross_entropy(x * w, TARGET, torch.tensor([1.0, 2.0, 0.5, 1.5])), f(3, 4), f(4)),
                      (lambda x, w: F.cross_entropy(x * w, TARGET, label_smoothing=0.25, ignore_index=0), f(3, 4), f(4)),
                      (lambda x, w: F.cross_entropy(x * w, TARGET, torch.tensor([1.0, 2.0, 0.5, 1.5]), label_smoothing=0.25), f(3, 4), f(4)),
                      (lambda x, w: F.cross_entropy(x * w, torch.tensor([[1, -100, 3], [-100, 0, 2]]) + 0 * TARGET), f(2, 4, 3), f(4, 1))],
    F.nll_loss: [(lambda x, w: F.nll_loss(F.log_softmax(x * w, 1), TARGET), f(3, 4), f(4)),
                 (lambda x, w: F.nll_loss(F.log_softmax(x * w, 1), TARGET, torch.tensor([1.0, 2.0, 0.5, 1.5]), ignore_index=3), f(3, 4), f(4))],
    F.softplus: [(lambda x, w: F.softplus(x * w), f(3, 4), f(4))],
    F.binary_cross_entropy_with_logits: [
        (lambda x, w: F.binary_cross_entropy_with_logits(x * w, torch.tensor([0.0, 1.0, 1.0, 0.0]).expand(3, 4)), f(3, 4) * 3, f(4))
    ],
    F.scaled_dot_product_attention: [
        (lambda x, w: F.scaled_dot_product_attention(x, w, w * 2), f(2, 3, 4), f(2, 3, 4)),
        (lambda x, w: F.scaled_dot_product_attention(x, w, w, is_causal=True), f(2, 3, 4), f(2, 3, 4)),
        (lambda x, w: F.scaled_dot_product_attention(x, w, w, MASK), f(2, 3, 4), f(2, 3, 4)),
        (lambda x, w: F.scaled_dot_product_attention(x, w, w, torch.zeros(3, 3).masked_fill(~MASK, -torch.inf)), f(2, 3, 4), f(2, 3, 4)),
    ],
    F.multi_head_attention_forward: [(heads, f(3, 2, 4), f(4, 4)), (heads, f(3, 4), f(4, 4))],
    F.embedding: [(lambda x, w: F.embedding(TARGET, x) * w, f(5, 4), f(4)), (lambda x, w: F.embedding(TARGET, x, padding_idx=3) * w, f(5, 4), f(4)),
                  (lambda x, w: F.embedding(TARGET, x, -2) * w, f(5, 4), f(4))],
    torch.embedding: [(lambda x, w: torch.embedding(x, TARGET) * w, f(5, 4), f(4)), (lambda x, w: torch.embedding(x, TARGET, 1) * w, f(5, 4), f(4))],
    F.layer_norm: [(lambda x, w: F.layer_norm(x, (4,), w, w * 2), f(3, 4), f(4)), (lambda x, w: F.layer_norm(x, (3, 4)) * w, f(2, 3, 4), f(4))],
    torch.layer_norm: [(lambda x, w: torch.layer_norm(x, (4,), w), f(3, 4), f(4))],
    F.group_norm: [(lambda x, w: F.group_norm(x, 2, w, w), f(2, 4, 3, 3), f(4))],
    torch.group_norm: [(lambda x, w: torch.group_norm(x, 2, w), f(2, 4, 3), f(4))],
    torch.var: [(lambda x, w: torch.var(x, 1) * w, f(3, 4), f(3)), (lambda x, w: torch.var(x) * w, f(3, 4), f(3))],
    torch.Tensor.var: [(lambda x, w: x.var(0, unbiased=False, keepdim=True) * w, f(3, 4), f(4))],
    torch.std: [(lambda x, w: torch.std(x, (0, 1), correction=0) * w, f(3, 4), f(3))],
    torch.Tensor.std: [(lambda x, w: x.std(1, False) * w, f(3, 4), f(3))],
    torch.var_mean: [(lambda x, w: torch.var_mean(x, 1)[0] * w, f(3, 4), f(3))],
    torch.norm: [(lambda x, w: torch.norm(x) * w, f(3, 4), f(3)), (lambda x, w: torch.norm(x, 1, 1) * w, f(3, 4), f(3))],
    torch.Tensor.norm: [(lambda x, w: x.norm(dim=1, keepdim=True) * w, f(3, 4), f(3, 1))],
    torch.linalg.norm: [(lambda x, w: torch.linalg.norm(x, dim=1) * w, f(3, 4), f(3)), (lambda x, w: torch.linalg.norm(x, 1) * w, f(3, 4), f(3))],
    torch.linalg.matrix_norm: [(lambda x, w: torch.linalg.matrix_norm(x, torch.inf) * w, f(2, 3, 4), f(2))],
    torch.linalg.vector_norm: [(lambda x, w: torch.linalg.vector_norm(x, torch.inf, 1) * w, f(3, 4), f(3))],
    F.normalize: [(lambda x, w: F.normalize(x) * w, f(3, 4), f(4)), (lambda x, w: F.normalize(x, 1) * w, f(3, 4), f(4))],
    torch.prod: [(lambda x, w: torch.prod(x, 1) * w, f(3, 5), f(3)), (lambda x, w: torch.prod(x) * w, positive(3), f(3))],
    torch.Tensor.prod: [(lambda x, w: x.prod(0, keepdim=True) * w, f(3, 4), f(4))],
    torch.min: [(lambda x, w: torch.min(x, 1).values * w, f(3, 4), f(3)), (lambda x, w: torch.min(x) * w, f(3, 4), f(3)),
                (lambda x, w: torch.min(x, w), f(3, 4), f(4))],
    torch.Tensor.min: [(lambda x, w: x.min(0, keepdim=True)[0] * w, f(3, 4), f(1, 4)), (lambda x, w: x[0, 0].min(0)[0] * w, f(3, 4), f(3))],
    torch.amin: [(lambda x, w: torch.amin(x, (0, 2)) * w, f(2, 3, 4), f(3))],
    torch.Tensor.amin: [(lambda x, w: x.amin(-1, keepdim=True) * w, f(3, 4), f(3, 1)), (lambda x, w: x.amin() * w, f(3, 4), f(3))],
    torch.aminmax: [(lambda x, w: torch.aminmax(x, dim=1).min * w, f(3, 4), f(3)), (lambda x, w: torch.aminmax(x)[1] * w, f(3, 4), f(3))],
    torch.Tensor.aminmax: [(lambda x, w: x.aminmax(dim=0, keepdim=True).max * w, f(3, 4), f(4))],
    torch.msort: [(lambda x, w: torch.msort(x) * w, f(5, 3), f(3))],
    torch.Tensor.msort: [(lambda x, w: x.msort() * w, f(5, 3), f(3))],
    torch.sort: [(lambda x, w: torch.sort(x, 1)[0] * w, f(3, 5), f(5)), (lambda x, w: torch.sort(x, 0, descending=True)[0] * w, f(3, 4), f(4))],
    torch.Tensor.sort: [(lambda x, w: x.sort(dim=-1)[0] * w, f(3, 5), f(5))],
    torch.argsort: [(lambda x, w: x[0][torch.arange(5)] * w + torch.argsort(w, 0)[0] * 0 if type(x) is torch.Tensor else x[0] * w, f(3, 5), f(5))],
    torch.Tensor.argsort: [(lambda x, w: x * w, f(3, 5), f(5))],
    torch.topk: [(lambda x, w: torch.topk(x, 2, 1)[0] * w, f(3, 5), f(2)), (lambda x, w: torch.topk(x, 2, 0, largest=False)[0] * w, f(3, 4), f(4))],
    torch.Tensor.topk: [(lambda x, w: x.topk(3)[0] * w, f(3, 5), f(3))],
}  # fmt: skip
