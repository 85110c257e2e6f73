"""NumPy arrays at a worker: `send(array, bob)` gives an `ArrayPointer`, on which NumPy's functions run where the values are.

    np.exp(p)  p + 1  p @ q        __array_ufunc__      -> UFUNCS      -> torch, on the pointer
    np.mean(p, axis=0)             __array_function__   -> FUNCTIONS   -> torch, on the pointer
    p.get()                                             -> numpy.ndarray

Results have NumPy's dtypes and shapes (an integer mean is float64, a comparison bool). A function in neither table is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin

from syftlite.errors import OperatorNotReviewedError, PointerMisuseError
from syftlite.remote import registry
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import send as send_tensor

UFUNCS: dict[np.ufunc, Callable[..., torch.Tensor]] = {
    np.add: torch.add,
    np.subtract: torch.sub,
    np.multiply: torch.mul,
    np.true_divide: torch.true_divide,
    np.floor_divide: torch.floor_divide,
    np.remainder: torch.remainder,
    np.fmod: torch.fmod,
    np.power: torch.pow,
    np.matmul: torch.matmul,
    np.maximum: torch.maximum,
    np.minimum: torch.minimum,
    np.negative: torch.neg,
    np.absolute: torch.abs,
    np.sign: torch.sgn,
    np.exp: torch.exp,
    np.expm1: torch.expm1,
    np.log: torch.log,
    np.log1p: torch.log1p,
    np.log2: torch.log2,
    np.log10: torch.log10,
    np.sqrt: torch.sqrt,
    np.square: torch.square,
    np.reciprocal: lambda x: torch.reciprocal(x) if x.is_floating_point() else torch.div(1, x, rounding_mode="trunc"),
    np.sin: torch.sin,
    np.cos: torch.cos,
    np.tan: torch.tan,
    np.arcsin: torch.asin,
    np.arccos: torch.acos,
    np.arctan: torch.atan,
    np.arctan2: torch.atan2,
    np.sinh: torch.sinh,
    np.cosh: torch.cosh,
    np.tanh: torch.tanh,
    np.floor: torch.floor,
    np.ceil: torch.ceil,
    np.trunc: torch.trunc,
    np.rint: torch.round,
    np.isnan: torch.isnan,
    np.isinf: torch.isinf,
    np.equal: torch.eq,
    np.not_equal: torch.ne,
    np.less: torch.lt,
    np.less_equal: torch.le,
    np.greater: torch.gt,
    np.greater_equal: torch.ge,
    np.logical_and: torch.logical_and,
    np.logical_or: torch.logical_or,
    np.logical_xor: torch.logical_xor,
    np.logical_not: torch.logical_not,
    np.bitwise_and: torch.bitwise_and,
    np.bitwise_or: torch.bitwise_or,
    np.bitwise_xor: torch.bitwise_xor,
    np.invert: torch.bitwise_not,
}
_FLOATS = frozenset(
    f for f in UFUNCS if f.types and all(t.split("->")[1] not in "bhilqBHILQ?" for t in f.types if t.split("->")[1] not in ("O", "m", "M"))
)

FUNCTIONS: dict[Any, Callable[..., Any]] = {}
"""NumPy functions by their rule on pointers. `_rule` fills it."""


def _rule(*functions: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def register(rule: Callable[..., Any]) -> Callable[..., Any]:
        for function in functions:
            FUNCTIONS[function] = rule
        return rule

    return register


def send(array: Any, worker: Any) -> Any:
    """``array`` (or a number, or a tensor) at ``worker`` (or its id): an `ArrayPointer`; a tensor gives a `PointerTensor`.

    Raises TypeError for a dtype that torch lacks (strings, objects, dates).
    """
    place = registry.find(worker)
    if isinstance(array, torch.Tensor):
        return send_tensor(array, place)
    values = np.asarray(array)
    try:
        tensor = torch.from_numpy(np.ascontiguousarray(values)).reshape(values.shape)
    except TypeError as error:
        raise TypeError(f"an array of {values.dtype} cannot be sent: {error}") from None
    return _array(send_tensor(tensor, place))


class ArrayPointer(NDArrayOperatorsMixin):
    """A NumPy array whose value is at ``location``. ``tensor`` is the pointer that it stands on."""

    __array_priority__ = 1000

    def __init__(self, tensor: PointerTensor) -> None:
        self.tensor = tensor

    @property
    def location(self) -> Any:
        """The worker that holds the values."""
        return self.tensor.location

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return tuple(self.tensor.shape)

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.tensor.dim()

    @property
    def size(self) -> int:
        """Number of elements."""
        return self.tensor.numel()

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's name for the dtype."""
        return torch.empty(0, dtype=self.tensor.dtype).numpy().dtype

    @property
    def T(self) -> ArrayPointer:
        """The transposed array."""
        return ArrayPointer(self.tensor.permute(*reversed(range(self.ndim))))  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.tensor)

    def __repr__(self) -> str:
        return f"ArrayPointer | {self.tensor.owner.id} -> {self.location.id}:{self.tensor.id}, shape={self.shape}, dtype={self.dtype}"

    def __getitem__(self, index: Any) -> ArrayPointer:
        return ArrayPointer(self.tensor[_tensors(index)])  # type: ignore[arg-type]

    def __setitem__(self, index: Any, value: Any) -> None:
        self.tensor[_tensors(index)] = _tensors(value)

    def __float__(self) -> float:
        return float(self.tensor)

    def __int__(self) -> int:
        return int(self.tensor)

    def __bool__(self) -> bool:
        return bool(self.tensor)

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray[Any, Any]:
        raise PointerMisuseError("np.asarray() needs the values, which are at their worker: call .get() first")

    def get(self, user: str | None = None, reason: str = "") -> np.ndarray[Any, Any]:
        """The array, moved here; refused where a pointer's `get` would be."""
        return _local(self.tensor.get(user=user, reason=reason))

    def get_copy(self, user: str | None = None, reason: str = "") -> np.ndarray[Any, Any]:
        """A copy of the array; the worker keeps its own."""
        return _local(self.tensor.get_copy(user=user, reason=reason))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        function = UFUNCS.get(ufunc)
        if method == "reduce" and ufunc in _REDUCTIONS:
            return FUNCTIONS[_REDUCTIONS[ufunc]](inputs[0], **options)
        if function is None or method != "__call__" or options:
            how = ufunc.__name__ + ("" if method == "__call__" else f".{method}") + (f" with {', '.join(options)}" if options else "")
            raise OperatorNotReviewedError(f"np.{how} has no rule on an array at a worker: get() it, or use .tensor with torch's functions")
        operands = [_operand(x, floating=ufunc in _FLOATS) for x in inputs]
        result = _array(function(*_promoted(operands)))
        if out is None:
            return result
        (target,) = out
        target.tensor.copy_(result.tensor)
        return target

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        rule = FUNCTIONS.get(function)
        if rule is None:
            raise OperatorNotReviewedError(
                f"np.{function.__name__} has no rule on an array at a worker: get() it, or use .tensor with torch's functions"
            )
        return rule(*args, **kwargs)

    # the methods of an array that are functions of numpy too

    def _method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return FUNCTIONS[getattr(np, name)](self, *args, **kwargs)

    def sum(self, axis: Any = None, **options: Any) -> ArrayPointer:
        """As `numpy.sum`."""
        result: ArrayPointer = self._method("sum", axis, **options)
        return result

    def mean(self, axis: Any = None, **options: Any) -> ArrayPointer:
        """As `numpy.mean`."""
        result: ArrayPointer = self._method("mean", axis, **options)
        return result

    def reshape(self, *shape: Any) -> ArrayPointer:
        """As `numpy.reshape`."""
        return ArrayPointer(self.tensor.reshape(*shape))  # type: ignore[arg-type]

    def astype(self, dtype: Any) -> ArrayPointer:
        """As `numpy.ndarray.astype`."""
        return ArrayPointer(self.tensor.to(_dtype(dtype)))  # type: ignore[arg-type]


