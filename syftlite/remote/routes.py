"""From a recorded program to its replay: the program is stored at a worker, a call is one message."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from syftlite._torch import aten, tree_unflatten
from syftlite.errors import PlanError
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC
from syftlite.remote.handle import Handle, consumed
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recording import Program
from syftlite.remote.worker import BaseWorker
from syftlite.wire import messages as m
from syftlite.wire.codec import packed_size
from syftlite.wire.fields import MAX_ITEMS
from syftlite.wire.messages import OP, PLAN, RUN, SCAN

CODE_AT_ONCE, BYTES_AT_ONCE = 256, 16 << 10
"""Steps of a program in one message, and bytes of them: a step may be a third of what a message holds, and the results, too."""
SLICE, CAT = (BY_FUNC[func].number for func in (aten.slice.Tensor, aten.cat.default))


def store(program: Program, worker: BaseWorker) -> Handle:
    """``program`` at ``worker``, for as long as the handle lives. Raises `PlanError` for one that no message could call."""
    if (named := program.arity + len(program.results)) > MAX_ITEMS:
        raise PlanError(f"a plan's inputs, state and results are at most {MAX_ITEMS:,} tensors, and these are {named:,}: stack them")
    stored = Handle(worker, worker.next_id(), Spec.contiguous((), torch.bool))
    *parts, last = _parts(program.code)
    for part in parts:
        worker.cast((PLAN, stored.id, program.arity, part, None), None)
    worker.cast((PLAN, stored.id, program.arity, last, program.results), None)
    return stored


def _parts(code: Sequence[Any]) -> list[list[Any]]:
    """``code`` in as many messages as it takes, at least one."""
    parts: list[list[Any]] = [[]]
    room = BYTES_AT_ONCE
    for step in code:
        nbytes = packed_size(step)
        if len(parts[-1]) == CODE_AT_ONCE or (nbytes > room and parts[-1]):
            parts.append([])
            room = BYTES_AT_ONCE
        parts[-1].append(step)
        room -= nbytes
    return parts


class Route(NamedTuple):
    """A program where it is stored, with its constants: what a call needs besides its operands."""

    worker: BaseWorker
    stored: Handle
    program: Program
    constants: list[PointerTensor]

    def run(self, operands: list[int]) -> Any:
        """Replay it on the objects ``operands``: one message. Pointers to its results, in the structure that the function returned."""
        worker, stored, program, constants = self
        operands += [constant._handle.id for constant in constants]
        base = worker.reserve_ids(program.made)
        outs = [worker.next_id() for _ in program.results]
        worker.cast((RUN, stored.id, operands, base, outs), None)
        return self._results(outs, program.result_specs)

    def scan(self, operands: list[int], over: int, steps: int) -> Any:
        """Replay it for each of the ``steps`` rows of its first ``over`` operands: one message, or a few where the rows are more than one
        goes over. Pointers to the stacked results."""
        operands += [constant._handle.id for constant in self.constants]
        specs = [Spec.contiguous((steps, *spec.shape), spec.dtype) for spec in self.program.result_specs]
        if steps <= m.SCAN_STEPS:
            return self._results(self._scan(operands, over, steps), specs)
        parts = []
        for start in range(0, steps, m.SCAN_STEPS):
            end = min(start + m.SCAN_STEPS, steps)
            rows = [self._made(SLICE, (operand, 0, start, end)) for operand in operands[:over]]
            made = self._scan([*[row.id for row in rows], *operands[over:]], over, end - start)
            parts.append([Handle(self.worker, number, self.stored.spec) for number in made])
        outs = [self.worker.next_id() for _ in specs]
        for out, column in zip(outs, zip(*parts, strict=True), strict=True):
            self.worker.cast((OP, CAT, ([part.id for part in column], 0), None, out), None)
        return self._results(outs, specs)

    def _scan(self, operands: Sequence[int], over: int, steps: int) -> list[int]:
        base = self.worker.reserve_ids(self.program.made + over + steps * len(self.program.results))
        outs = [self.worker.next_id() for _ in self.program.results]
        self.worker.cast((SCAN, self.stored.id, list(operands), tuple(range(over)), base, outs), None)
        return outs

    def _made(self, operator: int, args: tuple[Any, ...]) -> Handle:
        """What ``operator`` gives, for as long as the handle lives."""
        handle = Handle(self.worker, self.worker.next_id(), self.stored.spec)
        self.worker.cast((OP, operator, args, None, handle.id), None)
        return handle

    def _results(self, outs: Sequence[int], specs: Sequence[Spec]) -> Any:
        pointers = [PointerTensor(Handle(self.worker, i, s)) for i, s in zip(outs, specs, strict=True)]
        structure = self.program.structure
        return pointers[0] if structure.is_leaf() else tree_unflatten(pointers, structure)


def operand_id(pointer: torch.Tensor) -> int:
    """The id under which a replay is given ``pointer``. Raises for one that was consumed, or points to a pointer."""
    assert isinstance(pointer, PointerTensor)
    if pointer._handle.spec is None:
        raise consumed(pointer._handle)
    if pointer.child is not None:
        raise PlanError(f"a plan runs where values are, and {pointer!r} points to a pointer: get() that first")
    return pointer._handle.id
