"""Recording and replaying functions of shared tensors: one program a member, one message each a call.

    record   the function runs on stand-ins whose shares are pointers at recorders, one a holder and one for the provider, if there is one
    replay   REPLAY to each: their shares, the fixed weights, what the function sent; results are shares under new ids

A weight of the state that was masked and opened once is an operand like any other, and so it stays once: call the function a first time
before recording it, so that its weights are fixed. Other weights are opened in each call, together with what they meet. A training step
is recorded with its way back; it writes to its state's shares where they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import nn

from syftlite._torch import TreeSpec, tree_flatten, tree_unflatten
from syftlite.errors import Misuse, PlanError, SharingAbortedError
from syftlite.mpc.counting import Cost
from syftlite.mpc.kernel import Plan as Planned
from syftlite.mpc.kernel import WeightSpec, plan
from syftlite.ops import schedule
from syftlite.ops.operator import Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE
from syftlite.remote.custody import Custody, joined
from syftlite.remote.group import FixedShares, Group
from syftlite.remote.handle import Handle
from syftlite.remote.multi import MultiPointerTensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recorder import Recorder
from syftlite.remote.recording import Program, numbered
from syftlite.remote.routes import store
from syftlite.remote.shared_counters import Advances, Counters, advance
from syftlite.remote.shared_knowledge import Known, writes
from syftlite.remote.sharing import AdditiveSharingTensor
from syftlite.remote.transfer import become, upload
from syftlite.remote.worker import BaseWorker
from syftlite.tensors.fixed import FixedPrecisionTensor, settle
from syftlite.tensors.fixed_nn import Term, version
from syftlite.wire.messages import KERNELS_FROM, REPLAY

MAX_AHEAD = 128 << 20
"""Bytes of corrections that wait at a holder for calls that are still to come: half of what a link reads ahead (transports/links.py)."""


class RecordingGroup(Group):
    """Recorders in place of a group's members."""

    records = True

    def __init__(self, real: Group) -> None:
        super().__init__(tuple(Recorder(False) for _ in real.holders), None if real.provider is None else Recorder(False))
        real.join()
        self.real, self.epoch, self._joined = real, real.epoch, True
        self.operands: list[tuple[Handle, ...]] = []
        """For each operand, its real handle at each holder."""
        self.weights: list[FixedShares] = []
        self.planned: list[Planned] = []

    def join(self) -> int:
        """Recorders are always there."""
        return self.epoch

    def noted(self, planned: Planned) -> None:
        """Keep what the kernel does."""
        self.planned.append(planned)

    def standin(self, tensor: Any, stays: bool = False) -> Any:
        """What takes the place of a shared ``tensor`` while the function runs. ``stays``: it is the same in each call, and so is what was
        fixed of it."""
        if isinstance(tensor, FixedPrecisionTensor):
            inner = FixedPrecisionTensor.of(self.standin(tensor._child), tensor.attributes())
            kept = tensor.__dict__.get("_fixed", {}) if stays else {}
            current = {form: made for form, (seen, made) in kept.items() if seen == version(tensor)}
            usable = {form: made for form, made in current.items() if isinstance(made, (FixedShares, Term)) and made.epoch == self.epoch}
            inner.__dict__["_fixed"] = {form: (version(inner), self._made(made)) for form, made in usable.items()}
            return Known.of(tensor).note(inner)
        if isinstance(tensor, MultiPointerTensor):  # what all holders know
            return self.multi(self._operands(tensor.pointers()))
        assert isinstance(tensor, AdditiveSharingTensor)
        if tensor._group is not self.real:
            raise PlanError(f"a plan computes in one group, and its operands are shared in {self.real} and {tensor._group}")
        return Known.of(tensor).note(AdditiveSharingTensor.of(tuple(self._operands(tensor.shares)), self))

    def _operands(self, pointers: Sequence[PointerTensor]) -> list[PointerTensor]:
        """What takes the place of a real pointer for each place."""
        handles, recorders = [pointer._handle for pointer in pointers], cast(Any, self.holders)
        self.operands += [tuple(handles[j :: self.width]) for j in range(self.width)]
        return [recorders[holder].operand(pointer) for (holder, _), pointer in zip(self.places, pointers, strict=True)]

    def _made(self, made: FixedShares | Term) -> FixedShares | Term:
        """What takes the place of what was made of a weight."""
        return self._fixed(made) if isinstance(made, FixedShares) else made._replace(value=self.standin(made.value))

    def _fixed(self, fixed: FixedShares) -> FixedShares:
        spec = Spec.contiguous(fixed.shape, torch.int64)
        self.operands.append(fixed.handles)
        self.weights.append(fixed)
        handles = tuple([Handle(recorder, recorder.next_id(), spec) for recorder in self.holders])
        provider = self.members[-1]
        return FixedShares(self.epoch, fixed.shape, handles, Handle(provider, provider.next_id(), spec), len(self.weights), fixed.custody)


