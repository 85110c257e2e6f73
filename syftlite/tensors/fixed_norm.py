"""Batch norms on FixedPrecisionTensors, as they are once trained.

    y = x * s + t        s = weight / sqrt(running_var + eps),  t = bias - running_mean * s

A secret has no square root here, and needs none: `fix_precision` of a module computes 1 / sqrt(running_var + eps) where the variance still
is floats, and keeps it with it (`Deviation`). s and t are computed once for a model. Public statistics stay public.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from syftlite._torch import below_functions
from syftlite.tensors.fixed import FixedPrecisionTensor

Fixed = FixedPrecisionTensor


class Deviation(NamedTuple):
    """1 / sqrt(var + eps) of a fixed-precision ``var``, computed from the floats; ``writes``: of ``var``, when that was."""

    inverse: Fixed
    eps: float
    writes: int


def deviation(module: nn.Module) -> dict[int, tuple[torch.Tensor, float]]:
    """By the id of each running variance of ``module`` that is still floats: 1 / sqrt(var + eps), and eps."""
    found: dict[int, tuple[torch.Tensor, float]] = {}
    for part in module.modules():
        variance, eps = getattr(part, "running_var", None), getattr(part, "eps", None)
        if isinstance(variance, torch.Tensor) and not isinstance(variance, Fixed) and isinstance(eps, float):
            found[id(variance)] = (variance.detach() + eps).rsqrt(), eps
    return found


def keep(variance: Fixed, inverse: Fixed, eps: float) -> Fixed:
    """``variance``, with what was computed from its floats."""
    variance.__dict__["_deviation"] = Deviation(inverse, eps, variance._memory.writes)
    return variance


def kept(variance: Any) -> Deviation | None:
    """What was kept with ``variance``, if it was not written to since."""
    found: Deviation | None = getattr(variance, "__dict__", {}).get("_deviation")
    return found if found is not None and found.writes == variance._memory.writes else None


def _inverse(variance: Any, eps: float) -> Any:
    if not isinstance(variance, Fixed):
        return (variance + eps).rsqrt()
    found = kept(variance)
    if found is None or found.eps != eps:
        raise NotImplementedError(
            f"FixedPrecisionTensor has no square root for the batch norm's running_var and eps={eps}: fix_precision() the module, which "
            "computes it from the floats, or leave the running statistics public"
        )
    return found.inverse


def _version(tensor: Any) -> Any:
    return (id(tensor), tensor._memory.writes if isinstance(tensor, Fixed) else getattr(tensor, "_version", 0))


def _folded(mean: Any, variance: Any, weight: Any, bias: Any, eps: float) -> tuple[Any, Any]:
    """(s, t), kept with the variance until one of the four is written to."""
    version = (eps, *map(_version, (mean, variance, weight, bias)))
    history = torch.is_grad_enabled() and any(isinstance(v, torch.Tensor) and v.requires_grad for v in (weight, bias))
    known = getattr(variance, "__dict__", {}).get("_folded")
    if not history and known is not None and known[0] == version:
        folded: tuple[Any, Any] = known[1]
        return folded
    inverse = _inverse(variance, eps)
    by = inverse if weight is None else weight * inverse
    shift = -mean * by if bias is None else bias - mean * by
    if isinstance(by, Fixed):
        by._child  # noqa: B018  divided once, here, and not with each batch
    if isinstance(shift, Fixed):
        shift._child  # noqa: B018
    if not history and isinstance(variance, Fixed):
        variance.__dict__["_folded"] = (version, (by, shift))
    return by, shift


@Fixed.reexpresses(F.batch_norm)
def batch_norm(
    x: Any,
    running_mean: Any,
    running_var: Any,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """A trained batch norm, of (N, C, ...)."""
    if training or running_mean is None or running_var is None:
        raise NotImplementedError(
            "FixedPrecisionTensor knows batch_norm with running statistics alone, since a secret variance has no square root here: "
            "module.eval() before it computes"
        )
    if not any(isinstance(v, Fixed) for v in (x, running_mean, running_var, weight, bias)):
        with below_functions():
            return F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    by, shift = _folded(running_mean, running_var, weight, bias, eps)
    shape = [1, -1] + [1] * (x.dim() - 2)
    return x * by.view(shape) + shift.view(shape)


@Fixed.reexpresses(torch.batch_norm)
def _batch_norm(x: Any, weight: Any, bias: Any, mean: Any, variance: Any, training: bool, momentum: float, eps: float, cudnn: bool) -> Any:
    return batch_norm(x, mean, variance, weight, bias, training, momentum, eps)
