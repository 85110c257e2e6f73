"""What compares AdditiveSharingTensors, and chooses by it: kernels of the group (arithmetic.py). A comparison is 1 or 0, shared too.

    < <= == ...                  relu, abs, sign, clamp, maximum: of one comparison
    max, min, argmax, one_hot    over an axis; places are shared whole numbers
    x ** n                       products

Ring elements are whole numbers modulo 2^64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional as F

from syftlite._torch import aten, axes
from syftlite.errors import Misuse
from syftlite.remote.sharing import AdditiveSharingTensor
from syftlite.tensors.comparing import current, lowest_bit

Handler = Callable[..., Any]
implements = AdditiveSharingTensor.implements


def layer_of(args: Any) -> AdditiveSharingTensor:
    """The first shared operand."""
    for arg in args:
        if isinstance(arg, AdditiveSharingTensor):
            return arg
        if isinstance(arg, (list, tuple)) and any(isinstance(a, AdditiveSharingTensor) for a in arg):
            return layer_of(arg)
    raise AssertionError("no shared operand")


def noted(x: Any) -> Any:
    """``x``, all of whose values are 0 or 1, noted to be so (`Held.truths`), until it is written to."""
    x.held.note_truths()
    return x


def truth(x: Any) -> Any:
    """1 where ``x`` is not 0, else 0: of a comparison, itself; of what is public, a number or whole numbers."""
    if isinstance(x, AdditiveSharingTensor):
        return x if x.held.truths else x != 0
    return (x != 0).long() if isinstance(x, torch.Tensor) else int(x != 0)


LIMIT = 2.0**62


def _real(value: Any) -> bool:
    """Whether it is public, and not of whole numbers."""
    if isinstance(value, torch.Tensor):
        return type(value) is torch.Tensor and value.is_floating_point()
    return type(value) is float


def _beside(value: Any, up: bool) -> Any:
    """The whole numbers that take the place of public real ones: w < v where w < ceil(v), and v < w where floor(v) < w."""
    if not _real(value):
        return value
    real = torch.as_tensor(value, dtype=torch.float64)
    if not (real.abs() < LIMIT).all():
        raise Misuse(f"shares are compared with numbers below 2^62 in magnitude, and these reach {float(real.abs().max()):g}")
    found = (real.ceil() if up else real.floor()).long()
    return found if isinstance(value, torch.Tensor) else int(found)


def _compared(below: bool, swap: bool) -> Handler:
    def compare(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, y = reversed(args) if swap else args
        x, y = _beside(x, up=False), _beside(y, up=True)
        return noted(layer_of(args).arithmetic.less(x, y, invert=not below, low=lowest_bit(current(), 1)))

    return compare


def _over(name: str) -> tuple[Any, Any]:
    packet = getattr(aten, name)
    return packet.Tensor, packet.Scalar


implements(*_over("lt"))(_compared(below=True, swap=False))
implements(*_over("gt"))(_compared(below=True, swap=True))
implements(*_over("ge"))(_compared(below=False, swap=False))
implements(*_over("le"))(_compared(below=False, swap=True))


@implements(*_over("eq"))
def _eq(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return noted(_equal(args))


def _equal(args: tuple[Any, ...]) -> Any:
    """1 where operands are equal, which a secret and a number that is not whole never are."""
    low, high = ([_beside(v, up) for v in args] for up in (False, True))
    bit = layer_of(args).arithmetic.zero(low[0] - low[1])
    for below, above in zip(low, high, strict=True):
        if isinstance(below, torch.Tensor) and below is not above:
            bit = bit * (below == above).long()
        elif type(below) is int and below != above:
            bit = bit * 0
    return bit


@implements(*_over("ne"))
def _ne(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return noted(1 - _equal(args))


@implements(aten.relu.default)
def _relu(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].arithmetic.relu(args[0], 0, lowest_bit(current(), 1))


@implements(aten.max.default)
def _max(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].arithmetic.max(args[0].reshape(-1), 0, lowest_bit(current(), 1))


@implements(aten.argmax.default)
def _argmax(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, dim, keepdim = args[0], args[1] if len(args) > 1 else None, args[2] if len(args) > 2 else False
    axes(x, dim)
    row, axis = (x.reshape(-1), 0) if dim is None or not x.dim() else (x, dim)
    index = x.arithmetic.max_and_mask(row, axis, lowest_bit(current(), 1))[2]
    if keepdim and x.dim():
        return index.reshape([1] * x.dim()) if dim is None else index.unsqueeze(axis)
    return index


@implements(aten.maximum.default, aten.minimum.default)
def _extreme(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, y = args
    greater = (x - y).relu()
    return y + greater if func is aten.maximum.default else x - greater


@implements(aten.abs.default)
def _abs(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].relu() * 2 - args[0]


@implements(aten.sign.default)
def _sign(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return (args[0] > 0) - (args[0] < 0)


@implements(
    aten.clamp.default, aten.clamp.Tensor, aten.clamp_min.default, aten.clamp_min.Tensor, aten.clamp_max.default, aten.clamp_max.Tensor
)  # fmt: skip
def _clamp(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, low, high = (args[0], None, args[1]) if func in (aten.clamp_max.default, aten.clamp_max.Tensor) else (*args, None, None)[:3]
    low, high = kwargs.get("min", low), kwargs.get("max", high)
    x = x.clone() if low is None else (x - low).relu() + low
    return x if high is None else high - (high - x).relu()


@implements(aten.pow.Tensor_Scalar)
def _pow(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, exponent = args
    if exponent < 0 or exponent != int(exponent):
        raise Misuse(f"shares are ring elements, and {func} of {exponent} gives others: fix_precision() before share()")
    if exponent in (0, 1):
        return x.clone() if exponent else x * 0 + 1
    result = None
    for digit in f"{int(exponent):b}"[::-1]:
        if digit == "1":
            result = x if result is None else result * x
        x = x * x
    return result


@implements(aten.min.default)
def _min(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return -(-args[0]).max()


@implements(aten.max.dim)
def _max_dim(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    x, dim, keep = (*args, False)[:3]
    best, _, place = x.arithmetic.max_and_mask(x if x.dim() else x.reshape(1), dim, lowest_bit(current(), 1))
    return (best.unsqueeze(dim), place.unsqueeze(dim)) if keep and x.dim() else (best, place)


@implements(aten.min.dim)
def _min_dim(cls: type[AdditiveSharingTensor], func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    best, place = torch.max(-args[0], *args[1:])
    return -best, place


def one_hot(index: Any, num_classes: int = -1) -> Any:
    """(..., num_classes): 1 where the place is the index, else 0."""
    if num_classes < 1:
        raise Misuse("one_hot of a secret index cannot tell how many classes there are: give it num_classes")
    return index.arithmetic.one_hot(index, num_classes)


AdditiveSharingTensor.functions[F.one_hot] = one_hot  # torch's own would read the index
