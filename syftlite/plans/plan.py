"""Plan: a function, and what was recorded of it."""

from __future__ import annotations

import contextlib
import copy
import os
import secrets
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import torch
from torch import nn

from syftlite._torch import TreeSpec, tree_flatten, tree_unflatten
from syftlite.errors import PlanError, TensorsNotCollocatedError
from syftlite.plans.arguments import in_order, must_take
from syftlite.plans.naming import Path, named, of_class
from syftlite.plans.placed import Placed
from syftlite.plans.recordings import RECORDING, Recordings
from syftlite.plans.settings import OWN, modes, warmth
from syftlite.plans.several import at_each
from syftlite.plans.shared import SharedPrograms
from syftlite.plans.walk import tensors_of
from syftlite.plans.words import in_words
from syftlite.remote import registry
from syftlite.remote.constants import taking_constants
from syftlite.remote.filing import values_of
from syftlite.remote.multi import MultiPointerTensor
from syftlite.remote.offers import offer
from syftlite.remote.optimizers import follow
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recording import settle
from syftlite.remote.routes import Route, operand_id
from syftlite.remote.shared_recording import shared_leaves
from syftlite.remote.transfer import read
from syftlite.remote.worker import BaseWorker
from syftlite.storage import plans as files

P = TypeVar("P", bound="Plan")


