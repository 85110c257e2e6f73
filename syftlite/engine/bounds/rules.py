"""The rules by operators' numbers, and how one is entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC

Shapes = Callable[..., None]
Values = Callable[..., "int | None"]
SHAPES: dict[int, Shapes] = {}
VALUES: dict[int, Values] = {}


def on_shapes(*funcs: Any) -> Callable[[Shapes], Shapes]:
    """Have the decorated function check the specs of ``funcs``' operands."""

    def register(check: Shapes) -> Shapes:
        for func in funcs:
            SHAPES[BY_FUNC[func].number] = check
        return check

    return register


def on_values(*funcs: Any) -> Callable[[Values], Values]:
    """Have the decorated function check the values of ``funcs``' operands."""

    def register(check: Values) -> Values:
        for func in funcs:
            VALUES[BY_FUNC[func].number] = check
        return check

    return register


def need(name: str, given: Any, shape: Sequence[int]) -> None:
    """``given``, unless None, must be a tensor (or the spec of one) of ``shape``."""
    found = None if given is None else list(given.shape) if isinstance(given, (Spec, torch.Tensor)) else type(given).__name__
    if found is not None and found != list(shape):
        raise RuntimeError(f"{name} must have shape {list(shape)}, got {found}")
