"""Recording: from a function on stand-ins to a `Program`, whose operands come first and whose ids are its own.

    Standins    while the function runs, its state's tensors are pointers at a `Recorder`, and optimizers count steps in tensors
    numbered    the recorder's messages with inputs and state as 1 to n, the constants it sent next, then all results
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from traceback import clear_frames
from types import TracebackType
from typing import Any

import torch
from torch import nn

from syftlite._torch import TreeSpec
from syftlite.errors import PlanError, PointerMisuseError
from syftlite.ops.ids import map_operands, map_outs
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE
from syftlite.remote.handle import Handle
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recorder import Recorder, Recording
from syftlite.remote.transfer import become, upload
from syftlite.remote.worker import BaseWorker
from syftlite.transports.base import where
from syftlite.wire.messages import KERNELS_FROM


@dataclass(frozen=True)
class Program:
    """What a plan sends to a worker: for operands of ``specs`` (inputs, then state, then constants), with results of these specs."""

    specs: tuple[Spec, ...]
    constants: tuple[torch.Tensor, ...]
    code: tuple[tuple[Any, ...], ...]
    results: tuple[int, ...]
    result_specs: tuple[Spec, ...]
    structure: TreeSpec

    @cached_property
    def arity(self) -> int:
        """Operands: inputs, state and constants."""
        return len(self.specs) + len(self.constants)

    @cached_property
    def made(self) -> int:
        """Ids that a replay needs besides its operands: the highest that the program names, less those."""
        outs = [o for *_, made in self.code for o in ((made,) if isinstance(made, int) else made or ()) if o is not None]
        return max(outs, default=self.arity) - self.arity


class Standins:
    """While a function is recorded, its state's tensors are pointers at the recorder, and optimizers count steps in tensors. ``graded``:
    those that learn have gradients already; a program that reads one is refused, for between its calls there are none."""

    def __init__(
        self, recorder: Recorder, tensors: list[torch.Tensor], optimizers: list[torch.optim.Optimizer], graded: bool = False
    ) -> None:
        self.recorder, self.tensors, self.optimizers, self.graded = recorder, tensors, optimizers, graded
        self.originals: list[torch.Tensor] = []
        self.grads: list[torch.Tensor | None] = []

    def __enter__(self) -> None:
        self.groups = [g for o in self.optimizers for g in o.param_groups if g.get("differentiable") is False]
        self.states = [(o, {p: dict(held) for p, held in o.state.items()}) for o in self.optimizers]
        for group in self.groups:
            group["differentiable"] = True  # torch's name for: compute bias corrections from the step tensor
        try:
            for tensor in self.tensors:
                self._stand_in(tensor)
            for tensor in self.tensors:
                if self.graded and tensor.requires_grad:
                    tensor.grad = self.recorder.early_gradient(tensor)
        except BaseException:
            self._put_back()
            raise

    def _stand_in(self, tensor: Any) -> None:
        self.grads.append(tensor.grad)
        tensor.grad = None
        standin: Any = self.recorder.operand(tensor)
        if isinstance(tensor, nn.Parameter):
            standin = nn.Parameter(standin, tensor.requires_grad)
        elif tensor.requires_grad:
            standin.requires_grad_()
        vars(standin).update({name: value for name, value in vars(tensor).items() if name not in vars(standin)})
        hooks, after = tensor._backward_hooks, tensor._post_accumulate_grad_hooks
        become(tensor, standin)
        self.originals.append(standin)
        tensor._backward_hooks, tensor._post_accumulate_grad_hooks = hooks, after  # what runs them stayed with the value

    def __exit__(self, kind: Any, error: BaseException | None, trace: TracebackType | None) -> None:
        if trace is not None:
            clear_frames(trace)  # they hold the graph that holds the stand-ins
        self._put_back()

    def _put_back(self) -> None:
        for group in self.groups:
            group["differentiable"] = False
        for optimizer, held in self.states:
            optimizer.state.clear()
            optimizer.state.update(held)
        torch.clear_autocast_cache()  # it refers to weights
        for at, (tensor, grad) in enumerate(zip(self.tensors, self.grads, strict=False)):
            tensor.grad = None
            if at < len(self.originals):
                _back(tensor, self.originals[at])
            tensor.grad = grad


def _back(tensor: Any, original: Any) -> None:
    """Have ``tensor`` be what it was, also where the function has made something that refers to it."""
    try:
        become(tensor, original)
    except PointerMisuseError:
        if not isinstance(original, PointerTensor):
            raise
        tensor._handle = original._handle


def numbered(recorder: Recorder, specs: tuple[Any, ...], results: Sequence[Handle], structure: TreeSpec) -> tuple[Program, Recording]:
    """The recording with operands first: inputs and state are 1 to n already, the constants it sent follow, then all results."""
    recording = recorder.recording
    order = [*range(1, len(specs) + 1), *recording.constants]
    new = {old: position for position, old in enumerate(order, 1)}
    for *_, outs in recording.code:
        for out in (outs,) if isinstance(outs, int) else outs or ():
            if out is not None:
                new[out] = len(new) + 1
    code = []
    for (number, args, kwargs, outs), site in zip(recording.code, recording.marks, strict=True):
        if number > KERNELS_FROM:
            operands = tuple([new[o] if type(o) is int else o for o in args])
            code.append((number, operands, kwargs, map_outs(outs, new.__getitem__)))
            continue
        operator = TABLE[number]
        assert operator is not None
        try:
            mapped, named = map_operands(operator, args, kwargs, new.__getitem__)
        except KeyError as unknown:
            if unknown.args[0] in (recorder.cut or ()):
                raise PlanError(
                    f"a loss that is differentiated where its rows are uses detach() of what depends on the parameters, at {where(site)}: "
                    "there gradients would flow through it. Do without, or train on rows that are here"
                ) from None
            if unknown.args[0] not in recorder.early:
                raise
            raise PlanError(
                f"a plan adds to gradients from before it was called, at {where(site)}, and keeps none: zero_grad() in it, with "
                "set_to_none=True as it is by default, or return the gradients that torch.autograd.grad gives"
            ) from None
        code.append((number, mapped, named, map_outs(outs, new.__getitem__)))
    program = Program(
        specs,
        tuple(recording.constants.values()),
        tuple(code),
        tuple(new[handle.id] for handle in results),
        tuple(handle.spec for handle in results if handle.spec is not None),
        structure,
    )
    return program, Recording(code, recording.marks)


def settle(optimizers: Iterable[torch.optim.Optimizer], worker: BaseWorker | None) -> None:
    """Step counts become tensors at the worker: in a program, a Python number would be the same at every replay. None: they stay here, as
    does all of the state."""
    for optimizer in optimizers:
        for held in optimizer.state.values():
            for name, value in held.items():
                if isinstance(value, torch.Tensor) and not isinstance(value, PointerTensor) and not value.dim():
                    exact = value.double()  # 1 - 0.999**step has no digits to lose
                    held[name] = exact if worker is None else upload(exact, worker)
