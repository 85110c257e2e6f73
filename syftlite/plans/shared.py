"""A plan over shared tensors: one program for each member of their group (remote/shared_recording.py)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import TreeSpec, is_plain
from syftlite.errors import PlanError
from syftlite.plans.recordings import RECORDING
from syftlite.plans.settings import FORMS, Very, settings, written
from syftlite.remote.shared_knowledge import Known, writes
from syftlite.remote.shared_recording import SharedProgram, deal_ahead, record, replay, ring_of, shared_leaves
from syftlite.tensors.fixed import FixedPrecisionTensor

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan

class SharedPrograms:
    """What was recorded of one plan, by the form of its inputs and the settings of its state; what was not called for longest goes first.

    The first call of a form runs the function as it is, which fixes its weights and makes an optimizer's state; the next records it. With
    an optimizer among its state the function is a training step: it writes to the state, and versions do not count.

    Where gradients are to flow through it, to an input or to its state, it runs as it is.

    What is not shared becomes part of a program, so its value is part of the form: a function whose public inputs change from call to call
    runs as it is.
    """

    def __init__(self) -> None:
        self._state: Any = None
        """For which all of them were recorded."""
        self._programs: dict[Any, SharedProgram | None] = {}
        """None: it was called once."""

    @property
    def recorded(self) -> list[SharedProgram]:
        """Those of forms that were called twice."""
        return [program for program in self._programs.values() if program is not None]

    def call(self, plan: Plan, args: tuple[Any, ...], leaves: Sequence[Any], structure: TreeSpec) -> Any:
        """``plan`` of ``args``, which has these ``leaves``."""
        if any(ring._group.records for ring in map(ring_of, leaves) if ring is not None):
            return plan.forward(*args)  # inside another plan, of which it is a part
        with RECORDING:
            program, result = self._begun(plan, args, leaves, structure)
            if program is not None and plan.optimizers:
                return replay(program, leaves, plan.state)
        return result if program is None else replay(program, leaves)

    def _begun(self, plan: Plan, args: tuple[Any, ...], leaves: Sequence[Any], structure: TreeSpec) -> tuple[SharedProgram | None, Any]:
        """What is to be replayed, recorded now if there is none; or None and the result of a call that is not to be."""
        state, trains = plan.state, bool(plan.optimizers)
        standing = _standing(state, trains)
        if torch.is_grad_enabled() and not trains and any(t.requires_grad for t in (*shared_leaves(leaves), *state)):
            return None, plan.forward(*args)  # gradients are to flow through it
        if self._state != standing:
            self._state, self._programs = standing, {}
        form = _form(plan, state, leaves, structure)
        known = form in self._programs
        program = self._programs.pop(form, None)
        if program is not None and program.group.join() != program.epoch:
            program, known, self._programs = None, False, {}  # joined anew: its weights are to be fixed again
        result = None
        if not known:
            result = plan.forward(*args)
        elif program is None:
            program = record(plan.forward, plan.name, leaves, structure, state, trains)
        self._programs[form] = program
        if len(self._programs) > FORMS:
            del self._programs[next(iter(self._programs))]
        return program, result

    def prefetch(self, plan: Plan, times: int, leaves: Sequence[Any], structure: TreeSpec) -> None:
        """Have the provider deal for ``times`` calls with such ``leaves``."""
        with RECORDING:
            state = plan.state
            recorded = self._state == _standing(state, bool(plan.optimizers)) and shared_leaves(leaves)
            program = self._programs.get(_form(plan, state, leaves, structure)) if recorded else None
        if program is None or program.epoch != program.group.epoch:
            raise PlanError(f"{plan.name} has not been recorded over shares: call it twice with tensors like these, then prefetch()")
        for _ in range(times):
            deal_ahead(program)


def _standing(state: Sequence[torch.Tensor], trains: bool) -> Any:
    """What all programs hold of the plan's tensors."""
    return [(Very(t), trains or (written(t), _written_as_shares(t))) for t in state]


def _written_as_shares(tensor: torch.Tensor) -> tuple[int, int] | None:
    """How often, which torch does not count where its data is written to, or by a replay."""
    ring = ring_of(tensor)
    return None if ring is None else (writes(tensor), ring.held.writes)


def _form(plan: Plan, state: Sequence[torch.Tensor], leaves: Sequence[Any], structure: TreeSpec) -> Any:
    """What one program holds of a call."""
    return structure, *map(_input, leaves), settings(plan._sources(), state, plan)


def _input(leaf: Any) -> Any:
    """What a program holds of an input: of a shared one where its shares are and how they lie, and what is known of it."""
    if not isinstance(leaf, torch.Tensor):
        return type(leaf), leaf
    scheme = tuple(leaf.attributes().items()) if isinstance(leaf, FixedPrecisionTensor) else ()
    ring = ring_of(leaf)
    if ring is not None:
        known = Known.of(leaf)
        return id(ring._group), ring.shares[0]._handle.spec, scheme, known.truths, None if known.filled is None else _input(known.filled)
    value: torch.Tensor = leaf._child if isinstance(leaf, FixedPrecisionTensor) else leaf
    if not is_plain(value):
        return id(value), scheme
    data = value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data
    return hashlib.blake2b(data, digest_size=16).digest(), tuple(value.shape), value.dtype, scheme
