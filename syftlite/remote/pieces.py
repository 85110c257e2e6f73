"""Operators of more operands or results than a message has room for: as several, each of a part."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from syftlite._torch import aten
from syftlite.ops.operator import Operator
from syftlite.wire.fields import MAX_ITEMS

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

AT_ONCE = 800
"""Items of each list that an operator over lists is given at once: four lists of ids, and one of results, fit a message."""


def in_slices(emit: Callable[..., Any], operator: Operator, worker: BaseWorker, args: Any, kwargs: Any) -> list[Any]:
    """Of what gives more pieces than a message names: those of slices, one behind the other."""
    given = operator.named(args, kwargs)
    dim, step = given.get("dim", 0), given.get("split_size", 1) * MAX_ITEMS
    places = [(dim, start, start + step) for start in range(0, args[0].shape[dim], step)]
    slices = [emit(aten.slice.Tensor, (args[0], *place), {}, worker) for place in places]
    return [piece for part in slices for piece in emit(operator.func, (part, *args[1:]), kwargs, worker)]


def is_long(operator: Operator, args: Any) -> bool:
    """Whether ``operator`` does the same to each item of lists, and these are long."""
    return bool(args) and type(args[0]) in (list, tuple) and len(args[0]) > AT_ONCE and "_foreach_" in operator.name


def in_turns(emit: Callable[..., Any], operator: Operator, worker: BaseWorker, args: Any, kwargs: Any) -> list[Any] | None:
    """Of lists that are long: part by part."""
    count = len(args[0])
    made: list[Any] = []
    for start in range(0, count, AT_ONCE):

        def part(value: Any, at: slice = slice(start, start + AT_ONCE)) -> Any:
            return value[at] if type(value) in (list, tuple) and len(value) == count else value

        made += emit(operator.func, tuple(map(part, args)), {k: part(v) for k, v in kwargs.items()}, worker) or ()
    return made or None
