"""Recorded programs: OP messages with ids relative to the program, replayed by one message.

    1 .. arity                operands, given by each RUN (inputs first, then state)
    arity + 1 ..              results, renumbered into ids that each RUN reserves from `base`; each goes after its last use, as it would
                              if its client let go of it

A replay runs the very executor that single messages run in, so labels, poison, cost and ownership hold without a second rule; what it
proved for public operands of these specs, later replays of a short program rely on (straight.py).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from syftlite._torch import aten
from syftlite.engine import executor, straight
from syftlite.engine.admission import Deferred
from syftlite.engine.session import Session
from syftlite.errors import ProtocolError
from syftlite.mpc.kernels import KERNELS
from syftlite.ops import schedule
from syftlite.ops.ids import map_operands, map_outs
from syftlite.ops.operator import Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC
from syftlite.wire.messages import KERNELS_FROM

ALIAS = BY_FUNC[aten.alias.default].number
MAX_CODE = 100_000
"""Messages of one program."""

QUICK_CODE = 64
"""Messages up to which a program whose last replay was cheap runs on the event loop's thread."""


class Step(NamedTuple):
    """One OP message of a program, its ids relative."""

    operator: Operator
    args: tuple[Any, ...]
    kwargs: dict[str, Any] | None
    outs: Any


class KernelStep(NamedTuple):
    """One kernel of a program over shares. ``operands``: relative ids; at the provider also shapes."""

    kernel: int
    operands: tuple[Any, ...]
    static: dict[str, Any]
    outs: tuple[int, ...]


class Program:
    """A stored program. ``light``: its last replay had only quick operators, on operands of these specs."""

    __slots__ = ("arity", "complete", "groups", "kernels", "light", "made", "nbytes", "numbered", "results", "spent", "steps", "straight")

    def __init__(self, arity: int) -> None:
        self.arity = arity
        self.steps: list[Step | KernelStep] = []
        self.results: tuple[int, ...] = ()
        self.complete = False
        self.kernels: list[KernelStep] = []  # what holders compute together, once the program is complete
        self.groups: list[tuple[list[Step], list[KernelStep]]] = []  # operators, then kernels that run together; or a step each
        self.made: list[int] = []  # the relative ids that its steps give results
        self.spent: list[tuple[int, ...]] = []  # of each group: those that no later one names
        self.nbytes = 0  # what it takes of its session's quota
        self.numbered: frozenset[int] = frozenset()  # ... as a set, once the program is complete
        self.light: tuple[Spec | None, ...] | None = None
        self.straight: straight.Straight | None = None

    def extend(self, arity: int, code: Sequence[Any]) -> None:
        """Append OP messages, each (operator, args, kwargs, outs). Raises `ProtocolError` for a malformed one or one too many."""
        if self.complete or arity != self.arity:
            raise ProtocolError("this plan is complete, or its arity was another")
        if len(self.steps) + len(code) > MAX_CODE:
            raise ProtocolError(f"a program has at most {MAX_CODE:,} messages")
        for message in code:
            if type(message) is not tuple or len(message) != 4 or type(message[1]) is not tuple:
                raise ProtocolError("a program is a list of [operator, args, kwargs, outs]")
            number, args, kwargs, outs = message
            if kwargs is not None and type(kwargs) is not dict:
                raise ProtocolError("a program's kwargs are a map or nil")
            for out in (outs,) if type(outs) is int else outs or ():
                if out is not None:
                    self._claim(out)
            if type(number) is int and number > KERNELS_FROM:
                self.steps.append(_kernel_step(number - KERNELS_FROM, args, kwargs, outs))
            else:
                self.steps.append(Step(executor.operator_of(number), args, kwargs, outs))

    def _claim(self, out: Any) -> None:
        if type(out) is not int or out <= (self.made[-1] if self.made else self.arity):
            raise ProtocolError("a program's results are numbered upwards")
        self.made.append(out)

    def finish(self, results: Sequence[int]) -> None:
        """Say which relative ids are the program's results."""
        self.numbered = frozenset(self.made)
        if not all(0 < r <= self.arity or r in self.numbered for r in results):
            raise ProtocolError("a program's results are among its operands and its own")
        self.kernels = [step for step in self.steps if isinstance(step, KernelStep)]
        self.groups = _grouped(self.steps) if self.kernels else [([step], []) for step in self.steps if isinstance(step, Step)]
        self.spent = _spent(self.groups, self.numbered.difference(results))
        self.results, self.complete = tuple(results), True

    def forget(self) -> None:
        """The session drops it."""


def _grouped(steps: Sequence[Step | KernelStep]) -> list[tuple[list[Step], list[KernelStep]]]:
    found = schedule.levels(map(_touched, steps))
    groups: list[tuple[list[Step], list[KernelStep]]] = [([], []) for _ in range(max(found, default=-1) + 1)]
    for level, step in zip(found, steps, strict=True):
        if isinstance(step, KernelStep):
            groups[level][1].append(step)
        else:
            groups[level][0].append(step)
    return groups


