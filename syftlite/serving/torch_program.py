"""torch modules and exported programs as graphs. `torch.export` writes a module down as ATen operators; each has a rule here.

    @rule("conv2d")                      the ATen name
    def _conv2d(p, node, x, weight, ...)     arguments as ATen has them: `Value`s for tensors; returns p.add(operator, node, ...)

Layers are named as the module names them. What has no rule, and arguments that have no form, are refused by that name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from syftlite.errors import Misuse, UnsupportedLayerError
from syftlite.serving.graph import Builder, Graph, Input

BATCH = 3
"""Rows of the batch that a module is exported with."""


class Value(NamedTuple):
    """A tensor of the program: a node of the graph, or, if ``known``, a weight or a constant."""

    name: str
    shape: tuple[int, ...]
    known: Tensor | None = None


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
                self.values[node] = Value(node.name, _shape(node))
                inputs.append((node, _shape(node)))
        self.rows = inputs[0][1][0] if inputs else 0
        self.build = Builder(*[Input(shape[1:], node.name, self._numbers(node)) for node, shape in inputs])

    def _numbers(self, node: Any) -> int | None:
        """Of an input of whole numbers, how many the embedding that reads it has."""
        if node.meta["val"].is_floating_point():
            return None
        for user in node.users:
            if user.op == "call_function" and _name(user) == "embedding":
                return self.values[user.args[0]].shape[0] if user.args[0] in self.values else _shape(user.args[0])[0]
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
        name = _name(node)
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
            value = node.target(*[_known(a) for a in args], **{k: _known(v) for k, v in kwargs.items()})
            return Value(node.name, tuple(value.shape), value)
        try:
            return made(self, node, *args, **kwargs)
        except TypeError as error:
            raise UnsupportedLayerError(layer_of(node), f"{name} with arguments that have no form here: {error}") from error

    # -- for rules

    def add(
        self, operator: str, node: Any, inputs: Sequence[Value], weights: Mapping[str, Tensor | None] | None = None, **static: Any
    ) -> Value:
        """A node of the graph."""
        for value in inputs:
            if value.known is not None:
                raise UnsupportedLayerError(layer_of(node), f"{operator} of a constant has no form here")
        name = self.build.add(operator, layer_of(node), [v.name for v in inputs], weights, **static)
        val = node.meta.get("val")
        return Value(name, tuple(int(s) for s in (val[0] if isinstance(val, (tuple, list)) else val).shape))


Rule = Callable[..., Value]
RULES: dict[str, Rule] = {}


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a rule for ATen operators of these names."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def layer_of(node: Any) -> str:
    """The module that ``node`` is of, or its own name."""
    stack = node.meta.get("nn_module_stack") or {}
    path = str(list(stack.values())[-1][0]) if stack else ""
    return path.removeprefix("L['self'].").removeprefix("L__self___").strip(".") or str(node.name)


def _name(node: Any) -> str:
    target = node.target
    return target._schema.name.split("::")[1] if hasattr(target, "_schema") else getattr(target, "__name__", str(target))


def _shape(node: Any) -> tuple[int, ...]:
    return tuple(int(s) for s in node.meta["val"].shape)


def _known(value: Any) -> Any:
    return value.known if isinstance(value, Value) else value


def _weight(node: Any, value: Value | None, role: str) -> Tensor | None:
    if value is not None and value.known is None:
        raise UnsupportedLayerError(layer_of(node), f"its {role} depends on the input")
    return None if value is None else value.known


def _pair(value: Any) -> tuple[int, int]:
    parts = [value] if isinstance(value, int) else list(value)
    return int(parts[0]), int(parts[-1])


def _around(padding: Any) -> tuple[int, int, int, int]:
    rows, columns = _pair(padding)
    return rows, rows, columns, columns


def _refuse(node: Any, **arguments: bool) -> None:
    """Raise for the first argument that is in the way."""
    for name, wrong in arguments.items():
        if wrong:
            raise UnsupportedLayerError(layer_of(node), f"{_name(node)} with this {name} has no form in a served model")


# -- with weights


@rule("linear")
def _linear(p: _Program, node: Any, x: Value, weight: Value, bias: Value | None = None) -> Value:
    return p.add("linear", node, [x], {"weight": _weight(node, weight, "weight"), "bias": _weight(node, bias, "bias")})


@rule("addmm")
def _addmm(p: _Program, node: Any, bias: Value, x: Value, weight: Value) -> Value:
    w = _weight(node, weight, "weight")
    assert w is not None
    return p.add("linear", node, [x], {"weight": w.t(), "bias": _weight(node, bias, "bias")})


@rule("mm", "matmul")
def _matmul(p: _Program, node: Any, x: Value, weight: Value) -> Value:
    w = _weight(node, weight, "second factor")
    _refuse(node, factor=w is None or w.dim() != 2)
    assert w is not None
    return p.add("linear", node, [x], {"weight": w.t()})


@rule("conv2d")
def _conv2d(
    p: _Program,
    node: Any,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Value:
    w, step, apart = _weight(node, weight, "weight"), _pair(stride), _pair(dilation)
    assert w is not None
    if isinstance(padding, str):
        rows, columns = (0, 0) if padding == "valid" else (d * (k - 1) for d, k in zip(apart, w.shape[2:], strict=True))
        around = (rows // 2, rows - rows // 2, columns // 2, columns - columns // 2)
    else:
        around = _around(padding)
    weights = {"weight": w, "bias": _weight(node, bias, "bias")}
    return p.add("conv2d", node, [x], weights, stride=step, padding=around, dilation=apart, groups=groups)


@rule("convolution")
def _convolution(
    p: _Program,
    node: Any,
    x: Value,
    weight: Value,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    extra: Any,
    groups: int,
) -> Value:
    _refuse(node, transposed=transposed, dimensions=len(x.shape) != 4)
    return _conv2d(p, node, x, weight, bias, stride, padding, dilation, groups)


@rule("batch_norm", "_native_batch_norm_legit_no_training")
def _batch_norm(p: _Program, node: Any, x: Value, weight: Any, bias: Any, mean: Any, var: Any, *rest: Any) -> Value:
    eps = rest[2] if len(rest) > 2 else rest[1]
    _refuse(node, training=len(rest) > 2 and bool(rest[0]))
    m, v = _weight(node, mean, "mean"), _weight(node, var, "variance")
    _refuse(node, statistics=m is None or v is None)
    assert m is not None and v is not None
    scale = (v.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.known.double()
    shift = -m.double() * scale + (0 if bias is None else bias.known.double())
    return p.add("affine", node, [x], {"scale": scale, "shift": shift})


@rule("layer_norm")
def _layer_norm(p: _Program, node: Any, x: Value, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Value:
    weights = {"scale": _weight(node, weight, "weight"), "shift": _weight(node, bias, "bias")}
    return p.add("layer_norm", node, [x], weights, axes=len(shape), eps=eps)


@rule("embedding")
def _embedding(p: _Program, node: Any, weight: Value, x: Value, *_: Any) -> Value:
    return p.add("embedding", node, [x], {"weight": _weight(node, weight, "weight")})


# -- elementwise


@rule("relu", "relu_")
def _relu(p: _Program, node: Any, x: Value) -> Value:
    return p.add("relu", node, [x])


@rule("leaky_relu", "leaky_relu_")
def _leaky_relu(p: _Program, node: Any, x: Value, slope: float = 0.01) -> Value:
    return p.add("leaky_relu", node, [x], slope=float(slope))


@rule("hardtanh", "hardtanh_", "clamp", "clamp_", "relu6")
def _clamp(p: _Program, node: Any, x: Value, low: Any = None, high: Any = None, *, min: Any = None, max: Any = None) -> Value:
    default = DEFAULT_LIMITS.get(_name(node).rstrip("_"), (None, None))
    ends = [next((v for v in given if v is not None), None) for given in ((low, min, default[0]), (high, max, default[1]))]
    return p.add("clamp", node, [x], low=ends[0], high=ends[1])


DEFAULT_LIMITS = {"hardtanh": (-1.0, 1.0), "relu6": (0.0, 6.0)}


@rule("softmax", "log_softmax", "_softmax", "_log_softmax")
def _softmax(p: _Program, node: Any, x: Value, dim: int, *_: Any) -> Value:
    return p.add(_name(node).strip("_"), node, [x], axis=dim)


@rule("sigmoid", "tanh", "softplus", "exp", "selu", "silu")
def _function(p: _Program, node: Any, x: Value, *rest: Any) -> Value:
    _refuse(node, arguments=_name(node) == "softplus" and tuple(rest) not in ((), (1.0, 20.0), (1, 20)))
    return p.add(_name(node), node, [x])


@rule("gelu")
def _gelu(p: _Program, node: Any, x: Value, *, approximate: str = "none") -> Value:
    return p.add("gelu", node, [x], approximate=approximate == "tanh")


@rule("elu")
def _elu(p: _Program, node: Any, x: Value, alpha: float = 1.0, *_: Any) -> Value:
    return p.add("elu", node, [x], alpha=float(alpha))


@rule("dropout", "dropout_", "feature_dropout")
def _dropout(p: _Program, node: Any, x: Value, probability: float, train: bool) -> Value:
    _refuse(node, train=train)
    return x


@rule("contiguous", "clone", "alias", "detach", "detach_", "_to_copy", "to", "lift_fresh_copy", "lift_fresh")
def _same(p: _Program, node: Any, x: Value, *_: Any, **__: Any) -> Value:
    return x


# -- pools


@rule("max_pool2d", "max_pool2d_with_indices")
def _max_pool2d(
    p: _Program, node: Any, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False
) -> Value:
    _refuse(node, dilation=_pair(dilation) != (1, 1), ceil_mode=ceil)
    return p.add("max_pool2d", node, [x], kernel=_pair(kernel), stride=_pair(stride or kernel), padding=_around(padding))


@rule("avg_pool2d")
def _avg_pool2d(
    p: _Program,
    node: Any,
    x: Value,
    kernel: Any,
    stride: Any = (),
    padding: Any = 0,
    ceil: bool = False,
    count: bool = True,
    divisor: Any = None,
) -> Value:
    _refuse(node, ceil_mode=ceil, divisor_override=divisor is not None)
    static: dict[str, Any] = {"kernel": _pair(kernel), "stride": _pair(stride or kernel), "padding": _around(padding)}
    return p.add("avg_pool2d", node, [x], **static, count_padding=bool(count))


@rule("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive(p: _Program, node: Any, x: Value, size: Any) -> Value:
    out, have = _pair(size), x.shape[2:]
    if out == (1, 1):
        return p.add("global_avg_pool", node, [x], keep=True)
    _refuse(node, output_size=any(h % o for h, o in zip(have, out, strict=True)))
    kernel = (have[0] // out[0], have[1] // out[1])
    return p.add("avg_pool2d", node, [x], kernel=kernel, stride=kernel)


@rule("mean")
def _mean(p: _Program, node: Any, x: Value, dims: Any = None, keep: bool = False, **_: Any) -> Value:
    return p.add("mean", node, [x], dims=_axes(node, x, dims), keep=keep)


@rule("amax")
def _amax(p: _Program, node: Any, x: Value, dims: Any = (), keep: bool = False) -> Value:
    return p.add("amax", node, [x], dims=_axes(node, x, dims), keep=keep)


def _axes(node: Any, x: Value, dims: Any) -> tuple[int, ...]:
    axes = tuple(d % len(x.shape) for d in ([dims] if isinstance(dims, int) else dims or range(len(x.shape))))
    _refuse(node, dim=0 in axes)
    return axes


# -- moving elements


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(p: _Program, node: Any, x: Value, *_: Any) -> Value:
    shape = _shape(node)
    _refuse(node, batch=not shape or shape[0] != x.shape[0] or math.prod(shape) != math.prod(x.shape))
    if len(shape) == 2:
        return p.add("flatten", node, [x])
    return p.add("reshape", node, [x], shape=shape[1:])


@rule("permute")
def _permute(p: _Program, node: Any, x: Value, order: Any) -> Value:
    axes = tuple(o % len(x.shape) for o in order)
    _refuse(node, dims=axes[0] != 0)
    return p.add("permute", node, [x], order=axes)


@rule("transpose")
def _transpose(p: _Program, node: Any, x: Value, first: int, second: int) -> Value:
    order = list(range(len(x.shape)))
    order[first], order[second] = order[second], order[first]
    return _permute(p, node, x, order)


@rule("constant_pad_nd", "pad")
def _pad(p: _Program, node: Any, x: Value, padding: Any, *rest: Any) -> Value:
    given = [r for r in rest if r is not None]
    mode, value = ("constant", (*given, 0)[0]) if _name(node) == "constant_pad_nd" else ((*given, "constant")[0], (*given[1:], 0)[0])
    _refuse(node, mode=mode != "constant", padding=len(padding) not in (2, 4) or min(padding) < 0, dimensions=len(x.shape) != 4)
    left, right, top, bottom = (*padding, 0, 0)[:4]
    return p.add("pad", node, [x], padding=(top, bottom, left, right), value=float(value))


@rule("slice")
def _slice(p: _Program, node: Any, x: Value, dim: int = 0, start: Any = None, stop: Any = None, step: int = 1) -> Value:
    size, axis = x.shape[dim], dim % len(x.shape)
    begin, end = (0 if start is None else start), size if stop is None else min(stop, size)
    if (begin, end, step) == (0, size, 1):
        return x
    _refuse(node, dim=axis == 0)
    return p.add("slice", node, [x], axis=axis, start=begin, stop=end, step=step)


@rule("cat")
def _cat(p: _Program, node: Any, xs: Sequence[Value], dim: int = 0) -> Value:
    axis = dim % len(xs[0].shape)
    _refuse(node, dim=axis == 0)
    return p.add("concat", node, xs, axis=axis)


# -- of two


def _two(operator: str) -> Rule:
    def apply(p: _Program, node: Any, x: Any, y: Any, *, alpha: Any = 1, **_: Any) -> Value:
        _refuse(node, alpha=alpha != 1)
        if isinstance(x, Value) and isinstance(y, Value) and x.known is None and y.known is None:
            _refuse(node, broadcasting=x.shape != y.shape)
            return p.add(operator, node, [x, y])
        return _with_constant(p, node, operator, x, y)

    return apply


def _with_constant(p: _Program, node: Any, operator: str, x: Any, y: Any) -> Value:
    """x op c or c op x: a number, or a tensor along one axis."""
    swapped = not isinstance(x, Value) or x.known is not None
    tensor, constant = (y, x) if swapped else (x, y)
    value = torch.as_tensor(_known(constant)).double()
    _refuse(node, operands=swapped and operator == "divide")
    if value.numel() == 1:
        number = float(value)
        if operator in ("multiply", "divide"):
            return p.add("scale", node, [tensor], factor=number if operator == "multiply" else 1 / number)
        sign = -1.0 if operator == "subtract" else 1.0
        return p.add("scale", node, [tensor], factor=sign if swapped else 1.0, offset=number if swapped else sign * number)
    dims = len(tensor.shape)
    sizes = (1,) * (dims - value.dim()) + tuple(value.shape)
    wide = [i for i, s in enumerate(sizes) if s > 1]
    _refuse(node, constant=len(sizes) != dims or len(wide) != 1 or wide[0] == 0 or tensor.shape[wide[0]] != value.numel())
    flat = value.flatten()
    if operator in ("multiply", "divide"):
        return p.add("affine", node, [tensor], {"scale": flat if operator == "multiply" else 1 / flat}, axis=wide[0])
    weights = {"shift": flat if operator == "add" or swapped else -flat}
    if operator == "subtract" and swapped:
        weights["scale"] = -torch.ones_like(flat)
    return p.add("affine", node, [tensor], weights, axis=wide[0])


RULES.update({"add": _two("add"), "add_": _two("add"), "sub": _two("subtract"), "mul": _two("multiply"), "mul_": _two("multiply")})
RULES["div"] = _two("divide")


@rule("maximum", "minimum")
def _extreme(p: _Program, node: Any, x: Value, y: Value) -> Value:
    return p.add(_name(node), node, [x, y])
