"""Steps, on public parameters in fixed precision, of optimizers that divide by what they keep of gradients: in floats.

At the layer's precision a square of a small gradient is 0, and a quotient by it garbage. So torch's own step is that of floats, whose new
value the parameter takes. What the optimizer keeps are floats, too.
"""

from __future__ import annotations

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
    """Before a step: put floats in the place of such parameters."""
    after(optimizer, args, kwargs)  # a step that failed has left its own
    stand: list[tuple[Any, int, Any, Any]] = []
    optimizer.__dict__["_floats"] = stand
    if not isinstance(optimizer, (torch.optim.Adam, *COARSE)):
        return
    for group in optimizer.param_groups:
        for place, p in enumerate(group["params"]):
            if _open(p):
                floats = group["params"][place] = _floats(p)
                _move_state(optimizer, p, floats)
                stand.append((group, place, p, floats))


def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """After it: have the parameters take the floats' values, and be stepped again."""
    for group, place, p, floats in optimizer.__dict__.pop("_floats", ()):
        group["params"][place] = p
        _move_state(optimizer, floats, p)
        with torch.no_grad():
            p.copy_(floats.detach().fix_precision(**p.attributes()))


def _move_state(optimizer: torch.optim.Optimizer, source: Any, to: Any) -> None:
    if source in optimizer.state:
        kept = optimizer.state.pop(source)
        optimizer.state[to] = {name: value.float_precision() if isinstance(value, Fixed) else value for name, value in kept.items()}


__all__ = ["after", "before"]