def _touched(step: Step | KernelStep) -> schedule.Touched:
    return schedule.of_kernel(step.operands, step.outs) if isinstance(step, KernelStep) else schedule.touched(*step)


def _spent(groups: Sequence[tuple[list[Step], list[KernelStep]]], numbers: Collection[int]) -> list[tuple[int, ...]]:
    """Of each group: those of ``numbers`` that no later one names."""
    last: dict[int, int] = {}
    for at, (operators, kernels) in enumerate(groups):
        for touched in [*map(_touched, operators), *map(_touched, kernels)]:
            last |= dict.fromkeys((*touched.reads, *touched.outs), at)
    ends: list[list[int]] = [[] for _ in groups]
    for number in numbers:
        ends[last[number]].append(number)
    return list(map(tuple, ends))


def _kernel_step(kernel: int, operands: tuple[Any, ...], static: dict[str, Any] | None, outs: Any) -> KernelStep:
    if kernel not in KERNELS:
        raise ProtocolError(f"there is no kernel {kernel}")
    if type(outs) is not tuple or any(out is None for out in outs) or not all(_id_or_shape(operand) for operand in operands):
        raise ProtocolError("a kernel's operands are ids or shapes, its results ids")
    return KernelStep(kernel, operands, static or {}, outs)


def _id_or_shape(operand: Any) -> bool:
    return type(operand) is int or (type(operand) is tuple and all(type(size) is int and size >= 0 for size in operand))


def weigh(code: Sequence[Any]) -> int:
    """Bytes that ``code`` takes in memory, nearly."""
    nbytes = 1024  # the program itself
    left: list[Any] = [code]
    while left:
        value = left.pop()
        nbytes += 64
        if type(value) is dict:
            nbytes += 256
            left += value.values()
        elif type(value) in (list, tuple):
            left += value
        elif type(value) is str:
            nbytes += len(value)
    return nbytes


def replay(session: Session, program: Program, operands: Sequence[int], base: int, outs: Sequence[int]) -> None:
    """Run ``program`` on the objects ``operands``; its results become ``outs``, and all else that it made goes.

    ``base``: the client has set aside base + 1 ... base + (ids of the program), fresh ids of this session.
    """
    if not program.complete or len(operands) != program.arity or len(outs) != len(program.results):
        raise ProtocolError(f"RUN gives {len(operands)} operands and {len(outs)} results to a program of another form")
    if program.kernels:
        raise ProtocolError("this plan computes on shares: REPLAY it")
    stored = [session.look_up(number) for number in operands]
    claimed = [session.claim(out) for out in outs]
    shift = base - program.arity
    if len(set(claimed)) != len(claimed) or any(out - shift in program.numbered for out in claimed):
        raise ProtocolError("RUN names an id twice")
    short = program.straight
    if short is not None and short.fits(session, stored):
        try:
            short.run(session, stored, claimed)
            return
        except Exception:  # its value may be to blame: the executor says for whom
            program.straight = None
    specs = tuple([None if tensor is None else Spec.of(tensor) for tensor, _ in stored])  # of storages an `expand` has little
    if session.quick and (program.light != specs or len(program.steps) > QUICK_CODE):
        raise Deferred
    _replay(session, program, operands, claimed, shift)
    program.light = None if session.heavy else specs


def _replay(session: Session, program: Program, operands: Sequence[int], outs: Sequence[int], shift: int) -> None:
    def place(relative: int) -> int:
        return operands[relative - 1] if 0 < relative <= len(operands) else relative + shift

    quick, session.quick, session.heavy = session.quick, False, False
    steps: list[straight.Step] = []
    spent: list[int] = []  # of a light program all stays until it is straightened
    try:
        for (operator, args, kwargs, made), ended in zip(program.steps, program.spent, strict=True):
            assert isinstance(operator, Operator)  # a program with kernels is no RUN
            if session.gone:
                raise ProtocolError("the client is gone")
            step = (operator, *map_operands(operator, args, kwargs, place), map_outs(made, place))
            executor.run(session, operator.number, *step[1:])
            steps.append(step)
            spent += ended
            if session.heavy or len(program.steps) > QUICK_CODE:
                for relative in spent:
                    session.drop(relative + shift)
                spent.clear()
        if not session.heavy and len(steps) <= QUICK_CODE:
            program.straight = straight.straighten(session, steps, operands, [place(r) for r in program.results])
    finally:
        session.quick = quick
        for relative, out in zip(program.results, outs, strict=True):
            if place(relative) in session.objects:
                session.alias(out, *session.objects[place(relative)])
                if session.trail is not None:  # whoever decides on a request for it sees what it is
                    session.trail.add(ALIAS, (place(relative),), None, out)
        for relative in program.made:
            session.drop(relative + shift)
