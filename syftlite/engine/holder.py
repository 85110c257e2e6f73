"""A holder of shares in a group: what its session's COMPUTE, REPLAY and REVEAL do, on shares that are here."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine import executor
from syftlite.engine.executor import Poisoned
from syftlite.engine.groups import SHARED, Driver, FixedWeight, Member, Run, Static, placing, priced
from syftlite.engine.marks import Mark, Poison
from syftlite.engine.plans import KernelStep, Program
from syftlite.engine.session import Session
from syftlite.errors import Misuse, PolicyError, ProtocolError, SendNotPermittedError, SharingAbortedError, SyftliteError, code_of
from syftlite.mpc.correlations import Request
from syftlite.mpc.kernel import Plan, Spec, WeightSpec
from syftlite.mpc.kernels import KERNELS
from syftlite.mpc.party import Shareholder
from syftlite.mpc.products import Weight
from syftlite.mpc.release import release
from syftlite.mpc.replicated import Replica, Third
from syftlite.mpc.replicated_kernels import REPLICATED
from syftlite.mpc.rounds import abreast
from syftlite.ops.ids import map_operands, map_outs
from syftlite.ops.schedule import batches
from syftlite.policy.labels import PUBLIC, Class, Label, blind, join

if TYPE_CHECKING:
    from syftlite.engine.rounds import Given


class Holder(Member):
    """A holder of shares: its `Party`, driven by ``driver``. ``members``: the keys that the other members have proved to have, the
    provider too, by their numbers; ``own``: that of this node."""

    def __init__(
        self,
        party: Shareholder,
        driver: Driver,
        given: Given | None = None,
        members: Mapping[int, bytes | None] = MappingProxyType({}),
        own: bytes | None = None,
    ) -> None:
        super().__init__(driver.close)
        self.party, self.driver, self.given, self.members = party, driver, given, list(members.values())
        self.replicated = isinstance(party, (Replica, Third))
        self.roster = repr((self.replicated, sorted({**members, party.index: own}.items())) if members else self.replicated)
        """Who is which member, as far as this one has seen it proved: all holders must have seen the same."""
        self.runs = 0

    def compute(self, session: Session, number: int, operands: Sequence[int], static: Static, outs: Sequence[int]) -> None:
        """Run kernel ``number`` on this holder's shares ``operands``; its results are stored as ``outs``."""
        claimed = _claimed(session, outs)
        marks: list[Mark] = []
        try:
            values = [self._operand(session, operand, marks) for operand in operands]
            self.check()
            self.may_run(session, number, marks)
            planned = priced(session, number, [_spec(v) for v in values], static)
            if len(planned.results) != len(claimed):
                raise ProtocolError(f"kernel {number} gives {len(planned.results)} results, the message names {len(claimed)}")
            run = Run(self, KERNELS[number].run(self.party, *values, **static), self._digest(number, values, static))
            self.runs += 1
        except ProtocolError:
            raise
        except Exception as error:
            self._failed(session, claimed, PUBLIC if isinstance(error, PolicyError) else _joined(marks).label, error)  # no value says so
            return
        mark = _joined(marks)
        run.finish = lambda out: _keep(session, claimed, out, planned, mark, values)
        run.fail = lambda error: self._failed(session, claimed, mark.label, error)
        self.driver.drive(run)

    def replay(self, session: Session, program: Program, operands: Sequence[int], base: int, outs: Sequence[int]) -> None:
        """Run a whole program over shares, between the holders as one run."""
        if not program.complete or len(operands) != program.arity or len(outs) != len(program.results):
            raise ProtocolError(f"REPLAY gives {len(operands)} operands and {len(outs)} results to a program of another form")
        claimed = _claimed(session, outs)
        shift = base - program.arity
        place = placing(operands, shift)
        if any(out - shift in program.numbered for out in claimed):
            raise ProtocolError("REPLAY names an id twice")

        def drop() -> None:
            for relative in program.made:
                session.drop(relative + shift)

        def finish(_: Any) -> None:
            for out, relative in zip(claimed, program.results, strict=True):
                session.alias(out, *session.look_up(place(relative)))
            drop()

        def fail(error: Exception) -> None:
            drop()
            self._failed(session, claimed, SHARED, error)

        try:
            self.check()
            shapes = [_spec(self._operand(session, number, [])) for number in operands]
        except Exception as error:
            fail(error)
            return
        told = [[(step.kernel, sorted(step.static.items())) for step in kernels] for _, kernels in program.groups]
        what = (self.runs, self.roster, shapes, told)
        run = Run(self, self.steps(session, program, place), blake2b(repr(what).encode(), digest_size=16).digest())
        self.runs += 1
        run.finish, run.fail = finish, fail
        self.driver.drive(run)

    async def steps(self, session: Session, program: Program, place: Callable[[int], int]) -> list[Request]:
        """This holder's part of a program; the correlations that it took. ``place``: from its relative ids to those of ``session``."""
        asked: list[Request] = []
        for (operators, kernels), spent in zip(program.groups, program.spent, strict=True):
            for step in operators:
                args, kwargs = map_operands(step.operator, step.args, step.kwargs, place)
                executor.run(session, step.operator.number, args, kwargs, map_outs(step.outs, place))
            asked += await self._kernels(session, kernels, place)
            for relative in spent:
                session.drop(place(relative))
        return asked

    async def _kernels(self, session: Session, kernels: Sequence[KernelStep], place: Callable[[int], int]) -> list[Request]:
        """Kernels that need nothing of each other, in as many rounds as the longest of them takes; the correlations that they took."""
        given = []
        for step in kernels:
            marks: list[Mark] = []
            values = [self._operand(session, place(number), marks) for number in step.operands]
            self.may_run(session, step.kernel, marks)
            given.append((step, values, priced(session, step.kernel, [_spec(v) for v in values], step.static), _joined(marks)))
        for batch in batches([0] * len(given), [planned.dealt for _, _, planned, _ in given]):
            chosen = [given[i] for i in batch]
            results = await abreast(self.party, [(len(planned.requests), _starting(step, values)) for step, values, planned, _ in chosen])
            for (step, values, planned, mark), result in zip(chosen, results, strict=True):
                _keep(session, [place(out) for out in step.outs], result, planned, mark, values)
        return [request for _, _, planned, _ in given for request in planned.requests]

    def _failed(self, session: Session, outs: Sequence[int], label: Label, error: Exception) -> None:
        why = str(error)
        self.leave(why if isinstance(error, SharingAbortedError) else f"{type(error).__name__}: {why}")
        poison = Poison(code_of(error), why, 0, session.executed)
        for out in outs:
            if out not in session.objects:
                session.put(out, torch.empty(0), Mark(label, poison))

    def _digest(self, number: int, values: Sequence[Any], static: Static) -> bytes:
        """What every holder must find the same: the run, who the members are, the kernel, its arguments, the operands' shapes and how they
        lie in memory."""
        laid = [v.stride() if isinstance(v, torch.Tensor) else () for v in values]
        what = (self.runs, self.roster, number, [_spec(v) for v in values], laid, sorted(static.items()))
        return blake2b(repr(what).encode(), digest_size=16).digest()

    def may_run(self, session: Session, number: int, marks: Sequence[Mark]) -> None:
        """Raise `Misuse` for a kernel of the other kind of shares, `PolicyError` for one that the policies of its operands leave out."""
        if (number > REPLICATED) != self.replicated:
            kinds = ("replicated", "additive") if self.replicated else ("additive", "replicated")
            raise Misuse(f"this group's shares are {kinds[0]}, and kernel {number} is one of {kinds[1]} shares")
        for sources in {mark.label.sources for mark in marks if mark.label.sources} if number in KERNELS else ():
            assert session.policies is not None
            session.policies.compute(session.principal, sources, KERNELS[number])

    def reveal(self, session: Session, number: int, out: int) -> None:
        """Store the share ``number``, re-randomised and free to leave, as ``out``."""
        claimed = session.claim(out)
        label = PUBLIC
        try:
            tensor, cell = session.look_up(number)
            label = cell.label._replace(shared=False)
            poison = None if cell.mark is None else cell.mark.poison
            if poison is not None and not label.private:
                raise Poisoned(poison)
            self.check()
            if label.private:
                tensor = _instead(session, tensor, poison)
            if tensor is None or tensor.dtype != torch.int64:
                raise Misuse("only a share, which is int64, is revealed")
            session.reserve(tensor.numel() * 8)
        except SyftliteError as error:
            poison = error.poison if isinstance(error, Poisoned) else Poison(code_of(error), str(error), 0, session.executed)
            session.put(claimed, torch.empty(0), Mark(label, poison))  # whether it failed is as PRIVATE as it is
            return
        session.put(claimed, release(self.party, tensor), Mark(label, poison) if label.private else None)

    def _operand(self, session: Session, number: int, marks: list[Mark]) -> Any:
        fixed = session.weights.get(number)
        if fixed is not None:
            if fixed.mark is not None:
                marks.append(fixed.mark)
                self._may_compute(session, fixed.mark.label)
            if isinstance(fixed.weight, Weight):
                session.charge(fixed.grown(fixed.weight.nbytes))
            return fixed.weight
        tensor, cell = session.look_up(number)
        if cell.label.level is not Class.PUBLIC:  # before anything is told of it: the other holders hear why a run ends
            self._may_compute(session, cell.label)
            assert cell.mark is not None
            marks.append(cell.mark)
            return _instead(session, tensor, cell.mark.poison)
        if cell.mark is not None:
            marks.append(cell.mark)
            if cell.mark.poison is not None:
                raise SharingAbortedError(f"an operand of the run failed: {cell.mark.poison.text}")
        return tensor

    def _may_compute(self, session: Session, label: Label) -> None:
        """Raise `SendNotPermittedError` unless a share with ``label`` may take part in this group. Of replicated shares none may: two
        others could rebuild what is made of it, and their nodes know nothing of its policy."""
        if self.replicated:
            raise SendNotPermittedError("an operand derives from PRIVATE data: it takes part in no group of replicated shares")
        if not label.shared or session.policies is None:
            raise SendNotPermittedError("an operand derives from PRIVATE data: it takes part in no sharing group but as a share of it")
        session.policies.share(session.principal, label.sources, self.members)


