"""Graph: what every importer makes of a model, whatever framework it is from: nodes that each apply one operator, in order, and weights.

    build = Builder(Input((1, 28, 28)))
    x = build.add("conv2d", "conv", ["input"], weights={"weight": w, "bias": b}, padding=(1, 1, 1, 1))
    x = build.add("relu", "relu", [x])
    graph = build.graph()                   immutable; checked here, node by node
    graph.run(images)                       in plain torch: the reference that an importer is checked against (`must_agree`)
    graph.run(shares, weights=shared)       the very same functions on shared tensors: the encrypted run

Names of nodes are those of the model's layers: errors tell them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

import syftlite.serving.functions
import syftlite.serving.recurrent
import syftlite.serving.sequences  # noqa: F401  (all fill the table)
from syftlite.errors import Misuse, UnsupportedLayerError
from syftlite.serving.operators import OPERATORS, Operator


@dataclass(frozen=True)
class Input:
    """One input: its shape without the batch; ``numbers``: it holds whole numbers below that (for an embedding), None for reals."""

    shape: tuple[int, ...]
    name: str = "input"
    numbers: int | None = None

    @property
    def row(self) -> tuple[int, ...]:
        """The shape of one row as reals: whole numbers are one-hot."""
        return self.shape if self.numbers is None else (*self.shape, self.numbers)

    def encode(self, x: Tensor) -> Tensor:
        """A batch as float32 of `row`s. Raises ValueError for another shape, or numbers out of range."""
        if tuple(x.shape[1:]) != self.shape or x.dim() != len(self.shape) + 1:
            raise ValueError(f"{self.name} is (rows, {', '.join(map(str, self.shape))}), and this is {tuple(x.shape)}")
        if self.numbers is None:
            return x.detach().to("cpu", torch.float32)
        if x.is_floating_point() and not bool((x == x.round()).all()):
            raise ValueError(f"{self.name} holds whole numbers from 0 to {self.numbers - 1}, and these are no whole numbers")
        whole = x.detach().to("cpu").long()
        if whole.numel() and not 0 <= int(whole.min()) <= int(whole.max()) < self.numbers:
            raise ValueError(f"{self.name} holds whole numbers from 0 to {self.numbers - 1}, and these reach {int(whole.max())}")
        return F.one_hot(whole, self.numbers).float()


@dataclass(frozen=True)
class Node:
    """``name`` = ``operator`` of ``inputs`` (names of nodes or graph inputs), of ``weights`` (role -> name), with ``attributes``."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    weights: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("attributes", "weights"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    @property
    def entry(self) -> Operator:
        """The table's entry."""
        return OPERATORS[self.operator]

    def apply(self, inputs: Sequence[Any], weights: Mapping[str, Any]) -> Any:
        """The operator's result."""
        given = {role: weights[name] for role, name in self.weights.items()}
        return self.entry.function(*inputs, **given, **self.attributes)

    def __str__(self) -> str:
        extras = [f"{k}={v}" for k, v in self.attributes.items()] + [f"{role}: {name}" for role, name in self.weights.items()]
        return f"{self.name} = {self.operator}({', '.join([*self.inputs, *extras])})"


