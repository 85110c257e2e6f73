"""Runs operators of the table on a session's objects.

    OP message -> bind operands to values, by the schema -> admit (label, ownership, cost) -> run -> store results with their label

A failure never ends the session: it poisons the message's results, and their label stays what it would have been, so that whether
an operation on PRIVATE values failed is as private as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine.bounds import VALUES, check_shapes, check_values
from syftlite.engine.device import placed
from syftlite.engine.marks import SMALL, Mark, Poison
from syftlite.engine.session import Cell, Session
from syftlite.errors import (
    NotOwnerError,
    OperatorNotReviewedError,
    PolicyError,
    ProtocolError,
    SyftliteError,
    code_of,
)
from syftlite.ops.cost import QUICK, Cost, cost, dynamic_cost
from syftlite.ops.dtypes import DTYPES, MEMORY_FORMATS
from syftlite.ops.infer import Cache, DataDependent, depends_on_values, freeze, infer, key_of
from syftlite.ops.operator import WORDS, Kind, Operator, Parameter
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE, VERSION
from syftlite.policy.labels import PUBLIC, Label, blind, join
from syftlite.wire.messages import MAX_TEXT

if TYPE_CHECKING:
    from syftlite.engine.policies import Policies

Out = int | Sequence[int | None] | None


class Deferred(Exception):
    """The operator is too long for the thread that asked; nothing has happened yet."""


class Operands:
    """A message's operands: values for the operator, the cells they lie in, the marks of those that have one."""

    __slots__ = ("cells", "kwargs", "marked", "marks", "target", "tensors", "values", "written")

    def __init__(self) -> None:
        self.values: list[Any] = []
        self.tensors: list[torch.Tensor] = []
        self.cells: list[Cell] = []
        self.kwargs: dict[str, Any] | None = None
        self.written: list[tuple[int, Cell]] | None = None
        self.marks: list[Mark] | None = None
        self.marked: list[torch.Tensor] = []  # the marks' tensors
        self.target: torch.Tensor | None = None  # what is written, if that is one

    def add(self, number: int, tensor: torch.Tensor | None, cell: Cell, written: bool) -> None:
        """Note the object ``number`` as an operand. A poisoned one has no tensor, and nothing will run on it."""
        self.tensors.append(tensor)  # type: ignore[arg-type]
        self.cells.append(cell)
        if cell.mark is not None:
            self.marks = self.marks or []
            self.marks.append(cell.mark)
            self.marked.append(tensor)  # type: ignore[arg-type]
        if written:
            self.written = self.written or []
            self.written.append((number, cell))
            self.target = tensor if len(self.written) == 1 else None


_prices = Cache()

_INTS = {int}
MAX_KEY = 512
"""Items of a cache key: a client could fill the cache with the longest lists that a message holds."""


def operator_of(number: Any) -> Operator:
    """The operator of that number. Raises `OperatorNotReviewedError`."""
    operator = TABLE[number] if type(number) is int and 0 < number < VERSION else None
    if operator is None:
        raise OperatorNotReviewedError(f"operator {number} is not in this node's table of {VERSION - 1}")
    return operator


def run(session: Session, number: Any, args: Any, kwargs: Any, outs: Any) -> None:
    """Execute one OP message for ``session``. Raises only `Deferred` and `ProtocolError`; all other errors poison ``outs``."""
    if type(outs) is int:
        if outs >> 32 != session.prefix or outs in session.objects:
            raise ProtocolError(f"result id {outs} is not a fresh id of session {session.prefix}")
    elif outs is not None:
        outs = _claim_all(session, outs)
    if (type(args) is not tuple and type(args) is not list) or (kwargs is not None and type(kwargs) is not dict):
        raise ProtocolError("OP: args is a list, kwargs a map or nil")
    operands = Operands()
    try:
        operator = operator_of(number)
        bind_all(session, operator, args, kwargs, operands)
        marks = operands.marks
        if marks is None:
            mark = None
            if session.trail is not None:
                session.trail.steps.append((number, args, kwargs, outs))
        else:
            mark = marks[0] if _of_one_kind(marks) else _joined(operands)
            session.trace(number, args, kwargs, outs, mark)
        if type(outs) is not operator.out_type:
            raise ProtocolError(f"{operator.name} gives {operator.result.name.lower()}; the message names other results")
        if operator.dynamic and depends_on_values(operator, operands.values):
            raise ProtocolError(f"{operator.name}: the shape of what it gives would tell of values: send it as an ASK")
        if mark is not None:
            if mark.poison is not None:
                _spread(session, operator, operands, outs, mark)
                return
            sources, policies = mark.sources, session.policies
            if sources and policies is not None and not (session.epoch is policies.epoch and session.cleared.get(number) is sources):
                _may_run(session, policies, sources, operator)
        admit(session, operator, operands)
        if number in VALUES:
            _check_values(session, operator, operands)
        out, mark = _run(session, operator, operands, mark)
        _store(session, operator, operands, outs, out, mark)
    except (Deferred, ProtocolError):
        raise
    except Exception as error:
        known = number if type(number) is int and 0 < number < VERSION else 0
        text = str(error).split("\nException raised from", 1)[0][:MAX_TEXT]
        poison = Poison(code_of(error), text, known, session.executed)
        mark = Mark(PUBLIC, None) if isinstance(error, PolicyError) else _joined(operands)  # that a policy says no is no secret
        _spread(session, TABLE[known], operands, outs, Mark(mark.label, poison))


