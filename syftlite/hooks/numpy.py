"""NumPy arrays at a worker: `send(array, bob)` gives an `ArrayPointer`, on which NumPy's functions run where the values are.

    np.exp(p)  p + 1  p @ q        __array_ufunc__      -> UFUNCS      -> torch, on the pointer
    np.mean(p, axis=0)             __array_function__   -> FUNCTIONS   -> torch, on the pointer
    p.get()                                             -> numpy.ndarray

Results have NumPy's dtypes and shapes (an integer mean is float64, a comparison bool). A function in neither table is refused by name.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin

from syftlite.errors import OperatorNotReviewedError, PointerMisuseError
from syftlite.hooks import numpy_library as numpy_library  # its rules enter the tables
from syftlite.hooks.foreign import ForeignPointer
from syftlite.hooks.numpy_rules import FLOATS, FUNCTIONS, REDUCTIONS, UFUNCS, dtype_of, floating, promoted
from syftlite.remote import registry
from syftlite.remote.interop import as_tensor, is_foreign_tensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import send as send_tensor


def send(array: Any, worker: Any) -> Any:
    """``array`` (or a number, or a pandas frame or series of numbers) at ``worker`` (or its id): an `ArrayPointer`. A tensor, of torch's or
    of another library with DLPack, gives a `PointerTensor`.

    Raises TypeError for a dtype that torch lacks (strings, objects, dates), naming a frame's column.
    """
    place = registry.find(worker)
    if isinstance(array, torch.Tensor) or is_foreign_tensor(array):
        return place.send(as_tensor(array))
    return _array(send_tensor(as_tensor(array), place))


METHODS = (
    "all", "any", "argmax", "argmin", "argsort", "clip", "copy", "cumprod", "cumsum", "diagonal", "dot", "max", "min", "prod", "ravel",
    "repeat", "round", "squeeze", "std", "swapaxes", "trace", "transpose", "var",
)  # fmt: skip
"""Methods of an array that are the function of that name."""


class ArrayPointer(ForeignPointer, NDArrayOperatorsMixin):
    """A NumPy array whose value is at ``location``; `get` gives a numpy.ndarray."""

    __array_priority__ = 1000

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return tuple(self.tensor.shape)

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

    @staticmethod
    def _here(tensor: torch.Tensor) -> np.ndarray[Any, Any]:
        return tensor.detach().numpy()

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        function = UFUNCS.get(ufunc)
        if method == "reduce" and ufunc in REDUCTIONS:
            return self.__array_function__(REDUCTIONS[ufunc], (), (inputs[0],), options)
        if function is None or method != "__call__" or options:
            how = ufunc.__name__ + ("" if method == "__call__" else f".{method}") + (f" with {', '.join(options)}" if options else "")
            raise OperatorNotReviewedError(f"np.{how} has no rule on an array at a worker: get() it, or use .tensor with torch's functions")
        operands = [_operand(x) for x in inputs]
        if ufunc in FLOATS:
            operands = [floating(o) if isinstance(o, torch.Tensor) else o for o in operands]
        result = _array(function(*promoted(operands)))
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
        return _array(rule(*map(_unwrapped, args), **{k: _unwrapped(v) for k, v in kwargs.items()}))

    # the methods of an array that are functions of numpy too

    def _method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return self.__array_function__(getattr(np, name), (), (self, *args), kwargs)

    def sum(self, axis: Any = None, **options: Any) -> ArrayPointer:
        """As `numpy.sum`."""
        result: ArrayPointer = self._method("sum", axis, **options)
        return result

    def mean(self, axis: Any = None, **options: Any) -> ArrayPointer:
        """As `numpy.mean`."""
        result: ArrayPointer = self._method("mean", axis, **options)
        return result

    def __getattr__(self, name: str) -> Any:
        if name not in METHODS:
            raise AttributeError(f"an array at a worker has no {name!r}: get() it, or use NumPy's functions, or .tensor with torch's")
        return partial(self._method, name)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *METHODS]

    def reshape(self, *shape: Any) -> ArrayPointer:
        """As `numpy.reshape`."""
        return ArrayPointer(self.tensor.reshape(*shape))  # type: ignore[arg-type]

    def astype(self, dtype: Any) -> ArrayPointer:
        """As `numpy.ndarray.astype`."""
        return ArrayPointer(self.tensor.to(dtype_of(dtype)))  # type: ignore[arg-type]


def _array(result: Any) -> Any:
    return ArrayPointer(result) if isinstance(result, PointerTensor) else result


def _tensors(value: Any) -> Any:
    if isinstance(value, ArrayPointer):
        return value.tensor
    return tuple(_tensors(v) for v in value) if isinstance(value, tuple) else value


def _operand(value: Any) -> Any:
    """The torch operand for a ufunc's."""
    if isinstance(value, ArrayPointer):
        return value.tensor
    if isinstance(value, np.generic):
        return torch.from_numpy(np.asarray(value)).clone()
    if isinstance(value, (bool, int, float)):
        return value
    raise PointerMisuseError(f"a local {type(value).__name__} met an array at a worker: send() it there first")


def _unwrapped(value: Any) -> Any:
    """An argument of a NumPy function with a pointer for each array."""
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrapped(v) for v in value)
    return _operand(value) if isinstance(value, (ArrayPointer, np.ndarray, np.generic)) else value
