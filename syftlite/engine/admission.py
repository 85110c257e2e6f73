"""What running an operator costs, before anything is allocated: by specs alone, and remembered by them.

    quick          a view, or pointwise on little: no look-up
    price          work and bytes, by the operator's cost rule; too long for the thread that asks: `Deferred`
    reserve        the bytes must fit the session's quota
    check          where values say which memory is touched: values that no other session changes meanwhile, and no pool has found
"""

from __future__ import annotations

import math
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.engine.bounds import VALUES, check_shapes, check_values
from syftlite.engine.operands import Operands
from syftlite.engine.session import Cell, Session
from syftlite.ops.cost import QUICK, Cost, cost, dynamic_cost
from syftlite.ops.infer import Cache, DataDependent, freeze, infer, key_of
from syftlite.ops.operator import Kind, Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC, TABLE

_prices = Cache()

_INTS = {int}
MAX_KEY = 512
"""Items of a cache key: a client could fill the cache with the longest lists that a message holds."""


class Deferred(Exception):
    """The operator is too long for the thread that asked; nothing has happened yet."""


_VIEW, _POINTWISE, _FACTORY = Kind.VIEW, Kind.POINTWISE, Kind.FACTORY  # an enum's member takes longer to look up than a tensor to count


def admit(session: Session, operator: Operator, operands: Operands) -> None:
    """Check cost before anything is allocated. Raises `Deferred` or `QuotaExceededError`."""
    if operator.kind is _VIEW:
        return
    if operator.kind is _POINTWISE:
        elements = 1
        for tensor in operands.tensors:  # no broadcast makes more than the product
            elements *= tensor.numel() or 1  # of a list, others may be large where one is empty
        if elements <= QUICK:
            session.reserve(elements * 8)
            return
    work, nbytes = price(operator, operands)
    if work > QUICK:
        if session.quick:
            raise Deferred
        session.heavy = True
    session.reserve(nbytes)


def price(operator: Operator, operands: Operands) -> Cost:
    """The cost of running ``operator``, from specs alone; cached."""
    key = _key(operator, operands)
    known: Cost | None = _prices.get(key)
    if known is None:
        args, kwargs = specs_of(operands.values), {k: specs_of(v) for k, v in (operands.kwargs or {}).items()}
        named = operator.named(args, kwargs)
        try:
            results = infer(operator, args, kwargs)
            check_shapes(operator.number, named)
            known = cost(operator, named, results)
        except DataDependent:
            known = dynamic_cost(operator, named)
        if _weight(key) <= MAX_KEY:
            _prices.put(key, known)
    return known


def _key(operator: Operator, operands: Operands) -> tuple[Any, ...]:
    """As `key_of` the specs, which most calls need for nothing else."""
    if operands.kwargs or operator.kind is _FACTORY:
        return key_of(operator, specs_of(operands.values), {k: specs_of(v) for k, v in (operands.kwargs or {}).items()})
    key: list[Any] = [operator.key]
    for value in operands.values:
        kind = type(value)
        if kind is torch.Tensor:
            key.append(Spec.of(value))
        elif kind is list:
            key.append((list, *value) if set(map(type, value)) == _INTS else freeze(specs_of(value)))
        else:
            key.append(freeze(specs_of(value)))
    return tuple(key)


def _weight(key: Any) -> int:
    return sum(map(_weight, key)) if type(key) is tuple else 1


_STEERED = {Kind.INDEX, Kind.SORT, Kind.POOL}
CHECKED = frozenset(o.number for o in TABLE if o is not None and (o.kind in _STEERED or o.dynamic or o.number in VALUES))
"""Operators whose operands' values say which memory they touch."""
POOL, _POOL_BACKWARD = BY_FUNC[aten.max_pool2d_with_indices.default], BY_FUNC[aten.max_pool2d_with_indices_backward.default]


def check_operands(session: Session, operator: Operator, operands: Operands) -> None:
    """Check the values of ``operands`` of one of `CHECKED`. What another session may write meanwhile is copied first."""
    if operator.kind is not _VIEW and any([cell.owner is not session and not cell.owner.steady for cell in operands.cells]):  # noqa: C419
        _copy(session, operands)
    elif operator is _POOL_BACKWARD and _pooled(operands):
        return
    if operator.number in VALUES:
        session.reserve(check_values(operator.number, operator.named(operands.values, operands.kwargs or {})))


def note_places(operands: Operands, found: Cell) -> None:
    """``found`` holds places where `POOL` found its maxima: they need not be looked at again before its gradient. Not with both padding
    and dilation: a window may then lie outside, and torch tells of a place there."""
    padding, dilation = operands.values[3:4], operands.values[4:5]
    if operands.kwargs is None and (not any(map(any, padding)) or all([set(steps) == {1} for steps in dilation])):  # noqa: C419
        found.places = math.prod(operands.values[0].shape[-2:])


def _pooled(operands: Operands) -> bool:
    """Whether a pool found the places that this gradient goes to, in a plane that is no larger."""
    _, plane, *_, places = operands.values
    if operands.kwargs is not None or len(operands.cells) != 3 or places is not operands.tensors[2]:
        return False
    cell = operands.cells[2]
    return not cell.writes and 0 < cell.places <= math.prod(plane.shape[-2:])


def _copy(session: Session, operands: Operands) -> None:
    """Have ``operands`` be copies, but for what is written to: that is this session's own."""
    written = [session.objects[number][0] for number, _ in operands.written or ()]
    read = {id(tensor): tensor for tensor in operands.tensors if not any(tensor is target for target in written)}
    session.reserve(sum([tensor.numel() * tensor.element_size() for tensor in read.values()]))
    copies = {number: tensor.clone() for number, tensor in read.items()}

    def own(value: Any) -> Any:
        return [own(item) for item in value] if type(value) is list else copies.get(id(value), value)

    operands.values, operands.tensors, operands.marked = own(operands.values), own(operands.tensors), own(operands.marked)
    if operands.kwargs is not None:
        operands.kwargs = {name: own(value) for name, value in operands.kwargs.items()}


def specs_of(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Spec.of(value)
    if type(value) is list:
        return [specs_of(v) for v in value]
    return value
