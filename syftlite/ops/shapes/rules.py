"""What a rule is, and running operators by rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from syftlite._torch import DispatchMode, broadcast

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}


class Unsure(Exception):
    """The rule leaves it to torch."""

    @classmethod
    def raised(cls) -> Any:
        """Raise one where a value is wanted."""
        raise cls


class ByRule(DispatchMode):
    """Runs operators by `run`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What the overload ``func`` gives of meta tensors."""
    made = RULES.get(func)
    if made is not None:
        try:
            return made(*args, **kwargs)
        except (Unsure, TypeError):
            pass
    return func(*args, **kwargs)


def rule(*funcs: Any) -> Callable[[Rule], Rule]:
    """Enter the rule of these overloads: it takes their operands."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(funcs, function))
        return function

    return enter


def broadcast_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """Raises `Unsure` where they do not go together."""
    try:
        return broadcast(*[tuple(shape) for shape in shapes])
    except RuntimeError:
        raise Unsure from None


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A contiguous meta tensor."""
    return torch.empty(shape, dtype=dtype, device="meta")
