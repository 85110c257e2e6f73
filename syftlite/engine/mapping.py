"""A recorded program mapped over rows: each row is computed as if it were alone, whatever the program does.

    program(row operands, other operands)  --torch.vmap-->  rows' results side by side      a row cannot reach another one
    clip each row's result, sum            --noise-->       sy.dp.map_sum
    gradients, clipped, summed             --noise-->       sy.dp.DPOptimizer               (dp/clipping.py: book-keeping)

A row that makes the program fail counts as zero, so that no failure tells of anybody: all are computed again with a row of zeros in its
place. They stay side by side as they were, for kernels round by how many rows they are given, and a program can make much of the last bit.
Before anything is charged the program has run on a row of zeros; what fails there fails in the open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from fractions import Fraction
from typing import Any, NamedTuple

import torch

from syftlite._torch import aten
from syftlite.dp.clipping import Clipper
from syftlite.dp.noise import gaussian_integers, step_for
from syftlite.dp.sizes import check_clip, norms_of
from syftlite.dp.training import most_rows, noised_sums, sample
from syftlite.engine.admission import price
from syftlite.engine.bounds import check_mapped
from syftlite.engine.operands import Operands, bind_all
from syftlite.engine.plans import Program, Step
from syftlite.engine.session import Cell, Session
from syftlite.errors import PlanError, ProtocolError
from syftlite.ops.drawing import apart
from syftlite.ops.operator import trimmed
from syftlite.ops.table import BY_FUNC

CHUNK = 1024
"""Rows computed side by side."""
REACHING = frozenset(BY_FUNC[func].number for func in (aten.index_fill.int_Scalar, aten.index_fill_.int_Scalar))


class Mapped(NamedTuple):
    """What to map. ``over``: how many operands, the first ones, have rows. ``wrt``: places of the operands to differentiate the program's
    one result by; empty: its results are clipped and summed themselves."""

    program: Program
    operands: Sequence[torch.Tensor]
    over: int
    wrt: Sequence[int]
    clip: float
    noise: float
    rate: float
    rows_per_unit: int


class _Row:
    """Stands for a session while one row is computed."""

    device = None

    def __init__(self, session: Session) -> None:
        self.cell = Cell(session, None, 0)
        self.objects: dict[int, tuple[torch.Tensor, Cell]] = {}

    def put(self, number: int, tensor: torch.Tensor) -> None:
        self.objects[number] = (tensor, self.cell)

    def look_up(self, number: int) -> tuple[torch.Tensor, Cell]:
        """The value of that id. Raises `PlanError`."""
        if number not in self.objects:
            raise PlanError(f"the program has no value {number}")
        return self.objects[number]


def _compute(session: Session, program: Program, operands: Sequence[torch.Tensor], admit: Callable[[Any, Operands], None] | None) -> Any:
    row = _Row(session)
    row.cell.owner = row  # type: ignore[assignment]  # what it makes is its own
    for number, operand in enumerate(operands, 1):
        row.put(number, operand)
    for step in program.steps:
        assert isinstance(step, Step)
        bound = Operands()
        bind_all(row, step.operator, step.args, step.kwargs, bound)  # type: ignore[arg-type]
        if admit is not None:
            admit(step.operator, bound)
        with apart() if step.operator.seeded else nullcontext():  # by how much rows that fail draw again nobody is told
            check_mapped(step.operator.number, step.operator.named(bound.values, bound.kwargs or {}))
            made = step.operator.func(*bound.values, **(bound.kwargs or {}))
        finish = step.operator.finish
        if finish not in (None, trimmed):  # a mapped value has no storage of its own
            made = finish(made)
        outs = (step.outs,) if type(step.outs) is int else step.outs or ()
        for out, value in zip(outs, made if isinstance(made, (tuple, list)) else (made,), strict=False):
            if out is not None:
                row.put(out, value)
    return [row.objects[number][0] for number in program.results]


def check(session: Session, mapped: Mapped, allow: Callable[[Any], None]) -> list[torch.Size]:
    """The shapes of what it will give, from a run on a row of zeros. Raises for a program that cannot be mapped, or costs too much.

    ``allow``: called with each operator, raises to refuse it.
    """
    program, over = mapped.program, mapped.over
    count = min(len(mapped.operands[0]), CHUNK) if not mapped.wrt else most_rows(mapped.rate * len(mapped.operands[0]))
    needed = 0

    def admit(operator: Any, bound: Operands) -> None:
        nonlocal needed
        allow(operator)
        if operator.number in REACHING:
            raise PlanError(f"{operator.name} counts from the end, which in a map is another row's: use torch.where or scatter")
        if operator.dynamic:
            raise PlanError(f"{operator.name} makes a shape or a number that depends on values: a plan over rows cannot")
        if bound.written is not None and any(n <= program.arity for n, _ in bound.written):
            raise PlanError(f"{operator.name} writes to the plan's own operands: clone() them first")
        needed += price(operator, bound).nbytes * count

    blank = [torch.zeros_like(t[0]) for t in mapped.operands[:over]]
    results = _compute(session, program, [*blank, *[t.clone() for t in mapped.operands[over:]]], admit)
    if not mapped.wrt:
        needed += 8 * sum(r.numel() for r in results) * count
    session.reserve(needed)
    if mapped.wrt:
        if len(results) != 1 or results[0].numel() != 1:
            raise PlanError("a plan to differentiate returns one number, the loss of one row")
        check_clip(mapped.clip)
        shapes = [mapped.operands[place].shape for place in mapped.wrt]
        _gradients(session, mapped, [b.unsqueeze(0) for b in blank])
    else:
        if not all(r.is_floating_point() or not r.is_complex() for r in results):
            raise PlanError("a plan over rows returns real numbers")
        shapes = [r.shape for r in results]
        _rows(session, mapped, [b.unsqueeze(0) for b in blank])
    return shapes


def run(session: Session, mapped: Mapped, shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """Clipped, summed and noised. Call after `check`; nothing in a row's values makes it raise."""
    total = len(mapped.operands[0])
    chosen = sample(total, mapped.rate)
    if not mapped.wrt:
        return _summed(session, mapped, [t[chosen] for t in mapped.operands[: mapped.over]], shapes)
    rows = most_rows(mapped.rate * total)
    batch = [t[chosen[:rows]] for t in mapped.operands[: mapped.over]]
    sums = None
    if len(batch[0]):
        sums = _without_failures(session, lambda data, failing: _gradients(session, mapped, data, failing), batch)
    if sums is None:
        sums = [torch.zeros(shape, dtype=mapped.operands[place].dtype) for shape, place in zip(shapes, mapped.wrt, strict=True)]
    return noised_sums(sums, mapped.clip, mapped.noise * mapped.rows_per_unit, rows)


