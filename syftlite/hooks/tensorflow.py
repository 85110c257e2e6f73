"""TensorFlowHook: TensorFlow's tensors at a worker, and its functions where the values are.

    hook = sy.TensorFlowHook(tf)
    x = tf.constant([[1.0, 2.0]]).send(bob)              a `TensorFlowPointer`
    y = tf.reduce_sum(tf.matmul(x, x, transpose_b=True) + 1)     `RULES` -> torch, on the pointer
    y.get()                                              a tf.Tensor

TensorFlow itself hands over what a pointer is an argument of: its `GlobalOpDispatcher` is asked where a function cannot take what it was
given. No function is patched; the hook adds the method ``send`` to tensors and variables, and changes nothing else.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch

from syftlite.errors import ConfigurationError, DependencyError, PointerMisuseError
from syftlite.hooks import tensorflow_library as tensorflow_library  # its rules enter the table
from syftlite.hooks.foreign import ForeignPointer
from syftlite.hooks.tensorflow_rules import RULES, dtype_of, name_of
from syftlite.remote import methods, registry
from syftlite.remote.interop import as_tensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import send as send_tensor
from syftlite.remote.virtual import LocalWorker

INSTALL = 'pip install "syftlite[tensorflow]"'
DTYPE_ARGUMENTS = ("dtype", "output_type")


class TensorFlowHook:
    """Adds ``send`` to the tensors and variables of ``tf``, the package tensorflow, and has its functions take pointers.

    Raises `DependencyError`, which says what to install, if none is given and none is installed. May be made any number of times.
    """

    def __init__(self, tf: Any = None, local_worker: LocalWorker | None = None) -> None:
        if tf is None:
            try:
                tf = importlib.import_module("tensorflow")
            except ImportError as error:
                raise DependencyError(f"TensorFlow is not here ({error}): {INSTALL}") from None
        if not isinstance(getattr(tf, "Tensor", None), type) or not isinstance(getattr(tf, "Variable", None), type):
            raise ConfigurationError(f"TensorFlowHook(tf) takes the package tensorflow, not {tf!r}: {INSTALL}")
        methods.install()
        tf.Tensor.send = tf.Variable.send = send
        _dispatcher().register()
        self.tf = tf

    @property
    def local_worker(self) -> LocalWorker:
        """The worker of this process, "me"."""
        return registry.local_worker()


def send(self: Any, worker: Any) -> TensorFlowPointer:
    """This tensor's or variable's value at ``worker`` (or its id). Raises TypeError for strings and other things that are no numbers."""
    value = self.value() if hasattr(self, "assign") else self
    if not hasattr(value, "numpy"):
        raise PointerMisuseError(f"{value!r} has no value yet: send() what exists outside of tf.function")
    sent: Any = send_tensor(as_tensor(_exact(value)), registry.find(worker))
    return TensorFlowPointer(sent)


def _exact(value: Any) -> Any:
    """What torch can take of it: NumPy has no bfloat16 of its own."""
    return torch.from_dlpack(value).clone() if value.dtype.name == "bfloat16" else np.array(value.numpy())  # type: ignore[attr-defined]


class TensorFlowPointer(ForeignPointer):
    """A TensorFlow tensor whose value is at ``location``; `get` gives a tf.Tensor."""

    __array_ufunc__ = None  # a NumPy array leaves what both are operands of to this class
    __hash__ = None  # type: ignore[assignment]  # as tf.Tensor

    @property
    def shape(self) -> Any:
        """Its tf.TensorShape."""
        return _tf().TensorShape(tuple(self.tensor.shape))

    @property
    def dtype(self) -> Any:
        """Its tf.DType."""
        return _tf().as_dtype(name_of(self.tensor.dtype))

    @staticmethod
    def _here(tensor: torch.Tensor) -> Any:
        tf = _tf()
        if tensor.dtype is torch.bfloat16:  # which NumPy lacks
            return tf.cast(tf.constant(tensor.detach().float().numpy()), tf.bfloat16)
        return tf.constant(tensor.detach().numpy())

    def __repr__(self) -> str:
        where = f"{self.tensor.owner.id} -> {self.location.id}:{self.tensor.id}"
        return f"TensorFlowPointer | {where}, shape={tuple(self.tensor.shape)}, dtype={name_of(self.tensor.dtype)}"

    def __iter__(self) -> Any:
        return iter(_pointers(RULES["unstack"](self.tensor)))

    def __getitem__(self, index: Any) -> Any:
        place = _plain(index)
        parts = [p.tolist() if type(p) is torch.Tensor else p for p in (place if isinstance(place, tuple) else (place,))]
        return _pointers(self.tensor[tuple(parts)])

    def __bool__(self) -> bool:
        raise NotHere("the truth of a pointer needs its value")

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        raise NotHere("this function has no rule on a pointer, or met a local tensor beside it: it needs the value")

    def numpy(self) -> Any:
        """Raises `PointerMisuseError`: `get` moves the value here."""
        raise NotHere("numpy() needs the value")


class NotHere(PointerMisuseError, TypeError):
    """A value was needed here. A TypeError, too: by that TensorFlow knows to ask its dispatchers."""

    def __init__(self, why: str) -> None:
        super().__init__(f"{why}, which is at its worker: get() it, send() there what it meets, or use .tensor with torch's functions")


def _operator(name: str, reflected: bool = False) -> Callable[[Any, Any], Any]:
    def call(self: TensorFlowPointer, other: Any) -> Any:
        operands = [self.tensor, _plain(other)]
        return _pointers(RULES[name](*reversed(operands) if reflected else operands))

    return call


_OPERATORS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "divide", "floordiv": "math.floordiv", "mod": "math.floormod",
    "pow": "pow", "matmul": "matmul",
}  # fmt: skip
_COMPARISONS = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}
_LOGIC = {"and": "logical_and", "or": "logical_or", "xor": "math.logical_xor"}
for _short, _long in (_OPERATORS | _COMPARISONS | _LOGIC).items():
    setattr(TensorFlowPointer, f"__{_short}__", _operator(_long))
    if _short not in _COMPARISONS:
        setattr(TensorFlowPointer, f"__r{_short}__", _operator(_long, reflected=True))
for _short, _long in {"neg": "negative", "abs": "abs", "invert": "logical_not"}.items():
    setattr(TensorFlowPointer, f"__{_short}__", lambda self, rule=RULES[_long]: _pointers(rule(self.tensor)))


# -- what TensorFlow hands over


@cache
def _dispatcher() -> Any:
    """The one dispatcher of this process."""
    dispatch = importlib.import_module("tensorflow.python.util.dispatch")

    class Pointers(dispatch.GlobalOpDispatcher):  # type: ignore[misc, name-defined]
        """Answers for functions that a pointer is an argument of, and that have a rule; leaves the others."""

        def __init__(self) -> None:
            self.rules = _by_function(_tf())
            self.registered = False

        def register(self) -> None:
            if not self.registered:
                self.registered = True
                super().register()

        def handle(self, op: Any, args: Any, kwargs: Any) -> Any:
            rule = self.rules.get((op.__module__, op.__name__))
            if rule is None or not any(isinstance(leaf, TensorFlowPointer) for leaf in _leaves((args, kwargs))):
                return self.NOT_SUPPORTED
            return _pointers(_applied(rule, op, args, kwargs))

    return Pointers()


def _by_function(tf: Any) -> dict[tuple[str, str], Callable[..., Any]]:
    """Rules by module and name of the functions, as dispatchers see them: those of before version 2 are within those of it."""
    found = {}
    for public, rule in RULES.items():
        function = tf
        for part in public.split("."):
            function = getattr(function, part)
        for name in {function.__name__, function.__name__.removesuffix("_v2")}:
            found[function.__module__, name] = rule
    return found


def _applied(rule: Callable[..., Any], op: Any, args: Any, kwargs: Any) -> Any:
    """``rule`` with what ``op`` was called with, by the names that ``op`` has for it. Raises TypeError for what it does not honour."""
    signature, known = inspect.signature(op), inspect.signature(rule).parameters
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        parameter = signature.parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            positional, named = [*named.values(), *value], {}
        elif name in known:
            named[name] = dtype_of(_tf().as_dtype(value).name) if name in DTYPE_ARGUMENTS and value is not None else value
        elif name != "name" and value is not None and value != parameter.default and value != {}:
            raise TypeError(f"{op.__name__} on a pointer honours no {name}={value!r}: it takes {', '.join(known)}")
    return rule(*map(_plain, positional), **{name: _plain(value) for name, value in named.items()})


def _leaves(value: Any) -> Any:
    """All that is in nested arguments."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if not isinstance(value, (list, tuple)):
        return (value,)
    return [leaf for part in value for leaf in _leaves(part)]


def _plain(value: Any) -> Any:
    """An argument as a rule takes it: pointers and local tensors of torch's, and shapes and numbers as Python's."""
    if isinstance(value, TensorFlowPointer):
        return value.tensor
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value)) if type(value) in (list, tuple) else list(map(_plain, value))
    tf = _tf()
    if isinstance(value, tf.TensorShape):
        return value.as_list()
    return as_tensor(_exact(tf.convert_to_tensor(value))) if isinstance(value, (tf.Tensor, tf.Variable, np.ndarray)) else value


def _pointers(result: Any) -> Any:
    if isinstance(result, PointerTensor):
        return TensorFlowPointer(result)
    if isinstance(result, list) and isinstance(result[0], PointerTensor):
        return [TensorFlowPointer(r) for r in result]
    return _tf().constant(result, _tf().int32)  # what is known of it here


@cache
def _tf() -> Any:
    return importlib.import_module("tensorflow")
