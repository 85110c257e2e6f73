"""What an operator does to labels: one pure function of the operator, its operands with their labels, and what it gave.

    no operand has rows         the join: an aggregate stays one whatever is made of it, and what is PRIVATE stays PRIVATE
    one that is rowwise         the result has the rows; its degree says whether sums of it may be aggregates     elementwise.py
    a comparison                ... and the rows where it holds are a selection (its gates)
    a sum along the unit axis   AGG, with the selections that went into it; PRIVATE if the degree is ANY          reductions.py, products.py
    anything else               PRIVATE without rows: unlisted operators deny

Why the degree: with other functions, or with weights of one's own for each row, a sum is one row's value ("soft masks":
log(sum(exp(1000 x))) / 1000 is the maximum). A polynomial of degree 2 with the same coefficients for all rows of a combination of
selections cannot tell them apart. In floating point a sum is no polynomial where rounding takes what a row adds (x + 1e9 - 1e9 is a step
function), so what rounds away more than `LOST` of the rows' spread is exposed too: a check of the values says whether.

What a rule says without looking at values is remembered by the operands' specs and labels: a program that runs again pays one look-up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.ops.operator import Kind, Operator
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC
from syftlite.policy import products, reductions  # noqa: F401 - they register their rules
from syftlite.policy.call import RULES, Call, Check
from syftlite.policy.contributions import Looks
from syftlite.policy.elementwise import MIXING, pointwise
from syftlite.policy.labels import Class, Label, blind, join

_INDEX, _POINTWISE = Kind.INDEX, Kind.POINTWISE  # an enum's member takes longer to look up than a label
_FILLED = {BY_FUNC[func].number for func in (aten.zeros_like.default, aten.ones_like.default, aten.full_like.default)}
MAX_KNOWN = 16_384
MAX_WEIGHT = 64 << 20
"""Bytes of selections that remembered answers may keep alive."""


class Outcome:
    """A result's label, and the checks that may show it exposed. ``spec``: the result's, where it follows from the operands'."""

    __slots__ = ("checks", "held", "label", "spec")

    def __init__(self, label: Label, checks: tuple[Check, ...] = ()) -> None:
        self.label, self.checks = label, checks
        self.spec: Spec | None = None
        self.held: tuple[Label, ...] = ()


class _Known:
    """Answers by operator, specs, labels and plain arguments. A label's `id` is its own while the entry holds it."""

    def __init__(self) -> None:
        self.entries: dict[Any, Outcome] = {}
        self.labels: dict[Label, Label] = {}
        self.weight = 0

    def add(self, key: Any, outcome: Outcome, held: tuple[Label, ...]) -> Outcome:
        """Remember it. Equal labels become one object, so that a program that comes to one by two ways is known by both."""
        if len(self.entries) >= MAX_KNOWN or self.weight > MAX_WEIGHT:
            self.entries, self.labels, self.weight = {}, {}, 0
        outcome.label, outcome.held = self._one(outcome.label), held
        for label in held:
            self._one(label)
        self.entries[key] = outcome
        return outcome

    def _one(self, label: Label) -> Label:
        known = self.labels.get(label)
        if known is None:
            known = self.labels[label] = label
            self.weight += _weight(label)
        return known


def _weight(label: Label) -> int:
    """Bytes that it may keep alive, nearly."""
    rows = label.rows
    selections = label.selections if rows is None else label.selections | rows.gates
    return sum(s.frame.count for s in selections) + (8 * len(rows.along) if rows is not None else 0)


_known = _Known()


def propagate(
    operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any] | None, labels: Mapping[int, Label], out: Any
) -> Outcome:
    """What is known of what ``operator`` gave. ``args``, ``kwargs``: its operands' values; ``labels``: by `id`, of those tensors that have
    one; ``out``: the result, or for an operator in place the written tensor."""
    kind = operator.kind
    if kwargs and any(map(_holds_tensors, kwargs.values())):  # rules look for operands at their places
        return Outcome(blind(join(labels.values())))
    if kind is _INDEX or type(out) is not torch.Tensor:
        return _propagate(operator, args, kwargs, labels, out)
    key: list[Any] = [operator.number] if kind is _POINTWISE else [operator.number, Spec.of(out)]
    for value in (*args, *kwargs.values(), *kwargs) if kwargs else args:
        given = type(value)
        if given is torch.Tensor:
            key += (id(labels.get(id(value))), _spec(value))
        elif given is not list:
            key += (value, given)  # 1, 1.0 and True are equal
        elif value and type(value[0]) is torch.Tensor:
            return _propagate(operator, args, kwargs, labels, out)
        else:
            key.append(tuple(value))
    exact = tuple(key)
    known = _known.entries.get(exact)
    if known is None:
        looks = Looks.count
        known = _propagate(operator, args, kwargs, labels, out)
        if Looks.count != looks:
            return known
        if kind is _POINTWISE:
            known.spec = Spec.of(out)
        known = _known.add(exact, known, tuple(labels.values()))
    if known.spec is not None:
        out.syftlite_spec = known.spec  # type: ignore[attr-defined]
    return known


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, torch.Tensor) or (type(value) is list and any(isinstance(item, torch.Tensor) for item in value))


def _spec(tensor: Any) -> Spec:
    """The spec of a stored tensor, which no operator of the table changes: remembered with it."""
    spec: Spec | None = getattr(tensor, "syftlite_spec", None)
    if spec is None:
        spec = tensor.syftlite_spec = Spec.of(tensor)
    return spec


def _propagate(
    operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any] | None, labels: Mapping[int, Label], out: Any
) -> Outcome:
    if all(label.rows is None for label in labels.values()):
        return Outcome(_constant(operator, args, labels, out))
    if any(label.level is Class.PRIVATE and label.rows is None for label in labels.values()):
        return Outcome(blind(join(labels.values())))
    call = Call(operator, args, kwargs or {}, labels, out)
    found = RULES.get(operator.number)
    if found is None:
        found = pointwise if operator.kind is Kind.POINTWISE and operator.number not in MIXING else _nothing
    label = found(call)
    if label.level is Class.AGG and type(out) is torch.Tensor and out.numel() == 1 and not operator.writes:
        label = label._replace(flat=True)
    return Outcome(label, tuple(call.checks))


def _constant(operator: Operator, args: Sequence[Any], labels: Mapping[int, Label], out: Any) -> Label:
    """The label of what is made of aggregates, say: whether all of its elements are equal, whatever they were made of."""
    label = join(labels.values())
    if label.level is not Class.AGG or label.shared or operator.writes or type(out) is not torch.Tensor:
        return label
    if operator.number in _FILLED:
        return label._replace(flat=True, exposed=False)  # only whether it is there is told by its operand
    if out.numel() == 1:
        return label._replace(flat=True)
    if operator.kind is not _POINTWISE or operator.number in MIXING:
        return label
    tensors = [value for value in args if isinstance(value, torch.Tensor)]
    return label._replace(flat=all(_equal(value, labels.get(id(value))) for value in tensors))


def _equal(tensor: torch.Tensor, label: Label | None) -> bool:
    return tensor.numel() == 1 or (label is not None and label.flat and not label.shared)


def _nothing(call: Call) -> Label:
    return call.joined
