"""A message's operands: from their wire forms, by the operator's schema, to values; with the cells and marks that these lie under.

    id -> object    [number] or [dtype, number] -> a number for a tensor    list -> each    all else by its parameter's code
"""

from __future__ import annotations

from typing import Any

import torch

from syftlite.engine.marks import Mark
from syftlite.engine.session import Cell, Session
from syftlite.errors import NotOwnerError
from syftlite.ops.dtypes import DTYPES, MEMORY_FORMATS
from syftlite.ops.operator import WORDS, Operator, Parameter


class Operands:
    """A message's operands: values for the operator, the cells they lie in, the marks of those that have one."""

    __slots__ = ("cells", "kwargs", "marked", "marks", "target", "tensors", "values", "written")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.tensors: list[torch.Tensor] = []
        self.cells: list[Cell] = []
        self.kwargs: dict[str, Any] | None = None
        self.written: list[tuple[int, Cell]] | None = None
        self.marks: list[Mark] | None = None
        self.marked: list[torch.Tensor] = []  # the marks' tensors
        self.target: torch.Tensor | None = None  # what is written, if that is one

    def add(self, number: int, tensor: torch.Tensor | None, cell: Cell, written: bool) -> None:
        """Note the object ``number`` as an operand. A poisoned one has no tensor, and nothing will run on it."""
        self.tensors.append(tensor)  # type: ignore[arg-type]
        self.cells.append(cell)
        if cell.mark is not None:
            self.marks = self.marks or []
            self.marks.append(cell.mark)
            self.marked.append(tensor)  # type: ignore[arg-type]
        if written:
            self.written = self.written or []
            self.written.append((number, cell))
            self.target = tensor if len(self.written) == 1 else None


def bind_all(session: Session, operator: Operator, args: Any, kwargs: Any, operands: Operands) -> None:
    """Fill ``operands`` with the values that the wire forms ``args`` and ``kwargs`` stand for."""
    codes = operator.codes
    if len(args) > len(codes):
        raise TypeError(f"{operator.name} takes {len(codes)} positional arguments, got {len(args)}")
    args, kwargs = in_order(operator, args, kwargs)
    objects, values, writes, parameters = session.objects, operands.values, operator.writes, operator.parameters
    for position, given in enumerate(args):
        if codes[position] == "T" and type(given) is int and given in objects:
            tensor, cell = objects[given]
            values.append(tensor)
            if not writes:
                operands.tensors.append(tensor)  # type: ignore[arg-type]
                operands.cells.append(cell)
                if cell.mark is not None:
                    if operands.marks is None:
                        operands.marks = []
                    operands.marks.append(cell.mark)
                    operands.marked.append(tensor)  # type: ignore[arg-type]
            else:
                operands.add(given, tensor, cell, parameters[position].name in writes)
        else:
            values.append(_bind(session, operator, parameters[position], given, operands))
    if kwargs:
        operands.kwargs = {}
        for name, given in kwargs.items():
            parameter = operator.keywords.get(name)
            if parameter is None:
                raise TypeError(f"{operator.name} has no parameter {name!r}; it has {', '.join(operator.keywords)}")
            operands.kwargs[name] = _bind(session, operator, parameter, given, operands)
    if operands.written and not operator.wrote(values):
        operands.written = None
    for _, cell in operands.written or ():
        if cell.owner is not session:
            raise NotOwnerError(f"{operator.name} would write to data that is only borrowed from its owner: clone() it first")


def in_order(operator: Operator, args: Any, kwargs: Any) -> tuple[Any, Any]:
    """``args`` and ``kwargs`` with those at their places that were given by their names and come next: what is known of an operator, by its
    rules, is known of operands at their places."""
    if not kwargs or len(args) >= len(operator.codes) or operator.parameters[len(args)].name not in kwargs:
        return args, kwargs
    placed, named = list(args), dict(kwargs)
    while len(placed) < len(operator.codes) and operator.parameters[len(placed)].name in named:
        placed.append(named.pop(operator.parameters[len(placed)].name))
    return placed, named or None


def _bind(session: Session, operator: Operator, parameter: Parameter, given: Any, operands: Operands) -> Any:
    code = parameter.code
    if given is None:
        if parameter.optional or code in "tl":
            return None
    elif code in "Tt":
        return _tensor(session, operator, parameter, given, operands)
    elif code in "Ll":
        if type(given) in (list, tuple):
            return [
                None if code == "l" and item is None else _tensor(session, operator, parameter, item, operands) for item in given
            ]
    elif (accepted := _PLAIN[code](given)) is not None:
        return accepted
    raise TypeError(f"{operator.name}: {parameter.name} does not accept {type(given).__name__} {str(given)[:40]}")


def _tensor(session: Session, operator: Operator, parameter: Parameter, given: Any, operands: Operands) -> Any:
    if type(given) is int:
        tensor, cell = session.look_up(given)
        operands.add(given, tensor, cell, parameter.name in operator.writes)
        return tensor
    elif type(given) is float:
        return given
    elif type(given) in (list, tuple) and len(given) == 1 and (number := _number(given[0])) is not None and type(number) is not float:
        return number
    elif type(given) in (list, tuple) and len(given) == 2 and _PLAIN["d"](given[0]) and (number := _number(given[1])) is not None:
        tensor = torch.tensor(number, dtype=DTYPES[given[0]], device=session.device)
    else:
        raise TypeError(f"{operator.name}: {parameter.name} is an object id, a number or [dtype, number], not {type(given).__name__}")
    operands.tensors.append(tensor)
    return tensor


def _number(given: Any) -> Any:
    """A Python number, a complex one from its two parts; None for anything else."""
    if type(given) in (list, tuple):
        return complex(*given) if len(given) == 2 and type(given[0]) is type(given[1]) is float else None
    return given if type(given) in (float, int, bool) else None


def _numbers(given: Any) -> Any:
    numbers = [_number(item) for item in given] if type(given) in (list, tuple) else [None]
    return None if None in numbers else numbers


def _only(*types: type) -> Any:
    return lambda v: v if type(v) in types else None


def _list_of(*types: type) -> Any:
    accepted = {*types}
    return lambda v: list(v) if type(v) in (list, tuple) and accepted.issuperset(map(type, v)) else None


_PLAIN: dict[str, Any] = {
    "i": _only(int),
    "f": _only(float, int),
    "b": _only(bool),
    "s": _number,
    "I": _list_of(int),
    "F": _list_of(float, int),
    "B": _list_of(bool),
    "S": _numbers,
    "d": lambda v: DTYPES[v] if type(v) is int and 0 <= v < len(DTYPES) else None,
    "m": lambda v: MEMORY_FORMATS[v] if type(v) is int and 0 <= v < len(MEMORY_FORMATS) else None,
    "w": lambda v: v if type(v) is str and v in WORDS else None,
    "-": lambda v: None,
}
