"""What was recorded of a plan: a program for each form of its inputs and state, with the settings of that (settings.py)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from traceback import walk_tb
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import TreeSpec, tree_flatten, tree_unflatten
from syftlite.errors import PlanError
from syftlite.ops.spec import Spec
from syftlite.plans.counted import counted
from syftlite.plans.naming import NUMBERS
from syftlite.plans.placed import Key
from syftlite.plans.settings import FORMS, Settings, modes, read_by, settings
from syftlite.plans.weighted import Weighted
from syftlite.remote.derived import let_go, made_by_hooks
from syftlite.remote.filing import form, recorded, storable
from syftlite.remote.handle import Handle
from syftlite.remote.modules import strengthen
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recorder import Recorder, Recording, difference
from syftlite.remote.recording import Program, Standins, numbered
from syftlite.storage import plans as files
from syftlite.tensors.wrapper import WrapperTensor

if TYPE_CHECKING:
    from syftlite.plans.plan import Plan


OPTIMIZERS = str(Path(torch.optim.__file__).parent)
RECORDING = threading.RLock()
"""Held while a function is recorded, and where a plan's state is looked at, or used by its function: it is at a recorder meanwhile."""


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
        with RECORDING:
            key = _key(plan, leaves, structure)
            if key not in self._programs:
                if not plan._runs and self._programs:
                    told = f"{plan.name} was {plan._came} without its function, for inputs {self.inputs}"
                    raise PlanError(f"{told}: it cannot be recorded for others")
                program = _agreed(plan, leaves, structure)
                key = _key(plan, leaves, structure)  # without what it was found to write itself
                self._keep(key, program, plan)
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
        now = [(t.shape, t.dtype) for t in tensors]
        current = settings(plan._sources(), tensors, plan) if plan._runs else settings((), tensors)
        programs = [storable(key, program) for key, program in self if _settings(key)[0] == current]
        fitting = tuple(p for p in programs if [(s.shape, s.dtype) for s in p.state] == now)
        if not fitting:
            raise PlanError(f"{plan.name} is not built for its state as it is now: call build(*args), or run it, before save()")
        return fitting

    def load(self, stored: Sequence[files.StoredProgram], state: Sequence[torch.Tensor]) -> None:
        """Have the programs that a file holds, for ``state``."""
        current = settings((), state), ()
        self._programs.update({(*form, current): program for form, program in (recorded(held, state) for held in stored)})


def _key(plan: Plan, leaves: Sequence[Any], structure: TreeSpec) -> Key:
    tensors = plan.state
    current = (settings(plan._sources(), tensors, plan), modes()) if plan._runs else (settings((), tensors), ())
    return (structure, *[_form(leaf, plan.name) for leaf in leaves], *[Spec.of(t) for t in tensors], current)


def _settings(key: Key) -> Settings:
    found: Settings = key[-1]
    return found


def _form(leaf: Any, name: str) -> Any:
    try:
        return form(leaf)
    except TypeError:
        told = f"{name} is called with {leaf!r}"
        raise PlanError(f"{told}: a plan takes tensors, numbers and texts, nested in lists, tuples and dicts") from None


def _agreed(plan: Plan, leaves: Sequence[Any], structure: TreeSpec) -> Program:
    """What two recordings agree on; in the second one there are gradients from before."""
    first, recording = _record(plan, leaves, structure)
    *before, read = settings(plan._sources(), plan.state, plan)
    again, second = _record(plan, leaves, structure, graded=True)
    *after, reads = settings(plan._sources(), plan.state, plan)
    changed = {path for path, which in read if which != dict(reads).get(path)}
    rebound = {path for path in changed if len(path) == 1 and type(read_by(plan).get(path)) in NUMBERS}
    plan._written |= changed - rebound
    if after != before or rebound:
        raise PlanError(f"{plan.name} changes a setting of its state, such as a learning rate: what a replay does not do. Do that outside")
    place = difference(recording, second)
    if place is not None or not all(map(_same, first.constants, again.constants)):
        raise PlanError(
            f"{plan.name} recorded differently the second time, at {place or 'a tensor that it sends'}: a number there changes "
            "from call to call. Pass it in as a tensor"
        )
    return first


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """To the bit: NaN is NaN."""
    alike = a.shape == b.shape and a.dtype == b.dtype
    return alike and torch.equal(a.contiguous().view(-1).view(torch.uint8), b.contiguous().view(-1).view(torch.uint8))


