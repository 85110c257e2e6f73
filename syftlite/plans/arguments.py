"""Arguments of a plan: by position, whichever way they are given."""

from __future__ import annotations

import inspect
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from syftlite.errors import PlanError

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan


def in_order(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """All arguments of a call by their positions. Raises TypeError for those that the function does not take, and `PlanError` for those
    that have none."""
    if not kwargs:
        return args
    if not plan._runs:
        raise PlanError(f"{plan.name} was {plan._came} without its function: give {', '.join(kwargs)} by position")
    bound = _bound(plan, args, kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise PlanError(f"{plan.name} takes {', '.join(bound.kwargs)} by name alone, and what a plan is given has a position")
    return bound.args


def must_take(plan: Plan, args: tuple[Any, ...]) -> None:
    """Raise TypeError, with the plan's name and signature, if its function does not take as many as ``args``."""
    if plan._runs:
        with suppress(ValueError):  # torch's own functions tell no signature
            _bound(plan, args, {})


def _bound(plan: Plan, args: tuple[Any, ...], kwargs: dict[str, Any]) -> inspect.BoundArguments:
    signature = inspect.signature(plan._function or plan.forward)
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{plan.name}: {error}. It takes {plan.name}{signature}") from None
