"""Runs operators of the table on a session's objects.

    OP message -> operands.py: values, by the schema -> policies -> admission.py: cost, bounds -> run -> store results with their label

A failure never ends the session: it poisons the message's results, and their label stays what it would have been, so that whether
an operation on PRIVATE values failed is as private as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from syftlite.engine.admission import CHECKED, POOL, Deferred, admit, check_operands, note_places, specs_of
from syftlite.engine.device import placed
from syftlite.engine.marks import SMALL, Mark, Poison
from syftlite.engine.operands import Operands, bind_all, in_order
from syftlite.engine.session import FINDING, Cell, Session
from syftlite.errors import (
    OperatorNotReviewedError,
    PolicyError,
    ProtocolError,
    SendNotPermittedError,
    SyftliteError,
    code_of,
)
from syftlite.ops.infer import depends_on_values, infer
from syftlite.ops.operator import Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE, VERSION
from syftlite.policy.labels import PUBLIC, Label, blind, join
from syftlite.wire.fields import MAX_TEXT

if TYPE_CHECKING:
    from syftlite.engine.policies import Policies

Out = int | Sequence[int | None] | None


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
    mark: Mark | None = None
    untraced = False
    try:
        operator = operator_of(number)
        if kwargs:
            args, kwargs = in_order(operator, args, kwargs)
        bind_all(session, operator, args, kwargs, operands)
        marks = operands.marks
        if marks is not None:
            mark = marks[0] if _of_one_kind(marks) else _joined(operands)
        untraced = marks is not None or session.trail is not None
        if type(outs) is not operator.out_type:
            raise ProtocolError(f"{operator.name} gives {operator.result.name.lower()}; the message names other results")
        if operator.dynamic and depends_on_values(operator, operands.values):
            raise ProtocolError(f"{operator.name}: the shape of what it gives would tell of values: send it as an ASK")
        if mark is not None:
            if mark.poison is not None:
                _spread(session, operator, operands, outs, mark)
                session.trace(number, args, kwargs, outs, mark)
                return
            sources, policies = mark.sources, session.policies
            if sources and policies is not None and not (session.epoch is policies.epoch and session.cleared.get(number) is sources):
                _may_run(session, policies, sources, operator)
        admit(session, operator, operands)
        if untraced:  # not before: what is deferred comes again
            untraced = False
            session.trace(number, args, kwargs, outs, mark)
        if number in CHECKED:
            check_operands(session, operator, operands)
        out, mark = _run(session, operator, operands, mark)
        _store(session, operator, operands, outs, out, mark)
    except (Deferred, ProtocolError):
        raise
    except Exception as error:
        known = number if type(number) is int and 0 < number < VERSION else 0
        text = str(error).split("\nException raised from", 1)[0][:MAX_TEXT]
        poison = Poison(code_of(error), text, known, session.executed)
        no_secret = isinstance(error, (PolicyError, SendNotPermittedError))  # labels and policies say so, not values
        failed = Mark(PUBLIC, None) if no_secret else _joined(operands)
        _spread(session, TABLE[known], operands, outs, Mark(failed.label, poison))
        if untraced:
            session.trace(number, args, kwargs, outs, mark)


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
        if mark is not None:
            _close(operands.written, mark)
    if mark is not None and not _inherits(mark, operands):
        for cell in operands.cells:
            if cell.owner is not session and not cell.owner.steady:  # another session may write it meanwhile
                borrowed = [(c, c.writes, c.writing) for c in operands.cells if c.owner is not session]
    out = func(*operands.values) if operands.kwargs is None else func(*operands.values, **operands.kwargs)
    if operator.finish is not None:
        out = operator.finish(out)
    if mark is None or not mark.sources:
        return out, mark
    return out, _labelled(session, operator, operands, out, mark, borrowed)


def _close(written: Sequence[tuple[int, Cell]], mark: Mark) -> None:
    """Before something with ``mark`` is written to cells: keep other sessions from finding them. Raises `SendNotPermittedError` if one was
    found and would become stricter: who reads it meanwhile would see bytes whose label is still to come."""
    for _, cell in written:
        with FINDING:
            cell.closing = not cell.found
        if cell.found and not _covers(cell.label, mark.label):
            raise SendNotPermittedError(
                "another session has found this object, and what would be written to it is held more closely: write to a clone() of it"
            )


def _covers(label: Label, other: Label) -> bool:
    """Whether whatever may be told with ``label`` may be told with ``other``."""
    return label.level >= other.level and label.sources >= other.sources and label.shared >= other.shared


def _labelled(
    session: Session, operator: Operator, operands: Operands, out: Any, mark: Mark, borrowed: Sequence[tuple[Cell, int, bool]] | None
) -> Mark:
    """The mark of what an operator gave. ``mark``: one with its operands' sources. ``borrowed``: cells that others may write, with how
    often they were written before, and whether they were about to be."""
    marks = operands.marks
    assert marks is not None
    if _inherits(mark, operands):
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


def _inherits(mark: Mark, operands: Operands) -> bool:
    """Whether ``mark`` is all operands' own, and tells of no rows: then it is the result's, whatever the values are."""
    marks = operands.marks
    return mark.plain and marks is not None and (len(marks) == 1 or all([other is mark for other in marks]))  # noqa: C419 - as below


def _large(cells: Sequence[Cell]) -> bool:
    return any([cell.nbytes > SMALL for cell in cells])  # noqa: C419 - a generator takes twice as long


def evaluate(session: Session, number: Any, args: Any, kwargs: Any, permit: Callable[[Label], None]) -> tuple[Any, Label]:
    """Execute an ASK and return its raw result and label. ``permit`` is called with the label first, and raises to refuse."""
    operands = Operands()
    operator = operator_of(number)
    args, kwargs = in_order(operator, args, kwargs)
    bind_all(session, operator, args, kwargs, operands)
    mark = _joined(operands)
    try:
        if mark.sources and session.policies is not None:
            _may_run(session, session.policies, mark.sources, operator)
        permit(mark.label)
        if mark.poison is not None:
            raise Poisoned(mark.poison)
        if not operator.dynamic:
            raise ProtocolError(f"{operator.name} does not need an answer: send it as an OP")
        admit(session, operator, operands)
    except Deferred:
        raise
    except Exception:
        session.trace(number, args, kwargs, None, mark)
        raise
    session.trace(number, args, kwargs, None, mark)
    check_operands(session, operator, operands)
    return operator.bare(*operands.values, **(operands.kwargs or {})), mark.label


class Poisoned(SyftliteError):
    """Reading a value that never came. ``poison`` says why; the engine answers with it."""

    def __init__(self, poison: Poison) -> None:
        super().__init__(poison.text)
        self.poison = poison


def _claim_all(session: Session, outs: Any) -> tuple[int | None, ...]:
    if type(outs) not in (list, tuple):
        raise ProtocolError("outs is an id, a list of ids or None")
    claimed = tuple(None if o is None else session.claim(o, traced=True) for o in outs)
    named = [o for o in claimed if o is not None]
    if len(named) != len(set(named)):
        raise ProtocolError("outs names an id twice")
    return claimed


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
            cell.writing = cell.closing = False
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
        specs = infer(operator, specs_of(operands.values), {k: specs_of(v) for k, v in (operands.kwargs or {}).items()})
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
            if mark is not None:
                whole = cell.refs == 1 and len(operands.written) == 1
                cell.mark = mark if whole else Mark(_over(cell.label, mark.label))
            cell.writes += 1  # with the mark there, for whoever looks from another session's lane
            cell.writing = cell.closing = False
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
        if operator is POOL and outs[1] is not None:
            note_places(operands, session.objects[outs[1]][1])
