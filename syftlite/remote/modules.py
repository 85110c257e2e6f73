"""Modules that travel: parameters and buffers move, and stay the very objects that optimizers, ties and hooks know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from syftlite.errors import GetNotPermittedError, InvalidTensorForRemoteGet, PointerMisuseError
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import ReleaseRequest, approval_required, become, read, relocated, request_release, ship, upload

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

M = TypeVar("M", bound=nn.Module)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _relocate(module: M, fetch: Callable[[torch.Tensor], torch.Tensor]) -> M:
    """Replace the value of each parameter, buffer and gradient by what ``fetch`` makes of it, keeping the objects."""
    for tensor in list(_tensors(module)):
        grad, tensor.grad = tensor.grad, None
        try:
            fresh = fetch(tensor)
            if isinstance(tensor, nn.Parameter):
                fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
            become(tensor, fresh)
        except BaseException:
            tensor.grad = grad
            raise
        if grad is not None:
            tensor.grad = fetch(grad)
    return module


def send(module: M, worker: BaseWorker) -> M:
    """Move ``module`` to ``worker``, in place."""
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            name = type(part).__name__
            raise PointerMisuseError(f"{name} cannot travel: torch runs it as one operator, which is not reviewed: use nn.{name}Cell")
    if any(isinstance(t, PointerTensor) for t in _tensors(module)):
        return move(module, worker)
    return _relocate(module, lambda t: upload(t, worker))


def _pointers(module: nn.Module, *, gradients: bool) -> list[PointerTensor]:
    """The module's remote parameters and buffers, and gradients if asked. Raises `InvalidTensorForRemoteGet` if some are local."""
    found: list[PointerTensor] = []
    for tensor in _tensors(module):
        if not isinstance(tensor, PointerTensor):
            raise InvalidTensorForRemoteGet(f"{type(module).__name__} is here already, or in part: get() is for a module that was sent")
        found.append(tensor)
        if gradients and isinstance(tensor.grad, PointerTensor):
            found.append(tensor.grad)
    return found


def _fetch(pointers: list[PointerTensor], user: str | None) -> dict[int, torch.Tensor]:
    """The values of ``pointers`` by id: one round trip a worker."""
    by_worker: dict[BaseWorker, list[PointerTensor]] = {}
    for pointer in pointers:
        by_worker.setdefault(pointer.location, []).append(pointer)
    values: dict[int, torch.Tensor] = {}
    for group in by_worker.values():
        ids = [pointer.id_at_location for pointer in group]
        values.update(zip(ids, read(group, user=user, take=False), strict=True))
    return values


def get(module: M, user: str | None = None, reason: str = "") -> M:
    """Bring ``module`` back, in place: one round trip. Gradients that the gate keeps while it lets the weights go stay behind."""
    try:
        values = _fetch(_pointers(module, gradients=True), user)
    except GetNotPermittedError:
        try:
            values = _fetch(_pointers(module, gradients=False), user)
        except GetNotPermittedError as refusal:
            if not reason:
                raise
            raise approval_required(_pointers(module, gradients=False), reason, refusal) from refusal
        module.zero_grad(set_to_none=True)
    return _relocate(module, lambda t: values[t.id_at_location])  # type: ignore[attr-defined]


def move(module: M, worker: BaseWorker) -> M:
    """Move ``module`` from where it is to ``worker``, in place."""

    def fetch(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, PointerTensor) and tensor.location is not worker:
            return ship(tensor, worker, take=False)  # the old object goes with its pointer, once that was replaced
        return relocated(tensor.detach(), worker)

    return _relocate(module, fetch)


def request(module: nn.Module, reason: str) -> ReleaseRequest:
    """Ask the owner to release the module's parameters and buffers (not its gradients)."""
    return request_release(_pointers(module, gradients=False), reason)


def location(module: nn.Module) -> Any:
    """The worker that holds ``module``; None if it is here."""
    first = next(_tensors(module), None)
    return first.location if isinstance(first, PointerTensor) else None

