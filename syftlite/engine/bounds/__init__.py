"""What torch's kernels leave to autograd and to its Python layer, checked before they run: a client may send any operands.

    SHAPES   operands that must fit one another, by their specs; asked once for each combination, with the price      shapes.py
    VALUES   indices, counts and scales, by value, at each run; may return bytes that the result will take beyond its price    values.py
             both, for grids, orders and chances                                                                               sampling.py

    MAPPED   the same for rows that torch maps an operator over: their memory is one, and a kernel checks its ends alone

Without them a kernel may read or write outside its tensors, or end the process: most were found by doing so. Messages tell no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from syftlite._torch import without_functions
from syftlite.engine.bounds import sampling, shapes, values  # noqa: F401  which enter their rules
from syftlite.engine.bounds.rules import MAPPED, SHAPES, VALUES


def check_shapes(number: int, operands: Mapping[str, Any]) -> None:
    """Raise unless operator ``number`` may run on ``operands``, a `Spec` for each tensor, by parameter name."""
    check = SHAPES.get(number)
    if check is not None:
        _on_tensors(check, operands)


def check_values(number: int, operands: Mapping[str, Any]) -> int:
    """Raise unless operator ``number`` may run on these values, by parameter name. Returns the bytes to reserve for its result."""
    check = VALUES.get(number)
    return 0 if check is None else _on_tensors(check, operands) or 0


def check_mapped(number: int, operands: Mapping[str, Any]) -> None:
    """Raise unless operator ``number`` may run on these values of rows that it is mapped over, each of them."""
    for rules in (VALUES, MAPPED):
        if number in rules:
            with without_functions():
                _on_tensors(rules[number], operands)


def _on_tensors(check: Callable[..., Any], operands: Mapping[str, Any]) -> Any:
    try:
        return check(**operands)
    except AttributeError:  # a number came where only a tensor has a shape and values
        raise TypeError("a number stands where the operator needs a tensor") from None


__all__ = ["SHAPES", "VALUES", "check_mapped", "check_shapes", "check_values"]
