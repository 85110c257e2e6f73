"""PointerTensor: a tensor whose value is at a worker. A real `torch.Tensor` with a true shape and dtype, and no data.

An operator on pointers reaches `__torch_dispatch__` below autograd, which
    1. finds what is known of it in a cache keyed by the operands' interned specs (or infers it, raising torch's own shape errors here),
    2. casts one OP message under ids of its own choosing, without waiting,
    3. wraps the promised results.
So a pointer is a promise. Only reading it waits.
"""

from __future__ import annotations

import sys
from types import CodeType
from typing import TYPE_CHECKING, Any, Callable, NoReturn

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing

from syftlite._torch import aten, make_wrapper, no_torch_function
from syftlite.errors import (
    LocalTensorMixedError,
    NotOwnerError,
    ObjectNotFoundError,
    OperatorNotReviewedError,
    PointerMisuseError,
    TensorsNotCollocatedError,
)
from syftlite.ops.dtypes import DTYPES, FORMAT_OF, NUMBER_OF
from syftlite.ops.infer import BY_HAND, Cache, DataDependent, freeze, infer
from syftlite.ops.operator import Operator, Result
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC
from syftlite.transports.base import Site
from syftlite.wire.messages import ASK, MAX_ITEMS, OP

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class Handle:
    """The lifetime of one remote object: when the last pointer that shares it goes, the worker is told with the next message."""

    __slots__ = ("borrowed", "id", "spec", "worker")

    def __init__(self, worker: BaseWorker, id: int, spec: Spec | None, borrowed: bool = False) -> None:
        self.worker, self.id, self.spec, self.borrowed = worker, id, spec, borrowed

    def __del__(self) -> None:
        if self.spec is not None and not self.borrowed:
            self.worker.drops.append(self.id)

    def consume(self) -> None:
        """The worker has forgotten the object: the next use raises, and nothing is sent for it."""
        self.spec = None


class Known:
    """What is known of an operator for given operand specs."""

    __slots__ = ("one", "operator", "specs")

    def __init__(self, operator: Operator, specs: Any) -> None:
        self.operator, self.specs = operator, specs
        # The common case, a fresh tensor or a view of one: number, result spec, whether it may be borrowed.
        self.one: tuple[int, Spec] | None = None
        if operator.result is Result.ONE and not operator.aliases:
            self.one = (operator.number, specs)


_known = Cache()
_get_known = _known.get
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


