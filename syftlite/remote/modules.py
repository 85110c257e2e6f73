"""Modules that travel: parameters and buffers move, and stay the very objects that optimizers, ties and hooks know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from syftlite.errors import GetNotPermittedError, InvalidTensorForRemoteGet
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import ReleaseRequest, approval_required, become, read, relocated, request_release, ship, upload

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

M = TypeVar("M", bound=nn.Module)


def _tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def strengthen(module: nn.Module) -> None:
    """Have recurrent layers refer to their weights strongly: a tensor with weak references cannot take on another's value."""
    for part in module.modules():
        if isinstance(part, nn.RNNBase):
            refs: Any = [partial(_itself, weight) for weight in part._flat_weights]  # torch calls them to find a weight that was replaced
            part._flat_weight_refs = refs


def _itself(weight: Any) -> Any:
    return weight


def replace(module: M, fetch: Callable[[torch.Tensor], torch.Tensor]) -> M:
    """Replace the value of each parameter, buffer and gradient by what ``fetch`` makes of it, keeping the objects."""
    strengthen(module)
    for tensor in list(_tensors(module)):
        grad, tensor.grad = tensor.grad, None
        try:
            fresh = fetch(tensor)
            if isinstance(tensor, nn.Parameter):
                fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
            hooks: Any = tensor
            before, after = hooks._backward_hooks, hooks._post_accumulate_grad_hooks
            become(tensor, fresh)
            hooks._backward_hooks, hooks._post_accumulate_grad_hooks = before, after  # what runs them went with the old value
        except BaseException:
            tensor.grad = grad
            raise
        if grad is not None:
            tensor.grad = fetch(grad)
    return module


def send(module: M, worker: BaseWorker) -> M:
    """Move ``module`` to ``worker``, in place."""
    if any(isinstance(t, PointerTensor) for t in _tensors(module)):
        return move(module, worker)
    return replace(module, lambda t: upload(t, worker))


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
    return replace(module, lambda t: values[t.id_at_location])  # type: ignore[attr-defined]


def move(module: M, worker: BaseWorker) -> M:
    """Move ``module`` from where it is to ``worker``, in place."""

    def fetch(tensor: torch.Tensor) -> torch.Tensor:
        if isinstance(tensor, PointerTensor) and tensor.location is not worker:
            return ship(tensor, worker, take=False)  # the old object goes with its pointer, once that was replaced
        return relocated(tensor.detach(), worker)

    return replace(module, fetch)


def request(module: nn.Module, reason: str) -> ReleaseRequest:
    """Ask the owner to release the module's parameters and buffers (not its gradients)."""
    return request_release(_pointers(module, gradients=False), reason)


def location(module: nn.Module) -> Any:
    """The worker that holds ``module``; None if it is here."""
    first = next(_tensors(module), None)
    return first.location if isinstance(first, PointerTensor) else None

