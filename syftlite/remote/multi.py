"""MultiPointerTensor: one tensor at several workers, of one shape and dtype, with a value of its own at each.

    x.send(alice, bob)   combine_pointers(p, q)        child: {"alice": pointer, "bob": pointer}
    (x * 2).get()                                      [at alice, at bob]; with sum_results=True, their sum

An operator runs at each worker, on what is there: multi-pointers meet multi-pointers of the same workers, numbers, and nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import torch

from syftlite._torch import correct_aliasing, make_wrapper, no_torch_function
from syftlite.errors import InvalidTensorForRemoteGet, Misuse, PointerMisuseError, TensorsNotCollocatedError
from syftlite.remote.indexing import Indexed
from syftlite.remote.pointer import PointerTensor

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

Children = dict[str, PointerTensor]


class MultiPointerTensor(Indexed, torch.Tensor):
    """A tensor at each of `locations`. Make one with ``tensor.send(alice, bob)`` or `combine_pointers`; read it with ``get()``."""

    __slots__ = ()
    __torch_function__ = no_torch_function
    _children: Children

    @staticmethod
    def __new__(cls, children: Children) -> MultiPointerTensor:
        first = next(iter(children.values()))
        multi: MultiPointerTensor = make_wrapper(cls, first.shape, first.stride(), first.storage_offset(), None, first.dtype)
        multi._children = children
        return multi

    def __init__(self, children: Children) -> None:
        """One tensor of the pointers ``children``, without history. `combine_pointers` checks them, and keeps it."""

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not all(issubclass(t, (MultiPointerTensor, PointerTensor)) for t in types):
            return NotImplemented  # a layer above is present: it unwraps first
        kwargs = kwargs or {}
        if _reads(func):
            raise PointerMisuseError(f"{func}: there is one value at each worker: get() gives the list of them")
        operands: list[MultiPointerTensor] = []
        _collect(args, operands)
        _collect(tuple(kwargs.values()), operands)
        workers = _same_workers(func, operands)
        results = {w: func(*_at(args, w), **{k: _at(v, w) for k, v in kwargs.items()}) for w in workers}
        owners = {id(p): m for m in operands for p in m._children.values()}
        outer = _gathered(func, list(results.values()), workers, owners)
        if torch.Tag.inplace_view in func.tags:
            outer = correct_aliasing(func, args, kwargs, outer)
        return outer

    # -- what it is

    @property
    def child(self) -> Children:
        """The pointer at each worker, by the worker's id."""
        return dict(self._children)

    @property
    def parent(self) -> Any:
        """The layer around this one that was made last, while it lives; None if there is none."""
        held = self.__dict__.get("_parent")
        return None if held is None else held()

    @property
    def locations(self) -> list[BaseWorker]:
        """The workers."""
        return [pointer.location for pointer in self._children.values()]

    @property
    def location(self) -> list[BaseWorker]:
        """As `locations`."""
        return self.locations

    @property
    def is_wrapper(self) -> bool:
        """True: the pointers are its children."""
        return True

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        extras = ", requires_grad=True" if self.requires_grad else ""
        head = f"MultiPointerTensor | {', '.join(self._children)}, shape={list(self.shape)}, dtype={self.dtype}{extras}"
        return "\n".join([head, *(f"    -> {pointer!r}" for pointer in self._children.values())])

    def __format__(self, spec: str) -> str:
        if spec:
            raise _several("format()")
        return repr(self)

    def _beside(self, tensor: torch.Tensor) -> torch.Tensor:
        return send(tensor, self.locations)

    # -- reading it

    def pointers(self) -> list[PointerTensor]:
        """The pointer at each worker; gradients flow through. `child` has the same without history."""
        if self.requires_grad and torch.is_grad_enabled():
            return list(_Split.apply(self))  # type: ignore[no-untyped-call]
        return list(self._children.values())

    def get(self, sum_results: bool = False, *, user: str | None = None, reason: str = "") -> Any:
        """The values, moved here, in the order of `locations`; or their sum. ``user`` and ``reason`` are as of `PointerTensor.get`."""
        return self._read([pointer.get(user=user, reason=reason) for pointer in self._readable()], sum_results)

    def get_copy(self, sum_results: bool = False, *, user: str | None = None, reason: str = "") -> Any:
        """As `get`; the workers keep theirs."""
        return self._read([pointer.get_copy(user=user, reason=reason) for pointer in self._readable()], sum_results)

    def _readable(self) -> list[PointerTensor]:
        return self.pointers() if not self.is_leaf else list(self._children.values())

    def _read(self, values: list[torch.Tensor], sum_results: bool) -> Any:
        if self.requires_grad and self.is_leaf:
            grads = self.grad._children if isinstance(self.grad, MultiPointerTensor) else {}
            for value, worker in zip(values, self._children, strict=True):
                value.requires_grad_()
                value.grad = grads[worker].get_copy() if worker in grads else None
        return _total(values) if sum_results else values

    def virtual_get(self, sum_results: bool = False) -> Any:
        """The values as they lie in the stores of virtual workers, which keep them."""
        values = []
        for worker, pointer in self._children.items():
            stored = getattr(pointer.location, "_objects", None)
            if stored is None:
                raise InvalidTensorForRemoteGet(f"{worker} is not a virtual worker: use get_copy()")
            values.append(stored[pointer.id_at_location].clone())
        return _total(values) if sum_results else values

    def move(self, worker: BaseWorker | str) -> list[PointerTensor]:
        """All the values at ``worker``: a pointer for each."""
        return [pointer.move(worker) for pointer in self.pointers()]  # type: ignore[arg-type]

    def copy(self) -> torch.Tensor:
        """A multi-pointer to copies at the same workers."""
        return self.clone()

    def tag(self, *tags: str) -> MultiPointerTensor:
        """Label the value at each worker, for `search`."""
        for pointer in self._children.values():
            pointer.tag(*tags)
        return self

    def describe(self, description: str) -> MultiPointerTensor:
        """Describe the value at each worker."""
        for pointer in self._children.values():
            pointer.describe(description)
        return self

    @property
    def tags(self) -> set[str]:
        """The tags that it has at every worker."""
        return set.intersection(*[pointer.tags for pointer in self._children.values()])

    @property
    def description(self) -> str:
        """Its description at the workers; theirs one after the other where they differ."""
        return "; ".join(dict.fromkeys(pointer.description for pointer in self._children.values()))

    def send(self, *workers: Any, **options: Any) -> NoReturn:
        """Raises: it is at its workers already."""
        places = ", ".join(self._children)
        raise PointerMisuseError(f"this tensor is at {places} already: get() it first, or move() its values to one worker")

    # -- what needs one value here

    def numpy(self, *, force: bool = False) -> NoReturn:
        """Raises: get() the values first."""
        raise _several("numpy()")

    def __array__(self, dtype: Any = None) -> NoReturn:
        raise _several("np.asarray()")

    def tolist(self) -> NoReturn:
        """Raises: get() the values first."""
        raise _several("tolist()")

    def share_memory_(self) -> NoReturn:
        """Raises: there is no memory here to share."""
        raise _several("share_memory_()")

    def data_ptr(self) -> NoReturn:
        """Raises: there is no memory here to point at."""
        raise _several("data_ptr()")

    def apply_(self, callable: Any) -> NoReturn:
        """Raises: a Python function cannot run where the values are."""
        raise _several("apply_()")

    def __dlpack__(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise _several("DLPack")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise _several("pickle")

    def __copy__(self) -> torch.Tensor:
        return self.detach().requires_grad_(self.requires_grad)

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        twin = self.detach().clone().requires_grad_(self.requires_grad)
        if self.grad is not None:
            twin.grad = self.grad.clone()
        memo[id(self)] = twin
        return twin


def _zeros(worker: BaseWorker, like: Any) -> torch.Tensor:
    with worker:
        return torch.zeros(like.shape, dtype=like.dtype)


def _several(what: str) -> PointerMisuseError:
    return PointerMisuseError(f"{what} needs one value here, and there is one at each worker: get() gives the list of them")


def combine_pointers(*pointers: PointerTensor) -> MultiPointerTensor:
    """One multi-pointer of ``pointers`` to tensors of one shape and dtype at different workers; gradients flow through."""
    if not pointers or not all(isinstance(p, PointerTensor) for p in pointers):
        given = ", ".join(type(p).__name__ for p in pointers) or "none"
        raise PointerMisuseError(f"combine_pointers() takes pointers, got {given}: send() local tensors first")
    specs = {(tuple(p.shape), p.dtype) for p in pointers}
    ids = [p.location.id for p in pointers]
    if len(set(ids)) < len(ids):
        raise PointerMisuseError(f"combine_pointers() takes one pointer from each worker, got two from one of {', '.join(ids)}")
    if len(specs) > 1:
        told = ", ".join(f"{p.dtype} {list(p.shape)} at {p.location.id}" for p in pointers)
        raise PointerMisuseError(f"combine_pointers() takes tensors of one shape and dtype, got {told}: keep them as a list of pointers")
    if torch.is_grad_enabled() and any(p.requires_grad for p in pointers):
        combined: MultiPointerTensor = _Combine.apply(*pointers)  # type: ignore[no-untyped-call]
        return combined
    return _combined(pointers)


def _combined(pointers: Sequence[Any]) -> MultiPointerTensor:
    return MultiPointerTensor({p.location.id: p.detach() for p in pointers})


def send(tensor: torch.Tensor, workers: Sequence[BaseWorker], *, requires_grad: bool = False) -> MultiPointerTensor:
    """A copy of ``tensor`` at each of ``workers``. A leaf stays a leaf unless ``requires_grad``; then its gradient is the sum of theirs."""
    options = {"requires_grad": requires_grad}
    stays = tensor.requires_grad and tensor.is_leaf and not requires_grad
    with torch.set_grad_enabled(torch.is_grad_enabled() and not stays):
        multi = combine_pointers(*[tensor.send(worker, **options) for worker in workers])  # type: ignore[attr-defined]
    return multi.requires_grad_() if stays else multi  # type: ignore[return-value]


def _total(values: list[torch.Tensor]) -> torch.Tensor:
    """Their sum, in the dtype in which `torch.sum` adds: truths are counted."""
    exact = not (values[0].is_floating_point() or values[0].is_complex())
    return torch.stack(values).sum(0) if exact else sum(values[1:], values[0])


class _Combine(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *pointers: PointerTensor) -> MultiPointerTensor:
        return _combined(pointers)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return tuple(grads[0]._children.values())


class _Split(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, multi: MultiPointerTensor) -> Any:
        ctx.workers, ctx.shape, ctx.dtype = multi.locations, multi.shape, multi.dtype
        ctx.set_materialize_grads(False)  # torch would make the missing ones here
        return tuple(pointer.detach() for pointer in multi._children.values())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return _combined([_zeros(worker, ctx) if grad is None else grad for worker, grad in zip(ctx.workers, grads, strict=True)])


@cache
def _reads(func: Any) -> bool:
    """Whether ``func`` gives a number instead of tensors."""
    return any("Tensor" not in str(r.real_type) for r in func._schema.returns)


def _collect(values: Any, found: list[MultiPointerTensor]) -> None:
    for value in values:
        if isinstance(value, MultiPointerTensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            _collect(value, found)
        elif isinstance(value, PointerTensor):
            raise TensorsNotCollocatedError(
                f"a multi-pointer met a pointer to {value.location.id} alone: combine_pointers() with its like at the other workers, "
                "or take the pointer at one worker from .child"
            )


def _same_workers(func: Any, operands: list[MultiPointerTensor]) -> list[str]:
    first = {worker: pointer.location for worker, pointer in operands[0]._children.items()}
    for other in operands[1:]:
        if {worker: pointer.location for worker, pointer in other._children.items()} != first:
            here, there = ", ".join(sorted(first)), ", ".join(sorted(other._children))
            raise TensorsNotCollocatedError(f"{func}: one operand is at {here}, another at {there}: send() both to the same workers")
    return list(first)


def _at(value: Any, worker: str) -> Any:
    if isinstance(value, MultiPointerTensor):
        return value._children[worker]
    return type(value)(_at(v, worker) for v in value) if isinstance(value, (list, tuple)) else value


def _gathered(func: Any, results: list[Any], workers: list[str], owners: dict[int, MultiPointerTensor]) -> Any:
    """One result of the results at each worker."""
    first = results[0]
    if isinstance(first, torch.Tensor):
        if id(first) in owners:  # in place: the operand itself
            return owners[id(first)]
        shapes = {tuple(r.shape) for r in results}
        if len(shapes) > 1:
            places = ", ".join(workers)
            raise Misuse(f"{func}: its results have different shapes at {places}: {sorted(shapes)}. Compute it on each of .child")
        return MultiPointerTensor(dict(zip(workers, results, strict=True)))
    if isinstance(first, (list, tuple)):
        return type(first)(_gathered(func, list(each), workers, owners) for each in zip(*results, strict=True))
    return first


__all__ = ["MultiPointerTensor", "combine_pointers", "send"]
