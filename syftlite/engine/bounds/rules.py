"""The rules by operators' numbers, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC

Shapes = Callable[..., None]
Values = Callable[..., "int | None"]
Rule = TypeVar("Rule", bound=Callable[..., Any])
SHAPES: dict[int, Shapes] = {}
VALUES: dict[int, Values] = {}
MAPPED: dict[int, Values] = {}


def on_shapes(*funcs: Any) -> Callable[[Shapes], Shapes]:
    """Have the decorated function check the specs of ``funcs``' operands."""
    return _entering(SHAPES, funcs)


def on_values(*funcs: Any) -> Callable[[Values], Values]:
    """Have the decorated function check the values of ``funcs``' operands."""
    return _entering(VALUES, funcs)


def on_map(*funcs: Any) -> Callable[[Values], Values]:
    """The same where ``funcs`` are mapped over rows: torch then lays rows side by side, where an index may reach the next one."""
    return _entering(MAPPED, funcs)


def _entering(rules: dict[int, Rule], funcs: Sequence[Any]) -> Callable[[Rule], Rule]:
    def register(check: Rule) -> Rule:
        rules.update(dict.fromkeys([BY_FUNC[func].number for func in funcs], check))
        return check

    return register


def need(name: str, given: Any, shape: Sequence[int]) -> None:
    """``given``, unless None, must be a tensor (or the spec of one) of ``shape``."""
    found = None if given is None else list(given.shape) if isinstance(given, (Spec, torch.Tensor)) else type(given).__name__
    if found is not None and found != list(shape):
        raise RuntimeError(f"{name} must have shape {list(shape)}, got {found}")
