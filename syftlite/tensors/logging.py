"""LoggingTensor: a layer that tells of every operator that passes through it, forward and backward, and changes nothing.

    LoggingTensor().on(x) * 2       LoggingTensor | aten.mul.Tensor(float32[3], 2) -> float32[3]
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch

from syftlite._torch import aten, correct_aliasing
from syftlite.tensors.wrapper import WrapperTensor

Log = Callable[[str], object]


class LoggingTensor(WrapperTensor):
    """``LoggingTensor(name, log).on(x)`` is ``x``, and ``log`` (default: print) is called with a line for each operator on it.

    >>> x = LoggingTensor().on(torch.ones(3))
    >>> y = (x + 1).sum()
    LoggingTensor | aten.add.Tensor(float32[3], 1) -> float32[3]
    LoggingTensor | aten.sum.default(float32[3]) -> float32[]
    """

    level: ClassVar[int] = 100
    _name: str
    _log: Log

    @staticmethod
    def __new__(cls, name: str = "", log: Log = print) -> LoggingTensor:
        return cls.around(torch.empty(0), _name=name, _log=log)

    def __init__(self, name: str = "", log: Log = print) -> None:
        """A layer that waits for `on`."""

    def on(self, tensor: torch.Tensor) -> LoggingTensor:
        """This layer around ``tensor``, wherever its value is; gradients flow through."""
        return self.over(tensor, **self.attributes())

    def attributes(self) -> dict[str, Any]:
        """The name and the log."""
        return {"_name": self._name, "_log": self._log}

    @classmethod
    def fallback(cls, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run any operator on the children, and tell of it."""
        layers: dict[int, LoggingTensor] = {}
        inner, named = _unwrapped(args, layers), _unwrapped(kwargs, layers)
        result = func(*inner, **named)
        first = next(iter(layers.values()))
        prefix = f"{cls.__name__} {first._name}".rstrip()
        given = ", ".join([*map(_told, inner), *(f"{k}={_told(v)}" for k, v in named.items())])
        first._log(f"{prefix} | {func}({given}) -> {_told(result)}")
        outer = _wrapped(result, layers, first.attributes())
        if torch.Tag.inplace_view in func.tags:
            outer = correct_aliasing(func, args, kwargs, outer)
        return outer


@LoggingTensor.implements(aten.detach.default)
def _detach(cls: type[LoggingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> LoggingTensor:
    layer = args[0]
    return cls.around(func(layer.child), **layer.attributes())


def _unwrapped(value: Any, layers: dict[int, LoggingTensor]) -> Any:
    if isinstance(value, LoggingTensor):
        layers[id(value.child)] = value
        return value.child
    if isinstance(value, (list, tuple)):
        return type(value)(_unwrapped(v, layers) for v in value)
    return {k: _unwrapped(v, layers) for k, v in value.items()} if isinstance(value, dict) else value


def _wrapped(value: Any, layers: dict[int, LoggingTensor], attributes: dict[str, Any]) -> Any:
    if isinstance(value, torch.Tensor):  # an in-place operator gives back its operand: then, so does the layer
        return layers[id(value)] if id(value) in layers else LoggingTensor.around(value, **attributes)
    if isinstance(value, (list, tuple)):
        return type(value)(_wrapped(v, layers, attributes) for v in value)
    return value


def _told(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_told, value))}]"
    return repr(value)
