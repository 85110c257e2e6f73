"""What of a plan's state, and of torch's own, is no tensor, and yet part of a program: it was a number, or decided which way the function
went.

A learning rate that a scheduler lowers, a layer's training mode, a frozen parameter, autocast: with other settings a plan has another
program. Of a tensor or an object that a layer keeps as an attribute, it is which one, and for a tensor how often it was written to.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from syftlite._torch import is_plain
from syftlite.plans.naming import NUMBERS, Path, named, of_class
from syftlite.plans.walk import parts, tensors_of
from syftlite.remote.derived import made_by_hooks

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan

Settings = tuple[Any, ...]
FORMS = 16
"""For how many of them programs are kept, those of the oldest going first; over shares, how many programs are."""
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
    """Of the optimizers and modules among ``sources``, of the state's ``tensors``, of the attributes of ``plan`` and, last, of what its
    function names besides its arguments."""
    found: list[Any] = []
    places = {id(tensor): place for place, tensor in enumerate(tensors)}
    others = {} if plan is None else read_by(plan)
    given = set(map(id, sources))
    for source in (*sources, *[v for v in others.values() if isinstance(v, nn.Module) and id(v) not in given]):
        if isinstance(source, torch.optim.Optimizer):
            for group in source.param_groups:
                found += [seen(value) for name, value in group.items() if name != "params"]
                found.append(tuple([places.get(id(parameter), -1) for parameter in group["params"]]))
        elif isinstance(source, nn.Module):
            for module in parts(source):
                found.append(type(module))
                found += _attributes(module, made_by_hooks(module))
    own = [] if plan is None else _attributes(plan, OWN)
    names = tuple([(path, _which(value, places)) for path, value in others.items()])
    return (*found, *own, *[tensor.requires_grad for tensor in tensors], names)


def _which(value: Any, places: dict[int, int]) -> Any:
    """What tells ``value``, which a function names, from others: of a module, which tensors it has."""
    if isinstance(value, nn.Module):
        return tuple([places[id(t)] if id(t) in places else Very(t) for t in tensors_of(value)])
    return places[id(value)] if id(value) in places else seen(value)


def read_by(plan: Plan) -> dict[Path, Any]:
    """What the function of ``plan`` names besides its arguments and does not write by itself."""
    return {path: value for path, value in named(plan._function or plan.forward, plan).items() if path not in plan._written}


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


def _attributes(owner: object, skipped: Collection[str] = ()) -> list[Any]:
    found = [(name, seen(value)) for name, value in of_class(type(owner))]
    for name, value in vars(owner).items():
        if name[0] != "_":
            if name not in skipped and not (skipped is OWN and isinstance(value, (nn.Module, torch.Tensor))):  # which are its state
                found.append((name, seen(value)))
        elif value and name in _HOOKS:
            found.append((name, tuple(map(Very, value.values()))))
    return found


def seen(value: Any) -> Any:
    """What tells ``value`` from others: a number by type and value, a container by what is in it, a tensor and an object by which it is."""
    kind = type(value)
    if kind is float:
        return kind, value.hex()  # -0.0 is not 0.0, and NaN is NaN
    if kind in NUMBERS or value is None:
        return kind, value
    if isinstance(value, (tuple, list)):
        return kind, tuple(map(seen, value))
    if isinstance(value, dict):
        return kind, tuple([(seen(key), seen(item)) for key, item in value.items()])
    if isinstance(value, (set, frozenset)):
        return kind, frozenset(map(seen, value))
    if isinstance(value, torch.Tensor):
        return Very(value), written(value) if is_plain(value) else 0
    return Very(value)


def written(tensor: torch.Tensor) -> int:
    """How often ``tensor`` was written to, as far as torch counts."""
    return 0 if tensor.is_inference() else tensor._version
