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


def prime(optimizer: torch.optim.Optimizer) -> None:
    """Make the state that ``optimizer`` makes in its first step, as it is before that. Its parameters, which are here, stay as they are.
    Raises RuntimeError for one whose first step is of another kind than those that follow."""
    if any(group.get("dampening") for group in optimizer.param_groups):
        raise RuntimeError("its first step is not dampened, and all later ones are, which one recorded step cannot be: dampening=0")
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [(p.detach().clone(), p.grad) for p in parameters]
    decay = [group.get("weight_decay") for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        if "weight_decay" in group:
            group["weight_decay"] = 0
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    with torch.no_grad():
        for parameter, (value, grad) in zip(parameters, kept, strict=True):
            parameter.copy_(value)
            parameter.grad = grad
    for group, weight in zip(optimizer.param_groups, decay, strict=True):
        if weight is not None:
            group["weight_decay"] = weight
    for state in optimizer.state.values():  # moments of zero gradients are zero; what is left is the count
        if isinstance(step := state.get("step"), torch.Tensor):
            step.zero_()


def beside(value: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """``value`` at ``parameter``'s place."""
    if isinstance(parameter, PointerTensor):
        return relocated(value, parameter.location)
    return read([value], take=True)[0] if isinstance(value, PointerTensor) else value
