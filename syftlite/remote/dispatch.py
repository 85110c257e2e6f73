"""The general path of an operator on remote tensors, below autograd: look up or infer its results, cast one message, wrap the promises.

    dispatch -> HANDLERS (special.py: the few that are not simply sent) | emit -> Known (cached by operands' specs) -> OP, results promised
                                                                  `-> shape depends on values            -> ASK, waits
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import aten, tree_map
from syftlite.errors import LocalTensorMixedError, NotOwnerError, PointerMisuseError, ProtocolError, TensorsNotCollocatedError
from syftlite.ops.dtypes import DTYPES, FORMAT_OF, number_of
from syftlite.ops.infer import Cache, DataDependent, freeze, infer, rests
from syftlite.ops.operator import Kind, Operator, Result
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_KEY
from syftlite.remote.constants import constant
from syftlite.remote.handle import Handle, RemoteTensor, consumed, site
from syftlite.remote.parts import HANDLERS as HANDLERS
from syftlite.remote.parts import handles as handles
from syftlite.remote.parts import in_parts, not_reviewed
from syftlite.remote.pieces import in_slices, in_turns, is_long
from syftlite.wire.fields import MAX_ITEMS
from syftlite.wire.messages import ASK, OP

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class Known:
    """What is known of an operator for given operand specs."""

    __slots__ = ("one", "operator", "rests", "specs")

    def __init__(self, operator: Operator, specs: Any, rests: bool = False) -> None:
        self.operator, self.specs = operator, specs
        self.rests = rests  # its results are of the default dtype, since no operand is of a real one
        # The common case, one tensor: number, result spec, whether it is a view of the first operand.
        self.one: tuple[int, Spec, bool] | None = None
        if operator.result is Result.ONE and not operator.writes and not rests:
            self.one = (operator.number, specs, bool(operator.aliases))


def apart(func: Any, here: BaseWorker, there: BaseWorker) -> TensorsNotCollocatedError:
    return TensorsNotCollocatedError(f"{func}: one operand is at {here.id}, another at {there.id}: move() one to the other's worker")


known_operators = Cache()
get_known = known_operators.get


_INTS = {int}


class _Call:
    """One operator call being prepared: where it goes, and the forms of its operands."""

    __slots__ = ("args", "func", "worker")

    def __init__(self, operator: Operator, worker: BaseWorker | None, args: tuple[Any, ...]) -> None:
        self.func, self.worker, self.args = operator.func, worker, args

    def there(self, value: RemoteTensor) -> Handle:
        """What ``value`` stands for, at the worker of all operands."""
        handle = value._handle
        if handle.worker is not self.worker:
            if self.worker is not None:
                raise apart(self.func, self.worker, handle.worker)
            self.worker = handle.worker
        if handle.spec is None:
            raise consumed(handle)
        return handle

    def operand(self, value: Any) -> tuple[Any, Any]:
        """(wire form, form in a cache key) of an operand."""
        kind = type(value)
        if value is None:
            return None, None
        if issubclass(kind, RemoteTensor):
            handle = self.there(value)
            return handle.id, handle.spec
        if kind is list or kind is tuple:
            if len(value) > MAX_ITEMS:
                raise PointerMisuseError(f"{self.func}: a list of {len(value)} operands exceeds {MAX_ITEMS}: send it as a tensor")
            if set(map(type, value)) == _INTS:
                return list(value), (int, tuple(value))
            pairs = [self.operand(v) for v in value]
            return [w for w, _ in pairs], tuple([k for _, k in pairs])
        if isinstance(value, torch.Tensor):
            if value.dim():
                met = self.worker or _worker_of(self.args)
                where = "a worker" if met is None else met.id
                raise LocalTensorMixedError(
                    f"{self.func}: a local {list(value.shape)} tensor met one at {where}: send() it there first, or get() the other"
                )
            return [number_of(value.dtype), _number(value.item())], Spec.of(value)
        if kind is torch.dtype:
            return number_of(value), (kind, value)
        if kind is torch.memory_format:
            return FORMAT_OF[value], (kind, value)
        return _number(value), freeze(value)


def _number(value: Any) -> Any:
    """``value`` as a message has it: a complex number in its two parts."""
    return [value.real, value.imag] if type(value) is complex else value


def _specs(value: Any) -> Any:
    """``value`` with a spec in each tensor's place: what inference takes."""
    if isinstance(value, RemoteTensor):
        return value._handle.spec
    if isinstance(value, torch.Tensor):
        return Spec.of(value)
    return [_specs(v) for v in value] if isinstance(value, (list, tuple)) else value


def dispatch(func: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any] | None) -> Any:
    """What `__torch_dispatch__` does when the common case does not apply."""
    for kind in types:
        if not issubclass(kind, RemoteTensor):
            return NotImplemented  # a layer above is present: it unwraps first
    handler = HANDLERS.get(id(func))
    if handler is not None:
        return handler(func, args, kwargs or {})
    if id(func) not in BY_KEY:
        return in_parts(emit, func, args, kwargs or {})
    try:
        return emit(func, args, kwargs or {}, None)
    except LocalTensorMixedError:
        worker = _worker_of(args)
        if worker is None or _writes_here(func, args):
            raise
    given, named = tree_map(partial(constant, emit, worker), (args, kwargs or {}), torch.Tensor)
    return emit(func, given, named, None)


def _writes_here(func: Any, args: tuple[Any, ...]) -> bool:
    """Whether ``func`` would write to a tensor that is here: no constant can stand for that."""
    given = zip(func._schema.arguments, args, strict=False)
    return any(a.alias_info is not None and a.alias_info.is_write and not isinstance(v, RemoteTensor) for a, v in given)


