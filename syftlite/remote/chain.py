"""Pointers to pointers: `x.send(bob).send(alice)` is a pointer to a pointer at alice to a value at bob.

    me:9 -> alice:9 -> bob:4        alice stores a reference, bob the value; operators go from here to bob
    get()                           the pointer to bob:4; alice forgets hers
    move(carol)                     the reference goes on: me -> carol -> bob
    remote_get()                    alice fetches the value, from bob, by a link of theirs: me -> alice
    remote_send(carol)              what is at alice goes on to carol: me -> alice -> carol -> bob

The chain is kept here: a reference is an entry at its worker that says where the next link is, and follows nothing by itself.
A result of an operator gets references of its own, at the same workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import correct_aliasing
from syftlite.errors import TensorsNotCollocatedError
from syftlite.ops.spec import Spec
from syftlite.remote import registry
from syftlite.remote.handle import Handle, RemoteTensor, consumed
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import become, forget, in_graph, move
from syftlite.wire.messages import REFER

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

Path = tuple[Handle, ...]
"""The references of a chain, the outermost first."""


class PointerChain(PointerTensor):
    """A pointer whose remote object is a pointer. Make one with ``pointer.send(worker)``; ``get()`` gives the pointer back."""

    __slots__ = ()
    _path: Path

    @staticmethod
    def __new__(cls, handle: Handle, path: Path, requires_grad: bool = False) -> PointerChain:
        chain: PointerChain = RemoteTensor.__new__(cls, handle, requires_grad)  # type: ignore[assignment]
        chain._path = path
        return chain

    def __init__(self, handle: Handle, path: Path, requires_grad: bool = False) -> None:
        """Wrap ``handle``, of the value itself, and the references ``path`` that lead to it."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not all(issubclass(t, RemoteTensor) for t in types):
            return NotImplemented  # a layer above is present: it unwraps first
        kwargs = kwargs or {}
        chains: dict[int, PointerTensor] = {}
        ends = _ends(args, chains)
        named = {k: _ends(v, chains) for k, v in kwargs.items()}
        first, *others = sorted(chains.values(), key=lambda operand: not isinstance(operand, PointerChain))
        assert isinstance(first, PointerChain)
        for other in others:
            if _stations(other) != _stations(first):
                raise _apart(func, first, other)
        out = func(*ends, **named)
        outer = _chained(out, chains, first)
        if torch.Tag.inplace_view in func.tags:
            outer._handle = out._handle
            outer = correct_aliasing(func, args, kwargs, outer)
        return outer

    # -- what it is

    @property
    def location(self) -> BaseWorker:
        """The worker that holds the pointer to which this one points."""
        return self._path[0].worker

    @property
    def id_at_location(self) -> int:
        """That pointer's id there."""
        return self._path[0].id

    @property
    def id(self) -> int:
        """This pointer's id; the remote pointer's own, since the client chooses it."""
        return self._path[0].id

    @property
    def child(self) -> PointerTensor:
        """The pointer to which this one points, as `get` would give it; nothing moves."""
        return _without_first(self)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        if self._path[0].spec is None or self._handle.spec is None:
            return f"PointerTensor | me -> {self.location.id}, consumed by get()"
        links = " -> ".join(f"{handle.worker.id}:{handle.id}" for handle in (*self._path, self._handle))
        extras = ", requires_grad=True" if self.requires_grad else ""
        return f"PointerTensor | {self.owner.id}:{self.id} -> {links}, shape={list(self.shape)}, dtype={self.dtype}{extras}"

    # -- reading and moving it

    def get(self, user: str | None = None, reason: str = "") -> PointerTensor:
        """The pointer that ``location`` holds, which forgets it. Its own `get` gives the value, and it is there that ``user`` and
        ``reason`` count."""
        inner = _peel(self)
        if not in_graph(self):
            forget(self._path[0])
            if self.requires_grad and isinstance(self.grad, PointerChain):
                forget(self.grad._path[0])
        return inner

    def get_copy(self, user: str | None = None, reason: str = "") -> PointerTensor:
        """A pointer to a copy of the value, where that is."""
        return _peel(self.clone())  # type: ignore[arg-type]

    def get_(self, user: str | None = None, reason: str = "") -> PointerTensor:
        """As `get`, in place: this very object becomes the pointer that ``location`` held."""
        return become(self, _peel(self))  # type: ignore[return-value]

    def move(self, worker: Any) -> PointerTensor:
        """A pointer to the same remote pointer, which goes from ``location`` to ``worker``. The value stays where it is."""
        worker = registry.find(worker)
        return self if worker is self.location else refer(self.get(), worker)

    def move_(self, worker: Any) -> PointerTensor:
        """As `move`, in place."""
        worker = registry.find(worker)
        return self if worker is self.location else become(self, self._moved(worker))  # type: ignore[return-value]

    def _beside(self, tensor: torch.Tensor) -> torch.Tensor:
        pointer = super()._beside(tensor)
        for handle in reversed(self._path):
            pointer = handle.worker.refer(pointer)  # type: ignore[arg-type]
        return pointer

    def _moved(self, worker: BaseWorker) -> PointerTensor:
        return refer(_peel(self), worker)

    def remote_get(self) -> PointerTensor:
        """Have ``location`` fetch what its pointer points to: one link less. Between nodes the value does not pass through here.
        In place, as in PySyft 0.2; returns itself."""
        inner, here = _peel(self), self.location
        if isinstance(inner, PointerChain):
            return become(self, refer(_peel(inner), here))  # type: ignore[return-value]
        end, shared = self._handle, in_graph(self)
        become(self, move(inner, here, take=False))
        if end.worker is not here and not shared:
            forget(end)
        return self

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return [], (self._handle, self._path)

    @staticmethod
    def __tensor_unflatten__(inner: Any, parts: Any, size: Any, stride: Any) -> PointerChain:
        return PointerChain(*parts)


