"""torch modules and exported programs as graphs: each is read as calls of ATen operators, one by one.

    Program      inputs, what is known (weights, buffers, constants), steps, results
    traced       of a module: it runs once, in eval mode, while what it calls is written down
    exported     of what `torch.export` made of one
    read         calls of known values alone are computed here; any other has a rule (torch_rules.py)

A module runs on an example of three rows. What it does otherwise for other values has no operator, or does not agree with the module on
another example: that is checked before anybody uses the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

import syftlite.serving.torch_functions
import syftlite.serving.torch_parts
import syftlite.serving.torch_recurrent
import syftlite.serving.torch_rules
import syftlite.serving.torch_sequences
import syftlite.serving.torch_windows  # noqa: F401  (all fill the table)
from syftlite._torch import DispatchMode, tree_map
from syftlite.errors import Misuse, UnsupportedLayerError
from syftlite.serving.graph import Builder, Graph, Input
from syftlite.serving.torch_attention import by_hand, unfused
from syftlite.serving.torch_call import ANYWHERE, RULES, Call, Made, Value, known

BATCH = 3
"""Rows of the batch that a module is run with."""
Ints = tuple[int, ...]
FACTORIES = {"arange", "eye", "full", "linspace", "ones", "scalar_tensor", "zeros"}
"""Operators that make constants of numbers."""


class Ref(NamedTuple):
    """A tensor of the program, as an operand or a result."""

    key: Hashable


class Step(NamedTuple):
    """A call: ``shape`` and ``out`` are those of its first result, ``others`` its other ones."""

    name: str
    function: Callable[..., Any]
    layer: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    out: Ref
    shape: Ints
    others: tuple[Ref, ...] = ()


class Program(NamedTuple):
    """``inputs``: (tensor, name, shape, whether it is of reals)."""

    inputs: list[tuple[Ref, str, Ints, bool]]
    known: dict[Ref, Tensor]
    steps: list[Step]
    results: list[Ref]


def from_module(module: nn.Module, example: Sequence[Tensor]) -> Graph:
    """The graph of ``module``, which is in eval mode; ``example``: a batch of each of its inputs, whole numbers for those that are."""
    twofold = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    trains = [name for name, part in module.named_modules() if part.training and isinstance(part, twofold)]
    if trains:
        raise Misuse(f"{', '.join(trains)} would train: eval() the module first")
    graph = read(traced(module, [_of_rows(x, BATCH) for x in example]))
    with torch.no_grad(), unfused():
        graph.must_agree(module, *[_of_rows(x if not x.is_floating_point() or x.any() else torch.randn(x.shape), 2) for x in example])
    return graph


def _of_rows(x: Tensor, rows: int) -> Tensor:
    if not x.dim() or not len(x):
        raise Misuse("an example is a batch: rows first, and at least one")
    return x.repeat(-(-rows // len(x)), *[1] * (x.dim() - 1))[:rows]


def from_exported(program: torch.export.ExportedProgram) -> Graph:
    """The graph of a program exported with any number of rows; its first axis is the batch."""
    return read(exported(program))


# -- reading


def read(program: Program) -> Graph:
    """The graph. Raises `UnsupportedLayerError`."""
    build = Builder(*[Input(shape[1:], name, None if real else _numbers(program, ref, name)) for ref, name, shape, real in program.inputs])
    values = {ref: Value(name, shape) for ref, name, shape, _ in program.inputs}
    values |= {ref: Value("constant", tuple(tensor.shape), tensor.detach()) for ref, tensor in program.known.items()}
    for step in program.steps:
        made = _applied(step, values, build)
        for ref, value in zip((step.out, *step.others), [made] if isinstance(made, Value) else made, strict=False):
            if value is not None:
                values[ref] = value
    if len(program.results) != 1:
        raise UnsupportedLayerError("the model", f"it gives {len(program.results)} tensors, and a served model gives one")
    output = values[program.results[0]]
    if output.known is not None:
        raise UnsupportedLayerError("the model", "its output does not depend on its input")
    if output.batch:
        raise UnsupportedLayerError("the model", f"its rows leave along axis {output.batch}: a transpose with this dims ends no model")
    return build.graph(output.name)


def _numbers(program: Program, ref: Ref, name: str) -> int:
    """Of an input of whole numbers, how many the embedding that reads it has."""
    for step in program.steps:
        if step.name == "embedding" and step.args[1] == ref:
            return len(program.known[step.args[0]])
    raise UnsupportedLayerError(name, "an input of whole numbers that no embedding reads")


def _applied(step: Step, values: Mapping[Ref, Value], build: Builder) -> Made:
    """What the results of ``step`` are; those that are missing or None have no form."""

    def value(operand: Any) -> Any:
        if not isinstance(operand, Ref):
            return operand
        if operand not in values:
            raise UnsupportedLayerError(step.layer, f"{step.name} of a result that has no form in a served model")
        return values[operand]

    args, kwargs = tree_map(value, list(step.args), Ref), tree_map(value, dict(step.kwargs), Ref)
    tensors = _values(args, kwargs)
    if (tensors or step.name in FACTORIES) and all(t.known is not None for t in tensors):
        result = step.function(*tree_map(known, args, Value), **tree_map(known, kwargs, Value))
        return [Value("constant", tuple(r.shape), r) for r in _tensors(result)]
    made = RULES.get(step.name)
    if made is None:
        what = f"{step.function} has no form in a served model"
        raise UnsupportedLayerError(step.layer, f"{what}; these have: {', '.join(sorted({n.strip('_') for n in RULES}))}")
    batch = max((t.batch for t in tensors), default=0)
    if any(t.batch != batch for t in tensors if t.known is None) or (batch and step.name not in ANYWHERE):
        raise UnsupportedLayerError(step.layer, f"{step.name} of rows along axis {batch} has no form in a served model: move them first")
    try:
        return made(Call(build, step.name, step.layer, step.shape, batch), *args, **kwargs)
    except TypeError as error:
        raise UnsupportedLayerError(step.layer, f"{step.name} with arguments that have no form here: {error}") from error


def _values(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Value]:
    """The operands that are tensors, those in lists too."""
    given = [v for a in [*args, *kwargs.values()] for v in (a if isinstance(a, list) else [a])]
    return [v for v in given if isinstance(v, Value)]


# -- programs of modules


class Trace(DispatchMode):
    """While it is on, every operator is written down. In inference mode operators arrive as the module calls them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.layers = [""]
        """Modules that are running, the innermost last."""
        self.made: dict[int, Ref] = {}
        """By identity, what depends on an input: as it is now, for an operator may write in place."""
        self.known: dict[Ref, Tensor] = {}
        self._kept: list[Tensor] = []  # no identity is used twice

    def enter(self, tensor: Tensor) -> Ref:
        """A tensor that depends on an input from now on."""
        ref = self.made[id(tensor)] = Ref(len(self._kept))
        self._kept.append(tensor)
        return ref

    def ref(self, tensor: Tensor) -> Ref:
        """``tensor`` as an operand: what no step made is known."""
        ref = self.made.get(id(tensor))
        if ref is None:
            ref = Ref(("known", id(tensor)))
            self.known[ref] = tensor
            self._kept.append(tensor)
        return ref

    def begins(self, name: str, *_: Any) -> None:
        """A module runs."""
        self.layers.append(name or self.layers[-1])

    def ends(self, *_: Any) -> None:
        """It is done."""
        self.layers.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        operands, named = tree_map(self.ref, list(args), Tensor), tree_map(self.ref, kwargs or {}, Tensor)
        depends = any(id(x) in self.made for x in _tensors([args, kwargs or {}]))
        out = func(*args, **(kwargs or {}))
        if depends:
            results = _tensors(out)
            name, layer = func._schema.name.split("::")[1], self.layers[-1]
            if not results:
                raise UnsupportedLayerError(layer or "the model", f"{func} has no form: what it does next would depend on values")
            first, *others = [self.enter(x) for x in results]
            self.steps.append(Step(name, func, layer or name, operands, named, first, tuple(results[0].shape), tuple(others)))
        return out