_REDUCTIONS = {np.add: np.sum, np.multiply: np.prod, np.maximum: np.max, np.minimum: np.min, np.logical_and: np.all, np.logical_or: np.any}


def _local(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
    return tensor.detach().numpy()


def _array(result: Any) -> Any:
    return ArrayPointer(result) if isinstance(result, PointerTensor) else result


def _dtype(dtype: Any) -> torch.dtype:
    return torch.from_numpy(np.empty(0, dtype)).dtype


def _tensors(value: Any) -> Any:
    if isinstance(value, ArrayPointer):
        return value.tensor
    return tuple(_tensors(v) for v in value) if isinstance(value, tuple) else value


def _operand(value: Any, *, floating: bool = False) -> Any:
    """The torch operand for a ufunc's: integers become float64 where NumPy's result would be."""
    if isinstance(value, ArrayPointer):
        tensor = value.tensor
        return tensor.double() if floating and not tensor.is_floating_point() else tensor
    if isinstance(value, np.generic):
        return torch.from_numpy(np.asarray(value)).clone()
    if isinstance(value, (bool, int, float)):
        return value
    raise PointerMisuseError(f"a local {type(value).__name__} met an array at a worker: send() it there first")


def _promoted(operands: list[Any]) -> list[Any]:
    """NumPy promotes int32 with float32 to float64, and a Python number not at all; torch is left to do the rest."""
    arrays = [o for o in operands if isinstance(o, torch.Tensor)]
    kinds = {o.dtype for o in arrays}
    if len(kinds) > 1:
        common = np.result_type(*[torch.empty(0, dtype=k).numpy().dtype for k in kinds])
        return [o.to(_dtype(common)) if isinstance(o, torch.Tensor) else o for o in operands]
    return operands


def _axes(axis: Any) -> Any:
    return None if axis is None else tuple(axis) if isinstance(axis, (tuple, list)) else (axis,)


def _over(tensor: torch.Tensor, function: Callable[..., torch.Tensor], axis: Any, keepdims: bool) -> Any:
    dims = _axes(axis)
    return _array(function(tensor, dim=tuple(range(tensor.dim())) if dims is None else dims, keepdim=keepdims))


@_rule(np.sum)
def _sum(a: Any, axis: Any = None, *, keepdims: bool = False, dtype: Any = None) -> Any:
    tensor = _operand(a) if dtype is None else _operand(a).to(_dtype(dtype))
    return _over(tensor, torch.sum, axis, keepdims)


@_rule(np.mean)
def _mean(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _over(_operand(a, floating=True), torch.mean, axis, keepdims)


@_rule(np.max, np.amax)
def _max(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _over(_operand(a), torch.amax, axis, keepdims)


@_rule(np.min, np.amin)
def _min(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return _over(_operand(a), torch.amin, axis, keepdims)


@_rule(np.var)
def _var(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    return _array(torch.var(_operand(a, floating=True), dim=_axes(axis), correction=ddof, keepdim=keepdims))


@_rule(np.std)
def _std(a: Any, axis: Any = None, *, ddof: int = 0, keepdims: bool = False) -> Any:
    return _array(torch.std(_operand(a, floating=True), dim=_axes(axis), correction=ddof, keepdim=keepdims))


@_rule(np.prod)
def _prod(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    tensor = _operand(a)
    return _array(torch.prod(tensor) if axis is None else torch.prod(tensor, axis, keepdim=keepdims))


@_rule(np.all)
def _all(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    tensor = _operand(a)
    return _array(torch.all(tensor) if axis is None else torch.all(tensor, axis, keepdim=keepdims))


@_rule(np.any)
def _any(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    tensor = _operand(a)
    return _array(torch.any(tensor) if axis is None else torch.any(tensor, axis, keepdim=keepdims))


@_rule(np.argmax)
def _argmax(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    return _array(torch.argmax(_operand(a), axis, keepdim=keepdims))


@_rule(np.argmin)
def _argmin(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Any:
    return _array(torch.argmin(_operand(a), axis, keepdim=keepdims))


@_rule(np.cumsum)
def _cumsum(a: Any, axis: int | None = None) -> Any:
    tensor = _operand(a)
    return _array(torch.cumsum(tensor.reshape(-1), 0) if axis is None else torch.cumsum(tensor, axis))


@_rule(np.dot)
def _dot(a: Any, b: Any) -> Any:
    return _array(torch.matmul(*_promoted([_operand(a), _operand(b)])))


@_rule(np.transpose)
def _transpose(a: Any, axes: Sequence[int] | None = None) -> Any:
    tensor = _operand(a)
    return _array(tensor.permute(*(axes or reversed(range(tensor.dim())))))


@_rule(np.reshape)
def _reshape(a: Any, shape: Any) -> Any:
    return _array(_operand(a).reshape(shape))


@_rule(np.ravel)
def _ravel(a: Any) -> Any:
    return _array(_operand(a).reshape(-1))


@_rule(np.squeeze)
def _squeeze(a: Any, axis: int | None = None) -> Any:
    return _array(_operand(a).squeeze() if axis is None else _operand(a).squeeze(axis))


@_rule(np.expand_dims)
def _expand_dims(a: Any, axis: int) -> Any:
    return _array(_operand(a).unsqueeze(axis))


@_rule(np.concatenate)
def _concatenate(arrays: Sequence[Any], axis: int = 0) -> Any:
    return _array(torch.cat(_promoted([_operand(a) for a in arrays]), axis))


@_rule(np.stack)
def _stack(arrays: Sequence[Any], axis: int = 0) -> Any:
    return _array(torch.stack(_promoted([_operand(a) for a in arrays]), axis))


@_rule(np.where)
def _where(condition: Any, x: Any, y: Any) -> Any:
    return _array(torch.where(_operand(condition), *_promoted([_operand(x), _operand(y)])))


@_rule(np.clip)
def _clip(a: Any, a_min: Any = None, a_max: Any = None) -> Any:
    return _array(torch.clamp(_operand(a), a_min, a_max))


@_rule(np.sort)
def _sort(a: Any, axis: int = -1) -> Any:
    return _array(torch.sort(_operand(a), axis)[0])


@_rule(np.argsort)
def _argsort(a: Any, axis: int = -1) -> Any:
    return _array(torch.sort(_operand(a), axis)[1])


@_rule(np.zeros_like)
def _zeros_like(a: Any) -> Any:
    return _array(torch.zeros_like(_operand(a)))


@_rule(np.ones_like)
def _ones_like(a: Any) -> Any:
    return _array(torch.ones_like(_operand(a)))


@_rule(np.copy)
def _copy(a: Any) -> Any:
    return _array(_operand(a).clone())


@_rule(np.shape)
def _shape(a: Any) -> tuple[int, ...]:
    return tuple(_operand(a).shape)


@_rule(np.linalg.norm)
def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    return _array(torch.linalg.vector_norm(_operand(x, floating=True), 2 if ord is None else ord, _axes(axis), keepdims))
