"""torch modules and exported programs as graphs: `torch.export` writes a module down as calls of ATen operators, which are read one by one.

placeholders     weights, buffers and constants are known; what is left are the graph's inputs
calls            of known values alone: computed here; any other: its rule (torch_rules.py)
the output       one tensor
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

import syftlite.serving.torch_rules  # noqa: F401  (fills the table)
from syftlite.errors import Misuse, UnsupportedLayerError
from syftlite.serving.graph import Builder, Graph, Input
from syftlite.serving.torch_call import RULES, Call, Value, known, layer_of, name_of, shape_of

BATCH = 3
"""Rows of the batch that a module is exported with."""


def from_module(module: nn.Module, example: Sequence[Tensor]) -> Graph:
    """The graph of ``module``, which is in eval mode; ``example``: a batch of each of its inputs, whole numbers for those that are."""
    twofold = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    trains = [name for name, part in module.named_modules() if part.training and isinstance(part, twofold)]
    if trains:
        raise Misuse(f"{', '.join(trains)} would train: eval() the module first")
    given = tuple(_of_rows(x, BATCH) for x in example)
    with torch.no_grad():
        graph = from_exported(torch.export.export(module, given, strict=False))
        graph.must_agree(module, *[_of_rows(x if not x.is_floating_point() or x.any() else torch.randn(x.shape), 2) for x in example])
    return graph


def _of_rows(x: Tensor, rows: int) -> Tensor:
    if not x.dim() or not len(x):
        raise Misuse("an example is a batch: rows first, and at least one")
    return x.repeat(-(-rows // len(x)), *[1] * (x.dim() - 1))[:rows]


def from_exported(program: torch.export.ExportedProgram) -> Graph:
    """The graph of a program exported with any number of rows; its first axis is the batch."""
    return _Program(program).graph()


class _Program:
    """One program on its way to a graph."""

    def __init__(self, exported: torch.export.ExportedProgram) -> None:
        self.exported = exported
        signature = exported.graph_signature
        kept = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
        self.values: dict[Any, Any] = {}
        inputs = []
        for node in exported.graph.nodes:
            if node.op != "placeholder":
                continue
            if node.name in kept:
                found = exported.state_dict.get(kept[node.name], exported.constants.get(kept[node.name]))
                assert isinstance(found, Tensor)
                self.values[node] = Value(node.name, tuple(found.shape), found.detach())
            elif isinstance(node.meta.get("val"), Tensor):
                self.values[node] = Value(node.name, shape_of(node))
                inputs.append((node, shape_of(node)))
        self.rows = inputs[0][1][0] if inputs else 0
        self.build = Builder(*[Input(shape[1:], node.name, self._numbers(node)) for node, shape in inputs])

    def _numbers(self, node: Any) -> int | None:
        """Of an input of whole numbers, how many the embedding that reads it has."""
        if node.meta["val"].is_floating_point():
            return None
        for user in node.users:
            if user.op == "call_function" and name_of(user) == "embedding":
                return self.values[user.args[0]].shape[0] if user.args[0] in self.values else shape_of(user.args[0])[0]
        raise UnsupportedLayerError(node.name, "an input of whole numbers that no embedding reads")

    def graph(self) -> Graph:
        output = None
        for node in self.exported.graph.nodes:
            if node.op == "call_function":
                self.values[node] = self._call(node)
            elif node.op == "output":
                results = node.args[0]
                if len(results) != 1:
                    raise UnsupportedLayerError("the model", f"it gives {len(results)} tensors, and a served model gives one")
                output = self.values[results[0]]
        if output is None or output.known is not None:
            raise UnsupportedLayerError("the model", "its output does not depend on its input")
        return self.build.graph(output.name)

    def _call(self, node: Any) -> Any:
        name = name_of(node)
        if name == "getitem":
            source, place = node.args
            return self.values[source] if place == 0 and isinstance(self.values[source], Value) else self.values[source][place]
        if name.startswith(("sym_", "_assert", "assert")):
            return None
        made = RULES.get(name)
        args = torch.fx.map_arg(node.args, self.values.__getitem__)
        kwargs = torch.fx.map_arg(node.kwargs, self.values.__getitem__)
        if made is None:
            what = f"{node.target} has no form in a served model"
            raise UnsupportedLayerError(layer_of(node), f"{what}; these have: {', '.join(sorted(n.strip('_') for n in RULES))}")
        tensors = [a for a in [*args, *kwargs.values()] if isinstance(a, Value)]
        if tensors and all(t.known is not None for t in tensors):
            value = node.target(*[known(a) for a in args], **{k: known(v) for k, v in kwargs.items()})
            return Value(node.name, tuple(value.shape), value)
        try:
            return made(Call(self.build, node), *args, **kwargs)
        except TypeError as error:
            raise UnsupportedLayerError(layer_of(node), f"{name} with arguments that have no form here: {error}") from error