def _tensors(tree: Any) -> list[Tensor]:
    found: list[Tensor] = []
    tree_map(found.append, tree, Tensor)
    return found


def traced(module: nn.Module, example: Sequence[Tensor]) -> Program:
    """What ``module`` does with a batch."""
    trace = Trace()
    hooks = []
    for name, part in module.named_modules():
        hooks.append(part.register_forward_pre_hook(partial(trace.begins, name)))
        hooks.append(part.register_forward_hook(trace.ends, always_call=True))
    try:
        with torch.inference_mode():
            given = [x.clone() for x in example]
            names = ["input"] if len(given) == 1 else [f"input {i}" for i in range(1, len(given) + 1)]
            inputs = [(trace.enter(x), name, tuple(x.shape), x.is_floating_point()) for x, name in zip(given, names, strict=True)]
            with by_hand(module), trace:
                out = module(*given)
            results = [trace.ref(x) for x in _tensors(out)]
    finally:
        for hook in hooks:
            hook.remove()
    return Program(inputs, trace.known, trace.steps, results)


# -- exported programs


def exported(program: torch.export.ExportedProgram) -> Program:
    """What ``program`` does."""
    signature, made = program.graph_signature, Program([], {}, [], [])
    kept = {**signature.inputs_to_parameters, **signature.inputs_to_buffers, **signature.inputs_to_lifted_tensor_constants}
    for node in program.graph.nodes:
        if node.op == "placeholder" and node.name in kept:
            found = program.state_dict.get(kept[node.name], program.constants.get(kept[node.name]))
            assert isinstance(found, Tensor)
            made.known[Ref(node)] = found
        elif node.op == "placeholder" and isinstance(node.meta.get("val"), Tensor):
            value = node.meta["val"]
            made.inputs.append((Ref(node), node.name, _ints(value.shape), value.is_floating_point()))
        elif node.op == "call_function":
            made.steps.extend(_step(node))
        elif node.op == "output":
            made.results.extend(_ref(result) for result in node.args[0])
    return made


def _step(node: Any) -> list[Step]:
    target = node.target
    name = target._schema.name.split("::")[1] if hasattr(target, "_schema") else getattr(target, "__name__", str(target))
    if name == "getitem" or name.startswith(("sym_", "_assert", "assert")):
        return []
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt):
        return []
    first = value[0] if isinstance(value, (tuple, list)) else value
    others = tuple(Ref((node, place)) for place in range(1, len(value))) if isinstance(value, (tuple, list)) else ()
    args, kwargs = tree_map(_ref, list(node.args), torch.fx.Node), tree_map(_ref, dict(node.kwargs), torch.fx.Node)
    return [Step(name, target, _layer(node), args, kwargs, Ref(node), _ints(first.shape) if isinstance(first, Tensor) else (), others)]


def _ref(node: Any) -> Any:
    """A node's tensor, or its number if it is one of rows; of several, the first is the node's own."""
    if isinstance(node.meta.get("val"), torch.SymInt):
        return int(node.meta["val"])
    if node.op == "call_function" and getattr(node.target, "__name__", "") == "getitem":
        of, place = node.args
        return Ref((of, place)) if place else _ref(of)
    return Ref(node)


def _layer(node: Any) -> str:
    """The module that ``node`` is of, or its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L__self___").strip(".") or str(node.name)


def _ints(shape: Sequence[Any]) -> Ints:
    return tuple(int(size) for size in shape)
