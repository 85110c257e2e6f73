"""The functions of arithmetic.py for ring elements whose values somebody has: floats of them, torch's function, ring elements again.

``f``: bits after the point. The same methods compute on shares (remote/shared_functions.py), by mpc/function_kernels.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F


def _normal(x: Any) -> Any:
    return torch.erfc(x * -(0.5**0.5)) * 0.5


def _gelu_slope(x: Any) -> Any:
    return _normal(x) + x * (x * x * -0.5).exp() * 0.3989422804014327


CURVES: dict[str, tuple[int, Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sigmoid": (0, torch.sigmoid, lambda x: torch.sigmoid(x) * torch.sigmoid(-x)),
    "tanh": (1, torch.tanh, lambda x: 1 - torch.tanh(x).square()),
    "silu": (2, lambda x: x * torch.sigmoid(x), lambda x: torch.sigmoid(x) * (1 + x * torch.sigmoid(-x))),
    "gelu": (3, lambda x: x * _normal(x), _gelu_slope),
}
"""Number in mpc/curves.py, the function, its derivative."""
ROOTS: dict[str, Callable[[Any], Any]] = {"reciprocal": torch.reciprocal, "rsqrt": torch.rsqrt, "sqrt": torch.sqrt, "log": torch.log}
"""In the order of their bits in mpc/roots.py."""


class PlainFunctions:
    """Functions of int64 tensors that stand for real numbers."""

    def exp(self, x: Any, f: int) -> Any:
        """e^x."""
        return _fixed(_real(x, f).exp(), f)

    def curve(self, x: Any, f: int, name: str, slope: bool) -> tuple[Any, ...]:
        """(one of `CURVES`, and its derivative if ``slope``)."""
        real = _real(x, f)
        _, value, derivative = CURVES[name]
        return tuple(_fixed(function(real), f) for function in ((value, derivative) if slope else (value,)))

    def roots(self, x: Any, f: int, names: tuple[str, ...], signed: bool = False) -> tuple[Any, ...]:
        """Those of `ROOTS`, in their order."""
        return tuple(_fixed(ROOTS[name](_real(x, f)), f) for name in names)

    def divide(self, x: Any, y: Any, f: int, signed: bool = True) -> Any:
        """x / y."""
        return _fixed(x.double() / y.double(), f)

    def softmax(self, x: Any, f: int, dim: int, soft: bool, log: bool) -> tuple[Any, ...]:
        """(softmax, its logarithm): those that are wanted."""
        real = _real(x, f)
        return tuple(_fixed(function(real, dim), f) for function, wanted in ((torch.softmax, soft), (torch.log_softmax, log)) if wanted)

    def one_hot(self, x: Any, count: int) -> Any:
        """(..., count): 1 where x = 0, 1, ..."""
        return F.one_hot(x, count)

    def sort(self, x: Any, dim: int, low: int = -1) -> tuple[Any, Any, Any]:
        """(ascending, places before, permutation (..., n, n) of the axis put last)."""
        ordered, places = torch.sort(x, dim=dim)
        return ordered, places, F.one_hot(places.movedim(dim, -1), x.shape[dim]).transpose(-1, -2)


def _real(x: Any, f: int) -> Any:
    return x.double() / (1 << f)


def _fixed(x: Any, f: int) -> Any:
    return (x * (1 << f)).clamp(-(2.0**62), 2.0**62).round().long()