def _worker_of(args: Iterable[Any]) -> BaseWorker | None:
    """That of the first remote operand."""
    for arg in args:
        if isinstance(arg, RemoteTensor):
            return arg._handle.worker
        if isinstance(arg, (list, tuple)) and (found := _worker_of(arg)) is not None:
            return found
    return None


def reviewed(func: Any) -> Operator:
    """``func``'s entry in the table. Raises `OperatorNotReviewedError`."""
    operator = BY_KEY.get(id(func))
    if operator is None:
        raise not_reviewed(func)
    return operator


def emit(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], worker: BaseWorker | None) -> Any:
    """Send ``func`` to its operands' worker (or ``worker``) and return its promised results."""
    operator = reviewed(func)
    call = _Call(operator, worker, args)
    wire: list[Any] = []
    key: list[Any] = [operator.key]
    for value, code in zip(args, operator.codes, strict=False):
        kind = type(value)
        if kind is int or kind is bool or kind is complex:
            wire.append([_number(value)] if code in "Tt" else _number(value))  # an int there means an object: a number goes in a list
            key.append((kind, value))
        elif kind is float:
            wire.append(value)
            key.append(repr(value) if operator.kind is Kind.FACTORY else float)  # `arange`: its shape depends on the value
        else:
            sent, keyed = call.operand(value)
            wire.append(sent)
            key.append(keyed)
    named: dict[str, Any] | None = None
    for name, value in kwargs.items():
        if operator.keywords[name].code == "-":
            if name == "generator" and value is not None:
                raise PointerMisuseError(f"{func}: a local generator cannot drive a remote operator: leave generator out")
            continue
        named = named or {}
        named[name], keyed = call.operand(value)
        key.append((name, keyed))
    assert call.worker is not None
    exact = tuple(key)
    known = get_known(exact) or _learn(operator, exact, args, kwargs)
    if known is None:
        return _ask(operator, call.worker, wire, named)
    if known.rests and torch.get_default_dtype() is not torch.float32:
        given, by_name = tree_map(_of_default, (args, kwargs), torch.Tensor)  # the worker has a default dtype of its own
        return emit(func, given, by_name, worker)
    if known.one is None:
        return _promise(known, call.worker, args, kwargs, wire, named)
    number, spec, view = known.one
    fresh = call.worker.next_id()
    handle = Handle(call.worker, fresh, spec, view and _first(args)._handle.borrowed)
    call.worker.cast((OP, number, wire, named, fresh), site())
    return call.worker.pointer(handle)


def _learn(operator: Operator, key: tuple[Any, ...], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Known | None:
    """What the results will be; None if only the worker can tell."""
    specs = [_specs(a) for a in args]
    try:
        results = infer(operator, specs, {k: _specs(v) for k, v in kwargs.items() if operator.keywords[k].code != "-"})
    except DataDependent:
        return None
    known = Known(operator, results, rests(operator, (specs, [_specs(value) for value in kwargs.values()]), results))
    if not known.rests or torch.get_default_dtype() is torch.float32:
        known_operators.put(key, known)
    return known


def _of_default(tensor: torch.Tensor) -> torch.Tensor:
    if not isinstance(tensor, RemoteTensor):
        return tensor
    made: torch.Tensor = emit(aten._to_copy.default, (tensor,), {"dtype": torch.get_default_dtype()}, None)
    return made


def _promise(known: Known, worker: BaseWorker, args: Any, kwargs: Any, wire: Any, named: Any) -> Any:
    operator, specs = known.operator, known.specs
    if operator.writes and operator.wrote(args):
        _may_write(operator, args, kwargs)
    if is_long(operator, args):
        return in_turns(emit, operator, worker, args, kwargs)
    if operator.result is Result.NOTHING:
        worker.cast((OP, operator.number, wire, named, None), site())
        if not operator.inplace:
            return None
        return kwargs["out"] if "out" in kwargs else args[0]
    borrowed = operator.aliases and _first(args)._handle.borrowed
    if operator.result is Result.ONE:
        handle = Handle(worker, worker.next_id(), specs, borrowed)
        worker.cast((OP, operator.number, wire, named, handle.id), site())
        out: Any = worker.pointer(handle)
    elif len(specs) > MAX_ITEMS:
        out = in_slices(emit, operator, worker, args, kwargs)
    else:
        handles = [None if s is None else Handle(worker, worker.next_id(), s, borrowed) for s in specs]
        worker.cast((OP, operator.number, wire, named, [None if h is None else h.id for h in handles]), site())
        pointers = [None if h is None else worker.pointer(h) for h in handles]
        out = pointers if operator.result is Result.LIST else tuple(pointers)
    return out


def _first(args: Any) -> RemoteTensor:
    found: RemoteTensor = args[0]
    return found


def _may_write(operator: Operator, args: Any, kwargs: Any) -> None:
    for position, parameter in enumerate(operator.parameters):
        if parameter.name in operator.writes:
            target = args[position] if position < len(args) else kwargs.get(parameter.name)
            for pointer in target if isinstance(target, (list, tuple)) else () if target is None else (target,):
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
    number = operator.result is Result.VALUE
    if len(specs) != (1 if number else count) or any((type(s) in (tuple, list)) is number for s in specs):
        raise ProtocolError(f"{worker.id} answered {operator.name} with {len(specs)} of something else than what it gives")
    if operator.result is Result.VALUE:
        return specs[0]
    out = tuple(
        worker.pointer(Handle(worker, i, Spec.make(s[1], tuple(s[2]), s[3], DTYPES[s[0]]))) for i, s in zip(ids, specs, strict=True)
    )
    return out[0] if operator.result is Result.ONE else out
