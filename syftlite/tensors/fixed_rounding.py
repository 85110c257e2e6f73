"""FixedPrecisionTensors rounded to whole numbers, and divided by public ones that way: on ring elements, exactly.

    floor, ceil, trunc, round    of x / scale; round takes halves to the even one, as torch does
    x // d, x % d, fmod, frac    of ring elements by d's, which d must have exactly

Quotients times the scale have to fit: results below 2^46.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.errors import Misuse
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_ops import Args, Named, encoded, implements

Fixed = FixedPrecisionTensor


def _quotient(child: Any, by: Any, mode: str) -> Any:
    return torch.div(child, by, rounding_mode=mode)


def _even(child: Any, scale: int) -> Any:
    """child / scale to the nearest, halves to the even one."""
    twice = child * 2 + scale
    up = _quotient(twice, 2 * scale, "floor")
    if scale % 2:
        return up
    half = twice - up * (2 * scale) == 0
    odd = up - _quotient(up, 2, "floor") * 2
    return up - half.long() * odd


def _whole(rounded: Callable[[Any, int], Any]) -> Callable[..., Any]:
    def whole(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
        x = args[0]
        return cls.of(rounded(x._child, x.scale) * x.scale, x.attributes())

    return whole


implements(aten.floor.default)(_whole(lambda child, scale: _quotient(child, scale, "floor")))
implements(aten.ceil.default)(_whole(lambda child, scale: -_quotient(-child, scale, "floor")))
implements(aten.trunc.default)(_whole(lambda child, scale: _quotient(child, scale, "trunc")))
implements(aten.round.default)(_whole(_even))


@implements(aten.frac.default)
def _frac(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    return cls.of(torch.fmod(args[0]._child, args[0].scale), args[0].attributes())


# -- by public numbers


def _exact(func: Any, x: Any, by: Any) -> Any:
    """A public divisor as ring elements. Raises `Misuse` for one that has none: what is off by its rounding would be a step off."""
    if not isinstance(x, Fixed) or isinstance(by, Fixed):
        raise Misuse(f"{func}: what is divided is in fixed precision, and by what is public; x / y divides by a secret")
    found = encoded(by, x.scale, func)
    if bool((torch.as_tensor(by).double() * x.scale != torch.as_tensor(found)).any()):
        raise Misuse(f"{func}: a divisor is a multiple of 1 / {x.scale}, and of {by} the rest would be that of another")
    return found


@implements(aten.div.Tensor_mode, aten.div.Scalar_mode)
def _divide(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, by = args
    mode = kwargs.get("rounding_mode")
    if mode is None:
        return x / by
    by = _exact(func, x, by)
    return cls.of(_quotient(x._child, by, mode) * x.scale, x.attributes())


@implements(aten.floor_divide.default, aten.floor_divide.Scalar)
def _floor_divide(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, by = args
    by = _exact(func, x, by)
    return cls.of(_quotient(x._child, by, "floor") * x.scale, x.attributes())


@implements(aten.remainder.Scalar, aten.remainder.Tensor, aten.fmod.Scalar, aten.fmod.Tensor)
def _remainder(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, by = args
    rest = torch.fmod if func in (aten.fmod.Scalar, aten.fmod.Tensor) else torch.remainder
    by = _exact(func, x, by)
    return cls.of(rest(x._child, by), x.attributes())