class PointerTensor(torch.Tensor):
    """A tensor at ``location``. Make one with ``tensor.send(worker)``; read it with ``get()``."""

    __slots__ = ()
    __torch_function__ = no_torch_function
    _handle: Handle

    @staticmethod
    def __new__(cls, handle: Handle, requires_grad: bool = False) -> PointerTensor:
        spec = handle.spec
        if spec is None:
            raise consumed(handle)
        pointer: PointerTensor = make_wrapper(
            cls, spec.shape, spec.stride, spec.offset, None, spec.dtype, torch.strided, torch.device("cpu"), False, requires_grad
        )
        pointer._handle = handle
        return pointer

    def __init__(self, handle: Handle, requires_grad: bool = False) -> None:
        """Wrap ``handle``."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        if kwargs or len(args) != 2 or len(types) != 1:
            return _dispatch(func, types, args, kwargs)
        x, y = args
        if type(x) is PointerTensor:
            hx = x._handle
            worker = hx.worker
            if type(y) is PointerTensor:
                hy = y._handle
                if hy.worker is not worker:
                    raise _apart(func, worker, hy.worker)
                known = _get_known((func, hx.spec, hy.spec))
                second = hy.id
            elif type(y) is float:
                known = _get_known((func, hx.spec, float))
                second = y
            else:
                return _dispatch(func, types, args, kwargs)
            if known is not None and known.one is not None:
                number, spec = known.one
                id = worker.next_id()
                worker.cast((OP, number, (hx.id, second), None, id), site())
                pointer = make_wrapper(PointerTensor, spec.shape, spec.stride, spec.offset, None, spec.dtype)
                pointer._handle = Handle(worker, id, spec)
                return pointer
        return _dispatch(func, types, args, kwargs)

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

    @property
    def is_wrapper(self) -> bool:
        """False: a pointer is the innermost layer on this side."""
        return False

    @property
    def child(self) -> None:
        """None: what a pointer stands for is elsewhere."""

    @property
    def parent(self) -> None:
        """None: nothing wraps it."""

    def __repr__(self, *, tensor_contents: Any = None) -> str:
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
        from syftlite.remote.transfer import get

        return get(self, user=user, reason=reason, take=True)

    def get_copy(self, user: str | None = None, reason: str = "") -> Any:
        """A copy of the value; the worker keeps its own."""
        from syftlite.remote.transfer import get

        return get(self, user=user, reason=reason, take=False)

    def get_(self, user: str | None = None, reason: str = "") -> Any:
        """As `get`, in place: this very object becomes the local tensor."""
        from syftlite.remote.transfer import become

        return become(self, self.get(user=user, reason=reason))

    def request(self, reason: str) -> Any:
        """Ask the owner to release the value. Returns a `ReleaseRequest` to wait on; then `get` succeeds once."""
        from syftlite.remote.transfer import request_release

        return request_release([self], reason)

    def copy(self) -> PointerTensor:
        """A pointer to a copy at the same worker."""
        return self.clone()  # type: ignore[return-value]

    def item(self) -> Any:
        """The value of a one-element tensor; refused where `get` would be."""
        return self.detach().get_copy().item()

    def tag(self, *tags: str) -> PointerTensor:
        """Label the remote value, for `search`."""
        self._handle.worker.describe(self._handle.id, tags=tags)
        return self

    def describe(self, description: str) -> PointerTensor:
        """Describe the remote value."""
        self._handle.worker.describe(self._handle.id, description=description)
        return self

    @property
    def tags(self) -> set[str]:
        """The tags given through this worker's client."""
        return set(self._handle.worker.cards.get(self._handle.id, ((), ""))[0])

    @property
    def description(self) -> str:
        """The description given through this worker's client."""
        return self._handle.worker.cards.get(self._handle.id, ((), ""))[1]

    # -- moving it

    def send(self, *workers: Any, **options: Any) -> NoReturn:
        """Pointers to pointers are not part of this version."""
        raise PointerMisuseError(f"{self!r} is a pointer already: get() it, then send() it to another worker, or move() it")

    def move(self, worker: BaseWorker) -> PointerTensor:
        """A pointer to the value at ``worker``; the worker that held it forgets it."""
        from syftlite.remote.transfer import move

        return move(self, worker)

    def move_(self, worker: BaseWorker) -> Any:
        """As `move`, in place."""
        from syftlite.remote.transfer import become

        return become(self, self.move(worker))

    # -- what needs a value

    def numpy(self, *, force: bool = False) -> NoReturn:  # type: ignore[override]
        """Raises: get() it first."""
        raise _needs_value("numpy()")

    def __array__(self, dtype: Any = None) -> NoReturn:  # type: ignore[override]
        raise _needs_value("np.asarray()")

    def tolist(self) -> NoReturn:
        """Raises: get() it first."""
        raise _needs_value("tolist()")

    def share_memory_(self) -> NoReturn:
        """Raises: there is no memory here to share."""
        raise _needs_value("share_memory_()")

    def data_ptr(self) -> NoReturn:
        """Raises: there is no memory here to point at."""
        raise _needs_value("data_ptr()")

    def __reduce_ex__(self, protocol: Any) -> NoReturn:
        raise _needs_value("pickle")

    def __deepcopy__(self, memo: dict[int, Any]) -> PointerTensor:
        twin = self.detach().clone().requires_grad_(self.requires_grad)
        if self.grad is not None:
            twin.grad = self.grad.clone()
        memo[id(self)] = twin
        return twin  # type: ignore[return-value]

    @property
    def data(self) -> torch.Tensor:
        """The same pointer without autograd history."""
        return self.detach()

    @data.setter
    def data(self, value: object) -> None:
        raise PointerMisuseError("x.data = y would not move a remote value: use x.copy_(y) under torch.no_grad()")

    # -- what torch.export and nn.Module.to need to see: a wrapper without inner tensors of this process

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return [], self._handle

    @staticmethod
    def __tensor_unflatten__(inner: Any, handle: Any, size: Any, stride: Any) -> PointerTensor:
        return PointerTensor(handle)


