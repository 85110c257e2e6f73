"""Convolutions of FixedPrecisionTensors, and their gradients.

    conv2d              one kernel of the group; of two secrets, or a secret and what is public
    conv1d              of images of one row
    conv_transpose      the gradient of a convolution for its image; its own gradients are convolutions

Of volumes: fixed_volumes.py.
"""

from __future__ import annotations

from typing import Any

import torch

from syftlite._torch import aten
from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_nn import Pair, conv_shape, pair
from syftlite.tensors.fixed_ops import Args, Named, encoded, first_of, implements, same_scale
from syftlite.tensors.waiting import Product, Waiting

Fixed = FixedPrecisionTensor


def _as_images(stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any) -> tuple[Any, ...]:
    """How rows are convolved, as images of one."""
    return [1, *stride], [0, *padding], [1, *dilation], transposed, [0, *extra]


def _waits(kind: str, x: Any, y: Any, scheme: Named, shape: torch.Size, **how: Any) -> Fixed:
    """The bilinear map ``kind`` of ring elements, which waits."""
    ring, scale = arithmetic(x, y), int(scheme["base"] ** scheme["precision_fractional"])
    ring.check(x, y)
    return Fixed.of(Waiting(Product(ring, lambda f: getattr(ring, kind)(x, y, f, **how), shape), scale), scheme, shape)


@implements(aten.convolution.default)
def _convolution(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, weight, bias, stride, padding, dilation, transposed, extra, groups = args
    if x.dim() == 3:
        rows = _as_images(stride, padding, dilation, transposed, extra)
        out: Any = aten.convolution(x.unsqueeze(2), weight.unsqueeze(2), bias, *rows, groups)
        return out.squeeze(2)
    if x.dim() != 4:
        raise NotImplementedError(_no_convolution(x))
    scheme, scale = same_scale(x, weight), first_of((x, weight)).scale
    left, right = (v._child if isinstance(v, Fixed) else encoded(v, scale) for v in (x, weight))
    how = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": groups}
    if transposed:
        size = _spread(x.shape, weight.shape, how, pair(extra))
        shape = torch.Size([x.shape[0], weight.shape[1] * groups, *size])
        out = _waits("conv2d_input_grad", left, right, scheme, shape, size=size, **how)
    else:
        out = _waits("conv2d", left, right, scheme, conv_shape(x.shape, weight.shape, how, (1, 1)), **how)
    return out if bias is None else out + bias.view(1, -1, 1, 1)


def _spread(x: torch.Size, w: torch.Size, how: Named, extra: Pair) -> Pair:
    """The size of the image that a transposed convolution gives."""
    if x[1] != w[0]:
        raise RuntimeError(f"a transposed kernel {list(w)} needs {w[0]} channels, and the input is {list(x)}")
    sizes = []
    for i in (0, 1):
        if not 0 <= extra[i] < how["stride"][i]:
            raise NotImplementedError(f"FixedPrecisionTensor knows conv_transpose with output_padding below the stride, and not of {extra}")
        size = (x[i + 2] - 1) * how["stride"][i] - 2 * how["padding"][i] + how["dilation"][i] * (w[i + 2] - 1) + extra[i] + 1
        if size < 1:
            raise RuntimeError(f"a transposed kernel {list(w)} gives no image of {list(x)} with padding {list(how['padding'])}")
        sizes.append(size)
    return sizes[0], sizes[1]


def _no_convolution(x: torch.Tensor) -> str:
    kind = f"those over {x.dim() - 2} dimensions"
    return f"secret sharing convolves rows and images, and FixedPrecisionTensor knows no other convolutions, such as {kind}"


@implements(aten.convolution_backward.default)
def _convolution_backward(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    grad, x, weight, sizes, stride, padding, dilation, transposed, extra, groups, wanted = args
    if x.dim() == 3:
        images = [v.unsqueeze(2) for v in (grad, x, weight)]
        rows = _as_images(stride, padding, dilation, transposed, extra)
        to_x, to_w, to_b = aten.convolution_backward(*images, sizes, *rows, groups, wanted)
        return None if to_x is None else to_x.squeeze(2), None if to_w is None else to_w.squeeze(2), to_b
    if x.dim() != 4:
        raise NotImplementedError(_no_convolution(x))
    scheme, scale = same_scale(grad, x, weight), first_of((grad, x, weight)).scale
    g, image, kernel = (v._child if isinstance(v, Fixed) else encoded(v, scale) for v in (grad, x, weight))
    how = {"stride": pair(stride), "padding": pair(padding), "dilation": pair(dilation), "groups": groups}
    to_x = to_w = None
    if wanted[0] and transposed:
        to_x = _waits("conv2d", g, kernel, scheme, x.shape, **how)
    elif wanted[0]:
        to_x = _waits("conv2d_input_grad", g, kernel, scheme, x.shape, size=pair(x.shape[2:]), **how)
    if wanted[1]:
        pairs = (g, image) if transposed else (image, g)
        to_w = _waits("conv2d_weight_grad", *pairs, scheme, weight.shape, size=pair(weight.shape[2:]), **how)
    return to_x, to_w, grad.sum((0, 2, 3)) if wanted[2] else None
