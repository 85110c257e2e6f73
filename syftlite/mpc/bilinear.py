"""Bilinear maps B(x, y) over the ring: all that a Beaver triple multiplies.

    name                        x                    y                    B(x, y)              parameters
    mul                         any                  broadcasts with x    x * y                none
    matmul                      (..., m, k)          (..., k, n)          x @ y                none
    conv2d                      (N, H, W, C)         (O, C/g, kh, kw)     (N, OH, OW, O)       Conv
    conv2d_input_grad           (N, OH, OW, O)       (O, C/g, kh, kw)     (N, H, W, C)         Conv, (H, W)
    conv2d_weight_grad          (N, H, W, C)         (N, OH, OW, O)       (O, C/g, kh, kw)     Conv, (kh, kw)

`prepare` is linear in y and does once what does not depend on x; `add` accumulates. Parameters are nested tuples of ints, because
they become part of a correlation's key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import Tensor

from syftlite._torch import broadcast
from syftlite.mpc.bits import raw
from syftlite.mpc.convolution import Conv, Geometry, Shape, convolve, correlate, geometry, matrix, scatter, work
from syftlite.mpc.matrices import add_products

Params = tuple[Any, ...]


class Bilinear(NamedTuple):
    """One map."""

    shape: Callable[[Shape, Shape, Params], Shape]
    """(x's shape, y's shape, parameters) -> the result's; ValueError if they do not fit."""
    prepare: Callable[[Tensor, Shape, Params], Tensor]
    """(y, x's shape, parameters) -> y as `add` wants it."""
    add: Callable[[Tensor, Tensor, Tensor, Shape, Params], None]
    """(out, x, prepared y, y's shape, parameters): out += B(x, y)."""
    work: Callable[[Shape, Shape, Params], int] = lambda x, y, params: 0
    """(x's shape, y's shape, parameters) -> elements that are needed besides x, y and the result, at most."""

    def add_both(self, out: Tensor, one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], y: Shape, params: Params) -> None:
        """out += B of both pairs (x, prepared y)."""
        if self.add is _matmul and all(f.dim() == 2 and f.is_contiguous() for f in (out, *one, *other)):
            add_products(out, one, other)  # cheaper than one after the other
        else:
            for x, prepared in (one, other):
                self.add(out, x, prepared, y, params)

    def __call__(self, x: Tensor, y: Tensor, params: Params = ()) -> Tensor:
        """B(x, y)."""
        out = x.new_zeros(self.shape(tuple(x.shape), tuple(y.shape), params))
        self.add(out, x, self.prepare(y, tuple(x.shape), params), tuple(y.shape), params)
        return out


def _as_is(y: Tensor, x: Shape, params: Params) -> Tensor:
    return y


def _mul_shape(x: Shape, y: Shape, params: Params) -> Shape:
    try:
        return broadcast(x, y)
    except RuntimeError as error:
        raise ValueError(f"shapes {x} and {y} do not broadcast") from error


def _mul(out: Tensor, x: Tensor, y: Tensor, shape: Shape, params: Params) -> None:
    if out.is_meta:
        out.addcmul_(x, y)
    else:  # in vectors, which torch's integers are not
        z = raw(out)
        z += raw(x) * raw(y)


def _matmul_shape(x: Shape, y: Shape, params: Params) -> Shape:
    if len(x) < 2 or len(y) < 2 or x[-1] != y[-2]:
        raise ValueError(f"matrices of shapes {x} and {y} cannot be multiplied: last axis of one, last but one of the other")
    return (*_mul_shape(x[:-2], y[:-2], ()), x[-2], y[-1])


def _matmul(out: Tensor, x: Tensor, y: Tensor, shape: Shape, params: Params) -> None:
    if y.dim() == 2 and x.numel() and out.numel() and x.is_contiguous() and out.is_contiguous():
        add_products(out.view(-1, out.shape[-1]), (x.view(-1, x.shape[-1]), y))
    else:
        out += x @ y


def _conv(params: Params) -> Conv:
    stride, padding, dilation, groups, pool = params[:5]
    return Conv(stride, padding, dilation, groups, pool)


