"""A recorded program in words: each value by its number, inputs and state first, then the constants that it keeps.

    def f(%1: float32[2]):
        %2 = constant int64[1]
        %3 = aten.index.Tensor(%1, [%2])
        return %3
"""

from __future__ import annotations

from typing import Any

from syftlite.ops.dtypes import DTYPES
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE
from syftlite.remote.recording import Program


def in_words(name: str, program: Program) -> str:
    """``program``, as a function called ``name``."""
    inputs = ", ".join(f"{_value(i)}: {spec!r}" for i, spec in enumerate(program.specs, 1))
    kept = [f"    {_value(i)} = constant {Spec.of(t)!r}" for i, t in enumerate(program.constants, len(program.specs) + 1)]
    lines = [*kept, *(f"    {_line(*step)}" for step in program.code)]
    return "\n".join([f"def {name}({inputs}):", *lines, f"    return {', '.join(map(_value, program.results))}"])


def _line(number: int, args: Any, kwargs: Any, outs: Any) -> str:
    operator = TABLE[number]
    assert operator is not None
    given = [_argument(p.code, arg) for p, arg in zip(operator.parameters, args, strict=False)]
    given += [f"{key}={_argument(operator.keywords[key].code, arg)}" for key, arg in (kwargs or {}).items()]
    return f"{_made(outs)}{operator.name}({', '.join(given)})"


def _made(outs: Any) -> str:
    if outs is None:
        return ""
    return f"{_value(outs) if type(outs) is int else ', '.join('_' if out is None else _value(out) for out in outs)} = "


def _argument(code: str, arg: Any) -> str:
    if code in "Tt":
        return _value(arg) if type(arg) is int else str(arg[-1] if isinstance(arg, (tuple, list)) else arg)
    if code in "Ll" and isinstance(arg, (tuple, list)):
        return f"[{', '.join('None' if item is None else _value(item) for item in arg)}]"
    if code == "d" and type(arg) is int:
        return str(DTYPES[arg])
    return str(list(arg)) if isinstance(arg, tuple) else str(arg)


def _value(number: int) -> str:
    return f"%{number}"
