"""Straight-line replays: a program that has run once on operands of these specs needs no second look at what specs decide.

    a replay in the executor, public, healthy, quick  ->  `straighten`  ->  the functions to call, with the places of their operands

What depends on values or labels is never decided here: a program whose operators write, check values or ask, and one that meets a label
or a poison, stays with the executor; and what fails here is replayed there, which poisons as it should.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

import torch

from syftlite._torch import bare, binding
from syftlite.engine.admission import price
from syftlite.engine.bounds import VALUES
from syftlite.engine.device import placed
from syftlite.engine.operands import Operands, bind_all, in_order
from syftlite.engine.session import Cell, Session
from syftlite.ops.operator import Operator
from syftlite.ops.spec import Spec

Step = tuple[Operator, tuple[Any, ...], dict[str, Any] | None, Any]
"""(operator, args, kwargs, outs), as `executor.run` takes them."""


class Call(NamedTuple):
    """One call: ``given`` picks its arguments out of the slots (operands, constants, results); what it makes goes to ``out``."""

    func: Callable[..., Any]
    given: Callable[[list[Any]], Sequence[Any]]
    out: int | tuple[int | None, ...]


class Straight(NamedTuple):
    """A program for operands of ``specs``. ``roots``: for each result, whose storage it lies in (an operand's place, or beyond)."""

    specs: tuple[Spec, ...]
    calls: tuple[Call, ...]
    blank: tuple[Any, ...]
    nbytes: int
    results: tuple[int, ...]
    roots: tuple[tuple[int, int], ...]

    def fits(self, session: Session, operands: Sequence[tuple[torch.Tensor | None, Cell]]) -> bool:
        """Whether these operands are of the specs, public, healthy and not for others to write, and what is made fits the quota."""
        if session.used + self.nbytes > session.max_bytes or len(session.objects) + len(self.results) > session.max_objects:
            return False
        for spec, (tensor, cell) in zip(self.specs, operands, strict=True):
            if cell.mark is not None or tensor is None or Spec.of(tensor) is not spec:
                return False
            if cell.owner is not session and not cell.owner.steady:  # the executor copies what others may write, where it must
                return False
        return True

    def run(self, session: Session, operands: Sequence[tuple[torch.Tensor | None, Cell]], outs: Sequence[int]) -> None:
        """Call after `fits`. Whatever an operator raises comes out, and nothing has been stored."""
        slots: list[Any] = [tensor for tensor, _ in operands]
        slots += self.blank
        for func, given, out in self.calls:
            made = func(*given(slots))
            if type(out) is int:
                slots[out] = made
            else:
                for slot, value in zip(out, made, strict=True):  # type: ignore[arg-type]
                    if slot is not None:
                        slots[slot] = value
        cells: dict[int, Cell] = {}
        for number, result, (root, nbytes) in zip(outs, self.results, self.roots, strict=True):
            cell = operands[root][1] if root < len(operands) else cells.get(root)
            if cell is not None:
                session.alias(number, slots[result], cell)
                continue
            cells[root] = session.put(number, slots[result])
            cells[root].nbytes, session.used = nbytes, session.used + nbytes - cells[root].nbytes


class Draft(NamedTuple):
    """A call before `_packed` has given its operands and results places to share. A slot of its own for each."""

    func: Callable[..., Any]
    given: tuple[int, ...]
    out: int | tuple[int | None, ...]

    @property
    def made(self) -> tuple[int, ...]:
        """The slots that it fills."""
        return (self.out,) if isinstance(self.out, int) else tuple([slot for slot in self.out if slot is not None])


class Slots:
    """Numbers slots while a program is straightened: its operands first, then constants and results as they come."""

    def __init__(self, session: Session, operands: Sequence[int]) -> None:
        self.session = session
        self.arity = len(operands)
        self.of = {number: place for place, number in reversed(list(enumerate(operands)))}
        self.roots = {id(session.objects[number][1]): place for number, place in self.of.items()}
        self.blank: list[Any] = []

    def add(self, constant: Any = None) -> int:
        """A new slot, which starts as ``constant``."""
        self.blank.append(constant)
        return self.arity + len(self.blank) - 1

    def result(self, number: int | None) -> int | None:
        """The slot of the object ``number``, which an operator made."""
        if number is None:
            return None
        slot = self.of[number] = self.add()
        self.roots.setdefault(id(self.session.objects[number][1]), slot)
        return slot


def straighten(session: Session, steps: Sequence[Step], operands: Sequence[int], results: Sequence[int]) -> Straight | None:
    """The straight form of a program that has just run as ``steps`` in ``session``, where all that it made still lies; None if it has
    none. The ids in ``steps``, ``operands`` and ``results`` are the session's."""
    if not _sound(session, operands) or len({id(session.objects[number][1]) for number in operands}) < len(operands):
        return None  # in one storage, of which of them a result is, is not to be told for calls with others
    slots = Slots(session, operands)
    drafts, nbytes = [], 0
    for operator, told, named, outs in steps:
        args, kwargs = in_order(operator, told, named)
        if operator.writes or operator.dynamic or operator.number in VALUES:
            return None
        if any(operator.keywords[name].code in "TtLl" for name in kwargs or ()):
            return None
        made = (outs,) if type(outs) is int else outs
        if made is None or not _sound(session, [number for number in made if number is not None]):
            return None
        bound = Operands()
        bind_all(session, operator, args, kwargs, bound)
        nbytes += price(operator, bound).nbytes
        given = []
        for code, arg, value in zip(operator.codes, args, bound.values, strict=False):
            if code in "Tt" and type(arg) is int:
                given.append(slots.of[arg])
            elif code in "Ll" and arg is not None:
                if any(type(item) is not int for item in arg):
                    return None
                given.append(slots.add())
                drafts.append(Draft(_as_list, tuple([slots.of[item] for item in arg]), given[-1]))
            else:
                given.append(slots.add(value))
        func = _callee(session, operator, bound)
        places = tuple([slots.result(number) for number in made])
        drafts.append(Draft(func, tuple(given), places[0] if type(outs) is int and places[0] is not None else places))
        if operator.finish is not None:
            drafts += [Draft(operator.finish, (place,), place) for place in places if place is not None]
    if not _sound(session, results):
        return None
    specs = tuple([Spec.of(session.objects[number][0]) for number in operands])  # type: ignore[arg-type]
    cells = [session.objects[number][1] for number in results]
    roots = tuple([(slots.roots[id(cell)], cell.nbytes) for cell in cells])
    calls, blank, places = _packed(slots, drafts, [slots.of[number] for number in results])
    return Straight(specs, calls, blank, nbytes, places, roots)


def _packed(
    slots: Slots, drafts: Sequence[Draft], results: Sequence[int]
) -> tuple[tuple[Call, ...], tuple[Any, ...], tuple[int, ...]]:
    """The calls, the slots' first values and the results' slots, where what nobody reads any more makes room for what comes next: its
    memory goes back to torch warm, and a replay holds no more than it needs."""
    made = {slot for draft in drafts for slot in draft.made}
    last = {slot: position for position, draft in enumerate(drafts) for slot in draft.given} | dict.fromkeys(results, len(drafts))
    kept = [slot for slot in range(slots.arity + len(slots.blank)) if slot not in made]  # operands and constants
    place = {slot: position for position, slot in enumerate(kept)}
    free: list[int] = []
    size = len(kept)
    calls = []
    for position, draft in enumerate(drafts):
        given = [place[slot] for slot in draft.given]
        free += [place.pop(slot) for slot in dict.fromkeys(draft.given) if slot in made and last[slot] == position]
        for slot in draft.made:
            if slot not in place:
                place[slot] = free.pop() if free else size
                size = max(size, place[slot] + 1)
        out = place[draft.out] if isinstance(draft.out, int) else tuple([None if o is None else place[o] for o in draft.out])
        calls.append(Call(draft.func, _picker(given), out))
        free += [place.pop(slot) for slot in draft.made if last.get(slot, -1) <= position]
    blank = [slots.blank[slot - slots.arity] for slot in kept[slots.arity :]] + [None] * (size - len(kept))
    return tuple(calls), tuple(blank), tuple([place[slot] for slot in results])


def _callee(session: Session, operator: Operator, bound: Operands) -> Callable[..., Any]:
    """What a replay calls for ``operator``, given its positional operands."""
    kwargs = bound.kwargs or {}
    if session.device is not None:
        func = placed(operator, session.device)
    elif operator.seeded:
        func = operator.bare
    else:
        func = binding(operator.func, tuple(bound.values), kwargs) or (operator.func if kwargs else bare(operator.func))
    return partial(func, **kwargs) if kwargs else func


def _sound(session: Session, numbers: Sequence[int]) -> bool:
    """Whether these objects are there, public and healthy."""
    for number in numbers:
        tensor, cell = session.objects.get(number, (None, None))
        if tensor is None or cell is None or cell.mark is not None:
            return False
    return True


def _as_list(*items: Any) -> list[Any]:
    return list(items)


def _picker(places: Sequence[int]) -> Callable[[list[Any]], Sequence[Any]]:
    if not places:
        return _nothing
    return itemgetter(*places) if len(places) > 1 else itemgetter(slice(places[0], places[0] + 1))


def _nothing(slots: list[Any]) -> Sequence[Any]:
    return ()
