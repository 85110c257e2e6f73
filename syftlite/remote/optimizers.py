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
                    if isinstance(value, PointerTensor) or (isinstance(value, torch.Tensor) and value.dim()):
                        state[name] = beside(value, parameter)


def beside(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """``value`` at ``parameter``'s place."""
    if isinstance(parameter, PointerTensor):
        return relocated(value, parameter.location)
    return read([value], take=True)[0] if isinstance(value, PointerTensor) else value