def _needs_value(what: str) -> PointerMisuseError:
    return PointerMisuseError(f"{what} needs the value, which is at its worker: call .get() first")


def consumed(handle: Handle) -> ObjectNotFoundError:
    """The error for using a pointer after `get` took its value."""
    return ObjectNotFoundError(f"the pointer to {handle.worker.id}:{handle.id} was consumed by get(): use get_copy() to keep the value there")


def _apart(func: Any, here: BaseWorker, there: BaseWorker) -> TensorsNotCollocatedError:
    return TensorsNotCollocatedError(f"{func}: one operand is at {here.id}, another at {there.id}: move() one of them to the other's worker")


# -- the general path


class _Call:
    """One operator call being prepared: where it goes, its operands on the wire, and as specs."""

    __slots__ = ("func", "worker")

    def __init__(self, func: Any, worker: BaseWorker | None) -> None:
        self.func, self.worker = func, worker

    def operand(self, value: Any) -> tuple[Any, Any]:
        """(wire form, form with specs for tensors) of an operand."""
        kind = type(value)
        if kind is PointerTensor:
            handle: Handle = value._handle
            if self.worker is None:
                self.worker = handle.worker
            elif handle.worker is not self.worker:
                raise _apart(self.func, self.worker, handle.worker)
            if handle.spec is None:
                raise consumed(handle)
            return handle.id, handle.spec
        if kind is list or kind is tuple:
            if len(value) > MAX_ITEMS:
                raise PointerMisuseError(f"{self.func}: a list of {len(value)} operands exceeds {MAX_ITEMS}: send it as a tensor")
            pairs = [self.operand(v) for v in value]
            return [w for w, _ in pairs], [s for _, s in pairs]
        if isinstance(value, torch.Tensor):
            if value.dim():
                where = self.worker.id if self.worker is not None else "a worker"
                raise LocalTensorMixedError(
                    f"{self.func}: a local {list(value.shape)} tensor met one at {where}: send() it there first, or get() the other"
                )
            return [NUMBER_OF[value.dtype], value.item()], Spec.of(value)
        if kind is torch.dtype:
            return NUMBER_OF[value], value
        if kind is torch.memory_format:
            return FORMAT_OF[value], value
        return value, value


Handler = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]
HANDLERS: dict[Any, Handler] = {}
"""Operators that are not simply sent."""


def handles(*funcs: Any) -> Callable[[Handler], Handler]:
    """Register the decorated function for ``funcs``."""

    def register(handler: Handler) -> Handler:
        for func in funcs:
            HANDLERS[func] = handler
        return handler

    return register


def _dispatch(func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    if any(t is not PointerTensor for t in types):
        return NotImplemented  # a layer above is present: it unwraps first
    handler = HANDLERS.get(func)
    if handler is not None:
        return handler(func, args, kwargs or {})
    return emit(func, args, kwargs or {}, None)


def reviewed(func: Any) -> Operator:
    """``func``'s entry in the table. Raises `OperatorNotReviewedError`."""
    operator = BY_FUNC.get(func)
    if operator is None:
        raise OperatorNotReviewedError(
            f"{func} is not among the {len(BY_FUNC)} reviewed operators, so no worker will run it: get() its operands and compute here, "
            "or build it from reviewed ones (docs/operators.md)"
        )
    return operator


def emit(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], worker: BaseWorker | None) -> Any:
    """Send ``func`` to its operands' worker (or ``worker``) and return its promised results."""
    operator = reviewed(func)
    call = _Call(func, worker)
    wire, specs = call.operand(args)
    for position, value in enumerate(args):  # where a tensor may stand an int means an object: a number goes in a list
        if (type(value) is int or type(value) is bool) and operator.codes[position] in "Tt":
            wire[position] = [value]
    named: dict[str, Any] | None = None
    named_specs: dict[str, Any] = {}
    for name, value in kwargs.items():
        parameter = operator.keywords[name]
        if parameter.code == "-":
            if name == "generator" and value is not None:
                raise PointerMisuseError(f"{func}: a local generator cannot drive a remote operator: leave generator out")
            continue
        named = named or {}
        named[name], named_specs[name] = call.operand(value)
    assert call.worker is not None
    known = _know(operator, specs, named_specs)
    if known is None:
        return _ask(operator, call.worker, wire, named)
    return _promise(known, call.worker, args, kwargs, wire, named)


