"""More of TensorFlow's library as torch computes it: over axes, products of matrices, and what makes tensors of another shape.

The rules are as in tensorflow_rules.py: each names the arguments that it honours, and any other is a TypeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from syftlite.hooks.tensorflow_rules import name_of, numbers, pair, real, rule, truths

# -- over axes


def _whole(values: Any) -> list[int]:
    """A local shape or list of axes, or one."""
    given = values.tolist() if type(values) is Tensor else values
    return [int(v) for v in (given if isinstance(given, Sequence) else (given,))]


def _dims(x: Tensor, axis: Any) -> list[int]:
    return list(range(x.dim())) if axis is None else _whole(axis)


@rule("reduce_sum")
def _sum(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = numbers(input_tensor, "reduce_sum")
    return torch.sum(x, _dims(x, axis), keepdim=keepdims, dtype=x.dtype) if _dims(x, axis) else x.clone()


@rule("reduce_mean")
def _mean(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = numbers(input_tensor, "reduce_mean")
    if x.is_floating_point() or x.is_complex():
        return torch.mean(x, _dims(x, axis), keepdim=keepdims) if _dims(x, axis) else x.clone()
    count = math.prod(x.shape[d] for d in _dims(x, axis))
    return torch.div(_sum(x, axis, keepdims), count, rounding_mode="trunc")


@rule("reduce_max")
def _max(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = numbers(input_tensor, "reduce_max")
    return torch.amax(x, _dims(x, axis), keepdim=keepdims)


@rule("reduce_min")
def _min(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = numbers(input_tensor, "reduce_min")
    return torch.amin(x, _dims(x, axis), keepdim=keepdims)


def _one_by_one(function: Callable[..., Tensor], x: Tensor, axis: Any, keepdims: bool) -> Tensor:
    """``function`` over one axis after the other, the last first."""
    for dim in sorted((d % max(x.dim(), 1) for d in _dims(x, axis)), reverse=True):
        x = function(x, dim, keepdim=keepdims)
    return x


@rule("reduce_prod")
def _prod(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = numbers(input_tensor, "reduce_prod")
    return _one_by_one(partial(torch.prod, dtype=x.dtype), x, axis, keepdims)


@rule("reduce_all")
def _all(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return _one_by_one(torch.all, truths(input_tensor, "reduce_all"), axis, keepdims)


@rule("reduce_any")
def _any(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    return _one_by_one(torch.any, truths(input_tensor, "reduce_any"), axis, keepdims)


@rule("math.reduce_variance")
def _variance(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = real(input_tensor, "math.reduce_variance")
    return torch.var(x, _dims(x, axis), correction=0, keepdim=keepdims)


@rule("math.reduce_std")
def _std(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Tensor:
    x = real(input_tensor, "math.reduce_std")
    return torch.std(x, _dims(x, axis), correction=0, keepdim=keepdims)


@rule("reduce_logsumexp")
def _logsumexp(input_tensor: Tensor, axis: Any = None, keepdims: bool = False) -> Any:
    x = real(input_tensor, "reduce_logsumexp")
    return torch.logsumexp(x, _dims(x, axis), keepdim=keepdims)


@rule("norm")
def _norm(tensor: Tensor, ord: Any = "euclidean", axis: int | None = None, keepdims: bool | None = None) -> Any:
    if not isinstance(axis, (int, type(None))):
        raise TypeError("tf.norm of matrices has no rule on a pointer: give one axis, or none")
    x = real(tensor, "norm")
    return torch.linalg.vector_norm(x, 2 if ord == "euclidean" else ord, axis, keepdim=bool(keepdims))


@rule("argmax")
def _argmax(input: Tensor, axis: int | None = None, output_type: torch.dtype = torch.int64) -> Tensor:
    return torch.argmax(numbers(input, "argmax"), axis or 0).to(output_type)


@rule("argmin")
def _argmin(input: Tensor, axis: int | None = None, output_type: torch.dtype = torch.int64) -> Tensor:
    return torch.argmin(numbers(input, "argmin"), axis or 0).to(output_type)


@rule("cumsum")
def _cumsum(x: Tensor, axis: int = 0) -> Tensor:
    return torch.cumsum(numbers(x, "cumsum"), axis, dtype=x.dtype)


@rule("math.cumprod")
def _cumprod(x: Tensor, axis: int = 0) -> Tensor:
    return torch.cumprod(numbers(x, "math.cumprod"), axis, dtype=x.dtype)


@rule("sort")
def _sort(values: Tensor, axis: int = -1, direction: str = "ASCENDING") -> Tensor:
    return torch.sort(numbers(values, "sort"), axis, descending=direction == "DESCENDING")[0]


@rule("argsort")
def _argsort(values: Tensor, axis: int = -1, direction: str = "ASCENDING", stable: bool = False) -> Tensor:
    order = torch.sort(numbers(values, "argsort"), dim=axis, descending=direction == "DESCENDING", stable=True)[1]
    return order.to(torch.int32)


# -- products


@rule("matmul", "linalg.matmul")
def _matmul(a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Tensor:
    first, second = pair(a, b, "matmul")
    if first.dim() < 2 or second.dim() < 2:
        shapes = f"{tuple(first.shape)} and {tuple(second.shape)}"
        raise TypeError(f"tf.matmul takes matrices, not shapes {shapes}: tf.expand_dims one, or use tf.tensordot")
    return torch.matmul(first.mT if transpose_a else first, second.mT if transpose_b else second)


@rule("linalg.matvec")
def _matvec(a: Any, b: Any, transpose_a: bool = False) -> Tensor:
    first, second = pair(a, b, "linalg.matvec")
    return torch.matmul(first.mT if transpose_a else first, second.unsqueeze(-1)).squeeze(-1)


@rule("tensordot")
def _tensordot(a: Any, b: Any, axes: Any) -> Any:
    first, second = pair(a, b, "tensordot")
    both = axes if isinstance(axes, int) else [[side] if isinstance(side, int) else list(side) for side in axes]
    return torch.tensordot(first, second, both)


@rule("einsum")
def _einsum(equation: str, *inputs: Any) -> Any:
    return torch.einsum(equation, *inputs)


@rule("linalg.inv")
def _inv(input: Tensor) -> Any:
    return torch.linalg.inv(real(input, "linalg.inv"))


@rule("linalg.det")
def _det(input: Tensor) -> Any:
    return torch.linalg.det(real(input, "linalg.det"))


@rule("linalg.trace")
def _trace(x: Tensor) -> Any:
    return torch.diagonal(numbers(x, "linalg.trace"), dim1=-2, dim2=-1).sum(-1, dtype=x.dtype)


@rule("nn.bias_add")
def _bias_add(value: Any, bias: Any) -> Tensor:
    return torch.add(*pair(value, bias, "nn.bias_add"))


# -- shapes


@rule("reshape")
def _reshape(tensor: Tensor, shape: Any) -> Tensor:
    return tensor.reshape(*_whole(shape))


@rule("transpose")
def _transpose(a: Tensor, perm: Any = None) -> Tensor:
    return a.permute(*(reversed(range(a.dim())) if perm is None else _whole(perm)))


@rule("expand_dims")
def _expand_dims(input: Tensor, axis: int) -> Tensor:
    return input.unsqueeze(int(axis))


@rule("squeeze")
def _squeeze(input: Tensor, axis: Any = None) -> Tensor:
    if axis is None:
        return input.squeeze()
    dims = _whole(axis)
    if any(input.shape[d] != 1 for d in dims):
        raise ValueError(f"tf.squeeze: not every axis of {dims} has one element, of shape {tuple(input.shape)}")
    return input.squeeze(tuple(dims))


@rule("concat")
def _concat(values: Sequence[Any], axis: int) -> Tensor:
    return torch.cat(_alike(values, "concat"), int(axis))


@rule("stack")
def _stack(values: Sequence[Any], axis: int = 0) -> Tensor:
    return torch.stack(_alike(values, "stack"), int(axis))


@rule("unstack")
def _unstack(value: Tensor, num: int | None = None, axis: int = 0) -> list[Tensor]:
    return list(torch.unbind(value, axis))


@rule("split")
def _split(value: Tensor, num_or_size_splits: Any, axis: int = 0) -> list[Tensor]:
    length = value.shape[axis]
    if isinstance(num_or_size_splits, int):
        if length % num_or_size_splits:
            raise ValueError(f"tf.split: {length} elements do not divide into {num_or_size_splits}")
        return list(torch.split(value, length // num_or_size_splits, axis))
    sizes = _whole(num_or_size_splits)
    rest = length - sum(s for s in sizes if s >= 0)
    return list(torch.split(value, [rest if s < 0 else s for s in sizes], axis))


@rule("tile")
def _tile(input: Tensor, multiples: Any) -> Tensor:
    return torch.tile(input, tuple(_whole(multiples)))


@rule("repeat")
def _repeat(input: Tensor, repeats: int, axis: int | None = None) -> Tensor:
    return torch.repeat_interleave(input.reshape(-1) if axis is None else input, int(repeats), 0 if axis is None else axis)


@rule("broadcast_to")
def _broadcast_to(input: Tensor, shape: Any) -> Tensor:
    return input.expand(*_whole(shape)).clone()


@rule("pad")
def _pad(tensor: Tensor, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Tensor:
    if mode.upper() != "CONSTANT":
        raise TypeError(f"tf.pad with mode={mode!r} has no rule on a pointer: CONSTANT has")
    sides = [_whole(pair) for pair in paddings]
    return torch.nn.functional.pad(tensor, [n for pair in reversed(sides) for n in pair], value=constant_values)


@rule("slice")
def _slice(input_: Tensor, begin: Any, size: Any) -> Tensor:
    starts, sizes = _whole(begin), _whole(size)
    return input_[tuple(slice(b, None if n < 0 else b + n) for b, n in zip(starts, sizes, strict=True))]


@rule("reverse")
def _reverse(tensor: Tensor, axis: Any) -> Tensor:
    return torch.flip(tensor, _whole(axis))


@rule("roll")
def _roll(input: Tensor, shift: Any, axis: Any) -> Tensor:
    return torch.roll(input, tuple(_whole(shift)), tuple(_whole(axis)))


@rule("shape")
def _shape(input: Tensor) -> list[int]:
    return list(input.shape)


@rule("rank")
def _rank(input: Tensor) -> int:
    return input.dim()


@rule("size")
def _size(input: Tensor) -> int:
    return input.numel()


@rule("gather")
def _gather(params: Tensor, indices: Any, axis: int | None = None) -> Tensor:
    dim = (axis or 0) % max(params.dim(), 1)
    if not isinstance(indices, Tensor) or type(indices) is Tensor:
        return params[(slice(None),) * dim + (indices.tolist() if isinstance(indices, Tensor) else indices,)]
    chosen = torch.index_select(params, dim, indices.reshape(-1).long())
    return chosen.reshape(*params.shape[:dim], *indices.shape, *params.shape[dim + 1 :])


@rule("one_hot")
def _one_hot(indices: Tensor, depth: int) -> Tensor:
    whole = indices.long()
    return (whole.unsqueeze(-1) == whole.new_ones(int(depth)).cumsum(0) - 1).to(torch.float32)


def _alike(values: Sequence[Any], name: str) -> list[Tensor]:
    dtypes = {v.dtype for v in values}
    if len(dtypes) > 1:
        raise TypeError(f"tf.{name} takes tensors of one dtype, not {', '.join(sorted(map(name_of, dtypes)))}: tf.cast some of them")
    return list(values)
