"""What a pointer is made of: the lifetime of a remote object, the tensor without data that stands for it, and where it was written."""

from __future__ import annotations

import sys
from functools import partialmethod
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import make_wrapper, no_torch_function
from syftlite.errors import ObjectNotFoundError
from syftlite.ops.spec import Spec
from syftlite.transports.base import Site

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


Card = tuple[frozenset[str], str]
"""Tags and description of a remote object."""

NO_CARD: Card = (frozenset(), "")

HEAVY = 1 << 15
"""Bytes from which a worker is told at once: fewer, even of hundreds of objects, fit into its core's own cache."""


class Handle:
    """The lifetime of one remote object: when the last pointer that shares it goes, the worker is told with the next message."""

    __slots__ = ("borrowed", "card", "id", "spec", "worker")

    def __init__(self, worker: BaseWorker, id: int, spec: Spec | None, borrowed: bool = False) -> None:
        self.worker, self.id, self.spec, self.borrowed = worker, id, spec, borrowed
        self.card = NO_CARD

    def __del__(self) -> None:
        if self.spec is not None and not self.borrowed:
            (self.worker.drops.append if self.spec.nbytes < HEAVY else self.worker.release)(self.id)

    def __deepcopy__(self, memo: Any) -> Handle:
        return self  # of one object there is one lifetime

    __copy__ = partialmethod(__deepcopy__, None)

    def consume(self) -> None:
        """The worker has forgotten the object: the next use raises, and nothing is sent for it."""
        self.spec = None


def consumed(handle: Handle) -> ObjectNotFoundError:
    """The error for using a pointer after `get` took its value."""
    return ObjectNotFoundError(f"the pointer to {handle.worker.id}:{handle.id} was consumed by get(): get_copy() keeps the value there")


class RemoteTensor(torch.Tensor):
    """A tensor with a true shape and dtype whose value is at ``_handle.worker``. Users meet its subclass `PointerTensor`."""

    __slots__ = ()
    __torch_function__ = no_torch_function
    _handle: Handle

    @staticmethod
    def __new__(cls, handle: Handle, requires_grad: bool = False) -> RemoteTensor:
        spec = handle.spec
        if spec is None:
            raise consumed(handle)
        pointer: RemoteTensor = make_wrapper(
            cls, spec.shape, spec.stride, spec.offset, None, spec.dtype, torch.strided, torch.device("cpu"), False, requires_grad
        )
        pointer._handle = handle
        return pointer

    def __init__(self, handle: Handle, requires_grad: bool = False) -> None:
        """Wrap ``handle``."""


def shared(pointer: RemoteTensor) -> bool:
    """Whether others stand for the same object: what `detach` made of it, or what a graph has saved."""
    return sys.getrefcount(pointer._handle) > 2  # the pointer's own, and this call's


_getframe = sys._getframe
_foreign: dict[CodeType, bool] = {}


def site() -> Site:
    """Where the user wrote the operation being dispatched: the nearest frame outside torch and syftlite."""
    frame = _getframe(2)
    while True:
        code = frame.f_code
        foreign = _foreign.get(code)
        if foreign is None:
            module = frame.f_globals.get("__name__", "").split(".", 1)[0]
            foreign = _foreign[code] = module in ("torch", "syftlite", "contextlib") and module != "__main__"
        if not foreign or frame.f_back is None:
            return code, frame.f_lasti
        frame = frame.f_back
