"""From a model's graph to what the holders run: the same function, in fewer and cheaper steps.

    several inputs                  one row of all of them, cut apart
    an embedding of an input        a linear layer on one-hot rows, which the client makes
    identities                      gone
    affine next to linear, conv     folded into its weights, in floats
    affine of an image elsewhere    a depthwise convolution: its weight is fixed, and opens nothing
    softmax, sigmoid, ... last      the client's, on the scores that it reconstructs; of no matter where only the label is wanted
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite.errors import Misuse, UnsupportedLayerError
from syftlite.ops.encoding import largest
from syftlite.serving.graph import Graph, Input, Node

OUTPUTS = ("scores", "label")
BEYOND = 2.0**44
"""What no value of a served model reaches in magnitude, at any scale in use."""
CONVOLUTIONS = ("conv2d", "conv1d")


class Lowered(NamedTuple):
    """``graph`` has one input, of reals. ``last``: what the client does to the result, in order: (operator, static arguments)."""

    graph: Graph
    source: Graph
    last: tuple[tuple[str, tuple[tuple[str, int], ...]], ...]
    output: str


def lower(graph: Graph, output: str = "scores") -> Lowered:
    """What the holders run for ``graph``. Raises `UnsupportedLayerError`, `Misuse`."""
    if output not in OUTPUTS:
        raise Misuse(f"a served model's output is {' or '.join(OUTPUTS)}, not {output!r}")
    lowered, last = _without_last(_without_identities(_without_bounds(graph)))
    lowered = _fold(_one_hot(lowered))
    if output == "label":
        shape = lowered.output_shape
        if len(shape) != 1:
            raise Misuse(f"a label is of one row of scores, and the model gives {shape} for each: serve its scores")
        last = ()
    return Lowered(_one_input(lowered), graph, last, output)


def must_fit(graph: Graph, scale: int) -> None:
    """Raise `UnsupportedLayerError` for a weight or a static number beyond what fixed precision has: nobody would see what overflows."""
    most = largest(scale)
    for node in graph.nodes:
        given = {} if node.operator == "clamp" else node.attributes
        numbers = {name: abs(value) for name, value in given.items() if type(value) is float}
        numbers |= {role: float(graph.weights[name].abs().max()) for role, name in node.weights.items() if graph.weights[name].numel()}
        for what, magnitude in numbers.items():
            if not magnitude < most:
                told = f"its {what} of {magnitude:g} does not fit: at scale {scale:,} values stay below {most:g}"
                raise UnsupportedLayerError(node.name, f"{told}. Use less precision, or smaller numbers")


def _without_bounds(graph: Graph) -> Graph:
    """Bounds of clamps that no value reaches go."""
    nodes = []
    for node in graph.nodes:
        if node.operator == "clamp":
            low, high = (node.attributes[end] for end in ("low", "high"))
            low, high = (None if low is None or low <= -BEYOND else low), (None if high is None or high >= BEYOND else high)
            bounded = low is not None or high is not None
            node = Node(node.name, "clamp" if bounded else "identity", node.inputs, {"low": low, "high": high} if bounded else {})
        nodes.append(node)
    return _with(graph, nodes)


def _with(graph: Graph, nodes: list[Node], weights: Mapping[str, Tensor] | None = None, output: str | None = None) -> Graph:
    used = {name for node in nodes for name in node.weights.values()}
    kept = {name: w for name, w in (graph.weights if weights is None else weights).items() if name in used}
    return Graph(graph.inputs, tuple(nodes), kept, output or graph.output)


def _renamed(node: Node, old: str, new: str) -> Node:
    return Node(node.name, node.operator, tuple(new if i == old else i for i in node.inputs), node.attributes, node.weights)


def _without_identities(graph: Graph) -> Graph:
    """Also what nobody uses goes."""
    nodes, output = list(graph.nodes), graph.output
    for node in graph.nodes:
        if node.operator == "identity":
            nodes = [_renamed(n, node.name, node.inputs[0]) for n in nodes if n.name != node.name]
            output = node.inputs[0] if output == node.name else output
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if node.name in wanted:
            wanted.update(node.inputs)
            kept.append(node)
    return _with(graph, kept[::-1], output=output)


def _without_last(graph: Graph) -> tuple[Graph, tuple[Any, ...]]:
    last: list[Any] = []
    while graph.nodes and graph.nodes[-1].name == graph.output and graph.nodes[-1].entry.client:
        node = graph.nodes[-1]
        last.insert(0, (node.operator, tuple(node.attributes.items())))
        graph = _with(graph, list(graph.nodes[:-1]), output=node.inputs[0])
    return graph, tuple(last)


def _one_hot(graph: Graph) -> Graph:
    numbers = {i.name: i.numbers for i in graph.inputs if i.numbers is not None}
    nodes, weights = [], dict(graph.weights)
    for node in graph.nodes:
        secret = [name for name in node.inputs if name in numbers]
        if node.operator == "embedding":
            name = node.weights["weight"]
            if not secret:
                raise UnsupportedLayerError(node.name, "it reads at secret places, which only works on an input: let it be the first layer")
            if len(weights[name]) != numbers[secret[0]]:
                raise UnsupportedLayerError(node.name, f"it has rows for {len(weights[name])} numbers, its input {numbers[secret[0]]}")
            weights[f"{name}, across"] = weights[name].t().contiguous()
            node = Node(node.name, "linear", node.inputs, {}, {"weight": f"{name}, across"})
        elif secret:
            raise UnsupportedLayerError(node.name, f"{secret[0]} holds whole numbers, which only an embedding can read")
        nodes.append(node)
    return Graph(tuple(Input(i.row, i.name) for i in graph.inputs), tuple(nodes), weights, graph.output)


def _fold(graph: Graph) -> Graph:
    """Affine layers go into the layers next to them."""
    for node in graph.nodes:
        if node.operator == "affine":
            folded = _into_before(graph, node) or _into_after(graph, node) or _depthwise(graph, node)
            if folded is not None:
                return _fold(folded)
    return graph


def _terms(graph: Graph, node: Node, channels: int) -> tuple[Tensor, Tensor]:
    """scale and shift, in doubles."""
    scale = graph.weights[node.weights["scale"]].double() if "scale" in node.weights else torch.ones(channels, dtype=torch.double)
    shift = graph.weights[node.weights["shift"]].double() if "shift" in node.weights else torch.zeros(channels, dtype=torch.double)
    return scale, shift


def _into_before(graph: Graph, node: Node) -> Graph | None:
    """W' = scale W, b' = scale b + shift of the linear or convolutional layer whose only user it is."""
    before = next((n for n in graph.nodes if n.name == node.inputs[0]), None)
    if before is None or before.operator not in ("linear", *CONVOLUTIONS) or len(graph.users(before.name)) > 1:
        return None
    dims = graph.values(*graph.example(1))[before.name].dim()
    if node.attributes["axis"] % dims != (1 if before.operator in CONVOLUTIONS else dims - 1):
        return None
    weight = graph.weights[before.weights["weight"]].double()
    scale, shift = _terms(graph, node, len(weight))
    bias = graph.weights[before.weights["bias"]].double() if "bias" in before.weights else torch.zeros(len(weight), dtype=torch.double)
    fresh = {"weight": weight * scale.view(-1, *[1] * (weight.dim() - 1)), "bias": bias * scale + shift}
    return _replaced(graph, before, node, fresh, node.name, before.inputs[0])


def _into_after(graph: Graph, node: Node) -> Graph | None:
    """W' = W scale, b' = b + W shift of the layer that alone uses it; padding has no shift, so a padded convolution takes none."""
    users = graph.users(node.name)
    if len(users) != 1 or node.name == graph.output or users[0].operator not in ("linear", *CONVOLUTIONS):
        return None
    after, dims = users[0], graph.values(*graph.example(1))[node.name].dim()
    conv = after.operator in CONVOLUTIONS
    if node.attributes["axis"] % dims != (1 if conv else dims - 1):
        return None
    if conv and (after.attributes["groups"] != 1 or ("shift" in node.weights and any(after.attributes["padding"]))):
        return None
    weight = graph.weights[after.weights["weight"]].double()
    scale, shift = _terms(graph, node, weight.shape[1])
    view = (1, -1, 1, 1) if conv else (1, -1)
    bias = graph.weights[after.weights["bias"]].double() if "bias" in after.weights else torch.zeros(len(weight), dtype=torch.double)
    fresh = {"weight": weight * scale.view(view), "bias": bias + (weight * shift.view(view)).flatten(1).sum(1)}
    return _replaced(graph, after, node, fresh, after.name, node.inputs[0])


def _replaced(graph: Graph, layer: Node, affine: Node, fresh: Mapping[str, Tensor], name: str, source: str) -> Graph:
    """``layer`` with other weights, from ``source``, under ``name``; ``affine`` gone."""
    weights = dict(graph.weights)
    named = {role: f"{layer.name}.folded.{role}" for role in fresh}
    weights.update({named[role]: value.float() for role, value in fresh.items()})
    nodes = []
    for node in graph.nodes:
        if node.name == layer.name:
            nodes.append(Node(name, layer.operator, (source,), layer.attributes, named))
        elif node.name != affine.name:
            nodes.append(node)
    return _with(graph, nodes, weights)


def _depthwise(graph: Graph, node: Node) -> Graph | None:
    shape = graph.values(*graph.example(1))[node.name].shape
    if len(shape) != 4 or node.attributes["axis"] % 4 != 1:
        return None
    scale, shift = _terms(graph, node, shape[1])
    weights = {**graph.weights, f"{node.name}.depthwise": scale.float().view(-1, 1, 1, 1), f"{node.name}.bias": shift.float()}
    named = {"weight": f"{node.name}.depthwise", "bias": f"{node.name}.bias"}
    made = Node(node.name, "conv2d", node.inputs, {"groups": shape[1]}, named)
    return _with(graph, [made if n is node else n for n in graph.nodes], weights)


def _one_input(graph: Graph) -> Graph:
    if len(graph.inputs) == 1:
        return graph
    sizes = [math.prod(i.row) for i in graph.inputs]
    name, start, nodes = "all inputs", 0, []
    for given, size in zip(graph.inputs, sizes, strict=True):
        nodes.append(Node(f"{given.name}, cut", "slice", (name,), {"axis": 1, "start": start, "stop": start + size}))
        nodes.append(Node(given.name, "reshape", (nodes[-1].name,), {"shape": given.row}))
        start += size
    return Graph((Input((sum(sizes),), name),), (*nodes, *graph.nodes), graph.weights, graph.output)


def rows_of(inputs: Sequence[Input], given: Sequence[Any]) -> Tensor:
    """One batch of a model's inputs as one row each: float32, whole numbers one-hot, several inputs one after the other."""
    if len(given) != len(inputs):
        raise ValueError(f"the model has {len(inputs)} inputs ({', '.join(i.name for i in inputs)}), not {len(given)}")
    parts = [i.encode(torch.as_tensor(x)) for i, x in zip(inputs, given, strict=True)]
    if len({len(part) for part in parts}) > 1:
        raise ValueError(f"the inputs have {', '.join(str(len(part)) for part in parts)} rows: as many of each")
    return parts[0] if len(parts) == 1 else torch.cat([part.flatten(1) for part in parts], 1)