@dataclass(frozen=True, repr=False)
class Graph:
    """A model. ``output`` names the node whose value it gives."""

    inputs: tuple[Input, ...]
    nodes: tuple[Node, ...]
    weights: Mapping[str, Tensor]
    output: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "weights", MappingProxyType(dict(self.weights)))
        known = {i.name for i in self.inputs}
        if len(known) != len(self.inputs) or not known:
            raise ValueError("a graph has inputs, each of another name")
        checked = []
        for node in self.nodes:
            checked.append(self._checked(node, known))
            known.add(node.name)
        object.__setattr__(self, "nodes", tuple(checked))
        if self.output not in known:
            raise ValueError(f"the output {self.output!r} is no node of the graph")

    def _checked(self, node: Node, known: set[str]) -> Node:
        entry = OPERATORS.get(node.operator)
        if entry is None:
            raise UnsupportedLayerError(node.name, f"there is no operator {node.operator!r}; there are {', '.join(OPERATORS)}")
        if node.name in known or not known.issuperset(node.inputs):
            raise ValueError(f"layer {node.name!r}: a name is given once, and inputs ({', '.join(node.inputs)}) come before")
        if len(node.inputs) != entry.arity and (entry.arity is not None or len(node.inputs) < 2):
            raise ValueError(f"layer {node.name!r}: {entry.name} takes {entry.arity or 'two or more'} inputs, not {len(node.inputs)}")
        missing = set(entry.weights) - entry.optional - node.weights.keys()
        if missing or not node.weights.keys() <= set(entry.weights):
            raise ValueError(f"layer {node.name!r}: {entry.name} has weights {entry.weights}, and got {tuple(node.weights)}")
        for name in node.weights.values():
            found = self.weights.get(name)
            if found is None or found.dtype != torch.float32 or not bool(found.isfinite().all()):
                raise ValueError(f"layer {node.name!r}: its weight {name!r} is missing, or not finite float32")
        return Node(node.name, node.operator, node.inputs, entry.checked(node.name, node.attributes), node.weights)

    # -- running it

    def run(self, *inputs: Any, weights: Mapping[str, Any] | None = None) -> Any:
        """The output for a batch; ``weights`` in place of its own, such as shared ones. Errors name the layer."""
        return self.values(*inputs, weights=weights)[self.output]

    def values(self, *inputs: Any, weights: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The value of every node and input, by name."""
        if len(inputs) != len(self.inputs):
            raise ValueError(f"the model has {len(self.inputs)} inputs ({', '.join(i.name for i in self.inputs)}), not {len(inputs)}")
        values: dict[str, Any] = {i.name: x for i, x in zip(self.inputs, inputs, strict=True)}
        with torch.no_grad():
            for node in self.nodes:
                try:
                    values[node.name] = node.apply([values[name] for name in node.inputs], self.weights if weights is None else weights)
                except (RuntimeError, ValueError, IndexError) as error:
                    if isinstance(error, NotImplementedError):
                        raise UnsupportedLayerError(node.name, f"{node.operator} of shares: {error}") from error
                    if hasattr(error, "add_note"):  # Python 3.11
                        error.add_note(f"in layer {node.name!r}: {node}")
                    raise
        return values

    def example(self, batch: int = 2, generator: torch.Generator | None = None) -> tuple[Tensor, ...]:
        """Random inputs of the right form: standard normal, or whole numbers."""
        return tuple(
            torch.randn(batch, *i.shape, generator=generator)
            if i.numbers is None
            else torch.randint(i.numbers, (batch, *i.shape), generator=generator)
            for i in self.inputs
        )

    @property
    def output_shape(self) -> tuple[int, ...]:
        """Of what it gives, without the batch."""
        return tuple(self.run(*self.example(1)).shape[1:])

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def users(self, name: str) -> list[Node]:
        """Nodes that take the value of ``name``."""
        return [node for node in self.nodes if name in node.inputs]

    def must_agree(self, original: Callable[..., Any], *inputs: Any, within: float = 1e-3) -> None:
        """Raise ValueError unless the graph gives what ``original`` gives on these inputs, to ``within`` (relative beyond 1)."""
        wanted = torch.as_tensor(original(*inputs)).detach().float()
        if not bool(wanted.isfinite().all()):
            raise Misuse("the model gives infinity or NaN on this example: give example= of inputs such as it will have")
        found = self.run(*[torch.as_tensor(x) for x in inputs])
        if found.shape != wanted.shape:
            raise ValueError(f"the imported model gives {tuple(found.shape)}, the original {tuple(wanted.shape)}")
        worst = float(((found - wanted).abs() / wanted.abs().clamp(min=1)).max()) if found.numel() else 0.0
        if not worst <= within:
            raise ValueError(
                f"the imported model is off by {worst:.3g}, of {within:g}. A write through a view, random numbers, and values of -1e4 or "
                "less that do more than hide have no form in a served model; if it has none of these, please report it"
            )

    def __repr__(self) -> str:
        inputs = ", ".join(f"{i.name}{list(i.shape)}" for i in self.inputs)
        return "\n".join([f"Graph of {inputs} -> {self.output}", *(f"  {node}" for node in self.nodes)])


class Builder:
    """Makes a graph node by node."""

    def __init__(self, *inputs: Input) -> None:
        self.inputs = inputs
        self.nodes: list[Node] = []
        self.weights: dict[str, Tensor] = {}

    def add(self, operator: str, name: str, inputs: Sequence[str], weights: Mapping[str, Any] | None = None, **attributes: Any) -> str:
        """Append a node and return its name, which gets a number if there is one of it. ``weights``: tensors or arrays by role; one that
        is None is left out."""
        taken, base, number = {i.name for i in self.inputs} | {n.name for n in self.nodes}, name, 1
        while name in taken:
            number += 1
            name = f"{base}_{number}"
        named = {}
        for role, value in (weights or {}).items():
            if value is not None:
                named[role] = f"{name}.{role}"
                self.weights[named[role]] = torch.as_tensor(value).detach().to("cpu", torch.float32).clone()
        self.nodes.append(Node(name, operator, tuple(inputs), attributes, named))
        return name

    def graph(self, output: str | None = None) -> Graph:
        """The graph; its output is the last node, or ``output``."""
        last = self.nodes[-1].name if self.nodes else self.inputs[0].name
        return Graph(self.inputs, tuple(self.nodes), self.weights, output or last)
