"""One operator that has run, as its rule sees it.

    Call        operands and what was given, with labels    -> the label, and `Check`s: what values must still be looked at for
    Side        one operand: its value, which of its axes runs over rows, their degree, their reach
    RULES       by operator number; `rule` registers one

A rule decides by specs and labels, and its answer is remembered for operands of the same ones. So what it must look at is either looked
at there and then (`Looks`: the answer holds for this call alone), or left to a check, which is given the values of each call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from syftlite.ops.operator import Operator
from syftlite.ops.table import BY_FUNC
from syftlite.policy.contributions import Looks
from syftlite.policy.labels import NONE, Class, Label, blind, join
from syftlite.policy.lineage import ANY, Axis, Rows, Selection, axis_of


class Given(NamedTuple):
    """The values of one call; ``out``: what it gave, or for an operator in place the written tensor."""

    operator: Operator
    args: Sequence[Any]
    out: Any


Check = Callable[[Given], bool]
"""Whether the values are such that the result is exposed. It holds no tensor of the call that it was first made for."""


class Side:
    """An operand: its value, and its rows if it has some. ``rest``: its label."""

    __slots__ = ("axis", "rest", "rows", "value")

    def __init__(self, value: Any, label: Label | None) -> None:
        self.value, self.rest = value, label
        self.rows = None if label is None else label.rows
        self.axis: Axis | None = axis_of(self.rows, value) if self.rows is not None else None

    @property
    def flat(self) -> bool:
        """Whether it is a constant whose elements are all equal, whatever the data."""
        return self.rows is None and self.rest is not None and self.rest.flat and not self.rest.shared

    def varies(self, place: int) -> bool:
        """Whether it is a constant that differs from row to row, which lie ``place`` axes from the right."""
        return self.rows is None and not self.flat and varies(self.value, place)

    @property
    def place(self) -> int:
        """The unit axis, from the right: -1 is the last."""
        assert self.axis is not None
        return self.axis.axis - int(self.value.dim())

    @property
    def degree(self) -> int:
        """Its rows' degree; of a constant, 0."""
        return self.rows.degree if self.rows is not None else 0

    @property
    def gates(self) -> frozenset[Selection]:
        """Its rows' gates."""
        return self.rows.gates if self.rows is not None else NONE

    def reach(self) -> float:
        """No element is larger; of a constant with NaN, which no number is compared with, there is no telling."""
        if self.rows is not None:
            return self.rows.reach
        if not isinstance(self.value, torch.Tensor):
            most = float(abs(self.value))
        else:
            Looks.count += 1
            if self.value.dtype is torch.bool:
                return 1.0
            most = float(self.value.abs().amax()) if self.value.numel() else 0.0
        return math.inf if math.isnan(most) else most

    def least(self) -> float:
        """Of a constant: no element but 0 is smaller."""
        if not isinstance(self.value, torch.Tensor):
            return float(abs(self.value)) or 1.0
        Looks.count += 1
        if self.value.dtype is torch.bool:
            return 1.0
        sizes = self.value.abs()
        sizes = sizes[sizes > 0]
        return float(sizes.amin()) if sizes.numel() else 1.0


class Call:
    """An operator's operands with what is known of them, and what it gave."""

    def __init__(self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], labels: Mapping[int, Label], out: Any) -> None:
        self.operator, self.args, self.kwargs, self.labels, self.out = operator, args, kwargs, labels, out
        self.joined = blind(join(labels.values()))
        self.checks: list[Check] = []

    def side(self, value: Any) -> Side:
        """An operand with what is known of it."""
        return Side(value, self.labels.get(id(value)) if isinstance(value, torch.Tensor) else None)

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument, wherever it was given."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)

    def rows(self, rows: Rows | None, *, exposed: bool = False) -> Label:
        """The label of a result that has ``rows``."""
        return self.joined._replace(rows=rows, exposed=self.joined.exposed or exposed)

    def aggregate(self, sides: Sequence[Side], *checks: Check, degree: int | None = None, exposed: bool = False) -> Label:
        """The label of a sum over the unit axis of a product of ``sides``, or of a polynomial of ``degree`` in them."""
        degree = sum(side.degree for side in sides) if degree is None else degree
        axis = next(side.axis for side in sides if side.axis is not None)
        if degree >= ANY or not axis.along.frame.aggregates:
            return self.joined
        selections = self.joined.selections.union(axis.along.selections, *(side.gates for side in sides))
        if degree > 0:
            self.checks += checks
        return self.joined._replace(level=Class.AGG, selections=selections, exposed=self.joined.exposed or (degree > 0 and exposed))


Rule = Callable[[Call], Label]
RULES: dict[int, Rule] = {}


def rule(*funcs: Any) -> Callable[[Rule], Rule]:
    """Register a rule for these overloads."""

    def register(made: Rule) -> Rule:
        for func in funcs:
            RULES[BY_FUNC[func].number] = made
        return made

    return register


def varies(value: Any, place: int) -> bool:
    """Whether a constant differs from row to row, which lie ``place`` axes from the right."""
    return isinstance(value, torch.Tensor) and value.dim() >= -place and value.shape[place] > 1 and value.stride(place) != 0


def dims_of(given: Any, count: int) -> list[int]:
    """The axes that an argument ``dim`` names, of ``count``."""
    given = [given] if isinstance(given, int) else given
    return sorted({d % count for d in given}) if given else list(range(count))
