"""How a value was made, as a program to read: the part of a session's trail that went into it.

    x1 = slice(dataset("icu"), 1, 0, 2)           the owner's dataset of that name
    x2 = mean(x1, [0])                            operators by the names that they have in torch
    add_(given1, x2)                              what was written to; given: sent by who asks
    return given1

The trail is walked back from the value: a step is shown if it made something that is needed, or wrote to its storage, through whatever
view. What came before the trail's first step, or was sent, has a name and no line.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from syftlite.engine.trail import Step
from syftlite.ops.dtypes import DTYPES
from syftlite.ops.operator import Operator
from syftlite.ops.table import TABLE

MAX_LINES = 200
MAX_LINE = 200


def program(steps: Iterable[tuple[int, Any, Any, Any]], wanted: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """The lines that made the objects ``wanted``; ``names``: of the owner's datasets, by id. At most `MAX_LINES`, the last ones."""
    trail = [Step(*step) for step in steps]
    kept = _slice(trail, wanted)
    known = {number: f'dataset("{name}")' for number, name in names.items()}
    lines = [_line(step, known) for step in kept]
    foreign = sorted({name for name in known.values() if name.startswith("given")})
    if len(lines) > MAX_LINES:
        lines = [f"# {len(lines) - MAX_LINES:,} earlier lines left out", *lines[-MAX_LINES:]]
    if foreign:
        lines.insert(0, f"# sent by who asks, or made before any PRIVATE data was met: {', '.join(foreign)}"[:MAX_LINE])
    return [*lines, "return " + ", ".join(_name(known, number) for number in wanted)[:MAX_LINE]]


def _slice(trail: Sequence[Step], wanted: Sequence[int]) -> list[Step]:
    root: dict[int, int] = {}

    def of(number: int) -> int:
        return root.get(number, number)

    for step in trail:
        operator = TABLE[step.number]
        if operator is not None and operator.aliases and step.args and type(step.args[0]) is int:
            for out in _outs(step):
                root[out] = of(step.args[0])
    needed, storages, kept = set(wanted), {of(number) for number in wanted}, []
    for step in reversed(trail):
        operator = TABLE[step.number]
        written = _written(operator, step) if operator is not None else []
        if needed & set(_outs(step)) or storages & {of(number) for number in written}:
            kept.append(step)
            needed |= set(_ids(step))
            storages |= {of(number) for number in _ids(step)}
    return kept[::-1]


def _outs(step: Step) -> list[int]:
    return [step.outs] if type(step.outs) is int else [out for out in step.outs or () if out is not None]


def _operands(step: Step) -> list[tuple[str, str, Any]]:
    """(code, name, argument) of each."""
    operator = TABLE[step.number]
    if operator is None:
        return []
    given = [(p.code, p.name, arg) for p, arg in zip(operator.parameters, step.args, strict=False)]
    return given + [(operator.keywords[k].code, k, arg) for k, arg in (step.kwargs or {}).items() if k in operator.keywords]


def _ids(step: Step) -> list[int]:
    found: list[int] = []
    for code, _, arg in _operands(step):
        if code in "Tt" and type(arg) is int:
            found.append(arg)
        elif code in "Ll" and isinstance(arg, (tuple, list)):
            found += [item for item in arg if type(item) is int]
    return found


def _written(operator: Operator, step: Step) -> list[int]:
    found: list[int] = []
    for _, name, arg in _operands(step):
        if name in operator.writes:
            found += [arg] if type(arg) is int else [item for item in arg or () if type(item) is int]
    return found


# -- words


def _line(step: Step, known: dict[int, str]) -> str:
    operator = TABLE[step.number]
    short = operator.name.removeprefix("aten.").split(".")[0] if operator is not None else f"operator {step.number}"
    positional = len(step.args)
    parts = []
    for place, (code, name, arg) in enumerate(_operands(step)):
        text = _argument(code, arg, known)
        parts.append(text if place < positional else f"{name}={text}")
    called = f"{short}({', '.join(parts)})"
    made = []
    for out in _outs(step):
        known[out] = f"x{sum(name.startswith('x') for name in known.values()) + 1}"
        made.append(known[out])
    return (f"{', '.join(made)} = {called}" if made else called)[:MAX_LINE]


def _argument(code: str, arg: Any, known: dict[int, str]) -> str:
    if code in "Tt" and type(arg) is int:
        return _name(known, arg)
    if code in "Tt" and isinstance(arg, (tuple, list)):
        return str(arg[-1]) if arg else "?"
    if code in "Ll" and isinstance(arg, (tuple, list)):
        return f"[{', '.join('None' if item is None else _name(known, item) for item in arg)}]"
    if code == "d" and type(arg) is int and 0 <= arg < len(DTYPES):
        return str(DTYPES[arg]).removeprefix("torch.")
    return str(list(arg)) if isinstance(arg, tuple) else str(arg)


def _name(known: dict[int, str], number: int) -> str:
    if number not in known:
        known[number] = f"given{sum(name.startswith('given') for name in known.values()) + 1}"
    return known[number]