def _starting(step: KernelStep, values: Sequence[Any]) -> Callable[[Shareholder], Coroutine[Any, Any, Any]]:
    return lambda party: KERNELS[step.kernel].run(party, *values, **step.static)


def _claimed(session: Session, outs: Sequence[int]) -> list[int]:
    claimed = [session.claim(out) for out in outs]
    if len(set(claimed)) != len(claimed):
        raise ProtocolError("outs names an id twice")
    return claimed


def _instead(session: Session, tensor: torch.Tensor | None, poison: Poison | None) -> torch.Tensor:
    """A share of PRIVATE data; of what failed, zeros: that it failed is as PRIVATE as it is, and its mark remembers."""
    if tensor is None or tensor.dtype != torch.int64:
        raise Misuse("only a share, which is int64, is computed with or revealed")
    if poison is None:
        return tensor
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=torch.int64, device=session.device).zero_()


def _spec(value: Any) -> Spec:
    return WeightSpec(value.shape, value.number) if isinstance(value, Weight) else tuple(value.shape)


def _joined(marks: Sequence[Mark]) -> Mark:
    """The mark of what is made of shares with these; that a PRIVATE one failed goes on with it, and is told to nobody."""
    if all(mark.label is SHARED and mark.poison is None for mark in marks):  # mostly, and joining takes several times as long
        return Mark(SHARED)
    label = blind(join([mark.label for mark in marks]))._replace(shared=True)
    return Mark(label, next((mark.poison for mark in marks if mark.poison is not None), None))


def _keep(session: Session, outs: Sequence[int], result: Any, planned: Plan, mark: Mark, operands: Sequence[Any]) -> None:
    """Store results, with the strides that the client was told: those for contiguous operands. Each gets memory of its own: what is written
    to an operand later is no result."""
    taken = {operand.untyped_storage().data_ptr() for operand in operands if isinstance(operand, torch.Tensor)}
    for out, value, stride in zip(outs, result if isinstance(result, tuple) else (result,), planned.strides, strict=True):
        if isinstance(value, Weight):
            session.charge(value.nbytes)
            session.weights[out] = FixedWeight(value, value.nbytes, mark=mark if mark.label.sources else None)
        else:
            if value.stride() != stride or value.untyped_storage().data_ptr() in taken:
                value = torch.empty_strided(value.shape, stride, dtype=value.dtype, device=value.device).copy_(value)
            taken.add(value.untyped_storage().data_ptr())
            session.put(out, value, mark)
