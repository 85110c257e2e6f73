"""Steps, on public parameters in fixed precision, of optimizers that divide by what they keep of gradients: in floats.

At the layer's precision a square of a small gradient is 0, and a quotient by it garbage. So the step is torch's own, of floats, whose new
values the parameters take. What the optimizer keeps are floats, too.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from typing import Any

import torch
from torch import nn

from syftlite.remote.shared_adam import COARSE
from syftlite.tensors.fixed import FixedPrecisionTensor

Fixed = FixedPrecisionTensor


def _open(p: Any) -> bool:
    """Whether everybody may know ``p`` and its gradient."""
    return isinstance(p, Fixed) and isinstance(p.grad, Fixed) and not p.is_secret and not p.grad.is_secret


def _floats(p: Any) -> nn.Parameter:
    """A parameter of the same value and gradient, in floats."""
    found = nn.Parameter(p.detach().float_precision())
    found.grad = p.grad.detach().float_precision()
    return found


def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Before a step: make that of such parameters, and put their gradients away, so that torch's own step leaves them out."""
    optimizer.__dict__["_stepped"] = []
    if not isinstance(optimizer, (torch.optim.Adam, *COARSE)):
        return
    pairs = [[(p, _floats(p)) for p in group["params"] if _open(p)] for group in optimizer.param_groups]
    if not any(pairs):
        return
    other = copy.copy(optimizer)
    other.state = defaultdict(dict, {q: _of_floats(optimizer.state[p]) for each in pairs for p, q in each if p in optimizer.state})
    other.param_groups = [{**g, "params": [q for _, q in each]} for g, each in zip(optimizer.param_groups, pairs, strict=True)]
    other.step()
    for group, made in zip(optimizer.param_groups, other.param_groups, strict=True):
        group.update({name: value for name, value in made.items() if name != "params"})
    with torch.no_grad():
        for p, q in (pair for each in pairs for pair in each):
            optimizer.state[p] = other.state[q]
            p.copy_(q.detach().fix_precision(**p.attributes()))  # type: ignore[attr-defined]
            optimizer.__dict__["_stepped"].append((p, p.grad))
            p.grad = None


def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """After it: give them their gradients back."""
    for p, grad in optimizer.__dict__.pop("_stepped", ()):
        p.grad = grad


def _of_floats(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.float_precision() if isinstance(value, Fixed) else value for name, value in state.items()}


__all__ = ["after", "before"]
