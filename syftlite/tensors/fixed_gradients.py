"""Gradients of gradients of FixedPrecisionTensors, which `create_graph=True` asks for.

    through                   a choice that was made on the way forth is a linear map: it has derivatives of every order
    differentiated_once       a derivative that was kept as a value has none of its own, and says so where one is wanted
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from syftlite.tensors.backwards import LIFTED
from syftlite.tensors.fixed import FixedPrecisionTensor, fix_precision

Fixed = FixedPrecisionTensor
Map = Callable[[Any], Any]


def _lifted(output: Fixed, gradient: torch.Tensor) -> Any:
    """A public ``gradient`` of ``output``, where the ring elements of that are."""
    found: Any = fix_precision(gradient, **output.attributes())
    worker = None if output.is_secret else output.location
    return found if worker is None else found.send(worker)


LIFTED[Fixed] = _lifted


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Fixed, there: Map, back: Map) -> Fixed:
        ctx.maps = back, there
        return Fixed.of(there(x._child), x.attributes())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return through(grads[0], *ctx.maps), None, None


def through(x: Fixed, there: Map, back: Map) -> Any:
    """A linear map of ``x``'s ring elements; ``back`` is its transpose, by which gradients go back."""
    return _Through.apply(x, there, back)  # type: ignore[no-untyped-call]


class _Anchor(torch.autograd.Function):
    """Nothing, made of ``operands``: what is made of it in turn is on autograd's way to them."""

    @staticmethod
    def forward(ctx: Any, *operands: Any) -> torch.Tensor:
        return torch.empty(0)


class _Kept(torch.autograd.Function):
    """A derivative that is a value alone. Raises NotImplementedError once its own derivative is wanted."""

    @staticmethod
    def forward(ctx: Any, derivative: Any, name: str, *anchors: Any) -> Any:
        ctx.name = name
        return derivative.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError(
            f"FixedPrecisionTensor knows no second derivative of {ctx.name}, whose first is kept as a value: detach() that gradient to "
            "use it as a constant, or decrypt() what may be known, and differentiate twice in the open"
        )


def differentiated_once(name: str = "") -> Callable[[type[torch.autograd.Function]], type[torch.autograd.Function]]:
    """Of a Function whose ``backward`` uses values of the way forth: a second derivative is refused. ``name``: else it is ``ctx.name``."""

    def decorate(function: type[torch.autograd.Function]) -> type[torch.autograd.Function]:
        forth, back = function.forward, function.backward

        def forward(ctx: Any, *args: Any) -> Any:
            with torch.enable_grad():
                ctx.anchor = _Anchor.apply(*args)  # type: ignore[no-untyped-call]
            return forth(ctx, *args)

        def backward(ctx: Any, *grads: Any) -> Any:
            with torch.no_grad():
                found = back(ctx, *grads)
            if not torch.is_grad_enabled():
                return found
            each = found if isinstance(found, tuple) else (found,)
            anchors = (name or ctx.name, ctx.anchor, *grads)
            return tuple(None if v is None else _Kept.apply(v, *anchors) for v in each)  # type: ignore[no-untyped-call]

        function.forward, function.backward = staticmethod(forward), staticmethod(backward)  # type: ignore[method-assign]
        return function

    return decorate