def _know(operator: Operator, specs: list[Any], named: dict[str, Any]) -> Known | None:
    func = operator.func
    by_hand = BY_HAND.get(func)
    if by_hand is not None and not named:
        return Known(operator, by_hand(*specs))
    if named:
        key: Any = (func, *[freeze(s) for s in specs], *[(n, freeze(s)) for n, s in named.items()])
    else:
        key = (func, *[freeze(s) for s in specs])
    known: Known | None = _get_known(key)
    if known is None:
        try:
            known = Known(operator, infer(operator, specs, named))
        except DataDependent:
            return None
        _known.put(key, known)
    return known


def _promise(known: Known, worker: BaseWorker, args: Any, kwargs: Any, wire: Any, named: Any) -> Any:
    operator, specs = known.operator, known.specs
    if operator.writes:
        _may_write(operator, args, kwargs)
    if operator.result is Result.NOTHING:
        worker.cast((OP, operator.number, wire, named, None), site())
        if not operator.inplace:
            return None
        return kwargs["out"] if "out" in kwargs else args[0]
    borrowed = operator.aliases and _first(args)._handle.borrowed
    if operator.result is Result.ONE:
        number = worker.next_id()
        worker.cast((OP, operator.number, wire, named, number), site())
        out: Any = PointerTensor(Handle(worker, number, specs, borrowed))
    else:
        ids = [None if s is None else worker.next_id() for s in specs]
        worker.cast((OP, operator.number, wire, named, ids), site())
        pointers = [None if s is None else PointerTensor(Handle(worker, i, s, borrowed)) for i, s in zip(ids, specs, strict=True)]
        out = pointers if operator.result is Result.LIST else tuple(pointers)
    return out


def _first(args: Any) -> PointerTensor:
    found: PointerTensor = args[0]
    return found


def _may_write(operator: Operator, args: Any, kwargs: Any) -> None:
    for position, parameter in enumerate(operator.parameters):
        if parameter.name in operator.writes:
            target = args[position] if position < len(args) else kwargs.get(parameter.name)
            for pointer in target if isinstance(target, (list, tuple)) else (target,):
                if type(pointer) is not PointerTensor:
                    raise LocalTensorMixedError(f"{operator.name} would write remote values to a local tensor: get() them first")
                if pointer._handle.borrowed:
                    raise NotOwnerError(
                        f"{operator.name}: {pointer!r} was found by search and belongs to its owner: write to a clone() of it"
                    )


def _ask(operator: Operator, worker: BaseWorker, wire: Any, named: Any) -> Any:
    """An operator whose result's shape depends on values: the one kind that waits."""
    count = 0 if operator.result is Result.VALUE else len(operator.func._schema.returns)
    ids = [worker.next_id() for _ in range(count)]
    specs = worker.ask(ASK, operator.number, wire, named, ids)[2]
    if operator.result is Result.VALUE:
        return specs[0]
    out = tuple(
        PointerTensor(Handle(worker, i, Spec.make(s[1], tuple(s[2]), s[3], DTYPES[s[0]]))) for i, s in zip(ids, specs, strict=True)
    )
    return out[0] if operator.result is Result.ONE else out


# -- operators that are not simply sent


@handles(aten.detach.default)
def _detach(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> PointerTensor:
    return PointerTensor(args[0]._handle)


@handles(aten._local_scalar_dense.default)
def _value(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].item()


@handles(aten.copy_.default)
def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    target, source = args[:2]
    if type(target) is not PointerTensor:
        local: torch.Tensor = target
        return local.copy_(source.get_copy())
    if type(source) is not PointerTensor and source.dim():
        source = target.location.send(source)
    emit(func, (target, source), {}, None)
    return target


_OUT_OF_PLACE = {
    aten.t_.default: aten.t.default,
    aten.transpose_.default: aten.transpose.int,
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.unsqueeze_.default: aten.unsqueeze.default,
}


@handles(*_OUT_OF_PLACE)
def _view_in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The wrapper takes on the view: the remote tensor itself, which others may alias, keeps its shape."""
    pointer = args[0]
    view = emit(_OUT_OF_PLACE[func], args, kwargs, None)
    pointer._handle = view._handle
    return return_and_correct_aliasing(func, args, kwargs, pointer)
