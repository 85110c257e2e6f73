"""Where object ids stand in an operator's operands: the one reading of the schema that plans renumber by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from syftlite.ops.operator import Operator

Renumber = Callable[[int], int]


def map_operands(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any] | None, renumber: Renumber) -> tuple[Any, Any]:
    """``args`` and ``kwargs`` in their wire form, with ``renumber`` applied to every object id in them."""
    mapped = tuple([_mapped(code, value, renumber) for code, value in zip(operator.codes, args, strict=False)])
    if kwargs is None:
        return mapped, None
    known = operator.keywords
    return mapped, {name: _mapped(known[name].code if name in known else "-", value, renumber) for name, value in kwargs.items()}


def map_outs(outs: Any, renumber: Renumber) -> Any:
    """``outs`` with ``renumber`` applied to every id in them."""
    if type(outs) is int:
        return renumber(outs)
    return None if outs is None else tuple([None if out is None else renumber(out) for out in outs])


def _mapped(code: str, value: Any, renumber: Renumber) -> Any:
    if code in "Tt":
        return renumber(value) if type(value) is int else value
    if code in "Ll" and type(value) is tuple:
        return tuple([renumber(item) if type(item) is int else item for item in value])
    return value
