"""Rules of elementwise operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from syftlite._torch import aten
from syftlite.ops.shapes.rules import Unsure, broadcast_shape, empty, rule
from syftlite.ops.shapes.strides import layout


def _elementwise(operands: Sequence[Any], dtype: torch.dtype) -> Tensor:
    tensors = [x for x in operands if isinstance(x, Tensor)]
    if not all(x.is_meta for x in tensors):
        raise Unsure
    shape = broadcast_shape(*[x.shape for x in tensors])
    if all(x.shape == shape and x.is_contiguous() for x in tensors):
        return empty(shape, dtype)
    return torch.empty_strided(shape, layout(shape, tensors), dtype=dtype, device="meta")


_BITWISE = ("bitwise_and", "bitwise_or", "bitwise_xor", "__and__", "__or__", "__xor__", "__lshift__", "__rshift__")
_COMPARED = ("eq", "ne", "lt", "le", "gt", "ge")
_FORMS = ("Tensor", "Scalar")


def _overloads(names: Sequence[str], forms: Sequence[str]) -> list[Any]:
    return [getattr(getattr(aten, name), form) for name in names for form in forms if form in getattr(aten, name).overloads()]


@rule(*_overloads(("add", "sub", "mul"), _FORMS))
def _arithmetic(x: Any, y: Any, *, alpha: int = 1) -> Tensor:
    dtype = torch.result_type(x, y)
    if dtype is torch.bool or type(alpha) is not int:  # some refuse these
        raise Unsure
    return _elementwise((x, y), dtype)


@rule(*_overloads(_BITWISE, _FORMS))
def _bitwise(x: Any, y: Any) -> Tensor:
    dtype = torch.result_type(x, y)
    if dtype is torch.bool or dtype.is_floating_point:
        raise Unsure
    return _elementwise((x, y), dtype)


@rule(aten.rsub.Scalar)
def _reversed(x: Any, y: Any, alpha: int = 1) -> Tensor:
    return _arithmetic(x, y, alpha=alpha)  # type: ignore[no-any-return]


@rule(*_overloads(_COMPARED, _FORMS))
def _comparison(x: Any, y: Any) -> Tensor:
    return _elementwise((x, y), torch.bool)


@rule(aten.neg.default, aten.bitwise_not.default)
def _unary(x: Tensor) -> Tensor:
    if x.dtype is torch.bool or x.is_floating_point():
        raise Unsure
    return _elementwise((x,), x.dtype)


@rule(aten.where.self)
def _where(condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    if condition.dtype is not torch.bool:
        raise Unsure
    return _elementwise((condition, x, y), torch.result_type(x, y))


@rule(*_overloads(("add_", "sub_", "mul_"), _FORMS))
def _arithmetic_(x: Tensor, y: Any, *, alpha: int = 1) -> Tensor:
    if x.dtype is torch.bool or type(alpha) is not int:
        raise Unsure
    return _written(x, y)


@rule(*_overloads(("bitwise_and_", "bitwise_or_", "bitwise_xor_", "__iand__", "__ior__", "__ixor__"), _FORMS))
def _bitwise_(x: Tensor, y: Any) -> Tensor:
    if x.dtype is torch.bool or x.is_floating_point():
        raise Unsure
    return _written(x, y)


@rule(aten.round_.default)
def _round_(x: Tensor) -> Tensor:
    if not x.is_meta:
        raise Unsure
    return x


@rule(aten.addcmul_.default)
def _addcmul_(x: Tensor, y: Tensor, z: Tensor, *, value: int = 1) -> Tensor:
    if type(value) is not int:
        raise Unsure
    return _written(_written(x, y), z)


def _written(x: Tensor, y: Any) -> Tensor:
    """``x``, in place, if ``y`` may take part."""
    if not x.is_meta or not torch.can_cast(torch.result_type(x, y), x.dtype) or 0 in x.stride():
        raise Unsure
    if isinstance(y, Tensor) and y.shape != x.shape and (shape := broadcast_shape(x.shape, y.shape)) != x.shape:
        raise RuntimeError(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(shape)}")
    return x


@rule(aten.sub.out, aten.add.out, aten.bitwise_and.Tensor_out)
def _out(x: Tensor, y: Tensor, *, alpha: int = 1, out: Tensor) -> Tensor:
    if type(alpha) is not int or x.dtype is torch.bool or torch.result_type(x, y) != out.dtype or not out.is_meta:
        raise Unsure
    if broadcast_shape(x.shape, y.shape) != out.shape:
        raise Unsure
    return out
