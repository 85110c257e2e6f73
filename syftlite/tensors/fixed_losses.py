"""Losses of FixedPrecisionTensors.

    cross_entropy                        softmax and its logarithm at once; the gradient is softmax sum(y) - y, and needs no logarithm
    binary_cross_entropy_with_logits     log(1 + e^-|x|) + max(x, 0) - x y; the gradient is sigmoid(x) - y
    smooth_l1, huber                     q (d - q / 2), where d = |x - y| and q = min(d, delta)
    kl_div                               y (log y - x), where a secret y below 2^-12 has the logarithm of that
    gaussian_nll                         (log v + (x - y)^2 / v) / 2

A public target costs nothing; a secret one is a shared tensor of whole numbers, or of probabilities, which add up to 1: a product with
their sum would cost two rounds. One that learns has a gradient itself, and so any sum.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_functions import computed
from syftlite.tensors.fixed_gradients import differentiated_once
from syftlite.tensors.fixed_nn import needs_history
from syftlite.tensors.fixed_softmax import log_softmax, normalised, one_hot, within

Fixed = FixedPrecisionTensor
LEVEL = 12
"""log(1 + e^x) is x from there on."""
LEAST = 2.0**-12
"""There the logarithm begins."""


def _vectors(name: str, x: Any, target: Any, ignored: int) -> tuple[Any, Any]:
    """(targets as vectors (n, classes, ...); which of them count, if not all do): one-hot ones of whole numbers, probabilities as they are.
    Raises IndexError for a public target that is no class."""
    dim = 1 if x.dim() > 1 else 0
    if isinstance(target, Fixed) or target.is_floating_point():
        if target.shape != x.shape:
            raise ValueError(
                f"{name}: targets {tuple(target.shape)} are no probabilities of scores {tuple(x.shape)}: classes are whole numbers, "
                "int64, which share() takes without fix_precision()"
            )
        return target, None
    classes, kept = x.shape[dim], None
    if type(target) is not torch.Tensor:
        if 0 <= ignored < classes:
            raise NotImplementedError(f"FixedPrecisionTensor knows {name} with ignore_index of public targets: leave those rows out")
        hot: Any = one_hot(target, classes, like=x)
    else:
        counts = target != ignored
        wrong = target[counts & ((target < 0) | (target >= classes))]
        if wrong.numel():
            known = f"scores {tuple(x.shape)} are of classes 0 ... {classes - 1}, and ignore_index is {ignored}"
            raise IndexError(f"{name}: a target is {int(wrong[0])}, where {known}: mend the target, or name it as ignore_index")
        hot = F.one_hot(target.clamp(0, classes - 1), classes).float() * counts.unsqueeze(-1)
        kept = None if counts.all() else counts
    return hot.movedim(-1, dim), kept


def _whole(target: Any, dim: int) -> bool:
    """Whether targets add up to one: classes do, and public probabilities that do. Secret ones are taken to."""
    if isinstance(target, Fixed) or not target.is_floating_point():
        return True
    return bool(((target.sum(dim) - 1).abs() < 1e-6).all())


def reduced(loss: Any, reduction: str, total: Any = None) -> Any:
    """``total``: of the weights, by which a mean divides; None: the number of losses."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction is 'mean', 'sum' or 'none', and not {reduction!r}")
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.mean() if total is None else loss.sum() / total


def _weighted(x: Any, hot: Any, kept: Any, target: Any, weight: Any) -> tuple[Any, Any]:
    """(targets with the classes' weights, what a mean divides by)."""
    if weight is not None:
        hot = hot * weight.view(-1, *[1] * (x.dim() - 2))
    if target.is_floating_point() or (weight is None and kept is None):
        return hot, None
    total = hot.sum()
    return hot, total if isinstance(total, Fixed) else float(total)


