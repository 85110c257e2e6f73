"""One call of an ATen operator on its way into a graph, and the table of rules that know what it becomes.

    @rule("conv2d")                             the ATen name
    def _conv2d(at, x, weight, ...):            arguments as ATen has them, tensors as `Value`s
        return at.add("conv2d", [x], ...)       a node of the graph

Layers are named as the module names them. What has no rule, and arguments that have no form, are refused by that name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor

from syftlite.errors import UnsupportedLayerError
from syftlite.serving.graph import Builder


class Value(NamedTuple):
    """A tensor of the program: a node of the graph, or, if ``known``, a weight or a constant. ``batch``: which of its axes the rows are;
    a node has them first, and the others in their order."""

    name: str
    shape: tuple[int, ...]
    known: Tensor | None = None
    batch: int = 0

    def axis(self, dim: int) -> int:
        """Where the node has an axis of the program's tensor."""
        at = dim % len(self.shape)
        return 0 if at == self.batch else at + (at < self.batch)

    @property
    def rows_first(self) -> tuple[int, ...]:
        """The node's shape."""
        return (self.shape[self.batch], *self.shape[: self.batch], *self.shape[self.batch + 1 :])


class Call:
    """A call of operator ``name`` in ``layer``, whose first result has ``shape``, on its way into the graph that ``build`` makes. Rows are
    along axis ``batch`` of its operands, and of its result if nothing else is said."""

    def __init__(self, build: Builder, name: str, layer: str, shape: tuple[int, ...], batch: int = 0) -> None:
        self.build, self.name, self.layer, self.shape, self.batch = build, name, layer, shape, batch

    def add(self, operator: str, inputs: Sequence[Value], weights: Mapping[str, Tensor | None] | None = None, **static: Any) -> Value:
        """A node of the graph."""
        for value in inputs:
            if value.known is not None:
                raise UnsupportedLayerError(self.layer, f"{operator} of a constant has no form here")
        return self.result(self.build.add(operator, self.layer, [v.name for v in inputs], weights, **static))

    def result(self, name: str) -> Value:
        """The node of that name as what the call gives."""
        return Value(name, self.shape, None, self.batch)

    def weight(self, value: Value | None, role: str) -> Tensor | None:
        """What ``value`` is, which does not depend on the input."""
        if value is not None and value.known is None:
            raise UnsupportedLayerError(self.layer, f"its {role} depends on the input")
        return None if value is None else value.known

    def refuse(self, **arguments: bool) -> None:
        """Raise for the first argument that is in the way."""
        for name, wrong in arguments.items():
            if wrong:
                raise UnsupportedLayerError(self.layer, f"{self.name} with this {name} has no form in a served model")


Made = Value | Sequence[Value | None]
"""What a call becomes: one value, or one for each result, None for what has no form."""
Rule = TypeVar("Rule", bound=Callable[..., Made])
RULES: dict[str, Callable[..., Made]] = {}


ANYWHERE: set[str] = set()
"""Operators whose rule looks where the rows are; others need them first."""


def rule(*names: str, anywhere: bool = False) -> Callable[[Rule], Rule]:
    """Enter a rule for ATen operators of these names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        ANYWHERE.update(names if anywhere else ())
        return function

    return enter


def known(value: Any) -> Any:
    """A `Value` that is known, as what it is."""
    return value.known if isinstance(value, Value) else value
