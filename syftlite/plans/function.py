"""`func2plan`: a plan of a function that is there already."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from syftlite.errors import PlanError
from syftlite.plans.plan import Plan


class Held:
    """The ``state`` of `func2plan` for a function that has a parameter of that name, as PySyft 0.2's functions had: ``state.read()``."""

    def __init__(self, tensors: Sequence[Any]) -> None:
        self._tensors = tuple(tensors)

    def read(self) -> tuple[Any, ...]:
        """What was given as state, in its order."""
        return self._tensors

    tensors = read


def func2plan(args_shape: Sequence[Sequence[int]] | None = None, state: Iterable[Any] = ()) -> Callable[[Callable[..., Any]], Plan]:
    """Used as ``@func2plan()``, or with arguments.

    Make a function a `Plan`. ``args_shape``: shapes of its float32 inputs, to record it at once; -1 stands for any size."""
    if callable(args_shape):
        raise PlanError("func2plan takes arguments before the function: write @func2plan(), or @func2plan(args_shape=[...])")
    given = tuple(state)

    def make(function: Callable[..., Any]) -> Plan:
        forward = function
        if given and "state" in inspect.signature(function).parameters:
            forward = functools.partial(function, state=Held(given))
        plan = Plan(forward, getattr(function, "__name__", ""), given)
        functools.update_wrapper(plan, function, updated=())
        if args_shape is not None:
            plan.build(*[torch.zeros([1 if n == -1 else n for n in shape]) for shape in args_shape])
        return plan

    return make