def _of_one_kind(marks: Sequence[Mark]) -> bool:
    """Whether the first one says of all whose data they are, and all are healthy: then it need not be joined before anything has failed."""
    first = marks[0]
    if len(marks) == 1 or first.poison is not None:
        return first.poison is None
    sources = first.sources
    if not sources:
        return False
    for mark in marks:  # noqa: SIM110 - a generator takes four times as long
        if mark.poison is not None or (mark.sources is not sources and mark.sources != sources):
            return False
    return True


def _may_run(session: Session, policies: Policies, sources: frozenset[str], operator: Operator) -> None:
    """Raise `PolicyError` unless the policies of ``sources`` let this session run ``operator``."""
    if session.epoch is not policies.epoch:
        session.epoch = policies.epoch
        session.cleared.clear()
    if session.cleared.get(operator.number) != sources:
        policies.compute(session.principal, sources, operator)
    if policies.lasting:
        session.cleared[operator.number] = sources


def _run(session: Session, operator: Operator, operands: Operands, mark: Mark | None) -> tuple[Any, Mark | None]:
    """What the operator gives, and its mark."""
    func = operator.bare if session.device is None else placed(operator, session.device)
    borrowed = None
    if operands.written is not None:
        session.unsettled.settle()  # what is to be looked at is about to change
        for _, cell in operands.written:
            cell.writing = True
    if mark is not None and not mark.plain:
        for cell in operands.cells:
            if cell.owner is not session and not cell.owner.steady:  # another session may write it meanwhile
                borrowed = [(c, c.writes, c.writing) for c in operands.cells if c.owner is not session]
    out = func(*operands.values) if operands.kwargs is None else func(*operands.values, **operands.kwargs)
    if operator.finish is not None:
        out = operator.finish(out)
    if mark is None or not mark.sources:
        return out, mark
    return out, _labelled(session, operator, operands, out, mark, borrowed)


def _labelled(
    session: Session, operator: Operator, operands: Operands, out: Any, mark: Mark, borrowed: Sequence[tuple[Cell, int, bool]] | None
) -> Mark:
    """The mark of what an operator gave. ``mark``: one with its operands' sources. ``borrowed``: cells that others may write, with how
    often they were written before, and whether they were about to be."""
    marks = operands.marks
    assert marks is not None
    if mark.plain and (len(marks) == 1 or all([other is mark for other in marks])):  # noqa: C419 - a generator takes twice as long
        return mark
    made = out if operands.written is None else operands.target
    result = Mark(None, None, mark.sources, (operator, operands.values, operands.kwargs, operands.marked, marks, made))
    if borrowed is not None:
        label = result.label
        if any(cell.writing or writing or cell.writes != writes for cell, writes, writing in borrowed):
            result = Mark(blind(label)._replace(exposed=True))  # another session wrote to what has been looked at
    elif type(made) is torch.Tensor and made.numel() <= SMALL and not _large(operands.cells):
        session.unsettled.add(result)
    else:
        result.settle()
    return result


def _large(cells: Sequence[Cell]) -> bool:
    return any([cell.nbytes > SMALL for cell in cells])  # noqa: C419 - a generator takes twice as long


def evaluate(session: Session, number: Any, args: Any, kwargs: Any, permit: Callable[[Label], None]) -> tuple[Any, Label]:
    """Execute an ASK and return its raw result and label. ``permit`` is called with the label first, and raises to refuse."""
    operands = Operands()
    operator = operator_of(number)
    bind_all(session, operator, args, kwargs, operands)
    mark = _joined(operands)
    session.trace(number, args, kwargs, None, mark)
    if mark.sources and session.policies is not None:
        _may_run(session, session.policies, mark.sources, operator)
    permit(mark.label)
    if mark.poison is not None:
        raise Poisoned(mark.poison)
    if not operator.dynamic:
        raise ProtocolError(f"{operator.name} does not need an answer: send it as an OP")
    admit(session, operator, operands)
    _check_values(session, operator, operands)
    return operator.bare(*operands.values, **(operands.kwargs or {})), mark.label


