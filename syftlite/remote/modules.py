"""Modules that travel: parameters and buffers move, and stay the very objects that optimizers, ties and hooks know."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from syftlite._torch import replaceable, sole, sole_gradient
from syftlite.errors import GetNotPermittedError, InvalidTensorForRemoteGet, Misuse
from syftlite.remote.asking import ReleaseRequest, approval_required, request_release
from syftlite.remote.derived import let_go
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import become, must_be_plain, must_be_replaceable, read, ship, upload
from syftlite.tensors.wrapper import WrapperTensor

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

M = TypeVar("M", bound=nn.Module)


def _references(pointers: Sequence[Any], at: int) -> tuple[int, int]:
    """To a pointer, and to its handle."""
    return sys.getrefcount(pointers[at]), sys.getrefcount(pointers[at]._handle)


def _gradients_references() -> tuple[int, int]:
    """To one, and to its handle, that its parameter and a list have, and nothing else."""
    parameter = torch.zeros(1, requires_grad=True)
    parameter.grad = torch.zeros(1)
    parameter.grad._handle = object()  # type: ignore[attr-defined]
    return _references([parameter.grad], 0)


ALONE = _gradients_references()


def tensors(module: nn.Module) -> list[torch.Tensor]:
    """Its parameters and buffers."""
    return [*module.parameters(), *module.buffers()]


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
    with let_go([module]):
        found = tensors(module)
        for tensor in found:
            must_be_replaceable(tensor)
        for tensor in found:
            _replace(tensor, fetch)
    return module


def _replace(tensor: torch.Tensor, fetch: Callable[[torch.Tensor], torch.Tensor]) -> None:
    grad, tensor.grad = tensor.grad, None
    try:
        fresh = fetch(tensor)
        if isinstance(tensor, nn.Parameter):
            fresh = nn.Parameter(fresh, requires_grad=tensor.requires_grad)
        hooks: Any = tensor
        before, after = hooks._backward_hooks, hooks._post_accumulate_grad_hooks
        marks = _marks(tensor)
        become(tensor, fresh)
        vars(tensor).update(marks)
        hooks._backward_hooks, hooks._post_accumulate_grad_hooks = before, after  # what runs them went with the old value
    except BaseException:
        tensor.grad = grad
        raise
    if grad is not None:
        tensor.grad = fetch(grad)


def _marks(tensor: torch.Tensor) -> dict[str, Any]:
    """What a program has set on ``tensor``, such as ``weight.no_decay = True``."""
    own = tensor.attributes() if isinstance(tensor, WrapperTensor) else ()
    return {name: value for name, value in vars(tensor).items() if not name.startswith("_") and name not in own}


def send(module: M, worker: BaseWorker) -> M:
    """Move ``module`` to ``worker``, in place."""
    found = tensors(module)
    if any(map(is_lazy, found)):
        raise Misuse(f"a {type(module).__name__} has no weights yet, for it is lazy: call it once here, on a batch, and then send() it")
    if any(isinstance(tensor, PointerTensor) for tensor in found):
        return move(module, worker)
    for tensor in found:
        must_be_plain(tensor)

    grads = [tensor.grad for tensor in found if tensor.grad is not None]
    spare = {id(grads[i]) for i in range(len(grads)) if sole_gradient(grads, i)}

    def sent(tensor: torch.Tensor) -> torch.Tensor:
        # a parameter is about to be a pointer: then the worker alone has what is its memory now, and its gradient's
        return upload(tensor, worker, give=id(tensor) in spare or (isinstance(tensor, nn.Parameter) and sole(tensor)))

    return replace(module, sent)


def _pointers(module: nn.Module) -> list[PointerTensor]:
    """The module's remote parameters and buffers, without gradients that are no longer there, for ``weight.grad.get()`` has brought them
    here. Raises `InvalidTensorForRemoteGet` if some are local."""
    found: list[PointerTensor] = []
    for tensor in tensors(module):
        if not isinstance(tensor, PointerTensor):
            raise InvalidTensorForRemoteGet(f"{type(module).__name__} is here already, or in part: get() is for a module that was sent")
        _forget_taken_gradient(tensor)
        found.append(tensor)
    return found


def _fetch(tensors: list[PointerTensor], user: str | None, *, gradients: bool) -> dict[int, torch.Tensor]:
    """The values of a module's ``tensors`` by id: one round trip a worker. A worker in this process forgets what nothing else points at, so
    that it need not be copied."""
    grads = [tensor.grad for tensor in tensors if isinstance(tensor.grad, PointerTensor)] if gradients else []
    spare = all(_references(grads, i) == ALONE for i in range(len(grads)))
    spare = spare and all(_references(tensors, i)[1] == ALONE[1] and replaceable(tensors[i]) for i in range(len(tensors)))
    by_worker: dict[BaseWorker, list[PointerTensor]] = {}
    for pointer in tensors + grads:
        by_worker.setdefault(pointer.location, []).append(pointer)
    values: dict[int, torch.Tensor] = {}
    for worker, group in by_worker.items():
        ids = [pointer.id_at_location for pointer in group]
        take = spare and len(by_worker) == 1 and worker.transport.here
        values.update(zip(ids, read(group, user=user, take=take), strict=True))
    return values


def get(module: M, user: str | None = None, reason: str = "") -> M:
    """Bring ``module`` back, in place: one round trip. Gradients that the gate keeps while it lets the weights go stay behind."""
    pointers = _pointers(module)
    try:
        values = _fetch(pointers, user, gradients=True)
    except GetNotPermittedError:
        try:
            values = _fetch(pointers, user, gradients=False)
        except GetNotPermittedError as refusal:
            if not reason:
                raise
            raise approval_required(pointers, reason, refusal, user) from refusal
        module.zero_grad(set_to_none=True)
    try:
        return replace(module, lambda t: values[t.id_at_location])  # type: ignore[attr-defined]
    except BaseException:
        _back(module, values)
        raise


def _forget_taken_gradient(tensor: torch.Tensor) -> None:
    if isinstance(tensor.grad, PointerTensor) and tensor.grad._handle.spec is None:
        tensor.grad = None


def _back(module: nn.Module, values: dict[int, torch.Tensor]) -> None:
    """Have what the worker has forgotten, and could not become local, be there again."""
    for tensor in [t for part in tensors(module) for t in (part, part.grad)]:
        if isinstance(tensor, PointerTensor) and tensor._handle.spec is None:
            tensor._handle = upload(values[tensor.id_at_location], tensor.location)._handle


def move(module: M, worker: BaseWorker) -> M:
    """Move ``module`` from where it is to ``worker``, in place; what is at one place goes from there in one delivery."""
    abroad: dict[BaseWorker, list[PointerTensor]] = {}
    found = tensors(module)
    for part in found:
        _forget_taken_gradient(part)
    values = [t for part in found for t in (part, part.grad) if t is not None]
    if all(isinstance(t, PointerTensor) and t.location is worker for t in values):
        return module  # as in each step of a loop over one worker's batches
    for tensor in values:
        if isinstance(tensor, PointerTensor) and tensor.location is not worker:
            abroad.setdefault(tensor.location, []).append(tensor)
    # the old objects go with their pointers, once these were replaced
    shipped = {id(old): new for group in abroad.values() for old, new in zip(group, ship(group, worker, take=False), strict=True)}

    def fetch(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) in shipped:
            return shipped.pop(id(tensor))
        return tensor.detach() if isinstance(tensor, PointerTensor) else upload(tensor.detach(), worker)

    return replace(module, fetch)


def request(module: nn.Module, reason: str) -> ReleaseRequest:
    """Ask the owner to release the module's parameters and buffers (not its gradients)."""
    return request_release(_pointers(module), reason)


def location(module: nn.Module) -> Any:
    """The worker that holds ``module``; None if it is here."""
    first = next(chain(module.parameters(), module.buffers()), None)
    return first.location if isinstance(first, PointerTensor) else None

