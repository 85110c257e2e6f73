"""An optimizer's state follows its parameters: one optimizer survives its model's moves."""

from __future__ import annotations

from typing import Any

import torch

from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import read, relocated


def follow(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Before a step: bring each parameter's state to where the parameter is. Scalars (a step count) stay here."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state.get(parameter)
            if state:
                for name, value in state.items():
                    state[name] = _beside(value, parameter)


def _beside(value: Any, parameter: torch.Tensor) -> Any:
    """An entry of a state, which may be a list of tensors (LBFGS remembers its steps so), at ``parameter``'s place."""
    if isinstance(value, list):
        return [_beside(item, parameter) for item in value]
    moves = isinstance(value, PointerTensor) or (isinstance(value, torch.Tensor) and value.dim() > 0)
    return beside(value, parameter) if moves else value


def beside(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """``value`` at ``parameter``'s place."""
    if isinstance(parameter, PointerTensor):
        return relocated(value, parameter.location)
    return read([value], take=True)[0] if isinstance(value, PointerTensor) else value