class Plan:
    """A function that replays as one message. Subclass it with a ``forward``, or make one with `func2plan`.

    ``state``: what the function reads and writes besides its arguments: tensors, modules, optimizers. Attributes of a subclass that are
    modules or tensors are found by themselves. Called with pointers, a plan runs where they are, and is sent there when it is not yet;
    called with local tensors, it is the plain function. It is recorded again for inputs of a new shape, and when its state has other
    settings than before: a learning rate, a layer's training mode.
    """

    _stateful = False
    """Whether it may have state, or settings: a call without any looks at its arguments alone."""
    _came = "loaded"
    """How one without a function came here."""

    def __init__(self, forward: Callable[..., Any] | None = None, name: str = "", state: Iterable[Any] = ()) -> None:
        self.id = f"plan-{secrets.token_hex(6)}"
        self._function = forward
        self.name = name or getattr(forward, "__name__", type(self).__name__)
        self._given = tuple(state)
        self._stateful = bool(self._given) or self._stateful
        self._written: set[Path] = set()  # what its function names, and writes itself: such as a list of what came
        self._programs = Recordings()
        self._placed = Placed()
        self._shared = SharedPrograms()
        self._warm: set[Any] = set()

    def __setattr__(self, name: str, value: Any) -> None:
        if name[0] != "_" and name not in OWN:
            super().__setattr__("_stateful", True)
        super().__setattr__(name, value)

    def forward(self, *args: Any) -> Any:
        """What the plan computes. A subclass writes it."""
        if self._function is None:
            if len(self._programs):
                raise PlanError(f"{self.name} was loaded without its function: call it with pointers, to run what it recorded")
            raise PlanError(f"{type(self).__name__} has no forward(): define one, or use @func2plan on a function")
        return self._function(*args)

    @property
    def id_at_location(self) -> str:
        """As ``id``: a plan has the same at every worker. `fetch_plan` takes it."""
        return self.id

    # -- state

    @property
    def optimizers(self) -> list[torch.optim.Optimizer]:
        """The optimizers among the state."""
        return [s for s in self._sources() if isinstance(s, torch.optim.Optimizer)]

    def _sources(self) -> list[Any]:
        return [*self._given, *[v for k, v in vars(self).items() if k[0] != "_" and isinstance(v, (nn.Module, torch.Tensor))]]

    @property
    def state(self) -> list[torch.Tensor]:
        """The tensors of the state, each once: parameters, buffers, optimizer state."""
        found: dict[int, torch.Tensor] = {}
        for source in self._sources():
            if isinstance(source, nn.Module):
                tensors: Iterable[Any] = tensors_of(source)
            elif isinstance(source, torch.optim.Optimizer):
                tensors = [v for held in source.state.values() for v in held.values() if isinstance(v, torch.Tensor)]
            else:
                tensors = [source]
            for tensor in tensors:
                if not isinstance(tensor, torch.Tensor):
                    raise PlanError(f"state holds tensors, modules and optimizers, not {type(tensor).__name__}")
                found.setdefault(id(tensor), tensor)
        return list(found.values())

    def parameters(self) -> list[torch.Tensor]:
        """The state's tensors that require gradients."""
        return [t for t in self.state if t.requires_grad]

    # -- recording

    @property
    def is_built(self) -> bool:
        """Whether it has been recorded for some inputs."""
        return len(self._programs) > 0

    def build(self, *args: Any, **kwargs: Any) -> Plan:
        """Record the function for inputs like ``args`` (tensors or pointers, nested in lists, tuples and dicts)."""
        ordered = in_order(self, args, kwargs)
        leaves, structure = tree_flatten(ordered)
        try:
            self._programs.program(self, leaves, structure)
        except TypeError:
            must_take(self, ordered)
            raise
        return self

    @property
    def code(self) -> str:
        """The recorded messages, for people."""
        if not self.is_built:
            raise PlanError(f"{self.name} is not built: call build(*args), or give func2plan args_shape")
        return in_words(self.name, self._programs.last)

    # -- running

    def send(self, *workers: Any) -> Plan:
        """Put the built plan, and a copy of its local state, at ``workers``. Raises RuntimeError before `build`.

        Your other sessions there find it by its `id`, with `fetch_plan`, as long as this one lasts.
        """
        if not self.is_built:
            raise PlanError(f"{self.name} is not built: call build(*args) before send(), or give func2plan args_shape")
        for worker in map(registry.find, workers):
            for key, program in self._programs:
                self._placed.program(worker, key, program)
            state = self._placed.state(worker, self.state, self.name)
            with contextlib.suppress(PlanError):  # arguments that no file holds: it runs there, and cannot be fetched
                self._placed.offers[worker] = offer(worker, self.id, files.dumps(self._stored_plan(state), outline=True), state)
        return self

    def get(self) -> Plan:
        """Bring the state back from the worker it was last sent to, and forget the copies there."""
        if self._placed.copies:
            _, copies = self._placed.copies.popitem()
            values = read(copies, take=False)
            if [(v.shape, v.dtype) for v in values] != [(t.shape, t.dtype) for t in self.state]:
                told = f"{self.name}'s state has another form than what was sent: nothing is brought back"
                raise PlanError(f"{told}. Call it, or send() it anew")
            with torch.no_grad():
                for tensor, value in zip(self.state, values, strict=True):
                    tensor.copy_(value)
            self._placed.forget_copies()
        return self

    def copy(self) -> Plan:
        """Another plan of the same function and recordings, with the same state."""
        twin = Plan(self._function or (None if type(self) is Plan else self.forward), self.name, self._sources())
        twin._programs.take(self._programs)
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> Plan:
        twin = memo[id(self)] = object.__new__(type(self))
        recorded = {"_programs": Recordings(), "_shared": SharedPrograms()}
        vars(twin).update(copy.deepcopy({name: value for name, value in vars(self).items() if name not in recorded}, memo) | recorded)
        twin._programs.take(self._programs)
        return twin

    # -- in a file

    def __reduce_ex__(self, protocol: Any) -> Any:
        named = getattr(sys.modules.get(getattr(self._function, "__module__", "")), getattr(self._function, "__qualname__", ""), None)
        if self._placed.workers or named is not self._function:
            raise PlanError(f"{self.name} cannot be pickled: plan.save(path) writes what it recorded, and sy.Plan.load(path) reads it")
        return super().__reduce_ex__(protocol)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write what is recorded, and the state's values, to a file that `load` reads, also in a later version. It holds no code.

        State that is at a worker is read from there; of state that is here, `get` first brings what workers made of it.
        """
        files.save(path, self.stored())

    def stored(self) -> files.StoredPlan:
        """What is recorded, and the state's values, as `save` writes them."""
        return self._stored_plan(values_of(self.state))

    def _stored_plan(self, state: Sequence[torch.Tensor]) -> files.StoredPlan:
        return files.StoredPlan(self.name, tuple(state), tuple(t.requires_grad for t in self.state), self._programs.stored(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Plan:
        """The plan in a file that `save` wrote: it runs on pointers, for inputs like those it was recorded for. Loading runs nothing.

        Raises `PlanError` for a file that is none, and `OperatorNotReviewedError`, with its name, for an operator that this version lacks.
        """
        return Plan.of(files.load(path))

    @classmethod
    def of(cls: type[P], stored: files.StoredPlan) -> P:
        """The plan that ``stored`` describes."""
        state = [t.requires_grad_(grad) for t, grad in zip(stored.state, stored.requires_grad, strict=True)]
        plan = cls(None, stored.name, state)
        plan._programs.load(stored.programs, state)
        return plan

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run it where its pointers are; here if there are none."""
        if kwargs:
            return self._call(in_order(self, args, kwargs))
        if not self._stateful and all(type(arg) is PointerTensor and not arg.requires_grad for arg in args):
            handles = [arg._handle for arg in args]
            route = self._placed.routes.get((modes(), *[(handle.worker, handle.spec) for handle in handles]))
            if route is not None:
                return route.run([handle.id for handle in handles])
        try:
            return self._call(args)
        except TypeError:
            must_take(self, args)
            raise

    @property
    def _runs(self) -> bool:
        """Whether its function is here."""
        return self._function is not None or type(self).forward is not Plan.forward

    def _call(self, args: tuple[Any, ...]) -> Any:
        leaves, structure = tree_flatten(args)
        if shared_leaves(leaves):
            return self._shared.call(self, args, leaves, structure)
        if any(isinstance(leaf, MultiPointerTensor) for leaf in leaves) and not _learn(leaves):
            return at_each(self._call, leaves, structure, self.name)
        workers = {leaf.location for leaf in leaves if isinstance(leaf, PointerTensor)}
        if not workers:
            return self.forward(*args)
        worker = self._one_place(leaves, workers)
        if worker.records or (self._runs and _learn(leaves)):  # inside another plan, of which it is a part; or a part of a graph
            return self.forward(*args)
        with RECORDING:
            return self._replayed(args, leaves, structure, worker)

    def _replayed(self, args: tuple[Any, ...], leaves: Sequence[Any], structure: TreeSpec, worker: BaseWorker) -> Any:
        optimizers = self.optimizers
        if optimizers and warmth(optimizers) not in self._warm:
            with taking_constants():
                result = self.forward(*args)  # a first step makes the optimizer's state; what it makes is recorded from the second on
            self._warm.add(warmth(optimizers))
            return result
        if optimizers and len({t.location if isinstance(t, PointerTensor) else None for t in self.state} | {worker}) > 1:
            for optimizer in optimizers:
                follow(optimizer, (), {})
        settle(optimizers, worker)
        key, program = self._programs.program(self, leaves, structure)
        tensors = self.state
        operands = [operand_id(x) for x in [*leaves, *self._placed.state(worker, tensors, self.name)] if isinstance(x, torch.Tensor)]
        route = self._placed.route(worker, key, program)
        self._stateful = self._stateful or bool(named(self._function or self.forward, self)) or any(of_class(type(self)))
        if len(args) == len(leaves) == len(operands) and not self._stateful:
            form = (modes(), *[(leaf._handle.worker, leaf._handle.spec) for leaf in leaves])
            self._placed.routes[form] = route
        result = route.run(operands)
        for tensor in tensors if optimizers else ():
            if tensor.requires_grad and tensor.grad is not None:
                tensor.grad = None  # that of this call stays in the program; what it was before is no longer true
        return result

    def _one_place(self, leaves: Sequence[Any], workers: set[BaseWorker]) -> BaseWorker:
        """The one worker where all of a call's tensors are."""
        if len(workers) > 1 or any(isinstance(x, torch.Tensor) and not isinstance(x, PointerTensor) for x in leaves):
            places = ", ".join(sorted(w.id for w in workers))
            raise TensorsNotCollocatedError(f"{self.name}: not all of its inputs are at one worker ({places}): send() or move() them there")
        return next(iter(workers))

    def scan(self, *args: Any, over: int = 1, state: Sequence[PointerTensor] | None = None) -> Any:
        """A call for each row of the first ``over`` arguments, (n, ...) each, with the same other ones: at a worker, one message; one
        for every 16,384 rows, if there are more.

        Results are stacked, (n, ...). The calls follow each other, so what one writes to the state the next reads: an epoch of training
        is a scan over the batches' indices. ``state``: pointers to use in place of the plan's own copy there, in the order of `state`.
        """
        leaves, _ = tree_flatten(args)
        rows = args[:over]
        if not 0 < over <= len(args) or not all(isinstance(row, torch.Tensor) and row.dim() for row in rows):
            raise PlanError(f"{self.name}: a scan goes over the rows of its first {over} arguments: give it {over} tensors with rows")
        if len({len(row) for row in rows}) > 1 or not len(rows[0]):
            raise PlanError(f"{self.name}: a scan goes over equally many rows, at least one, not {[len(row) for row in rows]}")
        if not any(isinstance(leaf, PointerTensor) and not leaf.location.records for leaf in leaves):
            return _stacked([self.forward(*[row[i] for row in rows], *args[over:]) for i in range(len(rows[0]))])
        route, operands = self.over_rows(args, over, state)
        return route.scan(operands, over, len(rows[0]))

    def over_rows(self, args: Sequence[Any], over: int, state: Sequence[PointerTensor] | None = None) -> tuple[Route, list[int]]:
        """The program of one row of the first ``over`` of ``args``, where they are, and the ids that a message about all rows names."""
        leaves, structure = tree_flatten(tuple(args))
        worker = self._one_place(leaves, {leaf.location for leaf in leaves if isinstance(leaf, PointerTensor)})
        settle(self.optimizers, worker if any(isinstance(t, PointerTensor) for t in self.state) else None)
        shaped = [_row(leaf) if at < over else leaf for at, leaf in enumerate(leaves)]
        key, program = self._programs.program(self, shaped, structure)
        held = self._placed.state(worker, self.state, self.name) if state is None else state
        operands = [operand_id(x) for x in [*leaves, *held] if isinstance(x, torch.Tensor)]
        return self._placed.route(worker, key, program), operands

    def prefetch(self, times: int, *args: Any) -> Plan:
        """Have the provider deal for the next ``times`` calls with shared tensors like ``args``: they then cost only their online phase.

        What is dealt waits at the last holder, 128 MiB at most: `Misuse` says how many calls that is. Until it is used the group computes
        nothing else. The plan must have been called twice with such arguments, which records it; raises `PlanError` otherwise.
        """
        leaves, structure = tree_flatten(args)
        self._shared.prefetch(self, times, leaves, structure)
        return self

    def __repr__(self) -> str:
        where = ", ".join(sorted(worker.id for worker in self._placed.workers)) or "nowhere yet"
        size = f"{len(self._programs.last.code)} messages" if self.is_built else "not built"
        return f"<Plan {self.name}: {size}, at {where}>"


def _learn(leaves: Sequence[Any]) -> bool:
    """Whether gradients are to flow to an input."""
    return torch.is_grad_enabled() and any(isinstance(leaf, torch.Tensor) and leaf.requires_grad for leaf in leaves)


def _row(tensor: torch.Tensor) -> torch.Tensor:
    """What one step of a scan sees of ``tensor``, without a value."""
    return torch.empty(tensor.shape[1:], dtype=tensor.dtype, device="meta")


def _stacked(results: Sequence[Any]) -> Any:
    flat, structure = zip(*[tree_flatten(result) for result in results], strict=True)
    return tree_unflatten([torch.stack(column) for column in zip(*flat, strict=True)], structure[0])
