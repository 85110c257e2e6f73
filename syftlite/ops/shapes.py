"""Operators on meta tensors by rule: what they give is known from shapes, strides and dtypes.

    run(func, args, kwargs)      the rule, where there is one and it is sure; torch's own meta kernel elsewhere
    ByRule                       while this mode is on, every operator runs so

torch's meta kernels are Python references: they take 60-290 us where a rule takes 10, and the first one of a process imports torch's
compiler, which takes seconds. Operators without a rule, and operands that do not fit, are torch's: errors are in its words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from syftlite._torch import DispatchMode, aten, broadcast

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}


class Unsure(Exception):
    """The rule leaves it to torch."""

    @classmethod
    def raised(cls) -> Any:
        """Raise one where a value is wanted."""
        raise cls


class ByRule(DispatchMode):
    """Runs operators by `run`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return run(func, args, kwargs or {})


def run(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    """What the overload ``func`` gives of meta tensors."""
    made = RULES.get(func)
    if made is not None:
        try:
            return made(*args, **kwargs)
        except (Unsure, TypeError):
            pass
    return func(*args, **kwargs)


def rule(*funcs: Any) -> Callable[[Rule], Rule]:
    """Enter the rule of these overloads: it takes their operands."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(funcs, function))
        return function

    return enter


FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Other than rows, by the number of dimensions."""


def _shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    try:
        return broadcast(*[tuple(shape) for shape in shapes])
    except RuntimeError:
        raise Unsure from None


def _empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


# -- elementwise


def layout(shape: tuple[int, ...], tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """The strides that an elementwise kernel gives a fresh result of ``shape``: dimensions in the order in which its operands have them
    (at::TensorIteratorBase::reorder_dimensions)."""
    same = all(x.shape == shape for x in tensors)
    strides = [x.expand(shape).stride() for x in tensors]
    order = list(reversed(range(len(shape))))
    if same and all(x.is_contiguous() for x in tensors):
        pass
    elif same and all(s == strides[0] for s in strides) and _dense(shape, strides[0]):
        return strides[0]
    else:
        for last in range(1, len(order)):
            _insert(order, last, shape, strides)
    found, step = [0] * len(shape), 1
    for dim in order:
        found[dim] = step
        step *= max(shape[dim], 1)
    return tuple(found)


def _dense(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the elements fill their memory without gap or overlap."""
    step = 1
    for stride, size in sorted((s, d) for s, d in zip(strides, shape, strict=True) if d > 1):
        if stride != step:
            return False
        step *= size
    return 0 not in shape


def _insert(order: list[int], last: int, shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> None:
    """One step of an insertion sort of dimensions, the innermost first; those whose order no operand tells stay."""
    for before in reversed(range(last)):
        turn = _compared(order[before], order[last], shape, strides)
        if turn < 0:
            return
        if turn > 0:
            order[before], order[last] = order[last], order[before]
            last = before


def _compared(one: int, other: int, shape: tuple[int, ...], strides: Sequence[tuple[int, ...]]) -> int:
    for stride in strides:
        if stride[one] and stride[other]:
            if stride[one] != stride[other]:
                return 1 if stride[one] > stride[other] else -1
            if shape[one] > shape[other]:
                return 1
    return 0


def _elementwise(operands: Sequence[Any], dtype: torch.dtype) -> Tensor:
    tensors = [x for x in operands if isinstance(x, Tensor)]
    if not all(x.is_meta for x in tensors):
        raise Unsure
    shape = _shape(*[x.shape for x in tensors])
    if all(x.shape == shape and x.is_contiguous() for x in tensors):
        return _empty(shape, dtype)
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
    if isinstance(y, Tensor) and y.shape != x.shape and (shape := _shape(x.shape, y.shape)) != x.shape:
        raise RuntimeError(f"output with shape {list(x.shape)} doesn't match the broadcast shape {list(shape)}")
    return x


@rule(aten.sub.out, aten.add.out, aten.bitwise_and.Tensor_out)
def _out(x: Tensor, y: Tensor, *, alpha: int = 1, out: Tensor) -> Tensor:
    if type(alpha) is not int or x.dtype is torch.bool or torch.result_type(x, y) != out.dtype or not out.is_meta:
        raise Unsure
    if _shape(x.shape, y.shape) != out.shape:
        raise Unsure
    return out


# -- products, sums, and what moves elements


def _plain(*tensors: Tensor) -> None:
    """Raise unless all are meta tensors of one dtype."""
    if not all(x.is_meta and x.dtype == tensors[0].dtype for x in tensors):
        raise Unsure


@rule(aten.mm.default)
def _mm(x: Tensor, y: Tensor) -> Tensor:
    _plain(x, y)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[0]:
        raise Unsure
    return _empty((x.shape[0], y.shape[1]), x.dtype)


@rule(aten.bmm.default)
def _bmm(x: Tensor, y: Tensor) -> Tensor:
    _plain(x, y)
    if x.dim() != 3 or y.dim() != 3 or x.shape[0] != y.shape[0] or x.shape[2] != y.shape[1]:
        raise Unsure
    return _empty((x.shape[0], x.shape[1], y.shape[2]), x.dtype)


@rule(aten.addmm_.default)
def _addmm_(total: Tensor, x: Tensor, y: Tensor) -> Tensor:
    _plain(total, x, y)
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[0] or total.shape != (x.shape[0], y.shape[1]):
        raise Unsure
    return total


@rule(aten.sum.dim_IntList)
def _sum(x: Tensor, dims: Any, keep: bool = False) -> Tensor:
    if not x.is_meta or not dims or x.is_floating_point() or x.is_complex() or not x.dim():
        raise Unsure
    gone = {d % x.dim() if -x.dim() <= d < x.dim() else Unsure.raised() for d in dims}
    if len(gone) < len(dims):
        raise Unsure
    shape = [1 if d in gone else size for d, size in enumerate(x.shape) if keep or d not in gone]
    if not x.is_contiguous() and len(shape) > 1:
        raise Unsure
    return _empty(shape, torch.int64)


@rule(aten.cat.default)
def _cat(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = xs[0]
    _plain(*xs)
    dims = first.dim()
    other = FORMATS.get(dims, torch.contiguous_format)
    if not dims or not -dims <= dim < dims or any(x.is_contiguous(memory_format=other) and not x.is_contiguous() for x in xs):
        raise Unsure
    shape = list(first.shape)
    dim %= dims
    if any(x.dim() != dims or any(d != dim and a != b for d, (a, b) in enumerate(zip(x.shape, shape, strict=True))) for x in xs):
        raise Unsure
    shape[dim] = sum(x.shape[dim] for x in xs)
    return _empty(shape, first.dtype)


@rule(aten.stack.default)
def _stack(xs: Sequence[Tensor], dim: int = 0) -> Tensor:
    first = xs[0]
    _plain(*xs)
    if any(x.shape != first.shape for x in xs) or not -first.dim() <= dim <= first.dim() or first.dim() > 2:
        raise Unsure
    return _empty((*first.shape[:dim], len(xs), *first.shape[dim:]) if dim >= 0 else Unsure.raised(), first.dtype)


@rule(aten.flip.default)
def _flip(x: Tensor, dims: Sequence[int]) -> Tensor:
    if not x.is_meta or not x.is_contiguous() or len(dims) != 1 or not -x.dim() <= dims[0] < x.dim():
        raise Unsure
    return _empty(x.shape, x.dtype)


@rule(aten.gather.default)
def _gather(x: Tensor, dim: int, index: Tensor) -> Tensor:
    fits = index.dim() == x.dim() and -x.dim() <= dim < x.dim() and index.dtype == torch.int64
    if not x.is_meta or not fits or any(d != dim % x.dim() and i > n for d, (i, n) in enumerate(zip(index.shape, x.shape, strict=True))):
        raise Unsure
    return _empty(index.shape, x.dtype)


@rule(aten.repeat.default)
def _repeat(x: Tensor, repeats: Sequence[int]) -> Tensor:
    if not x.is_meta or len(repeats) < x.dim() or any(r < 0 for r in repeats):
        raise Unsure
    shape = (*[1] * (len(repeats) - x.dim()), *x.shape)
    return _empty([r * s for r, s in zip(repeats, shape, strict=True)], x.dtype)


@rule(aten.roll.default)
def _roll(x: Tensor, shifts: Sequence[int], dims: Sequence[int] = ()) -> Tensor:
    if not x.is_meta or not x.is_contiguous() or len(shifts) != len(dims) or any(not -x.dim() <= d < x.dim() for d in dims):
        raise Unsure
    return _empty(x.shape, x.dtype)


@rule(aten.clone.default, aten.empty_like.default, aten.zeros_like.default, aten.ones_like.default, aten._to_copy.default)
def _like(
    x: Tensor,
    *,
    dtype: torch.dtype | None = None,
    device: Any = None,
    pin_memory: bool | None = None,
    memory_format: torch.memory_format | None = torch.preserve_format,
) -> Tensor:
    elsewhere = device is not None and torch.device(device).type != "meta"
    if elsewhere or not x.is_meta or 0 in x.stride() or memory_format not in (None, torch.preserve_format, torch.contiguous_format):
        raise Unsure
    kept = dtype or x.dtype
    if memory_format is torch.contiguous_format or x.is_contiguous():
        return _empty(x.shape, kept)
    return torch.empty_strided(x.shape, layout(tuple(x.shape), [x]), dtype=kept, device="meta")


@rule(aten.index.Tensor)
def _index(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """`x[:, places]`: places along one dimension."""
    (dim,) = [d for d, index in enumerate(indices) if index is not None] if sum(i is not None for i in indices) == 1 else [Unsure.raised()]
    index = indices[dim]
    if index is None or index.dtype != torch.int64 or index.dim() != 1 or not x.is_meta or not x.is_contiguous() or dim >= x.dim():
        raise Unsure
    return _empty((*x.shape[:dim], len(index), *x.shape[dim + 1 :]), x.dtype)


@rule(aten.arange.default)
def _arange(end: int, *, dtype: torch.dtype | None = None, device: Any = None, pin_memory: bool | None = None) -> Tensor:
    if type(end) is not int or end < 0 or device is None or torch.device(device).type != "meta":
        raise Unsure
    return _empty((end,), dtype or torch.int64)


def _of_bytes(func: Any) -> Rule:
    """Classes may be named in bytes, as torch's kernels have it and its meta kernels do not."""
    place = [argument.name for argument in func._schema.arguments].index("target")

    def wide(*args: Any) -> Any:
        if args[place].dtype != torch.uint8:
            raise Unsure
        return func(*args[:place], args[place].long(), *args[place + 1 :])

    return wide


for _func in (aten.nll_loss_forward.default, aten.nll_loss_backward.default):
    RULES[_func] = _of_bytes(_func)