class Poisoned(SyftliteError):
    """Reading a value that never came. ``poison`` says why; the engine answers with it."""

    def __init__(self, poison: Poison) -> None:
        super().__init__(poison.text)
        self.poison = poison


def _claim_all(session: Session, outs: Any) -> tuple[int | None, ...]:
    if type(outs) not in (list, tuple):
        raise ProtocolError("outs is an id, a list of ids or None")
    claimed = tuple(None if o is None else session.claim(o) for o in outs)
    named = [o for o in claimed if o is not None]
    if len(named) != len(set(named)):
        raise ProtocolError("outs names an id twice")
    return claimed


# -- operands


def bind_all(session: Session, operator: Operator, args: Any, kwargs: Any, operands: Operands) -> None:
    """Fill ``operands`` with the values that the wire forms ``args`` and ``kwargs`` stand for."""
    codes = operator.codes
    if len(args) > len(codes):
        raise TypeError(f"{operator.name} takes {len(codes)} positional arguments, got {len(args)}")
    objects, values, writes, parameters = session.objects, operands.values, operator.writes, operator.parameters
    for position, given in enumerate(args):
        if codes[position] == "T" and type(given) is int and given in objects:
            tensor, cell = objects[given]
            values.append(tensor)
            if not writes:
                operands.tensors.append(tensor)  # type: ignore[arg-type]
                operands.cells.append(cell)
                if cell.mark is not None:
                    if operands.marks is None:
                        operands.marks = []
                    operands.marks.append(cell.mark)
                    operands.marked.append(tensor)  # type: ignore[arg-type]
            else:
                operands.add(given, tensor, cell, parameters[position].name in writes)
        else:
            values.append(_bind(session, operator, parameters[position], given, operands))
    if kwargs:
        operands.kwargs = {}
        for name, given in kwargs.items():
            parameter = operator.keywords.get(name)
            if parameter is None:
                raise TypeError(f"{operator.name} has no parameter {name!r}; it has {', '.join(operator.keywords)}")
            operands.kwargs[name] = _bind(session, operator, parameter, given, operands)
    if operands.written and not operator.wrote(values):
        operands.written = None
    for _, cell in operands.written or ():
        if cell.owner is not session:
            raise NotOwnerError(f"{operator.name} would write to data that is only borrowed from its owner: clone() it first")


def _bind(session: Session, operator: Operator, parameter: Parameter, given: Any, operands: Operands) -> Any:
    code = parameter.code
    if given is None:
        if parameter.optional or code in "tl":
            return None
    elif code in "Tt":
        return _tensor(session, operator, parameter, given, operands)
    elif code in "Ll":
        if type(given) in (list, tuple):
            return [
                None if code == "l" and item is None else _tensor(session, operator, parameter, item, operands) for item in given
            ]
    elif (accepted := _PLAIN[code](given)) is not None:
        return accepted
    raise TypeError(f"{operator.name}: {parameter.name} does not accept {type(given).__name__} {str(given)[:40]}")


def _tensor(session: Session, operator: Operator, parameter: Parameter, given: Any, operands: Operands) -> Any:
    if type(given) is int:
        tensor, cell = session.look_up(given)
        operands.add(given, tensor, cell, parameter.name in operator.writes)
        return tensor
    elif type(given) is float:
        return given
    elif type(given) in (list, tuple) and len(given) == 1 and (number := _number(given[0])) is not None and type(number) is not float:
        return number
    elif type(given) in (list, tuple) and len(given) == 2 and _PLAIN["d"](given[0]) and (number := _number(given[1])) is not None:
        tensor = torch.tensor(number, dtype=DTYPES[given[0]], device=session.device)
    else:
        raise TypeError(f"{operator.name}: {parameter.name} is an object id, a number or [dtype, number], not {type(given).__name__}")
    operands.tensors.append(tensor)
    return tensor


def _number(given: Any) -> Any:
    """A Python number, a complex one from its two parts; None for anything else."""
    if type(given) in (list, tuple):
        return complex(*given) if len(given) == 2 and type(given[0]) is type(given[1]) is float else None
    return given if type(given) in (float, int, bool) else None


def _numbers(given: Any) -> Any:
    numbers = [_number(item) for item in given] if type(given) in (list, tuple) else [None]
    return None if None in numbers else numbers


def _only(*types: type) -> Any:
    return lambda v: v if type(v) in types else None


def _list_of(*types: type) -> Any:
    accepted = {*types}
    return lambda v: list(v) if type(v) in (list, tuple) and accepted.issuperset(map(type, v)) else None


