"""A recorded program mapped over rows: each row is computed as if it were alone, whatever the program does.

    program(row operands, other operands)  --torch.vmap-->  rows' results side by side      a row cannot reach another one
    clip each row's result, sum            --noise-->       sy.dp.map_sum
    gradients, clipped, summed             --noise-->       sy.dp.DPOptimizer               (dp/clipping.py: book-keeping)

A row that makes the program fail counts as zero: all rows are then computed one by one, so that no failure tells of anybody. Before
anything is charged the program has run on a row of zeros; what fails there fails in the open.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import torch

from syftlite.dp.clipping import Clipper
from syftlite.dp.noise import gaussian_integers, step_for
from syftlite.dp.training import most_rows, noised_sums, sample
from syftlite.engine.admission import price
from syftlite.engine.operands import Operands, bind_all
from syftlite.engine.plans import Program, Step
from syftlite.engine.session import Cell, Session
from syftlite.errors import PlanError
from syftlite.ops.operator import trimmed

CHUNK = 1024
"""Rows computed side by side."""


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
        made = step.operator.func(*bound.values, **(bound.kwargs or {}))
        finish = step.operator.finish
        if finish not in (None, trimmed) and not step.operator.name.startswith("aten.empty"):  # a mapped value has no storage of its own
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
        if operator.dynamic:
            raise PlanError(f"{operator.name} makes a shape or a number that depends on values: a plan over rows cannot")
        if bound.written is not None and any(n <= program.arity for n, _ in bound.written):
            raise PlanError(f"{operator.name} writes to the plan's own operands: clone() them first")
        needed += price(operator, bound).nbytes * count

    blank = [torch.zeros_like(t[0]) for t in mapped.operands[:over]]
    results = _compute(session, program, [*blank, *[t.clone() for t in mapped.operands[over:]]], admit)
    session.reserve(needed)
    if mapped.wrt:
        if len(results) != 1 or results[0].numel() != 1:
            raise PlanError("a plan to differentiate returns one number, the loss of one row")
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
    sums = [torch.zeros(shape, dtype=mapped.operands[place].dtype) for shape, place in zip(shapes, mapped.wrt, strict=True)]
    if len(batch[0]):
        for part in _alone_if_need_be(lambda data: _gradients(session, mapped, data), batch):
            sums = [s + p for s, p in zip(sums, part, strict=True)]
    return noised_sums(sums, mapped.clip, mapped.noise * mapped.rows_per_unit, rows)


def _alone_if_need_be(function: Callable[[list[torch.Tensor]], Any], batch: list[torch.Tensor]) -> list[Any]:
    """``function`` of the batch; if that fails, of each row for which it does not."""
    try:
        return [function(batch)]
    except Exception:
        parts = []
        for i in range(len(batch[0])):
            try:
                parts.append(function([b[i : i + 1] for b in batch]))
            except Exception:  # a row that fails counts as zero
                continue
        return parts


def _gradients(session: Session, mapped: Mapped, data: list[torch.Tensor]) -> list[torch.Tensor]:
    others = [t.detach().clone() for t in mapped.operands[mapped.over :]]
    wanted = [others[place - mapped.over].requires_grad_() for place in mapped.wrt]

    def loss(*row: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _compute(session, mapped.program, [*[r.squeeze(0) for r in row], *others], None)[0]
        return found

    return Clipper(wanted).sums(loss, data, mapped.clip)[0]


def _rows(session: Session, mapped: Mapped, data: list[torch.Tensor]) -> torch.Tensor:
    """(rows, d) float64: each row's results, side by side."""
    others = [t.detach().clone() for t in mapped.operands[mapped.over :]]

    def one(*row: torch.Tensor) -> torch.Tensor:
        return torch.cat([r.double().reshape(-1) for r in _compute(session, mapped.program, [*row, *others], None)])

    with torch.no_grad():
        found: torch.Tensor = torch.vmap(one, randomness="different")(*data)
    return found


def _summed(session: Session, mapped: Mapped, data: list[torch.Tensor], shapes: Sequence[torch.Size]) -> list[torch.Tensor]:
    """Each row's vector is cut to the clip and rounded towards zero on the grid, so no norm grows: sums are exact integers."""
    step = step_for(mapped.clip)
    sensitivity = math.ceil(mapped.clip / step)
    sizes = [shape.numel() for shape in shapes]
    total = torch.zeros(sum(sizes), dtype=torch.int64)
    for start in range(0, len(data[0]), CHUNK):
        chunk = [d[start : start + CHUNK] for d in data]
        for rows in _alone_if_need_be(lambda batch: _rows(session, mapped, batch), chunk):
            norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
            rows = torch.where(torch.isfinite(norms), rows * (mapped.clip * (1 - 2.0**-40) / norms.clamp(min=mapped.clip)), 0.0)
            total += (rows / step).trunc().long().sum(0)
    sigma = Fraction(mapped.noise) * sensitivity * mapped.rows_per_unit
    noised = (total + gaussian_integers(sigma, len(total))).double() * step
    return [part.view(shape) for part, shape in zip(noised.split(sizes), shapes, strict=True)]