def _record(plan: Plan, leaves: Sequence[Any], structure: TreeSpec, graded: bool = False) -> tuple[Program, Recording]:
    recorder = Recorder()
    tensors = plan.state
    inputs = [recorder.operand(leaf) if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves]
    modules = [source for source in plan._sources() if isinstance(source, torch.nn.Module)]
    for module in modules:
        strengthen(module)
    with let_go(modules), Standins(recorder, tensors, plan.optimizers, graded):
        with Rebound(plan, recorder), _optimizers_named(plan), counted(plan._sources()), Weighted(recorder):
            results, shape = tree_flatten(plan.forward(*tree_unflatten(inputs, structure)))
        _must_have_used(plan, tensors, results, recorder)
        handles = [_handle(r, recorder, plan.name) for r in results]
        del results  # with them goes the graph that holds the stand-ins
    recorder.done()
    specs = (*[i._handle.spec for i in inputs if isinstance(i, PointerTensor)], *[Spec.contiguous(t.shape, t.dtype) for t in tensors])
    return numbered(recorder, specs, handles, shape)


@contextlib.contextmanager
def _optimizers_named(plan: Plan) -> Iterator[None]:
    """Say so where it is an optimizer that cannot be recorded."""
    try:
        yield
    except (PlanError, AssertionError) as error:
        if not any(OPTIMIZERS in frame.f_code.co_filename for frame, _ in walk_tb(error.__traceback__)):
            raise
        names = ", ".join(type(optimizer).__name__ for optimizer in plan.optimizers)
        able = "SGD, Adam, AdamW, RMSprop, Adadelta and Rprop are recorded, without foreach and fused"
        raise PlanError(f"a step of {names} cannot be recorded in {plan.name}, for it reads its own values: {able} ({error})") from error


def _must_have_used(plan: Plan, tensors: Sequence[torch.Tensor], results: Sequence[Any], recorder: Recorder) -> None:
    """Raise `PlanError` for gradients that would stay in the program: those that it neither steps by nor returns."""
    returned = set(map(id, results))
    grads: list[Any] = [t.grad for t in tensors if t.grad is not None and id(t.grad) not in returned]
    left = [grad for grad in grads if grad._handle.id not in recorder.early]
    if left and not plan.optimizers:
        raise PlanError(
            f"{plan.name} leaves gradients, and they stay where it runs: have the optimizer step in it, and name it in state, "
            "or return the gradients that torch.autograd.grad gives"
        )


class Rebound:
    """While a function is recorded: what it assigns to a buffer of its state (``self.mean = ...``) is written to that, as a call of the
    function does for those that follow. Nothing else may be assigned a tensor."""

    def __init__(self, plan: Plan, recorder: Recorder) -> None:
        modules = [module for source in plan._sources() if isinstance(source, torch.nn.Module) for module in source.modules()]
        tables: list[Any] = [table for module in modules for table in (module._buffers, module._parameters)]
        self._modules = modules
        self._held = [(table, name, held) for table in tables for name, held in table.items()]
        self._attributes = [(vars(owner), dict(vars(owner))) for owner in (*modules, plan)]
        self._name, self._recorder = plan.name, recorder

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        assigned = [(table, name, held, table[name]) for table, name, held in self._held if table.get(name) is not held]
        for table, name, held, _ in assigned:
            table[name] = held
        for module in self._modules:
            for name in made_by_hooks(module):
                vars(module).pop(name)
        for table, before in self._attributes:
            for name in [n for n, v in table.items() if v is not before.get(n) and getattr(v, "location", None) is self._recorder]:
                table.pop(name)
                table.update({name: before[name]} if name in before else {})
                if error is None:
                    told = f"{self._name} keeps a tensor in the attribute {name}, which no call after this one would have"
                    raise PlanError(f"{told}: register_buffer({name!r}, ...) and write to that, or return it")
        for _, name, held, now in assigned if error is None else ():
            if held is None or now is None or now.shape != held.shape or now.dtype != held.dtype or isinstance(held, torch.nn.Parameter):
                told = f"{self._name} assigns another {name}, and a plan's state stays what it is"
                raise PlanError(f"{told}: write to it, with {name}.copy_()")
            with torch.no_grad():
                held.copy_(now)


def _handle(result: Any, recorder: Recorder, name: str) -> Handle:
    if not isinstance(result, PointerTensor) or result.location is not recorder:
        layered = isinstance(result, WrapperTensor)
        remedy = ". Return its floats, as x.decode() gives, or its x.child" if layered else ""
        raise PlanError(f"{name} returns {type(result).__name__}: a plan returns tensors computed from its inputs or state{remedy}")
    return result._handle
