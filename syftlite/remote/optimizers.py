"""An optimizer's state follows its parameters: one optimizer survives its model's moves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import is_plain
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import read, ship, upload
from syftlite.tensors.wrapper import WrapperTensor

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


def follow(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Before a step: bring each parameter's state to where the parameter is, together what goes one way. Step counts stay here."""
    states = [(optimizer.state[p], _place(p)) for group in optimizer.param_groups for p in group["params"] if optimizer.state.get(p)]
    strays: dict[tuple[BaseWorker | None, BaseWorker | None], list[Any]] = {}
    for state, place in states:
        for value in _values(state.values()):
            if (there := _place(value)) is not place:
                strays.setdefault((there, place), []).append(value)
    moved: dict[int, Any] = {}
    for (there, place), values in strays.items():
        moved.update(zip(map(id, values), _carried(values, there, place), strict=True))
    if moved:
        for state, _ in states:
            state.update({name: _replaced(value, moved) for name, value in state.items()})


def _place(tensor: torch.Tensor) -> BaseWorker | None:
    """Where ``tensor`` is, or the pointer that it is a layer around; None for what is here, or shared."""
    below = tensor.child if isinstance(tensor, WrapperTensor) else tensor
    return below.location if isinstance(below, PointerTensor) else None


def _values(entries: Iterable[Any]) -> Iterator[torch.Tensor]:
    """What moves of a state's ``entries``, layers aside, which may be lists of tensors (LBFGS remembers its steps so)."""
    for entry in entries:
        if isinstance(entry, list):
            yield from _values(entry)
        elif isinstance(entry, PointerTensor) or (isinstance(entry, torch.Tensor) and is_plain(entry) and entry.dim() > 0):
            yield entry


def _carried(values: list[Any], there: BaseWorker | None, place: BaseWorker | None) -> Sequence[torch.Tensor]:
    """``values``, which are ``there``, at ``place``; None is here."""
    if place is None:
        return read(values, take=True)
    if there is None:
        return [upload(value, place) for value in values]
    return ship(values, place, take=False)  # the old ones go with their pointers


def _replaced(entry: Any, moved: dict[int, Any]) -> Any:
    if isinstance(entry, list):
        return [_replaced(item, moved) for item in entry]
    return moved.get(id(entry), entry)


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
