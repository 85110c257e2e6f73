"""`func2plan`: a plan of a function that is there already."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn

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


def func2plan(
    args_shape: Sequence[Sequence[int]] | None = None, state: Iterable[Any] | None = None
) -> Callable[[Callable[..., Any]], Plan]:
    """Used as ``@func2plan()``, or with arguments.

    Make a function a `Plan`. ``args_shape``: shapes of its float32 inputs, to record it at once; -1 stands for any size."""
    if callable(args_shape):
        raise PlanError("func2plan takes arguments before the function: write @func2plan(), or @func2plan(args_shape=[...])")
    if args_shape is not None and not _are_shapes(args_shape):
        raise PlanError(f"args_shape is the shape of each input, such as [(-1, 784)] for one, not {args_shape!r}")
    one = isinstance(state, (torch.Tensor, nn.Module, torch.optim.Optimizer))
    given = () if state is None else (state,) if one else tuple(state)

    def make(function: Callable[..., Any]) -> Plan:
        if not callable(function):
            raise PlanError(f"func2plan() is of a function, not of {function!r}")
        forward = function
        if given and "state" in inspect.signature(function).parameters:
            forward = functools.partial(function, state=Held(given))
        plan = Plan(forward, getattr(function, "__name__", ""), given)
        functools.update_wrapper(plan, function, updated=())
        if args_shape is not None:
            plan.build(*[torch.zeros([1 if n == -1 else n for n in shape]) for shape in args_shape])
        return plan

    return make


def _are_shapes(given: Any) -> bool:
    listed = isinstance(given, (list, tuple)) and all(isinstance(shape, (list, tuple)) for shape in given)
    return listed and all(isinstance(n, int) and n >= -1 for shape in given for n in shape)