def _conv_geometry(x: Shape, y: Shape, params: Params) -> Geometry:
    if len(x) != 4 or len(y) != 4:
        raise ValueError(f"a convolution takes an image and a weight of four dimensions, not shapes {x} and {y}")
    return geometry(x, y, _conv(params))


def _conv_work(x: Shape, y: Shape, params: Params) -> int:
    return work(_conv_geometry(x, y, params), x, y)


def _conv_shape(x: Shape, y: Shape, params: Params) -> Shape:
    return (x[0], *_conv_geometry(x, y, params).out, y[0])


def _conv_prepare(y: Tensor, x: Shape, params: Params) -> Tensor:
    return matrix(y, _conv(params), _conv_geometry(x, tuple(y.shape), params))


def _conv_add(out: Tensor, x: Tensor, y: Tensor, shape: Shape, params: Params) -> None:
    convolve(out, x, y, _conv_geometry(tuple(x.shape), shape, params))


def _input_grad_geometry(x: Shape, y: Shape, params: Params) -> Geometry:
    if len(x) != 4 or len(y) != 4:
        raise ValueError(f"a convolution's gradient takes tensors of four dimensions, not shapes {x} and {y}")
    conv = _conv(params)
    g = geometry((x[0], *params[5], y[1] * conv.groups), y, conv, widen=False)
    if x[1:] != (*g.out, y[0]):
        raise ValueError(f"a gradient of shape {x} is not that of a weight {y} on an image of {params[5]}: that has {(x[0], *g.out, y[0])}")
    return g


def _input_grad_work(x: Shape, y: Shape, params: Params) -> int:
    return work(_input_grad_geometry(x, y, params), (x[0], *params[5], y[1] * _conv(params).groups), y, at_once=x[0])


def _input_grad_shape(x: Shape, y: Shape, params: Params) -> Shape:
    _input_grad_geometry(x, y, params)
    return (x[0], *params[5], y[1] * _conv(params).groups)


def _input_grad_prepare(y: Tensor, x: Shape, params: Params) -> Tensor:
    return matrix(y, _conv(params), _input_grad_geometry(x, tuple(y.shape), params))


def _input_grad(out: Tensor, x: Tensor, y: Tensor, shape: Shape, params: Params) -> None:
    scatter(out, x, y, _input_grad_geometry(tuple(x.shape), shape, params))


def _weight_grad_geometry(x: Shape, y: Shape, params: Params) -> Geometry:
    if len(x) != 4 or len(y) != 4:
        raise ValueError(f"a convolution's gradient takes tensors of four dimensions, not shapes {x} and {y}")
    conv = _conv(params)
    g = geometry(x, (y[3], x[3] // conv.groups, *params[5]), conv, widen=False)
    if y[:3] != (x[0], *g.out):
        raise ValueError(f"a gradient of shape {y} is not that of an image {x} under a kernel of {params[5]}: that has {(x[0], *g.out)}")
    return g


def _weight_grad_work(x: Shape, y: Shape, params: Params) -> int:
    return work(_weight_grad_geometry(x, y, params), x, (y[3], x[3] // _conv(params).groups, *params[5]))


def _weight_grad_shape(x: Shape, y: Shape, params: Params) -> Shape:
    _weight_grad_geometry(x, y, params)
    return (y[3], x[3] // _conv(params).groups, *params[5])


def _weight_grad(out: Tensor, x: Tensor, y: Tensor, shape: Shape, params: Params) -> None:
    correlate(out, x, y, _weight_grad_geometry(tuple(x.shape), shape, params))


MAPS: dict[str, Bilinear] = {
    "mul": Bilinear(_mul_shape, _as_is, _mul),
    "matmul": Bilinear(_matmul_shape, _as_is, _matmul),
    "conv2d": Bilinear(_conv_shape, _conv_prepare, _conv_add, _conv_work),
    "conv2d_input_grad": Bilinear(_input_grad_shape, _input_grad_prepare, _input_grad, _input_grad_work),
    "conv2d_weight_grad": Bilinear(_weight_grad_shape, _as_is, _weight_grad, _weight_grad_work),
}
