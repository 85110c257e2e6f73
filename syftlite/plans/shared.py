"""A plan over shared tensors: one program for each member of their group (remote/shared_recording.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import TreeSpec
from syftlite.errors import PlanError
from syftlite.remote.shared_recording import SharedProgram, deal_ahead, record, replay, shared_leaves

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan


class SharedPrograms:
    """What was recorded of one plan, by the form of its inputs.

    The first call of a form runs the function as it is, which fixes its weights and makes an optimizer's state; the next records it. With
    an optimizer among its state the function is a training step: it writes to the state, and versions do not count.
    """

    def __init__(self) -> None:
        self._programs: dict[Any, SharedProgram | None] = {}
        """None: it was called once."""

    @property
    def recorded(self) -> list[SharedProgram]:
        """Those of forms that were called twice."""
        return [program for program in self._programs.values() if program is not None]

    def call(self, plan: Plan, args: tuple[Any, ...], leaves: Sequence[Any], structure: TreeSpec) -> Any:
        """``plan`` of ``args``, which has these ``leaves``."""
        state, trains = plan.state, bool(plan.optimizers)
        key = _form(plan, leaves, structure)
        program = self._programs.get(key)
        if program is not None and program.group.join() != program.epoch:
            program, self._programs = None, {}  # joined anew: its weights are to be fixed again
        if program is None:
            if key not in self._programs:
                result = plan.forward(*args)
                self._programs = {key: None}
                return result
            program = self._programs[key] = record(plan.forward, plan.name, leaves, structure, state, trains)
        return replay(program, leaves, state if trains else ())

    def prefetch(self, plan: Plan, times: int, leaves: Sequence[Any], structure: TreeSpec) -> None:
        """Have the provider deal for ``times`` calls with such ``leaves``."""
        program = self._programs.get(_form(plan, leaves, structure)) if shared_leaves(leaves) else None
        if program is None or program.epoch != program.group.epoch:
            raise PlanError(f"{plan.name} has not been recorded over shares: call it twice with tensors like these, then prefetch()")
        for _ in range(times):
            deal_ahead(program)


def _form(plan: Plan, leaves: Sequence[Any], structure: TreeSpec) -> tuple[Any, ...]:
    trains = bool(plan.optimizers)
    groups = [group for optimizer in plan.optimizers for group in optimizer.param_groups]
    options = [(k, v.item() if isinstance(v, torch.Tensor) else v) for group in groups for k, v in group.items() if k != "params"]
    return (structure, *options, *map(_leaf, leaves), *[(id(t), trains or t._version) for t in plan.state])


def _leaf(leaf: Any) -> Any:
    return (type(leaf), tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else (type(leaf), leaf)
