"""What of a plan's state, and of torch's own, is no tensor, and yet part of a program: it was a number, or decided which way the function
went.

A learning rate that a scheduler lowers, a layer's training mode, a frozen parameter, autocast: with other settings a plan has another
program. Of a tensor or an object that a layer keeps as an attribute, it is which one, and for a tensor how often it was written to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from syftlite._torch import is_plain

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan

Settings = tuple[Any, ...]
FORMS = 16
"""For how many of them programs are kept, those of the oldest going first; over shares, how many programs are."""
_NUMBERS = (bool, int, float, complex, str)
_MAKING_STATE = ("momentum", "amsgrad", "centered")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
OWN = frozenset({"id", "name"})
"""Attributes of a plan that are no settings of its author's."""


class Very:
    """One very object: equal to itself alone, and kept, for another one may come to lie where it has lain."""

    __slots__ = ("it",)

    def __init__(self, it: object) -> None:
        self.it = it

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Very) and other.it is self.it

    def __hash__(self) -> int:
        return id(self.it)


def settings(sources: Sequence[Any], tensors: Sequence[torch.Tensor], plan: Plan | None = None) -> Settings:
    """Of the optimizers and modules among ``sources``, of the state's ``tensors``, of the attributes of ``plan`` and of what its function
    names besides its arguments."""
    found: list[Any] = []
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    others = [] if plan is None else named(plan._function or plan.forward)
    for source in (*sources, *[value for value in others if isinstance(value, nn.Module)]):
        if isinstance(source, torch.optim.Optimizer):
            for group in source.param_groups:
                found += [seen(value) for name, value in group.items() if name != "params"]
                found.append(tuple([places.get(id(parameter), -1) for parameter in group["params"]]))
        elif isinstance(source, nn.Module):
            for module in source.modules():
                found.append(type(module))
                found += _attributes(module)
    own = [] if plan is None else _attributes(plan, OWN)
    own += [seen(value) for value in others if not isinstance(value, nn.Module) and id(value) not in places]
    return (*found, *own, *[tensor.requires_grad for tensor in tensors])


def named(function: Any) -> list[Any]:
    """The numbers, the local tensors and the modules that ``function`` names besides its arguments: in functions round it, or globally."""
    function = getattr(function, "func", function)
    code = getattr(function, "__code__", None)
    if code is None:
        return []
    found = []
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # not filled yet
            found.append(cell.cell_contents)
    globally = function.__globals__
    found += [globally[name] for name in code.co_names if name in globally]
    return [v for v in found if type(v) in _NUMBERS or isinstance(v, nn.Module) or (isinstance(v, torch.Tensor) and is_plain(v))]


def modes() -> Settings:
    """Of torch, where a plan is called."""
    cast = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None
    return torch.is_grad_enabled(), torch.get_default_dtype(), cast


def warmth(optimizers: Sequence[torch.optim.Optimizer]) -> Any:
    """What tells whether a step would make state anew: which parameters learn, which have state, and which options are on."""
    return tuple(
        (
            len(optimizer.state),
            *[tuple([id(p) for p in group["params"] if p.requires_grad]) for group in optimizer.param_groups],
            *[bool(group.get(option)) for group in optimizer.param_groups for option in _MAKING_STATE],
        )
        for optimizer in optimizers
    )


def _attributes(owner: object, skipped: frozenset[str] = frozenset()) -> list[Any]:
    found = []
    for name, value in vars(owner).items():
        if name[0] != "_":
            if name not in skipped and not (skipped and isinstance(value, (nn.Module, torch.Tensor))):  # which are its state
                found.append((name, seen(value)))
        elif value and name in _HOOKS:
            found.append((name, tuple(map(Very, value.values()))))
    return found


def seen(value: Any) -> Any:
    """What tells ``value`` from others: a number by type and value, a container by what is in it, a tensor and an object by which it is."""
    kind = type(value)
    if kind is float:
        return kind, value.hex()  # -0.0 is not 0.0, and NaN is NaN
    if kind in _NUMBERS or value is None:
        return kind, value
    if kind in (tuple, list):
        return kind, tuple(map(seen, value))
    if kind is dict:
        return kind, tuple([(seen(key), seen(item)) for key, item in value.items()])
    if isinstance(value, torch.Tensor):
        return Very(value), written(value)
    return Very(value)


def written(tensor: torch.Tensor) -> int:
    """How often ``tensor`` was written to, as far as torch counts."""
    return 0 if tensor.is_inference() else tensor._version
