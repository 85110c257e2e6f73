"""What was recorded of a plan: a program for each form of its inputs and state, with the settings of that (settings.py)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import TreeSpec, tree_flatten, tree_unflatten
from syftlite.errors import PlanError
from syftlite.ops.spec import Spec
from syftlite.plans.placed import Key
from syftlite.plans.settings import FORMS, Settings, settings
from syftlite.remote.filing import recorded, storable
from syftlite.remote.handle import Handle
from syftlite.remote.modules import strengthen
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recorder import Recorder, Recording, difference
from syftlite.remote.recording import Program, Standins, numbered
from syftlite.storage import plans as files

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan


class Recordings:
    """Of one plan: programs by key, in the order in which they were recorded."""

    def __init__(self) -> None:
        self._programs: dict[Key, Program] = {}

    def __len__(self) -> int:
        return len(self._programs)

    def __iter__(self) -> Iterator[tuple[Key, Program]]:
        return iter(list(self._programs.items()))

    @property
    def last(self) -> Program:
        """The one that was recorded last."""
        return next(reversed(self._programs.values()))

    @property
    def inputs(self) -> str:
        """What the programs are for, for errors."""
        return "; ".join(", ".join(map(repr, program.specs)) for program in self._programs.values())

    def take(self, other: Recordings) -> None:
        """Have all that ``other`` has."""
        self._programs.update(other._programs)

    def program(self, plan: Plan, leaves: Sequence[Any], structure: TreeSpec) -> tuple[Key, Program]:
        """The program for inputs like ``leaves``, recorded now if there is none."""
        tensors = plan.state
        key = (structure, *[_form(leaf) for leaf in leaves], *[Spec.of(t) for t in tensors], settings(plan._sources(), tensors))
        if key not in self._programs:
            if not plan._runs and self._programs:
                raise PlanError(f"{plan.name} was loaded without its function, for inputs {self.inputs}: it cannot be recorded for others")
            self._keep(key, _agreed(plan, leaves, structure), plan)
        return key, self._programs[key]

    def _keep(self, key: Key, program: Program, plan: Plan) -> None:
        self._programs[key] = program
        standing = list(dict.fromkeys(_settings(kept) for kept in self._programs))
        for old in [kept for kept in self._programs if len(standing) > FORMS and _settings(kept) == standing[0]]:
            del self._programs[old]
            plan._placed.forget(old)

    # -- in a file

    def stored(self, plan: Plan) -> tuple[files.StoredProgram, ...]:
        """The programs for the state as it is now, as a file holds them."""
        tensors = plan.state
        now, current = [(t.shape, t.dtype) for t in tensors], settings(plan._sources(), tensors)
        programs = [storable(key, program) for key, program in self if _settings(key) == current]
        fitting = tuple(p for p in programs if [(s.shape, s.dtype) for s in p.state] == now)
        if not fitting:
            raise PlanError(f"{plan.name} is not built for its state as it is now: call build(*args), or run it, before save()")
        return fitting

    def load(self, stored: Sequence[files.StoredProgram], state: Sequence[torch.Tensor]) -> None:
        """Have the programs that a file holds, for ``state``."""
        current = settings((), state)
        self._programs.update({(*form, current): program for form, program in (recorded(held, state) for held in stored)})


def _settings(key: Key) -> Settings:
    found: Settings = key[-1]
    return found


def _form(leaf: Any) -> Any:
    return Spec.of(leaf) if isinstance(leaf, torch.Tensor) else (type(leaf), leaf)


def _agreed(plan: Plan, leaves: Sequence[Any], structure: TreeSpec) -> Program:
    """What two recordings agree on."""
    first, recording = _record(plan, leaves, structure)
    again, second = _record(plan, leaves, structure)
    place = difference(recording, second)
    if place is not None or not all(map(torch.equal, first.constants, again.constants)):
        raise PlanError(
            f"{plan.name} recorded differently the second time, at {place or 'a tensor that it sends'}: a number there changes "
            "from call to call. Pass it in as a tensor"
        )
    return first


def _record(plan: Plan, leaves: Sequence[Any], structure: TreeSpec) -> tuple[Program, Recording]:
    recorder = Recorder()
    tensors = plan.state
    inputs = [recorder.operand(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    for source in plan._sources():
        if isinstance(source, torch.nn.Module):
            strengthen(source)
    with Standins(recorder, tensors, plan.optimizers):
        with Rebound(plan):
            results, shape = tree_flatten(plan.forward(*tree_unflatten(inputs, structure)))
        handles = [_handle(r, recorder, plan.name) for r in results]
        del results  # with them goes the graph that holds the stand-ins
    specs = (*[i._handle.spec for i in inputs if isinstance(i, PointerTensor)], *[Spec.contiguous(t.shape, t.dtype) for t in tensors])
    return numbered(recorder, specs, handles, shape)


class Rebound:
    """While a function is recorded: what it assigns to a buffer of its state (``self.mean = ...``) is written to that, as a call of the
    function does for those that follow."""

    def __init__(self, plan: Plan) -> None:
        modules = [module for source in plan._sources() if isinstance(source, torch.nn.Module) for module in source.modules()]
        self._held = [(table, name, held) for m in modules for table in (m._buffers, m._parameters) for name, held in table.items()]
        self._name = plan.name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        assigned = [(table, name, held, table[name]) for table, name, held in self._held if table.get(name) is not held]
        for table, name, held, _ in assigned:
            table[name] = held
        for _, name, held, now in assigned if error is None else ():
            if held is None or now is None or now.shape != held.shape or now.dtype != held.dtype or isinstance(held, torch.nn.Parameter):
                raise PlanError(f"{self._name} assigns another {name}, and a plan's state stays what it is: write to it, with {name}.copy_()")
            with torch.no_grad():
                held.copy_(now)


def _handle(result: Any, recorder: Recorder, name: str) -> Handle:
    if not isinstance(result, PointerTensor) or result.location is not recorder:
        raise PlanError(f"{name} returns {type(result).__name__}: a plan returns tensors computed from its inputs or state")
    return result._handle
