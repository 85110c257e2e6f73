"""Values that cross: send, get and move.

Crossing is differentiable. A leaf that is sent stays a leaf, at the worker, and its `.grad` comes back with it; what is in the middle
of a graph when it crosses keeps its history, and gradients cross the other way.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from syftlite._torch import below_dispatch, is_plain, replaceable
from syftlite.errors import GetNotPermittedError, InvalidTensorForRemoteGet, Misuse, PointerMisuseError, ProtocolError
from syftlite.ops.dtypes import number_of
from syftlite.ops.spec import Spec
from syftlite.remote.asking import approval_required
from syftlite.remote.handle import Handle, RemoteTensor, consumed, shared
from syftlite.tensors.private import PrivateTensor
from syftlite.tensors.wrapper import WrapperTensor
from syftlite.wire.fields import MAX_DIMS, MAX_ITEMS
from syftlite.wire.messages import ARRIVED, DESCRIBE, EXPECT, GET, PROTECT, SHIP, SYNC, must_be_sendable

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

SHIPMENT = 256
"""Objects that go to another worker under one ticket, at most: engine/arrivals.py says how many may be on their way."""
FRESH = 10.0
"""Seconds for which a ticket is good beyond doubt: engine/arrivals.py says for how many it is."""


# -- out


class _Send(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, tensor: torch.Tensor, worker: BaseWorker, tags: tuple[str, ...], description: str) -> RemoteTensor:
        return upload(tensor, worker, tags, description)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return read([grads[0]], take=False)[0], None, None, None


def must_be_plain(tensor: torch.Tensor) -> None:
    """Raise `Misuse` for a pointer or a layer: it has no value of its own that could be sent."""
    if not is_plain(tensor):
        raise Misuse(
            f"a {type(tensor).__name__} has no value here to send: get() and decode it first. What is shared is used where its shares are; "
            "share the value again for other holders"
        )


def upload(
    tensor: torch.Tensor, worker: BaseWorker, tags: tuple[str, ...] = (), description: str = "", *, give: bool = False
) -> RemoteTensor:
    """A pointer to a copy of ``tensor`` at ``worker``, without history. ``give``: its memory is nobody else's, so a worker in this process
    need not copy it. Raises `Misuse` for a tensor whose value is not here."""
    must_be_plain(tensor)
    number_of(tensor.dtype)
    tensor = tensor.resolve_conj().resolve_neg()  # no message tells of these bits
    if tensor.dim() > MAX_DIMS:
        raise Misuse(f"a tensor of {tensor.dim()} dimensions does not travel: reshape it to at most {MAX_DIMS}")
    number = worker.next_id()
    if tags or description:
        must_be_sendable(DESCRIBE, number, tags, description)
    handle = Handle(worker, number, Spec.contiguous(tensor.shape, tensor.dtype))
    (worker.transport.give if give else worker.put)(number, tensor, tags, description)
    if tags or description:
        handle.card = (frozenset(tags), description)
    return worker.pointer(handle)


def send(tensor: torch.Tensor, worker: BaseWorker, *, requires_grad: bool = False) -> RemoteTensor:
    """``tensor`` at ``worker``. ``requires_grad``: gradients flow back into ``tensor`` although it is a leaf."""
    tags, description = tuple(sorted(getattr(tensor, "_tags", ()))), getattr(tensor, "_description", "")
    if isinstance(tensor, PrivateTensor):
        private = upload(tensor.child, worker, tags, description)
        worker.ask(PROTECT, private._handle.id, json.dumps(tensor.policy.tables()))
        return private
    if tensor.requires_grad and (requires_grad or not tensor.is_leaf) and torch.is_grad_enabled():
        pointer: RemoteTensor = _Send.apply(tensor, worker, tags, description)  # type: ignore[no-untyped-call]
        return pointer
    pointer = upload(tensor, worker, tags, description)
    if tensor.requires_grad and tensor.is_leaf:
        pointer.requires_grad_()
        if tensor.grad is not None:
            pointer.grad = upload(tensor.grad, worker)
    return pointer


# -- back


class _Get(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pointer: RemoteTensor, user: str | None) -> torch.Tensor:
        ctx.worker = pointer._handle.worker
        return read([pointer], user=user, take=False)[0]  # the graph may have saved it; it goes with the graph

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return upload(grads[0], ctx.worker), None


def _living(pointers: Sequence[RemoteTensor]) -> list[tuple[Handle, Spec]]:
    """What ``pointers`` name. Raises `ObjectNotFoundError` for one that was consumed."""
    living = []
    for handle in [pointer._handle for pointer in pointers]:
        if handle.spec is None:
            raise consumed(handle)
        living.append((handle, handle.spec))
    return living


def read(pointers: Sequence[RemoteTensor], *, user: str | None = None, take: bool) -> list[torch.Tensor]:
    """The values of ``pointers``, which share a worker: all or, with an error, none. One round trip. ``take``: the worker forgets them."""
    handles, specs = zip(*_living(pointers), strict=True)
    worker = handles[0].worker
    take = take and not any(h.borrowed for h in handles)
    if user is not None or len(handles) > MAX_ITEMS:
        must_be_sendable(GET, 1, [h.id for h in handles], take, user)
    values: list[torch.Tensor] = worker.ask(GET, [h.id for h in handles], take, user)[2]
    for handle in handles:
        if take:
            handle.consume()
    must_be_promised(worker, values, specs)
    return values


def must_be_promised(worker: BaseWorker, values: Sequence[torch.Tensor], specs: Sequence[Spec]) -> None:
    """Raise `ProtocolError` unless what ``worker`` answered is as many tensors as pointers asked for, and like them."""
    if len(values) != len(specs):
        raise ProtocolError(f"{worker.id} answered with {len(values)} tensors where {len(specs)} were asked for")
    for value, spec in zip(values, specs, strict=True):
        if value.shape != spec.shape or value.dtype is not spec.dtype:
            raise ProtocolError(f"{worker.id} answered with {Spec.of(value)} where the pointer is to {spec}")


def get(pointer: RemoteTensor, *, user: str | None, reason: str, take: bool) -> torch.Tensor:
    """What `PointerTensor.get` and `get_copy` do."""
    try:
        if in_graph(pointer):
            crossed: torch.Tensor = _Get.apply(pointer, user)  # type: ignore[no-untyped-call]
            return crossed
        grad = pointer.grad
        wanted = [pointer]
        if isinstance(grad, RemoteTensor) and grad._handle.spec is not None:  # one that was taken by itself is gone
            wanted.append(grad)
        value, *grads = read(wanted, user=user, take=take)
    except GetNotPermittedError as refusal:
        if not reason:
            raise
        raise approval_required([pointer], reason, refusal, user) from refusal
    if pointer.requires_grad:
        value.requires_grad_()
        if grads:
            value.grad = grads[0]
    return value


class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pointer: RemoteTensor, worker: BaseWorker) -> RemoteTensor:
        ctx.source = pointer._handle.worker
        return ship([pointer], worker, take=False)[0]  # the graph may have saved it; it goes with the graph

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ship([grads[0]], ctx.source, take=False)[0], None  # another branch of the graph may use this gradient too


def ship(pointers: Sequence[RemoteTensor], worker: BaseWorker, *, take: bool) -> list[RemoteTensor]:
    """The values of ``pointers``, which share a worker, at ``worker``, without history; ``take``: where they were, they are forgotten once
    they are there. Between two nodes they go by a link of theirs; where one of them is in this process, through this process."""
    living = _living(pointers)
    source = living[0][0].worker
    if source.transport.uri is None or worker.transport.uri is None:
        shipped = [upload(value, worker) for value in read(pointers, take=False)]
    else:
        shipments = [living[i : i + SHIPMENT] for i in range(0, len(living), SHIPMENT)]
        shipped = [worker.pointer(handle) for some in shipments for handle in _linked(source, some, worker)]
    if take:
        for handle, _ in living:
            forget(handle)
    return shipped


def _linked(source: BaseWorker, living: Sequence[tuple[Handle, Spec]], worker: BaseWorker) -> list[Handle]:
    """What is ``living`` at ``source``, at ``worker``, by a link between their nodes."""
    arriving = [Handle(worker, worker.next_id(), Spec.contiguous(spec.shape, spec.dtype)) for _, spec in living]
    parcels = [(handle.id, to.id) for to, (handle, _) in zip(arriving, living, strict=True)]
    with given_up(arriving):
        (ticket,) = tickets(source, [(worker, [(to.id, spec.nbytes) for to, (_, spec) in zip(arriving, living, strict=True)])])
        source.ask(SHIP, parcels, worker.transport.uri, ticket)
    for to in arriving:
        worker.cast((ARRIVED, to.id))
    return arriving


def tickets(source: BaseWorker, expected: Sequence[tuple[BaseWorker, list[tuple[int, int]]]]) -> list[str]:
    """A ticket of each worker for what it is to expect of ``source``, asked for again where that had much to do before: they expire."""

    def ask() -> list[str]:
        return [worker.ask(EXPECT, parcels)[2] for worker, parcels in expected]

    done = source.transport.begin(SYNC)
    try:
        began, asked = monotonic(), ask()
        source.transport.finish(done)
    finally:
        source.transport.forget(done)
    return asked if monotonic() - began < FRESH else ask()


@contextlib.contextmanager
def given_up(arriving: Iterable[Handle]) -> Iterator[None]:
    """Where what is ``arriving`` does not come, have its workers expect it no longer."""
    try:
        yield
    except BaseException:
        for handle in arriving:
            forget(handle)
        raise


def in_graph(pointer: RemoteTensor) -> bool:
    """Whether what is made of ``pointer`` now has a history, so that gradients must find their way back."""
    return pointer.requires_grad and not pointer.is_leaf and torch.is_grad_enabled()


def forget(handle: Handle) -> None:
    """Have its worker forget an object whose value is elsewhere now; not what is only borrowed."""
    if not handle.borrowed:
        handle.worker.release(handle.id)
        handle.consume()


def move(pointer: RemoteTensor, worker: BaseWorker, *, take: bool = True) -> RemoteTensor:
    """What `PointerTensor.move` does; without ``take`` what it leaves stays until its pointer goes."""
    if pointer._handle.worker is worker:
        return pointer
    if in_graph(pointer):
        crossed: RemoteTensor = _Move.apply(pointer, worker)  # type: ignore[no-untyped-call]
        return crossed
    moved = ship([pointer], worker, take=take and not shared(pointer))[0]
    if pointer.requires_grad:
        moved.requires_grad_()
        if isinstance(pointer.grad, RemoteTensor) and pointer.grad._handle.spec is not None:
            moved.grad = ship([pointer.grad], worker, take=take)[0]
    return moved


def must_be_replaceable(tensor: torch.Tensor) -> None:
    """Raise `PointerMisuseError` if a graph keeps ``tensor`` from becoming another: told of a whole module before any of it has."""
    if not replaceable(tensor):
        shape = list(tensor.shape)
        raise PointerMisuseError(f"cannot change a {shape} tensor in place: a graph has it. Delete the loss or output that still uses it")


def become(target: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Make the object ``target`` be ``value``, whose own object is given up. A parameter stays one."""
    if isinstance(target, nn.Parameter) and not isinstance(value, nn.Parameter) and value.is_leaf:
        value, value.grad = nn.Parameter(value, value.requires_grad), value.grad
    for tensor in (target, value):
        if isinstance(tensor, WrapperTensor):
            tensor.disown()
    try:
        with below_dispatch():  # torch looks at a leaf's graph by means of a view of it: no worker need make one
            torch.utils.swap_tensors(target, value)
    except RuntimeError as error:
        raise PointerMisuseError(f"cannot change this tensor in place: {error} Delete the loss or output that still uses it") from None
    finally:
        if isinstance(target, WrapperTensor):
            target.adopt()
    return target


def not_chained(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """``remote_get`` and ``remote_send`` on a local tensor."""
    raise InvalidTensorForRemoteGet(
        f"this {list(tensor.shape)} tensor is here: remote_get() is for a pointer to a pointer, x.send(bob).send(alice), and remote_send() "
        "for a pointer, x.send(bob)"
    )


def not_remote(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
    """``get`` and its kin on a local tensor."""
    raise InvalidTensorForRemoteGet(f"this {list(tensor.shape)} tensor is here already: get() is for pointers, made by send()")
