"""The general path of an operator on remote tensors, below autograd: look up or infer its results, cast one message, wrap the promises.

    dispatch -> HANDLERS (the few that are not simply sent) | emit -> Known (cached by operands' specs) -> OP, results promised
                                                                  `-> shape depends on values            -> ASK, waits
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import aten, correct_aliasing
from syftlite.errors import (
    LocalTensorMixedError,
    NotOwnerError,
    OperatorNotReviewedError,
    PointerMisuseError,
    TensorsNotCollocatedError,
)
from syftlite.ops.dtypes import DTYPES, FORMAT_OF, NUMBER_OF
from syftlite.ops.infer import BY_HAND, Cache, DataDependent, infer, key_of
from syftlite.ops.operator import Operator, Result
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC
from syftlite.remote.handle import Handle, RemoteTensor, consumed, site
from syftlite.wire.messages import ASK, MAX_ITEMS, OP

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


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
get_known = _known.get
def apart(func: Any, here: BaseWorker, there: BaseWorker) -> TensorsNotCollocatedError:
    return TensorsNotCollocatedError(f"{func}: one operand is at {here.id}, another at {there.id}: move() one to the other's worker")


known_operators = Cache()
get_known = known_operators.get


class _Call:
    """One operator call being prepared: where it goes, its operands on the wire, and as specs."""

    __slots__ = ("func", "worker")

    def __init__(self, func: Any, worker: BaseWorker | None) -> None:
        self.func, self.worker = func, worker

    def operand(self, value: Any) -> tuple[Any, Any]:
        """(wire form, form with specs for tensors) of an operand."""
        kind = type(value)
        if issubclass(kind, RemoteTensor):
            handle: Handle = value._handle
            if self.worker is None:
                self.worker = handle.worker
            elif handle.worker is not self.worker:
                raise apart(self.func, self.worker, handle.worker)
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


def dispatch(func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    if not all(issubclass(t, RemoteTensor) for t in types):
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
    key = key_of(operator, specs, named)
    known: Known | None = get_known(key)
    if known is None:
        try:
            known = Known(operator, infer(operator, specs, named))
        except DataDependent:
            return None
        known_operators.put(key, known)
    return known


def _promise(known: Known, worker: BaseWorker, args: Any, kwargs: Any, wire: Any, named: Any) -> Any:
    operator, specs = known.operator, known.specs
    if operator.writes and operator.wrote(args):
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
        out: Any = worker.pointer(Handle(worker, number, specs, borrowed))
    else:
        ids = [None if s is None else worker.next_id() for s in specs]
        worker.cast((OP, operator.number, wire, named, ids), site())
        pointers = [None if i is None else worker.pointer(Handle(worker, i, s, borrowed)) for i, s in zip(ids, specs, strict=True)]
        out = pointers if operator.result is Result.LIST else tuple(pointers)
    return out


def _first(args: Any) -> RemoteTensor:
    found: RemoteTensor = args[0]
    return found


def _may_write(operator: Operator, args: Any, kwargs: Any) -> None:
    for position, parameter in enumerate(operator.parameters):
        if parameter.name in operator.writes:
            target = args[position] if position < len(args) else kwargs.get(parameter.name)
            for pointer in target if isinstance(target, (list, tuple)) else (target,):
                if not isinstance(pointer, RemoteTensor):
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
        worker.pointer(Handle(worker, i, Spec.make(s[1], tuple(s[2]), s[3], DTYPES[s[0]]))) for i, s in zip(ids, specs, strict=True)
    )
    return out[0] if operator.result is Result.ONE else out


# -- operators that are not simply sent


@handles(aten.detach.default)
def _detach(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteTensor:
    handle: Handle = args[0]._handle
    return handle.worker.pointer(handle)


@handles(aten._local_scalar_dense.default)
def _value(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].item()


@handles(aten.copy_.default)
def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    target, source = args[:2]
    if not isinstance(target, RemoteTensor):
        local: torch.Tensor = target
        return local.copy_(source.get_copy())
    if not isinstance(source, RemoteTensor) and source.dim():
        source = target._handle.worker.send(source)
    emit(func, (target, source), {}, None)
    return target


@handles(aten.maximum.out)
def _maximum(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """`out=` could make a tensor larger than its owner knows: no worker runs it."""
    out: torch.Tensor = kwargs["out"]
    return _copy(aten.copy_.default, (out, emit(aten.maximum.default, args, {}, None)), {})


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
    viewed: torch.Tensor = correct_aliasing(func, args, kwargs, pointer)
    return viewed