_PLAIN: dict[str, Any] = {
    "i": _only(int),
    "f": _only(float, int),
    "b": _only(bool),
    "s": _number,
    "I": _list_of(int),
    "F": _list_of(float, int),
    "B": _list_of(bool),
    "S": _numbers,
    "d": lambda v: DTYPES[v] if type(v) is int and 0 <= v < len(DTYPES) else None,
    "m": lambda v: MEMORY_FORMATS[v] if type(v) is int and 0 <= v < len(MEMORY_FORMATS) else None,
    "w": lambda v: v if type(v) is str and v in WORDS else None,
    "-": lambda v: None,
}


# -- admission


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
        args, kwargs = _specs(operands.values), {k: _specs(v) for k, v in (operands.kwargs or {}).items()}
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
        return key_of(operator, _specs(operands.values), {k: _specs(v) for k, v in (operands.kwargs or {}).items()})
    key: list[Any] = [operator.key]
    for value in operands.values:
        kind = type(value)
        if kind is torch.Tensor:
            key.append(Spec.of(value))
        elif kind is list:
            key.append((list, *value) if set(map(type, value)) == _INTS else freeze(_specs(value)))
        else:
            key.append(freeze(_specs(value)))
    return tuple(key)


def _weight(key: Any) -> int:
    return sum(map(_weight, key)) if type(key) is tuple else 1


def _check_values(session: Session, operator: Operator, operands: Operands) -> None:
    session.reserve(check_values(operator.number, operator.named(operands.values, operands.kwargs or {})))


def _specs(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return Spec.of(value)
    if type(value) is list:
        return [_specs(v) for v in value]
    return value


# -- results


def _joined(operands: Operands) -> Mark:
    """The label that is right whatever happens: without rows, for a failure may tell of all of them."""
    marks = operands.marks or ()
    label = blind(join(m.label for m in marks))
    return Mark(label, next((m.poison for m in marks if m.poison is not None), None))


def _spread(session: Session, operator: Operator | None, operands: Operands, outs: Out, mark: Mark) -> None:
    """Poison every result, and every storage that the operator would have written (of a borrowed one, this session's name for it).

    Where the label is PRIVATE, failed results take the place and the bytes of good ones: no list and no quota tells which they are.
    """
    named = (outs,) if isinstance(outs, int) else outs or ()
    shadows = _shadows(session, operator, operands) if operator is not None and named and mark.label.private else None
    if shadows is not None and len(named) != len(shadows):
        raise _miscounted(operator, shadows, named)
    for number, cell in operands.written or ():
        spread = Mark(join([cell.label, mark.label]), mark.poison)
        if cell.owner is session:
            cell.mark = spread
            cell.writes += 1
            cell.writing = False
        else:
            session.drop(number)
            session.objects[number] = (None, Cell(session, spread, 0))
    for out, shadow in zip(named, [None] * len(named) if shadows is None else shadows, strict=True):
        if out is None or (shadows is not None and shadow is None):
            continue
        if shadow is None:
            session.objects[out] = (None, Cell(session, mark, 0))
        elif operator is not None and operator.aliases:
            session.alias(out, shadow.meta, operands.cells[0])
        else:
            session.put(out, shadow.meta, mark)


def _miscounted(operator: Operator | None, results: Sequence[Any], outs: Sequence[Any]) -> ProtocolError:
    """The same words whether the operator ran or failed."""
    return ProtocolError(f"{operator and operator.name} gives {len(results)} results, the message names {len(outs)}")


def _shadows(session: Session, operator: Operator, operands: Operands) -> list[Spec | None] | None:
    """The specs that the results would have if no value stood in the way; None if the operator fails whatever the values are."""
    if any(tensor is None for tensor in operands.tensors):
        return None
    try:
        admit(session, operator, operands)
        specs = infer(operator, _specs(operands.values), {k: _specs(v) for k, v in (operands.kwargs or {}).items()})
    except Deferred:
        raise
    except Exception:
        return None
    return [specs] if isinstance(specs, Spec) else list(specs or ())


def _over(old: Label, new: Label) -> Label:
    """The label of a storage of which a part, or one of several views, has been written: whose rows it holds is no longer told."""
    return blind(join([blind(old), blind(new)]))


def _store(session: Session, operator: Operator, operands: Operands, outs: Any, out: Any, mark: Mark | None) -> None:
    if operands.written is not None:
        for _, cell in operands.written:
            cell.writes += 1
            cell.writing = False
            if mark is not None:
                whole = cell.refs == 1 and len(operands.written) == 1
                cell.mark = mark if whole else Mark(_over(cell.label, mark.label))
    if type(outs) is int:
        if operator.aliases:
            session.alias(outs, out, operands.cells[0])
        else:
            session.put(outs, out, mark)
    elif outs is not None:
        if len(outs) != len(out):
            raise _miscounted(operator, out, outs)
        for number, value in zip(outs, out, strict=True):
            if number is None or value is None:
                continue
            if operator.aliases:
                session.alias(number, value, operands.cells[0])
            else:
                session.put(number, value, mark)
