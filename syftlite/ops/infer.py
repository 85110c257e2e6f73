"""Inference: the specs of an operator's results from the specs of its operands, without values.

Running an operator on meta tensors costs 60-290 us, so results are cached by (operator, specs and constants). Views that programs
index with a running integer (`x[i]`, `x[i:j]`) would miss that cache every time; `BY_HAND` has their rule instead (2 us).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from syftlite._torch import aten, broadcast, tree_flatten
from syftlite.errors import Misuse
from syftlite.ops.dtypes import number_of
from syftlite.ops.operator import Kind, Operator, in_rows
from syftlite.ops.shapes import run
from syftlite.ops.spec import Spec

Specs = Spec | tuple[Any, ...] | None
MAX_ENTRIES = 16_384


class DataDependent(Exception):
    """The result's shape depends on values: only the worker can tell."""


def infer(operator: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> Specs:
    """The spec of each result; in ``args`` and ``kwargs`` a `Spec` stands for each tensor.

    Raises torch's own error where shapes or dtypes do not fit, `Misuse` where a result would be of a dtype that does not travel, and
    `DataDependent` where shapes depend on values.
    """
    if operator.dynamic and depends_on_values(operator, args):
        raise DataDependent
    if "device" in operator.keywords:
        kwargs = {**kwargs, "device": "meta"}
    if operator.inplace:
        _must_hold(operator, [*args, *kwargs.values()])
    try:
        out = run(operator.func, [_meta(a) for a in args], {k: _meta(v) for k, v in kwargs.items()})
    except (AttributeError, AssertionError) as error:  # torch's references look at a number as if it were a tensor
        raise TypeError(f"{operator.name} takes no such operands: {error}") from error
    if isinstance(out, torch.Tensor):
        specs: Specs = Spec.of(out)
    elif out is None:
        return None
    else:
        specs = tuple(Spec.of(o) if isinstance(o, torch.Tensor) else None for o in out)
    for spec in (specs,) if isinstance(specs, Spec) else specs or ():
        if spec is not None:
            number_of(spec.dtype)
    correct = _in_rows if operator.finish is in_rows else AS_ON_CPU.get(operator.func)
    return specs if correct is None else correct(specs, operator.named(args, kwargs))


def depends_on_values(operator: Operator, args: Sequence[Any]) -> bool:
    """Whether a dynamic operator's result has a shape that ``args`` (specs or tensors) do not tell: indexing only does with masks."""
    if operator.func is aten.index.Tensor and len(args) > 1 and isinstance(args[1], (list, tuple)):
        return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
    return True


def rests(operator: Operator, operands: Any, results: Any) -> bool:
    """Whether ``results`` are of the default dtype: numbers with a point, of whole ones, and nobody has said of which dtype."""
    given = tree_flatten(operands)[0]
    tensors = [value for value in given if type(value) is Spec]
    if operator.kind is Kind.FACTORY or not tensors or any(map(_real, tensors)) or any(type(value) is torch.dtype for value in given):
        return False
    return any(type(spec) is Spec and _real(spec) for spec in tree_flatten(results)[0])


def _real(spec: Spec) -> bool:
    return spec.dtype.is_floating_point or spec.dtype.is_complex


def _meta(value: Any) -> Any:
    if type(value) is Spec:
        return value.meta
    if type(value) is list or type(value) is tuple:
        return [_meta(v) for v in value]
    return value


def _must_hold(operator: Operator, operands: Sequence[Any]) -> None:
    """Raise unless the first has room for what all of them give: some meta kernels would make room, in the meta tensor that all share."""
    shapes = [x.shape for x in operands if type(x) is Spec]
    if operator.func is aten.fill_.Tensor and any(shapes[1:]):
        raise RuntimeError(f"fill_ only supports 0-dimension value tensor but got tensor with {len(shapes[1])} dimensions.")
    if operator.kind is not Kind.POINTWISE:
        return
    try:
        wanted = broadcast(*shapes)
    except RuntimeError:
        return  # torch says so in its own words
    if shapes and wanted != shapes[0]:
        raise RuntimeError(f"output with shape {list(shapes[0])} doesn't match the broadcast shape {list(wanted)}")


def _in_rows(specs: Specs, operands: dict[str, Any]) -> Specs:
    if isinstance(specs, Spec):
        return Spec.contiguous(specs.shape, specs.dtype)
    return tuple(Spec.contiguous(s.shape, s.dtype) for s in specs or ())


def _as_product(specs: Specs, operands: dict[str, Any]) -> Specs:
    """In the layout that an elementwise kernel chooses: a Python reference, which stands for these on meta, chooses another."""
    assert isinstance(specs, Spec)
    first, second = list(operands.values())[:2]
    return Spec.make(specs.shape, aten.mul.Tensor(_meta(first), _meta(second)).stride(), 0, specs.dtype)


def _as_conv(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, Spec)
    last = operands["input"].channels_last or operands["weight"].channels_last
    return Spec.channels_last_of(specs) if last else specs


def _as_conv_backward(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, tuple)
    last = operands["input"].channels_last or operands["weight"].channels_last
    return (*[spec and Spec.channels_last_of(spec) if last else spec for spec in specs[:2]], specs[2])


def _as_batch_norm(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, tuple)
    first, *others = specs
    if first is not None:
        first = Spec.channels_last_of(first) if operands["input"].channels_last else Spec.contiguous(first.shape, first.dtype)
    if operands.get("training") is False:  # nothing is saved
        others = [Spec.contiguous((0,), s.dtype) for s in others]
    return (first, *others)


def _as_batch_norm_forward(specs: Specs, operands: dict[str, Any]) -> Specs:
    found = _as_batch_norm(specs, operands)
    assert isinstance(found, tuple)
    first, *saved = found
    given = (operands.get(name) for name in ("weight", "bias", "running_mean", "running_var"))
    kind = next((s.dtype for s in given if s is not None), operands["input"].dtype)
    return (first, *[Spec.contiguous(s.shape, kind) for s in saved])


def _as_group_norm(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, tuple)
    first, *others = specs
    last = operands["input"].channels_last
    return (Spec.channels_last_of(first) if last else Spec.contiguous(first.shape, first.dtype), *others)


def _as_layer_norm(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, tuple)
    kind = next((s.dtype for s in (operands.get("weight"), operands.get("bias")) if s is not None), specs[0].dtype)
    return (specs[0], *[Spec.contiguous(s.shape, kind) for s in specs[1:]])


def _as_dropout(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, tuple)
    return specs if specs[0].elements else (specs[0], specs[0])  # nothing to drop: the mask is the input's like


def _promoted(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, Spec)
    dtype = torch.result_type(operands["grad_output"].meta, operands["self"].meta)
    return Spec.make(specs.shape, specs.stride, specs.offset, dtype)


def _promoted_product(specs: Specs, operands: dict[str, Any]) -> Specs:
    return _promoted(_as_product(specs, operands), operands)


def _as_power(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, Spec)
    dtype = torch.result_type(operands["self"].meta, operands["exponent"])
    return Spec.make(specs.shape, specs.stride, specs.offset, dtype)


def _as_self(specs: Specs, operands: dict[str, Any]) -> Specs:
    assert isinstance(specs, Spec)
    return Spec.make(specs.shape, specs.stride, specs.offset, operands["self"].dtype)


AS_ON_CPU: dict[Any, Callable[[Specs, dict[str, Any]], Specs]] = {
    aten.pow.Scalar: _in_rows,
    aten.pow.Tensor_Scalar: _as_power,
    aten.nonzero_static.default: _in_rows,
    aten.log_sigmoid_forward.default: _in_rows,
    aten._log_softmax_backward_data.default: _in_rows,
    aten.convolution.default: _as_conv,
    aten.convolution_backward.default: _as_conv_backward,
    aten.native_layer_norm.default: _as_layer_norm,
    aten.native_group_norm.default: _as_group_norm,
    aten.native_dropout.default: _as_dropout,
    aten.native_batch_norm.default: _as_batch_norm_forward,
    aten.native_batch_norm_backward.default: _as_batch_norm,
    aten.threshold_backward.default: _promoted,
    aten.hardtanh_backward.default: _promoted_product,
    aten.soft_margin_loss.default: _as_self,
    **dict.fromkeys(
        (aten.div.Tensor_mode, aten.floor_divide.default, aten.xlogy.Tensor, aten.special_xlog1py.default, aten.copysign.Tensor,
         aten.softplus_backward.default, aten.hardsigmoid_backward.default,
         aten.hardswish_backward.default, aten.logit_backward.default),
        _as_product,
    ),
}  # fmt: skip
"""Corrections, where torch's meta kernel gives other strides, sizes or dtypes than its CPU kernel."""


def _dim(dim: int, ndim: int) -> int:
    if not -ndim <= dim < max(ndim, 1):
        raise IndexError(f"Dimension out of range (expected to be in range of [{-ndim}, {ndim - 1}], but got {dim})")
    return dim % ndim if ndim else 0


def _select(x: Spec, dim: int, index: int) -> Spec:
    if not x.shape:
        raise IndexError("select() cannot be applied to a 0-dim tensor.")
    dim = _dim(dim, len(x.shape))
    size = x.shape[dim]
    if not -size <= index < size:
        raise IndexError(f"index {index} is out of bounds for dimension {dim} with size {size}")
    shape = x.shape[:dim] + x.shape[dim + 1 :]
    return Spec.make(shape, x.stride[:dim] + x.stride[dim + 1 :], x.offset + (index % size) * x.stride[dim], x.dtype)


def _slice(x: Spec, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Spec:
    dim = _dim(dim, len(x.shape))
    if step <= 0:
        raise ValueError("slice step must be positive")
    first, last, _ = slice(start, end).indices(x.shape[dim])
    length = max(0, -(-(last - first) // step))
    shape = (*x.shape[:dim], length, *x.shape[dim + 1 :])
    stride = (*x.stride[:dim], x.stride[dim] * step, *x.stride[dim + 1 :])
    return Spec.make(shape, stride, x.offset + first * x.stride[dim], x.dtype)


BY_HAND: dict[Any, Callable[..., Spec]] = {aten.select.int: _select, aten.slice.Tensor: _slice}


class Cache:
    """A bounded map from (operator, specs and constants) to what they lead to. Emptied when full: it refills in milliseconds."""

    def __init__(self, limit: int = MAX_ENTRIES) -> None:
        self.limit = limit
        self.entries: dict[Any, Any] = {}
        self.get = self.entries.get

    def put(self, key: Any, value: Any) -> None:
        """Remember ``value``."""
        if len(self.entries) >= self.limit:
            self.entries.clear()
        self.entries[key] = value


def key_of(operator: Operator, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """What the results' specs depend on: the operator, its operands' specs and constants. A factory's floats count by value (`arange`)."""
    kept = _exactly if operator.kind is Kind.FACTORY else freeze
    if kwargs:
        return (operator.key, *[kept(a) for a in args], *[(name, kept(value)) for name, value in kwargs.items()])
    return (operator.key, *[kept(a) for a in args])


def _exactly(value: Any) -> Any:
    return ("float", repr(value)) if type(value) is float else freeze(value)


def freeze(value: Any) -> Any:
    """A hashable stand-in for an operand in a cache key: specs by identity, floats by type, all else by type and value."""
    kind = type(value)
    if kind is Spec:
        return value
    if kind is float:
        return float
    if kind is list or kind is tuple:
        return tuple([freeze(v) for v in value])
    if isinstance(value, torch.Tensor):
        raise Misuse("a tensor has no place in a cache key; pass its Spec")
    return (kind, value)
