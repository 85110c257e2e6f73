"""Which kernels of a program over shares may run together: they then share their rounds.

    group of a kernel      not before that of the kernel before it; after those of all kernels that it needs; otherwise the same
    level of an operator   after the groups of all kernels that it needs: it runs before the kernels of the group of that number

Kernels stay in the program's order, so the provider deals in it, and knows of no groups. A step needs what made its operands; a step that
writes needs, besides, all that read what it writes. Operators may share memory, so whatever one touches counts as one piece of memory; a
kernel's results are new.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from syftlite.ops.ids import map_operands, map_outs
from syftlite.ops.operator import Operator


class Touched(NamedTuple):
    """What one step reads, makes, and whether it is a kernel, or writes to what it reads."""

    reads: tuple[int, ...]
    outs: tuple[int, ...]
    kernel: bool = False
    writes: bool = False


def touched(operator: Operator, args: tuple[Any, ...], kwargs: dict[str, Any] | None, outs: Any) -> Touched:
    """Of an operator's step."""
    reads: list[int] = []
    made: list[int] = []
    map_operands(operator, args, kwargs, _noting(reads))
    map_outs(outs, _noting(made))
    return Touched(tuple(reads), tuple(made), writes=operator.inplace or bool(operator.writes))


def _noting(seen: list[int]) -> Callable[[int], int]:
    def note(number: int) -> int:
        seen.append(number)
        return number

    return note


def of_kernel(operands: Sequence[Any], outs: Sequence[int]) -> Touched:
    """Of a kernel's step: operands that are shapes are nobody's."""
    return Touched(tuple([o for o in operands if type(o) is int]), tuple(outs), kernel=True)


class _Memory:
    """Pieces of memory by object id: from which group on each is there, and after which nobody reads it any more."""

    def __init__(self) -> None:
        self._of: dict[int, int] = {}
        self.ready: dict[int, int] = {}
        self.read: dict[int, int] = {}

    def find(self, number: int) -> int:
        while (above := self._of.get(number, number)) != number:
            self._of[number] = self._of.get(above, above)
            number = above
        return number

    def join(self, numbers: Iterable[int]) -> int:
        roots = {self.find(number) for number in numbers}
        first = min(roots)
        for root in roots:
            self._of[root] = first
        self.ready[first] = max(self.ready.get(root, 0) for root in roots)
        self.read[first] = max(self.read.get(root, 0) for root in roots)
        return first


def levels(steps: Iterable[Touched]) -> list[int]:
    """Of each step: its group, or its level."""
    memory, current, found = _Memory(), 0, []
    for step in steps:
        roots = [memory.find(number) for number in step.reads]
        level = max([memory.ready.get(root, 0) for root in roots], default=0)
        if step.kernel:
            level = current = max(level, current)
            for root in roots:
                memory.read[root] = max(memory.read.get(root, 0), level + 1)
            for out in step.outs:
                memory.ready[out] = level + 1
        elif step.reads or step.outs:
            if step.writes:
                level = max([level, *[memory.read.get(root, 0) for root in roots]])
            piece = memory.join([*step.reads, *step.outs])
            memory.ready[piece] = max(memory.ready[piece], level)
            memory.read[piece] = max(memory.read[piece], level)
        found.append(level)
    return found


MERGED = 32 << 20
"""Bytes of corrections up to which kernels run together: larger ones win nothing by it, and what is dealt for all of them waits."""


def batches(groups: Sequence[int], dealt: Sequence[int]) -> list[list[int]]:
    """The kernels' places, in their order, as those that run together; ``dealt``: bytes of each one's corrections."""
    found: list[list[int]] = []
    held, before = 0, -1
    for place, (group, nbytes) in enumerate(zip(groups, dealt, strict=True)):
        if group != before or held + nbytes > MERGED:
            found.append([])
            held, before = 0, group
        held += nbytes
        found[-1].append(place)
    return found