class SharedProgram(NamedTuple):
    """A function of shared tensors as its members run it."""

    group: Group
    epoch: int
    holders: tuple[Program, ...]
    provider: Program | None
    inputs: int
    state: tuple[tuple[Handle, ...], ...]
    """State and fixed weights: their handle at each holder."""
    weights: tuple[FixedShares, ...]
    planned: tuple[Planned, ...]
    custody: Custody
    """Of its state."""
    schemes: tuple[dict[str, Any] | None, ...]
    """For each result, base and precision; None for one of whole ring elements."""
    known: tuple[Known, ...]
    """Of each result."""
    wrote: tuple[bool, ...]
    """For each shared input, whether it is written to."""
    structure: TreeSpec
    stored: dict[Any, tuple[Handle, list[PointerTensor]]]
    advances: Advances = ()
    """What a call adds to tensors of the state that are here."""

    @property
    def members(self) -> tuple[Program, ...]:
        """The holders' programs, and the provider's."""
        return self.holders if self.provider is None else (*self.holders, self.provider)

    @property
    def cost(self) -> Cost:
        """Of one call."""
        cost = Cost()
        for planned in self.planned:
            cost.add(planned, self.group.parties)
        return cost


def shared_leaves(leaves: Sequence[Any]) -> list[Any]:
    """The shared tensors among ``leaves``."""
    return [leaf for leaf in leaves if ring_of(leaf) is not None]


def ring_of(leaf: Any) -> AdditiveSharingTensor | None:
    """The shares below ``leaf``, if it is shared."""
    inner = leaf._child if isinstance(leaf, FixedPrecisionTensor) and leaf.is_secret else leaf
    return inner if isinstance(inner, AdditiveSharingTensor) else None


def _held(tensor: Any, group: Group) -> bool:
    """Whether the members of ``group`` have ``tensor``: shares of it, or each a copy."""
    if isinstance(tensor, MultiPointerTensor):
        return tensor.locations == [group.holders[holder] for holder, _ in group.places]
    return ring_of(tensor) is not None


def record(
    function: Callable[..., Any], name: str, leaves: Sequence[Any], structure: TreeSpec, state: Sequence[torch.Tensor], trains: bool = False
) -> SharedProgram:
    """``function`` on arguments like ``leaves``, some of which are shared, as a program a member. It is recorded twice. ``trains``: it is a
    step, that writes to ``state``."""
    counters, programs = Counters(state if trains else ()), []
    try:
        for _ in range(2):
            programs.append(recorded(function, name, leaves, structure, state, trains))
            counters.look()
    finally:
        counters.back()
    once, again = programs
    for first, second in zip(once.members, again.members, strict=True):
        if first.code != second.code or not all(map(torch.equal, first.constants, second.constants)):
            raise PlanError(f"{name} recorded differently the second time: a number in it changes from call to call: share it, and pass it")
    return once._replace(advances=counters.advances(name))


