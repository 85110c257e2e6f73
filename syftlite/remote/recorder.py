"""A worker that writes messages down instead of sending them: what turns a function into a program.

    pointers at the recorder -> torch runs as ever -> OP messages with ids 1, 2, 3, ... -> Recording
"""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import torch

from syftlite._torch import is_plain
from syftlite.errors import PlanError
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE
from syftlite.remote.handle import Handle
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import upload
from syftlite.remote.worker import BaseWorker
from syftlite.transports.base import Site, Transport, where
from syftlite.wire.messages import ASK, COMPUTE, DEAL, KERNELS_FROM, OP, Message


class Recording(NamedTuple):
    """OP messages without their kind, and where each was written."""

    code: list[tuple[Any, ...]]
    sites: list[Site]


class RecordingTransport(Transport):
    """Appends each OP to ``code``. What needs an answer, and so a value, cannot be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.worker, self.principal, self.role, self.prefix = "the recorder", "me", "owner", 0
        self.code: list[tuple[Any, ...]] = []
        self.marks: list[Site] = []
        self.constants: dict[int, torch.Tensor] = {}

    def cast(self, message: Message, site: Site = None) -> None:
        """Write an OP down, or a kernel; drops and labels mean nothing to a program."""
        if message[0] == OP:
            _, number, args, kwargs, outs = message
            self.code.append((number, _tupled(args), kwargs and {k: _tupled(v) for k, v in kwargs.items()}, _tupled(outs)))
            self.marks.append(site)
        elif message[0] in (COMPUTE, DEAL):
            _, _, kernel, operands, static, outs = message
            self.code.append((KERNELS_FROM + kernel, _tupled(operands), static, tuple(outs)))
            self.marks.append(site)

    def begin(self, kind: int, *fields: Any) -> NoReturn:
        """Raise `PlanError`: the program would have to wait for a value."""
        place = f" after {where(self.marks[-1])}" if self.marks else ""
        operator = TABLE[fields[0]] if kind == ASK else None
        what = "make" if operator is None else f"run {operator.name}, whose result has"
        raise PlanError(
            f"a plan cannot read a value or {what} a shape that depends on one{place}: compute it before the plan and pass it in, "
            "or use torch.where instead of if"
        )

    def finish(self, request: int, within: float | None = None) -> NoReturn:
        """Nothing was begun."""
        raise AssertionError("a recorder answers nothing")

    def put(self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Any = None) -> None:
        """Keep a tensor that the function sends: it becomes part of the plan's state."""
        self.constants[number] = tensor.detach().clone()

    def close(self) -> None:
        """Nothing to close."""


class Recorder(BaseWorker):
    """The worker of one recording. Nobody knows it by name. ``takes_constants``: see `BaseWorker`; not where it holds a share, since what
    is added to a secret is added to one share of it."""

    records = True

    def __init__(self, takes_constants: bool = True) -> None:
        self.takes_constants = takes_constants
        transport = RecordingTransport()
        self.recording = transport
        self._constants: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}
        self.early: set[int] = set()
        """The ids of gradients from before."""
        super().__init__(f"recorder-{id(transport):x}", transport)

    def operand(self, tensor: torch.Tensor) -> PointerTensor:
        """The next operand of the program: what ``tensor`` is at the worker, or would be once sent there."""
        there = tensor._handle.spec if isinstance(tensor, PointerTensor) else Spec.contiguous(tensor.shape, tensor.dtype)
        return PointerTensor(Handle(self, self.next_id(), there))

    def early_gradient(self, tensor: torch.Tensor) -> PointerTensor:
        """A gradient of ``tensor`` from before the function ran."""
        gradient = self.operand(tensor)
        self.early.add(gradient._handle.id)
        return gradient

    def constant(self, tensor: torch.Tensor) -> torch.Tensor:
        """What stands for ``tensor`` while the function runs: for one that is here, such as a loss's weights, a constant of the program.
        Raises `PlanError` for one that would learn."""
        if not is_plain(tensor) or not tensor.dim():
            return tensor
        if tensor.requires_grad:
            raise PlanError(
                f"a plan uses a tensor of shape {list(tensor.shape)} that requires gradients and is not in its state: name it, or its "
                "module, in func2plan(state=...)"
            )
        key = id(tensor), tensor._version
        if key not in self._constants:
            self._constants[key] = tensor, upload(tensor, self)
        return self._constants[key][1]

    def done(self) -> None:
        """Let go of what constants were made of: views of weights keep another plan from having these in its state."""
        self._constants.clear()

    def objects_count(self) -> int:
        """Messages written so far."""
        return len(self.recording.code)


def _tupled(value: Any) -> Any:
    return tuple(_tupled(v) for v in value) if isinstance(value, (list, tuple)) else value


def difference(first: Recording, second: Recording) -> str | None:
    """Where two recordings of one function differ, told to its author; None if they do not."""
    for a, b, site in zip(first.code, second.code, second.sites, strict=False):
        if repr(a) != repr(b):  # NaN is NaN, and 0.0 is not -0.0
            return where(site)
    if len(first.code) != len(second.code):
        longer = max(first, second, key=lambda r: len(r.code))
        return where(longer.sites[min(len(first.code), len(second.code))])
    return None