@differentiated_once("cross_entropy")
class _CrossEntropy(torch.autograd.Function):
    """(n,) losses of (n, classes, ...) scores; ``whole``: each target adds up to one."""

    @staticmethod
    def forward(ctx: Any, x: Fixed, target: Any, dim: int, whole: bool) -> Any:
        soft, log = normalised(x, dim, True, True)
        ctx.difference, ctx.dim = (soft if whole else soft * target.sum(dim, keepdim=True)) - target, dim
        return -(log * target).sum(dim)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.difference * grads[0].unsqueeze(ctx.dim), None, None, None


@Fixed.reexpresses(F.cross_entropy)
def cross_entropy(
    x: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """The cross entropy of scores (n, classes, ...); the target is public, or secret."""
    if size_average is not None or reduce is not None:
        raise NotImplementedError("FixedPrecisionTensor knows cross_entropy without size_average and reduce: say reduction=")
    x, dim = within(x), 1 if x.dim() > 1 else 0
    hot, kept = _vectors("cross_entropy", x, target, ignore_index)
    total = _weighted(x, hot, kept, target, weight)[1]
    if label_smoothing:
        even = label_smoothing / x.shape[dim]
        hot = hot * (1 - label_smoothing) + (even if kept is None else even * kept.unsqueeze(dim).float())
    hot = _weighted(x, hot, kept, target, weight)[0]
    if needs_history(hot):
        losses = -(log_softmax(x, dim) * hot).sum(dim)
    elif needs_history(x):
        losses = _CrossEntropy.apply(x, hot, dim, weight is None and kept is None and _whole(target, dim))  # type: ignore[no-untyped-call]
    else:
        losses = -(normalised(x, dim, False, True)[0] * hot).sum(dim)
    return reduced(losses, reduction, total)


@Fixed.reexpresses(F.nll_loss)
def nll_loss(x: Any, target: Any, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
             reduction: str = "mean") -> Any:  # fmt: skip
    """The negative of the target's log-probability."""
    hot, kept = _vectors("nll_loss", x, target, ignore_index)
    hot, total = _weighted(x, hot, kept, target, weight)
    return reduced(-(x * hot).sum(1 if x.dim() > 1 else 0), reduction, total)


@Fixed.reexpresses(F.smooth_l1_loss)
def smooth_l1_loss(
    x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", beta: float = 1.0
) -> Any:
    """(x - y)^2 / 2 beta up to beta, |x - y| - beta / 2 beyond."""
    return reduced(_bent(x, target, beta) / beta if beta else torch.abs(x - target), reduction)


@Fixed.reexpresses(F.huber_loss)
def huber_loss(x: Any, target: Any, reduction: str = "mean", delta: float = 1.0, weight: Any = None) -> Any:
    """(x - y)^2 / 2 up to delta, delta (|x - y| - delta / 2) beyond."""
    losses = _bent(x, target, delta)
    return reduced(losses if weight is None else losses * weight, reduction)


def _bent(x: Any, y: Any, delta: float) -> Any:
    distance = torch.abs(x - y)
    near = distance - torch.relu(distance - delta)
    return near * (distance - near / 2)


@differentiated_once("binary_cross_entropy_with_logits")
class _Logistic(torch.autograd.Function):
    """log(1 + e^x) - x y."""

    @staticmethod
    def forward(ctx: Any, x: Fixed, y: Any) -> Any:
        ctx.difference = computed("sigmoid", x)[0] - y
        return _softplus(x) - x * y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.difference * grads[0], None


def _softplus(x: Fixed) -> Any:
    """max(x, 0) - log(sigmoid(|x|)), which is right however large x is; log(1 + e^-|x|) ends where e^-|x| does."""
    positive: Any = x.relu()
    return positive - computed("log", computed("sigmoid", positive * 2 - x)[0])[0]


@Fixed.reexpresses(F.softplus)
def softplus(x: Any, beta: float = 1, threshold: float = 20) -> Any:
    """log(1 + e^(beta x)) / beta."""
    if threshold < LEVEL:
        raise NotImplementedError(f"FixedPrecisionTensor knows softplus of a threshold of {LEVEL} or more, and not of {threshold}")
    return _Softplus.apply(x * beta) / beta if needs_history(x) else _softplus(x * beta) / beta  # type: ignore[no-untyped-call]


@differentiated_once("softplus")
class _Softplus(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Fixed) -> Any:
        ctx.slope = computed("sigmoid", x)[0]
        return _softplus(x)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.slope * grads[0]


@Fixed.reexpresses(F.soft_margin_loss)
def soft_margin_loss(x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean") -> Any:
    """log(1 + e^(-x y))."""
    return reduced(softplus(-x * target), reduction)


@Fixed.reexpresses(F.binary_cross_entropy_with_logits)
def binary_cross_entropy_with_logits(
    x: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None, reduction: str = "mean", pos_weight: Any = None
) -> Any:
    """The cross entropy of yes and no."""
    if pos_weight is not None:
        loss = (1 - target) * x + ((pos_weight - 1) * target + 1) * softplus(-x)
    elif needs_history(x) and not needs_history(target):
        loss = _Logistic.apply(x, target)  # type: ignore[no-untyped-call]
    else:
        loss = softplus(x) - x * target
    return reduced(loss if weight is None else loss * weight, reduction)


@Fixed.reexpresses(F.multi_margin_loss)
def multi_margin_loss(
    x: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """The mean over classes of max(0, margin + x - x[target])^p, but for the target's own, which is margin^p."""
    if p not in (1, 2):
        raise ValueError(f"multi_margin_loss: p is 1 or 2, and not {p}")
    rows = x if x.dim() > 1 else x.unsqueeze(0)
    if type(target) is torch.Tensor and ((target < 0) | (target >= rows.shape[1])).any():
        raise IndexError(f"multi_margin_loss: scores {tuple(x.shape)} are of classes 0 ... {rows.shape[1] - 1}: mend the target")
    hot, _ = _vectors("multi_margin_loss", rows, target if x.dim() > 1 else target.reshape(1), -100)
    above = torch.relu(rows - (rows * hot).sum(1, keepdim=True) + margin)
    losses = ((above if p == 1 else above * above).sum(1) - max(margin, 0.0) ** p) / rows.shape[1]
    if weight is not None:
        losses = losses * (hot * weight).sum(1)
    return reduced(losses if x.dim() > 1 else losses.squeeze(0), reduction)


@Fixed.reexpresses(F.kl_div)
def kl_div(
    x: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", log_target: bool = False
) -> Any:
    """The divergence of probabilities, or their logarithms, from log-probabilities ``x``."""
    if log_target:
        losses = torch.exp(target) * (target - x)
    elif isinstance(target, Fixed):
        losses = target * (torch.log(torch.clamp(target, min=LEAST)) - x)
    else:
        losses = torch.xlogy(target, target) - target * x
    return losses.sum() / x.shape[0] if reduction == "batchmean" else reduced(losses, reduction)


@Fixed.reexpresses(F.gaussian_nll_loss)
def gaussian_nll_loss(x: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6, reduction: str = "mean") -> Any:
    """The negative log-likelihood of a normal distribution, whose variance has one for each element, or one for all along the last axis."""
    if isinstance(var, float):
        var = torch.full(x.shape, var)
    if not isinstance(var, Fixed) and bool((var < 0).any()):
        raise ValueError("var has negative entry/entries")
    if var.shape == x.shape[:-1]:
        var = var.unsqueeze(-1)
    if var.dim() != x.dim() or any(have not in (1, want) for have, want in zip(var.shape, x.shape, strict=True)):
        raise ValueError("var is of incorrect size")
    if not isinstance(var, Fixed) or eps > LEAST:
        var = var + torch.relu(eps - var.detach())
    loss = (torch.log(var) + (x - target) ** 2 / var) / 2
    return reduced(loss + math.log(2 * math.pi) / 2 if full else loss, reduction)