class Gone(ProtocolError):
    """Nobody waits for the answer any more."""


Batched = Callable[[list[torch.Tensor], list[int]], Any]
"""Of rows side by side, but for those at some places."""


def _without_failures(session: Session, function: Batched, batch: Sequence[torch.Tensor]) -> Any:
    """``function`` of the batch, but for rows that make it fail, which are zeros in it; None if it fails whatever they are."""
    with suppress(Exception):
        return function([b.clone() for b in batch], [])
    failing = list(_failing(session, function, batch, 0, len(batch[0])))
    sound = [b.clone() for b in batch]
    for b in sound:
        b[failing] = 0
    with suppress(Exception):
        return function(sound, failing)
    return None


def _failing(session: Session, function: Batched, batch: Sequence[torch.Tensor], low: int, high: int) -> Iterator[int]:
    """Which of the rows from ``low`` to ``high`` make ``function`` fail where all others are zeros."""
    if session.gone:
        raise Gone("the client is gone")
    alone = [torch.zeros_like(b) for b in batch]
    for some, b in zip(alone, batch, strict=True):
        some[low:high] = b[low:high]
    with suppress(Exception):
        function(alone, [])
        return
    if high - low == 1:
        yield low
        return
    middle = (low + high) // 2
    yield from _failing(session, function, batch, low, middle)
    yield from _failing(session, function, batch, middle, high)


def _gradients(session: Session, mapped: Mapped, data: list[torch.Tensor], without: Sequence[int] = ()) -> list[torch.Tensor]:
    others = [t.detach().clone() for t in mapped.operands[mapped.over :]]
    wanted = [others[place - mapped.over].requires_grad_() for place in mapped.wrt]

    def loss(*row: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _compute(session, mapped.program, [*[r.squeeze(0) for r in row], *others], None)[0]
        return found

    return Clipper(wanted).sums(loss, data, mapped.clip, without)[0]


def _rows(session: Session, mapped: Mapped, data: list[torch.Tensor], without: Sequence[int] = ()) -> torch.Tensor:
    """(rows, d) float64: each row's results, side by side; zeros at the places ``without``."""
    others = [t.detach().clone() for t in mapped.operands[mapped.over :]]

    def one(*row: torch.Tensor) -> torch.Tensor:
        return torch.cat([r.double().reshape(-1) for r in _compute(session, mapped.program, [*row, *others], None)])

    with torch.no_grad():
        found: torch.Tensor = torch.vmap(one, randomness="different")(*data)
        found[list(without)] = 0
    return found


def _summed(session: Session, mapped: Mapped, data: list[torch.Tensor], shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """Each row's vector is cut to the clip and rounded towards zero on the grid, so no norm grows: sums are exact integers."""
    step = step_for(mapped.clip)
    sensitivity = math.ceil(mapped.clip / step)
    sizes = [shape.numel() for shape in shapes]
    total = torch.zeros(sum(sizes), dtype=torch.int64)
    for start in range(0, len(data[0]), CHUNK):
        chunk = [d[start : start + CHUNK] for d in data]
        rows = _without_failures(session, lambda batch, failing: _rows(session, mapped, batch, failing), chunk)
        if rows is None:
            continue
        norms = norms_of(rows)[:, None]
        rows = torch.where(torch.isfinite(norms), rows / norms * norms.clamp(max=mapped.clip * (1 - 2.0**-40)), 0.0)
        total += (rows / step).trunc().long().sum(0)
    sigma = Fraction(mapped.noise) * sensitivity * mapped.rows_per_unit
    noised = (total + gaussian_integers(sigma, len(total))).double() * step
    return [part.view(shape) for part, shape in zip(noised.split(sizes), shapes, strict=True)]