def recorded(
    function: Callable[..., Any], name: str, leaves: Sequence[Any], structure: TreeSpec, state: Sequence[torch.Tensor], trains: bool = False
) -> SharedProgram:
    """The same, recorded once."""
    first = ring_of(shared_leaves(leaves)[0])
    assert first is not None
    group = RecordingGroup(first._group)
    given = [group.standin(leaf) if ring_of(leaf) is not None else leaf for leaf in leaves]
    inputs = len(group.operands)
    originals = [(tensor, group.standin(tensor, stays=not trains)) for tensor in state if _held(tensor, group.real)]
    swapped = []
    try:
        for tensor, standin in originals:
            fresh: torch.Tensor = nn.Parameter(standin, tensor.requires_grad and trains) if isinstance(tensor, nn.Parameter) else standin
            if trains:
                tensor.grad = None
            fresh.__dict__.update({k: v for k, v in standin.__dict__.items() if k == "_fixed"})
            become(tensor, fresh)
            swapped.append((tensor, fresh))
        with torch.set_grad_enabled(trains):
            results, shape = tree_flatten(function(*tree_unflatten(given, structure)))
            rings = [ring_of(result) for result in results]
    finally:
        for tensor, fresh in swapped:
            if trains:
                tensor.grad = None
            become(tensor, fresh)
    if not all(ring is not None and ring._group is group for ring in rings):
        raise PlanError(f"{name} returns something that is not shared: a plan over shares returns what it computed from its shared inputs")
    schemes = tuple(r.attributes() if isinstance(r, FixedPrecisionTensor) else None for r in results)
    known = tuple(map(Known.of, results))
    wrote = tuple(writes(standin) > 0 for standin in given if ring_of(standin) is not None)
    programs = []
    for index, recorder in enumerate(group.holders):
        assert isinstance(recorder, Recorder)
        handles = [share._handle for ring in rings if ring is not None for share in group.mine(index, ring.shares)]
        programs.append(numbered(recorder, (None,) * len(group.operands), handles, shape)[0])
    provider = numbered(group.provider, (None,) * len(group.weights), [], shape)[0] if isinstance(group.provider, Recorder) else None
    kept, weights, planned = tuple(group.operands[inputs:]), tuple(group.weights), tuple(_abreast(programs[0], group.planned))
    custody = joined([ring_of(tensor) for tensor, _ in originals])
    told = (custody, schemes, known, wrote, shape)
    return SharedProgram(group.real, group.epoch, tuple(programs), provider, inputs, kept, weights, planned, *told, {})


def _operator(number: int) -> Operator:
    found = TABLE[number]
    assert found is not None
    return found


def _abreast(program: Program, planned: Sequence[Planned]) -> Iterator[Planned]:
    """``planned`` of the program's kernels; of those that run together one alone has rounds."""
    steps = [
        schedule.of_kernel(args, outs) if number > KERNELS_FROM else schedule.touched(_operator(number), args, kwargs, outs)
        for number, args, kwargs, outs in program.code
    ]
    groups = [level for level, step in zip(schedule.levels(steps), steps, strict=True) if step.kernel]
    for batch in schedule.batches(groups, [p.dealt for p in planned]):
        longest = max(planned[i].rounds for i in batch)
        for i in batch:
            yield planned[i]._replace(rounds=longest if i == batch[0] else 0)


