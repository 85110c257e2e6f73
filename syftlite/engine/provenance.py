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
from typing import Any, NamedTuple

from syftlite.engine.trail import GIVEN, Step
from syftlite.ops.dtypes import DTYPES
from syftlite.ops.operator import Operator
from syftlite.ops.table import TABLE

MAX_LINES = 200
MAX_LINE = 200


def program(steps: Iterable[tuple[Any, ...]], wanted: Sequence[int], names: Mapping[int, str]) -> list[str]:
    """The lines that made the objects ``wanted``; ``names``: of the owner's datasets, by id. At most `MAX_LINES`, the last ones."""
    trail = [Step(*step) for step in steps]
    kept = _slice(trail, wanted)
    known = {number: f'dataset("{name}")' for number, name in names.items()}
    lines = [line for step in kept if (line := _line(step, known))]
    foreign = sorted({name for name in known.values() if name.startswith("given")})
    if len(lines) > MAX_LINES:
        lines = [f"# {len(lines) - MAX_LINES:,} earlier lines left out", *lines[-MAX_LINES:]]
    if foreign:
        lines.insert(0, f"# sent by who asks, or made before any PRIVATE data was met: {', '.join(foreign)}"[:MAX_LINE])
    return [*lines, "return " + ", ".join(_name(known, number) for number in wanted)[:MAX_LINE]]


def gathered(trails: Mapping[int, Sequence[tuple[Any, ...]]], own: int, wanted: Sequence[int]) -> list[tuple[Any, ...]]:
    """The steps of session ``own``, among those of the sessions whose objects it met, and so on, in the order in which they were taken: one
    may write to what another has used. ``trails``: by prefix of their ids."""
    met, new = set[int](), {own} | {number >> 32 for number in wanted}
    while new:
        met |= new
        new = set[int]().union(*(_prefixes(step) for prefix in new for step in trails.get(prefix, ()))) - met
    return sorted([step for prefix in sorted(met) for step in trails.get(prefix, ())], key=lambda step: Step(*step).at)


def _prefixes(step: tuple[Any, ...]) -> set[int]:
    return {number >> 32 for number in _ids(Step(*step))}


class _Traced(NamedTuple):
    """A step by what it made and read, each value a number of its own, and by the storages that these lie in: ids come again."""

    step: Step
    made: frozenset[int]
    read: frozenset[int]
    held: frozenset[int]
    written: frozenset[int]


class _Values:
    """What ids stand for while a trail is walked: (value, storage). What was there before has its id for both."""

    def __init__(self) -> None:
        self.of: dict[int, tuple[int, int]] = {}
        self.count = 0

    def look_up(self, number: int) -> tuple[int, int]:
        """What the id stands for now."""
        return self.of.get(number, (number, number))

    def trace(self, step: Step) -> _Traced:
        """Walk over ``step``."""
        operator = TABLE[step.number]
        read = [self.look_up(number) for number in _ids(step)]
        written = [self.look_up(number)[1] for number in _written(operator, step)] if operator is not None else []
        aliased = operator is not None and operator.aliases and step.args and type(step.args[0]) is int
        made = set()
        for out in _outs(step):
            self.count -= 1  # no id is negative
            self.of[out] = (self.count, self.look_up(step.args[0])[1] if aliased else self.count)
            made.add(self.count)
        return _Traced(step, frozenset(made), frozenset(v for v, _ in read), frozenset(s for _, s in read), frozenset(written))


def _slice(trail: Sequence[Step], wanted: Sequence[int]) -> list[Step]:
    values = _Values()
    traced = [values.trace(step) for step in trail]
    needed, storages = {values.look_up(number)[0] for number in wanted}, {values.look_up(number)[1] for number in wanted}
    kept: list[Step] = []
    for step in reversed(traced):
        if needed & step.made or storages & step.written:
            kept.append(step.step)
            needed |= step.read
            storages |= step.held
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
    if step.number == GIVEN:
        _forget(known, _outs(step))
        return ""
    operator = TABLE[step.number]
    short = operator.name.removeprefix("aten.").split(".")[0] if operator is not None else f"operator {step.number}"
    positional = len(step.args)
    parts = []
    for place, (code, name, arg) in enumerate(_operands(step)):
        text = _argument(code, arg, known)
        parts.append(text if place < positional else f"{name}={text}")
    called = f"{short}({', '.join(parts)})"
    made = []
    _forget(known, _outs(step))
    for out in _outs(step):
        known[out] = f"x{sum(name.startswith('x') for name in known.values()) + 1}"
        made.append(known[out])
    return (f"{', '.join(made)} = {called}" if made else called)[:MAX_LINE]


def _forget(known: dict[int, str], numbers: Iterable[int]) -> None:
    """These ids stand for other values now. Their names stay taken: ids come again, names do not."""
    for number in numbers:
        if number in known:
            name = known.pop(number)
            known[-len(known) - 1] = name


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
