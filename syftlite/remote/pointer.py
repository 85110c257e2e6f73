"""PointerTensor: a tensor whose value is at a worker. A real `torch.Tensor` with a true shape and dtype, and no data.

An operator on pointers reaches `__torch_dispatch__` below autograd, which
    1. finds what is known of it in a cache keyed by the operands' interned specs (or infers it, raising torch's own shape errors here),
    2. casts one OP message under ids of its own choosing, without waiting,
    3. wraps the promised results.
So a pointer is a promise. Only reading it waits. The common case is here; the rest of it in `remote/dispatch.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import torch

from syftlite._torch import make_wrapper, unversioned
from syftlite.errors import InvalidTensorForRemoteGet, NotOwnerError, PointerMisuseError
from syftlite.remote import asking, registry, transfer
from syftlite.remote.dispatch import apart, dispatch, get_known
from syftlite.remote.handle import NO_CARD, Card, Handle, RemoteTensor, consumed, site
from syftlite.remote.indexing import Indexed
from syftlite.wire.messages import DESCRIBE, EXPLAIN, OP, must_be_sendable

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class PointerTensor(Indexed, RemoteTensor):
    """A tensor at ``location``. Make one with ``tensor.send(worker)``; read it with ``get()``."""

    __slots__ = ()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if kwargs or len(args) > 2 or len(types) != 1 or type(args[0]) is not PointerTensor:
            return dispatch(func, types, args, kwargs)
        hx = args[0]._handle
        worker = hx.worker
        operands: tuple[Any, ...]
        if len(args) == 1:
            known, operands = get_known((id(func), hx.spec)), (hx.id,)
        else:
            y = args[1]
            if type(y) is PointerTensor:
                hy = y._handle
                if hy.worker is not worker:
                    raise apart(func, worker, hy.worker)
                known, operands = get_known((id(func), hx.spec, hy.spec)), (hx.id, hy.id)
            elif type(y) is float:
                known, operands = get_known((id(func), hx.spec, float)), (hx.id, y)
            else:
                return dispatch(func, types, args, kwargs)
        if known is None or known.one is None:
            return dispatch(func, types, args, kwargs)
        number, spec, view = known.one
        fresh = worker.next_id()
        handle = Handle(worker, fresh, spec, view and hx.borrowed)  # before the message: Ctrl-C behind that leaves nothing there
        worker.cast((OP, number, operands, None, fresh), site())
        return wrapped(handle)

    # -- what it is

    @property
    def location(self) -> BaseWorker:
        """The worker that holds the value."""
        return self._handle.worker

    @property
    def id_at_location(self) -> int:
        """The value's id there."""
        return self._handle.id

    @property
    def id(self) -> int:
        """This pointer's id; the value's own, since the client chooses it."""
        return self._handle.id

    @property
    def owner(self) -> BaseWorker:
        """The worker that holds this pointer: the local one."""
        return self._handle.worker.local_worker

    @property
    def garbage_collection(self) -> bool:
        """Whether the value goes when the last pointer to it does (not for one found by search)."""
        return not self._handle.borrowed

    garbage_collect_data = garbage_collection

    @property
    def is_wrapper(self) -> bool:
        """False: a pointer is the innermost layer on this side."""
        return False

    @property
    def child(self) -> PointerTensor | None:
        """The pointer to which this one points; None if it points to a value, which is elsewhere."""
        return None

    @property
    def parent(self) -> Any:
        """The layer around this pointer that was made last, while it lives; None if there is none."""
        held = self.__dict__.get("_parent")
        return None if held is None else held()

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        handle = self._handle
        if handle.spec is None:
            return f"PointerTensor | me -> {handle.worker.id}, consumed by get()"
        extras = ", requires_grad=True" if self.requires_grad else ""
        return (
            f"PointerTensor | {self.owner.id}:{handle.id} -> {handle.worker.id}:{handle.id}, shape={list(self.shape)}, "
            f"dtype={self.dtype}{extras}"
        )

    def __format__(self, spec: str) -> str:
        if spec:
            raise _needs_value("format()")
        return repr(self)

    # -- reading it

    def get(self, user: str | None = None, reason: str = "") -> Any:
        """The value, moved here: the worker forgets it, unless it was found by search. A parameter brings its ``.grad``.

        ``user`` asks as another principal (virtual workers only). ``reason`` files a release request if the value is PRIVATE, and
        raises `ApprovalRequiredError` with its handle. Raises `GetNotPermittedError` for a PRIVATE value, and the error of the operator
        that failed for a value that never came.
        """
        return _labelled(transfer.get(self, user=user, reason=reason, take=True), self._handle.card)

    def get_copy(self, user: str | None = None, reason: str = "") -> Any:
        """A copy of the value; the worker keeps its own."""
        return _labelled(transfer.get(self, user=user, reason=reason, take=False), self._handle.card)

    def get_(self, user: str | None = None, reason: str = "") -> Any:
        """As `get`, in place: this very object becomes the local tensor."""
        return transfer.become(self, self.get_copy(user=user, reason=reason))  # the object goes with the pointer that this was

    def request(self, reason: str) -> Any:
        """Ask the owner to release the value. Returns a `ReleaseRequest` to wait on; then `get` succeeds once."""
        return asking.request_release([self], reason)

    def explain_release(self) -> str:
        """Which rules of its owner hold for the value, and what would let it go. Never whether it would: that could tell of rows."""
        text: str = self._handle.worker.ask(EXPLAIN, [self._handle.id])[2]
        return text

    def copy(self) -> PointerTensor:
        """A pointer to a copy at the same worker."""
        return self.clone()  # type: ignore[return-value]

    def item(self) -> Any:
        """The value of a one-element tensor; refused where `get` would be."""
        return transfer.read([self], take=False)[0].item()

    def tag(self, *tags: str) -> PointerTensor:
        """Label the remote value, for `search`."""
        return self._label(self._handle.card[0] | frozenset(tags), self._handle.card[1])

    def describe(self, description: str) -> PointerTensor:
        """Describe the remote value."""
        return self._label(self._handle.card[0], description)

    def _label(self, tags: frozenset[str], description: str) -> PointerTensor:
        handle = self._handle
        if handle.borrowed:
            raise NotOwnerError(f"{self!r} was found by search: its owner chooses its tags. Label a clone() of it")
        message = (DESCRIBE, handle.id, tuple(sorted(tags)), description)
        must_be_sendable(*message)
        handle.card = (tags, description)
        handle.worker.cast(message)
        return self

    @property
    def tags(self) -> set[str]:
        """The tags that it was sent, found or labelled with."""
        return set(self._handle.card[0])

    @property
    def description(self) -> str:
        """The description that it was sent, found or labelled with."""
        return self._handle.card[1]

    # -- moving it

    def _beside(self, tensor: torch.Tensor) -> torch.Tensor:
        return transfer.upload(tensor, self._handle.worker)

    def send(self, *workers: Any, **options: Any) -> PointerTensor:
        """A pointer to this pointer, which ``worker`` keeps: `get` gives it back. The value stays where it is."""
        if len(workers) != 1:
            raise PointerMisuseError(f"{self!r} is sent to one worker, got {len(workers)}: combine_pointers() takes pointers to several")
        return registry.find(workers[0]).refer(self)

    def send_(self, *workers: Any, **options: Any) -> PointerTensor:
        """As `send`, in place."""
        return transfer.become(self, self.send(*workers, **options))  # type: ignore[return-value]

    def move(self, worker: BaseWorker) -> PointerTensor:
        """A pointer to the value at ``worker``; where it was it is forgotten, unless a graph or a detached pointer still needs it."""
        return self._relabelled(transfer.move(self, registry.find(worker)))

    def move_(self, worker: BaseWorker) -> Any:
        """As `move`, in place."""
        worker = registry.find(worker)
        return self if worker is self.location else transfer.become(self, self._moved(worker))

    def remote_send(self, worker: Any, change_location: bool = False) -> PointerTensor:
        """Have ``location`` send the object on to ``worker`` and keep a pointer to it; this becomes a pointer to that pointer, or with
        ``change_location``, to the object. Between nodes nothing passes through here. In place, as in PySyft 0.2; returns itself."""
        here, there, handle = self.location, registry.find(worker), self._handle
        shared = transfer.in_graph(self) or here is there
        moved = self._moved(there)
        if not change_location:
            moved = here.refer(moved)
        if moved is not self:
            transfer.become(self, moved)
        if not shared and self._handle is not handle:
            transfer.forget(handle)
        return self

    def _moved(self, worker: BaseWorker) -> PointerTensor:
        return self._relabelled(transfer.move(self, worker, take=False))

    def _relabelled(self, moved: Any) -> PointerTensor:
        """``moved`` with the tags and description of this pointer: they go where it goes."""
        if moved is not self and self._handle.card != NO_CARD:
            moved._label(*self._handle.card)
        pointer: PointerTensor = moved
        return pointer

    def remote_get(self) -> PointerTensor:
        """Raises `InvalidTensorForRemoteGet`: this is a pointer to a value, not to a pointer."""
        raise InvalidTensorForRemoteGet(
            f"{self!r} points to a value, so {self.location.id} has nothing to fetch: remote_get() is for a pointer to a pointer, as "
            "x.send(bob).send(alice) gives; move() brings the value to another worker"
        )

    # -- what needs a value

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Raises: get() it first."""
        raise _needs_value("numpy()")

    def __array__(self, dtype: Any = None) -> NoReturn:
        raise _needs_value("np.asarray()")

    def tolist(self) -> NoReturn:
        """Raises: get() it first."""
        raise _needs_value("tolist()")

    def share_memory_(self) -> NoReturn:
        """Raises: there is no memory here to share."""
        raise _needs_value("share_memory_()")

    def apply_(self, callable: Any) -> NoReturn:
        """Raises: a Python function cannot run where the value is, and torch would read memory that is not there."""
        raise _needs_value("apply_()")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _needs_value("DLPack")

    def data_ptr(self) -> NoReturn:
        """Raises: there is no memory here to point at."""
        raise _needs_value("data_ptr()")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise _needs_value("pickle")

    def __copy__(self) -> PointerTensor:
        twin = self.detach().requires_grad_(self.requires_grad)
        return torch.nn.Parameter(twin, self.requires_grad) if isinstance(self, torch.nn.Parameter) else twin  # type: ignore[return-value]

    def __deepcopy__(self, memo: dict[int, Any]) -> PointerTensor:
        twin = self.detach().clone().requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            twin = torch.nn.Parameter(twin, self.requires_grad)
        if self.grad is not None:
            twin.grad = self.grad.clone()
        memo[id(self)] = twin
        return twin  # type: ignore[return-value]

    @property
    def data(self) -> torch.Tensor:
        """The same pointer without autograd history; what is written to it no graph notices."""
        return unversioned(self)

    @data.setter
    def data(self, value: object) -> None:
        fits = isinstance(value, PointerTensor) and value.location is self.location and value.dtype is self.dtype
        if not fits or (value.shape, value.stride()) != (self.shape, self.stride()):  # type: ignore[attr-defined]
            raise PointerMisuseError(
                "x.data = y takes a pointer to the same worker, of the same shape, strides and dtype: use x.copy_(y) under torch.no_grad()"
            )
        if self.location.records:  # at a replay nobody is there to point elsewhere
            with torch.no_grad():
                self.data.copy_(value)  # type: ignore[arg-type]
            return
        self._handle = value._handle  # type: ignore[attr-defined]

    # -- what torch.export and nn.Module.to need to see: a wrapper without inner tensors of this process

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return [], self._handle

    @staticmethod
    def __tensor_unflatten__(inner: Any, handle: Any, size: Any, stride: Any) -> PointerTensor:
        return PointerTensor(handle)


def wrapped(handle: Handle) -> PointerTensor:
    """The pointer that stands for ``handle``: what ``PointerTensor(handle)`` gives, in half the time."""
    spec = handle.spec
    if spec is None:
        raise consumed(handle)
    pointer: PointerTensor = make_wrapper(PointerTensor, spec.shape, spec.stride, spec.offset, None, spec.dtype)
    pointer._handle = handle
    return pointer


def _labelled(value: Any, card: Card) -> Any:
    """``value``, come from its worker, with the tags and description that it had there."""
    if card != NO_CARD:
        value._tags, value._description = set(card[0]), card[1]
    return value


def _needs_value(what: str) -> PointerMisuseError:
    return PointerMisuseError(f"{what} needs the value, which is at its worker: call .get() first")