def replay(program: SharedProgram, leaves: Sequence[Any], written: Sequence[torch.Tensor] = ()) -> Any:
    """Run it: one message to each member. ``written``: tensors of the state, whose shares it writes to."""
    group = program.group
    written = [*written, *itertools.compress(shared_leaves(leaves), program.wrote)]
    if written:
        settle()  # what was computed from the old values is computed first
        for tensor in written:
            if isinstance(tensor, FixedPrecisionTensor):
                tensor._memory.writes += 1
    rings = [ring for leaf in leaves if (ring := ring_of(leaf)) is not None]
    states = [ring for tensor in written if (ring := ring_of(tensor)) is not None]
    custody = joined([*rings, *states], program.custody)
    for ring in states:
        ring.held.narrow(custody)
    with group._lock:
        _must_be_of_this_epoch(program)
        ahead = bool(group.ahead) and group.ahead[0] is program
        if not ahead:
            group.nothing_ahead()
        with group.in_step():
            if ahead:
                group.ahead.popleft()
            else:
                _deal(program)
            made = {index: _told(program, index, rings) for index in group.order}
            group.flush()
            group.dealt += sum(len(planned.requests) for planned in program.planned)
    advance(program.advances)
    for planned in program.planned:
        group.noted(planned)
    results: list[Any] = []
    for i, (scheme, known) in enumerate(zip(program.schemes, program.known, strict=True)):
        at = slice(i * group.width, (i + 1) * group.width)
        ring = AdditiveSharingTensor.of(tuple(share for index in range(len(group.holders)) for share in made[index][at]), group, custody)
        results.append(known.note(ring if scheme is None else FixedPrecisionTensor.of(ring, scheme)))
    return tree_unflatten(results, program.structure)


def _told(program: SharedProgram, index: int, rings: Sequence[AdditiveSharingTensor]) -> list[PointerTensor]:
    """Have holder ``index`` run its part; pointers to its shares of the results."""
    group, holder, code = program.group, program.group.holders[index], program.holders[index]
    stored, constants = _stored(program, holder, code)
    operands = [share._handle.id for ring in rings for share in group.mine(index, ring.shares)]
    operands += [handles[index].id for handles in program.state] + [constant._handle.id for constant in constants]
    base = holder.reserve_ids(code.made)
    outs = [holder.next_id() for _ in code.results]
    holder.hold((REPLAY, group.number, stored.id, operands, base, outs), None)
    return [PointerTensor(Handle(holder, out, spec)) for out, spec in zip(outs, code.result_specs, strict=True)]


def deal_ahead(program: SharedProgram) -> None:
    """Have the next call's correlations dealt now."""
    group, dealt = program.group, program.cost.dealt
    if group.provider is None:
        raise Misuse("replicated shares have no provider who could deal ahead: the third holder does while the other two compute")
    with group._lock:
        _must_be_of_this_epoch(program)
        if any(waiting is not program for waiting in group.ahead):
            group.nothing_ahead()
        if (len(group.ahead) + 1) * dealt > MAX_AHEAD:
            raise Misuse(
                f"{len(group.ahead)} calls are dealt ahead, and at {dealt:,} bytes a call the last holder keeps {MAX_AHEAD // dealt:,} "
                "at most: make those calls before you prefetch more"
            )
        with group.in_step():
            _deal(program)
        group.ahead.append(program)


def _must_be_of_this_epoch(program: SharedProgram) -> None:
    """Raise `SharingAbortedError` for one whose weights were fixed before the group was joined anew."""
    if program.group.join() != program.epoch:
        raise SharingAbortedError("the group was joined anew since this plan was recorded: call it twice, which records it again")


def _deal(program: SharedProgram) -> None:
    """The provider's part: its own REPLAY, or, if it is in this process and the holders are not, dealt here."""
    group, code = program.group, program.provider
    if code is None or group.provider is None:
        return
    if group._dealer is None:
        stored, _ = _stored(program, group.provider, code)
        weights = [fixed.at_provider.id for fixed in program.weights if fixed.at_provider is not None]
        group.provider.hold((REPLAY, group.number, stored.id, weights, group.provider.reserve_ids(code.made), ()), None)
        group.provider.transport.flush()
        return
    for number, operands, static, _ in code.code:
        specs = [WeightSpec(tuple(program.weights[o - 1].shape), program.weights[o - 1].number) if type(o) is int else o for o in operands]
        group._dealer.deal(plan(number - KERNELS_FROM, specs, **(static or {})))


def _stored(program: SharedProgram, worker: BaseWorker, code: Program) -> tuple[Handle, list[PointerTensor]]:
    if worker not in program.stored:
        handle = store(code, worker)
        program.stored[worker] = handle, [PointerTensor(upload(c, worker)._handle) for c in code.constants]
    return program.stored[worker]