# -- making and unmaking links


def refer(pointer: PointerTensor, worker: BaseWorker) -> PointerChain:
    """A pointer to ``pointer``, of which ``worker`` keeps a reference. What `PointerTensor.send` does; gradients flow through."""
    if in_graph(pointer):
        crossed: PointerChain = _Refer.apply(pointer, worker)  # type: ignore[no-untyped-call]
        return crossed
    chain = _with_first(pointer, worker)
    if pointer.requires_grad:
        chain.requires_grad_()
        if isinstance(pointer.grad, PointerTensor):
            chain.grad = _with_first(pointer.grad, worker)
    return chain


def _peel(chain: PointerChain) -> PointerTensor:
    """The pointer inside ``chain``, whose reference stays until ``chain`` goes."""
    if in_graph(chain):
        crossed: PointerTensor = _Peel.apply(chain)  # type: ignore[no-untyped-call]
        return crossed
    inner = _without_first(chain)
    if chain.requires_grad:
        inner.requires_grad_()
        if isinstance(chain.grad, PointerChain):
            inner.grad = _without_first(chain.grad)
    return inner


class _Refer(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pointer: PointerTensor, worker: BaseWorker) -> PointerChain:
        return _with_first(pointer, worker)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _without_first(grads[0]), None


class _Peel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, chain: PointerChain) -> PointerTensor:
        ctx.worker = chain.location
        return _without_first(chain)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _with_first(grads[0], ctx.worker)


def _links(pointer: PointerTensor) -> Path:
    """The references that lead to the value; none for a pointer to the value itself."""
    path = pointer._path if isinstance(pointer, PointerChain) else ()
    for handle in (*path, pointer._handle):
        if handle.spec is None:
            raise consumed(handle)
    return path


def _with_first(pointer: PointerTensor, worker: BaseWorker) -> PointerChain:
    path = _links(pointer)
    return PointerChain(pointer._handle, (_reference((*path, pointer._handle)[0], worker), *path))


def _without_first(chain: PointerChain) -> PointerTensor:
    path = _links(chain)[1:]
    return PointerChain(chain._handle, path) if path else PointerTensor(chain._handle)


def _reference(target: Handle, worker: BaseWorker) -> Handle:
    """A reference to ``target`` that ``worker`` keeps."""
    number = worker.next_id()
    worker.cast((REFER, number, target.worker.id, target.id))
    return Handle(worker, number, Spec.contiguous((), torch.bool))


# -- operators on chains


def _ends(value: Any, chains: dict[int, PointerTensor]) -> Any:
    """``value`` with the pointer at the end of each chain, noting by that pointer's `id` which chain it came from."""
    if isinstance(value, PointerTensor):
        _links(value)
        end = PointerTensor(value._handle)
        chains[id(end)] = value
        return end
    return type(value)(_ends(v, chains) for v in value) if isinstance(value, (list, tuple)) else value


def _stations(pointer: PointerTensor) -> list[BaseWorker]:
    path = pointer._path if isinstance(pointer, PointerChain) else ()
    return [handle.worker for handle in (*path, pointer._handle)]


def _apart(func: Any, one: PointerTensor, other: PointerTensor) -> TensorsNotCollocatedError:
    here, there = (" -> ".join(worker.id for worker in _stations(pointer)) for pointer in (one, other))
    return TensorsNotCollocatedError(
        f"{func}: one operand is at {here}, another at {there}: get() what is a pointer to a pointer, or send() the other the same way"
    )


def _chained(out: Any, chains: dict[int, PointerTensor], like: PointerChain) -> Any:
    """``out`` with a chain for each pointer: the operand itself where an operator gives that, or else by the way that ``like`` goes."""
    if isinstance(out, PointerTensor):
        if id(out) in chains:
            return chains[id(out)]
        for chain in chains.values():
            if isinstance(chain, PointerChain) and chain._handle is out._handle:  # detach
                return PointerChain(out._handle, chain._path)
        return PointerChain(out._handle, tuple(_way(out._handle, like))[::-1])
    return type(out)(_chained(o, chains, like) for o in out) if isinstance(out, (list, tuple)) else out


def _way(target: Handle, like: PointerChain) -> Iterator[Handle]:
    """References to ``target`` at the workers of ``like``'s, the innermost first."""
    for handle in reversed(like._path):
        target = _reference(target, handle.worker)
        yield target


__all__ = ["PointerChain", "refer"]
