"""The method names that syftlite adds to `torch.Tensor` and `nn.Module`. No existing name of torch is replaced.

    torch.Tensor   private private_tensor
                   send send_ get get_ get_copy remote_get remote_send create_pointer
                   id owner tag describe tags description
    nn.Module      send get move copy request location
"""

from __future__ import annotations

import copy
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from syftlite.errors import Misuse, WorkerNotFoundError
from syftlite.policy.rules import Policy, allow
from syftlite.remote import composites as composites  # its operators register themselves
from syftlite.remote import encrypting, modules, multi, open_steps, registry, rules, shared_adam, transfer
from syftlite.remote.optimizers import follow
from syftlite.tensors.private import PrivateTensor
from syftlite.tensors.wrapper import WrapperTensor

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


_WITHOUT_EFFECT = {"user", "local_autograd", "preinitialize_grad", "no_wrap"}
"""What PySyft's `send` could be told besides."""


def _one(workers: tuple[Any, ...]) -> BaseWorker:
    if len(workers) != 1:
        raise WorkerNotFoundError(f"a module is sent to one worker, got {len(workers)}: send a copy of it to each")
    return registry.find(workers[0])


def _send(
    self: torch.Tensor, *workers: Any, requires_grad: bool = False, inplace: bool = False, garbage_collect_data: bool = True, **others: Any
) -> torch.Tensor:
    """A pointer to a copy of this tensor at a worker (or its id); for several workers, a `MultiPointerTensor`. A leaf stays a leaf; with
    ``requires_grad`` its gradient comes back here. ``garbage_collect_data=False``: it stays there as what `load_data` stores does, and
    the pointer is as one from `search`. ``inplace``: as `send_`."""
    if unknown := others.keys() - _WITHOUT_EFFECT:
        raise TypeError(f"send() got an unexpected keyword argument {min(unknown)!r}")
    if inplace:
        return _send_(self, *workers, requires_grad=requires_grad, garbage_collect_data=garbage_collect_data)
    if not workers:
        raise WorkerNotFoundError("send() takes the workers to send to, got none")
    found = [registry.find(worker) for worker in workers]
    sent: Any
    if len(found) > 1:
        sent = multi.send(self, found, requires_grad=requires_grad)
    else:
        sent = transfer.send(self, found[0], requires_grad=requires_grad)
    if not garbage_collect_data:
        for pointer in sent.child.values() if len(found) > 1 else [sent]:
            pointer._handle.borrowed = True
    return sent  # type: ignore[no-any-return]


def _send_(self: torch.Tensor, *workers: Any, **options: Any) -> torch.Tensor:
    """As `send`, in place: this object becomes the pointer."""
    with torch.no_grad():
        return transfer.become(self, _send(self, *workers, **options))


def _get_(self: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
    """As `get`, in place: this object becomes the value."""
    if not isinstance(self, WrapperTensor):
        transfer.not_remote(self)
    with torch.no_grad():
        return transfer.become(self, self.get(*args, **options))  # type: ignore[attr-defined]


def _fix_optimizer(self: torch.optim.Optimizer, **options: Any) -> torch.optim.Optimizer:
    """Itself: an optimizer computes on fixed-precision parameters as on others."""
    return self


def _private(self: torch.Tensor, policy: Policy) -> PrivateTensor:
    """This value under ``policy``: nothing made of it can be read here, and where it is sent the policy holds (docs/policy.md)."""
    return PrivateTensor(self, policy)


def _private_tensor(self: torch.Tensor, allowed_users: Sequence[str] = ()) -> PrivateTensor:
    """This value for ``allowed_users`` (names) alone."""
    if isinstance(allowed_users, str):
        raise Misuse(f"allowed_users is a list of names: [{allowed_users!r}]")
    return PrivateTensor(self, allow(*allowed_users) if allowed_users else Policy())


def _id(self: torch.Tensor) -> int:
    """A random number that tells this tensor from every other one."""
    place, number = getattr(self, "_syft_id", (None, 0))
    if place != id(self):  # no number yet, or the one of the tensor that this is a copy of
        number = secrets.randbits(62)
        self._syft_id = (id(self), number)  # type: ignore[attr-defined]
    return number


def _owner(self: torch.Tensor) -> BaseWorker:
    """The worker of this process."""
    return registry.local_worker()


def _create_pointer(self: torch.Tensor, location: Any = None) -> torch.Tensor:
    """A pointer to a copy of this tensor at a worker (or its id), the one of this process if none is named: as `send`."""
    return _send(self, registry.local_worker() if location is None else location)


def _tag(self: torch.Tensor, *tags: str) -> torch.Tensor:
    """Label this tensor, for `search` where it is sent."""
    self._tags = self.tags | set(tags)  # type: ignore[attr-defined]
    return self


def _describe(self: torch.Tensor, description: str) -> torch.Tensor:
    """Describe this tensor, for those who find it where it is sent."""
    self._description = description  # type: ignore[attr-defined]
    return self


def _tags(self: torch.Tensor) -> set[str]:
    """The tags given to this tensor."""
    return set(getattr(self, "_tags", ()))


def _description(self: torch.Tensor) -> str:
    """The description given to this tensor."""
    return getattr(self, "_description", "")


def _send_module(self: nn.Module, *workers: Any) -> nn.Module:
    """Move this module's parameters and buffers to a worker, in place. Returns itself."""
    return modules.send(self, _one(workers))


def _move_module(self: nn.Module, worker: Any) -> nn.Module:
    """Move this module to another worker, in place. Returns itself."""
    return modules.move(self, registry.find(worker))


def _copy_module(self: nn.Module) -> nn.Module:
    """Another module of the same values, where they are."""
    twin = copy.deepcopy(self)
    modules.strengthen(twin)
    return twin


_TENSOR = {
    **encrypting.TENSOR,
    "send": _send,
    "send_": _send_,
    "get": transfer.not_remote,
    "get_": _get_,
    "get_copy": transfer.not_remote,
    "remote_get": transfer.not_chained,
    "remote_send": transfer.not_chained,
    "private": _private,
    "private_tensor": _private_tensor,
    "create_pointer": _create_pointer,
    "id": property(_id),
    "owner": property(_owner),
    "tag": _tag,
    "describe": _describe,
    "tags": property(_tags),
    "description": property(_description),
}
_MODULE = {
    **encrypting.MODULE,
    "send": _send_module,
    "move": _move_module,
    "copy": _copy_module,
    "request": modules.request,
    "location": property(torch.jit.unused(modules.location)),  # `torch.jit.script` of a module would compile it
}


def install() -> None:
    """Add the names, once, however often it is called."""
    if torch.Tensor.__dict__.get("send") is _send:
        return
    for name, member in _TENSOR.items():
        setattr(torch.Tensor, name, member)
    for name, member in _MODULE.items():
        setattr(nn.Module, name, member)
    for name in ("fix_precision", "fix_prec"):
        setattr(torch.optim.Optimizer, name, _fix_optimizer)
    for before in (follow, shared_adam.before, open_steps.before):
        register_optimizer_step_pre_hook(before)
    register_optimizer_step_post_hook(shared_adam.after)
    register_optimizer_step_post_hook(open_steps.after)
    rules.install()
