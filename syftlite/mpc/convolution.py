"""Convolution as a product of matrices over int64, which has no im2col kernel: strided windows and several outputs from one patch.

    image (N, H, W, C)  --windows-->  patches (N OH OW/wide, KH PW C)  @  widened weight (KH PW C, wide O)  ->  (N, OH, OW, O)

Images are channels last here. With `wide` > 1 a patch serves that many neighbouring outputs: fewer bytes to copy, and as many times
the columns for the product, where int64 runs several times as fast. A sum pooling of k x k, stride p, after the convolution is the
same convolution with a larger kernel, w'[t] = sum of w[a] over u s + a d = t, u < k, and stride s p: it costs no arithmetic of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]
Pair = tuple[int, int]
_CHUNK_BYTES = 1 << 24
"""Patches made at a time."""
MAX_PADDED = 1 << 31
"""Elements of a padded image."""


class Conv(NamedTuple):
    """What is static about a convolution; ``pool`` = (kernel, stride) of a sum pooling folded into it."""

    stride: Pair = (1, 1)
    padding: Pair = (0, 0)
    dilation: Pair = (1, 1)
    groups: int = 1
    pool: Pair = (1, 1)


class Geometry(NamedTuple):
    """Sizes that follow from an image (N, H, W, C), a weight (O, C/groups, kh, kw) and a `Conv`, pooling folded."""

    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    out: Pair
    wide: int

    @property
    def span(self) -> int:
        """Columns of a patch."""
        return self.kernel[1] + (self.wide - 1) * self.stride[1]


def geometry(image: Shape, weight: Shape, conv: Conv, widen: bool = True) -> Geometry:
    """The sizes, or a ValueError that names what does not fit."""
    _, h, w, c = image
    o, per_group, kh, kw = weight
    if c != per_group * conv.groups or o % conv.groups:
        raise ValueError(f"a weight {weight} in {conv.groups} group(s) does not fit an image of {c} channels")
    (k, p), dilation = conv.pool, conv.dilation
    kernel, stride = (kh, kw), conv.stride
    if k > 1 or p > 1:
        grown = [(a - 1) * d + 1 + (k - 1) * s for a, d, s in zip(kernel, dilation, stride)]
        kernel, dilation, stride = (grown[0], grown[1]), (1, 1), (stride[0] * p, stride[1] * p)
    room = [size + 2 * pad - (a - 1) * d - 1 for size, pad, a, d in zip((h, w), conv.padding, kernel, dilation)]
    if min(room) < 0 or 0 in weight:
        raise ValueError(f"a kernel of {kernel[0]}x{kernel[1]} is larger than the padded image of {h}x{w}")
    out = (room[0] // stride[0] + 1, room[1] // stride[1] + 1)
    if image[0] * c * (h + 2 * conv.padding[0]) * (w + 2 * conv.padding[1]) > MAX_PADDED:
        raise ValueError(f"an image {image} padded by {conv.padding} has more than {MAX_PADDED} elements: use smaller batches")
    wide = 1
    if widen and dilation[1] == 1:  # as many as keep the zeros below two thirds more and the columns at 64
        for count in (4, 2):
            if out[1] % count == 0 and count * (o // conv.groups) <= 64 and 3 * (count - 1) * stride[1] <= 2 * kernel[1]:
                wide = count
                break
    return Geometry(kernel, stride, conv.padding, dilation, conv.groups, out, wide)


def windows(x: Tensor, g: Geometry, group: int = 0) -> Tensor:
    """Patches of one group: (N, H, W, C) -> (N OH OW/wide, KH span C/groups), a strided view and one copy, which numpy makes in runs."""
    n, h, w, c = x.shape[0], x.shape[1], x.shape[2], x.shape[3] // g.groups
    rows, columns = n * g.out[0] * (g.out[1] // g.wide), g.kernel[0] * g.span * c
    if x.is_meta:
        return x.new_empty(rows, columns)
    image, (ph, pw) = x.numpy()[..., group * c : (group + 1) * c], g.padding
    if ph or pw:
        padded = np.zeros((n, h + 2 * ph, w + 2 * pw, c), image.dtype)
        padded[:, ph : ph + h, pw : pw + w] = image
        image = padded
    image = np.ascontiguousarray(image)
    sn, sh, sw, sc = image.strides
    size = (n, g.out[0], g.out[1] // g.wide, g.kernel[0], g.span, c)
    step = (sn, sh * g.stride[0], sw * g.stride[1] * g.wide, sh * g.dilation[0], sw * g.dilation[1], sc)
    return torch.from_numpy(np.ndarray(size, image.dtype, image, 0, step).reshape(rows, columns))


def folded(weight: Tensor, conv: Conv, g: Geometry) -> Tensor:
    """The weight with its sum pooling folded in: (O, C/groups, KH, KW)."""
    if conv.pool == (1, 1):
        return weight
    o, c, kh, kw = weight.shape
    out = weight.new_zeros(o, c, *g.kernel)
    (sh, sw), (dh, dw) = conv.stride, conv.dilation
    for u in range(conv.pool[0]):
        for v in range(conv.pool[0]):
            out[:, :, u * sh : u * sh + (kh - 1) * dh + 1 : dh, v * sw : v * sw + (kw - 1) * dw + 1 : dw] += weight
    return out


def matrix(weight: Tensor, conv: Conv, g: Geometry) -> Tensor:
    """The weight at ``wide`` places of a patch, zeros elsewhere: (groups, KH span C/groups, wide O/groups)."""
    w = folded(weight, conv, g)
    per, c = w.shape[0] // g.groups, w.shape[1]
    w = w.view(g.groups, per, c, *g.kernel).permute(0, 3, 4, 2, 1)
    if g.wide == 1:
        return w.reshape(g.groups, -1, per)
    out = w.new_zeros(g.groups, g.kernel[0], g.span, c, g.wide, per)
    for i in range(g.wide):
        out[:, :, i * g.stride[1] : i * g.stride[1] + g.kernel[1], :, i] = w
    return out.view(g.groups, -1, g.wide * per)


def images_at_once(g: Geometry, channels: int) -> int:
    """Images whose patches take about `_CHUNK_BYTES`."""
    patch = g.kernel[0] * g.span * (channels // g.groups) * 8
    return max(1, _CHUNK_BYTES // max(1, patch * g.out[0] * (g.out[1] // g.wide)))


def work(g: Geometry, image: Shape, weight: Shape, at_once: int = 0) -> int:
    """Elements that a convolution of an image (N, H, W, C), or one of its gradients, needs besides its operands and its result: patches of
    as many images as are made ``at_once``, padded images, and the widened weight, of which there are two."""
    (n, h, w, c), per_group = image, image[3] // g.groups
    count = min(n, at_once or images_at_once(g, c))
    patches = count * g.out[0] * (g.out[1] // g.wide) * g.kernel[0] * g.span * per_group
    padded = n * (h + 2 * g.padding[0]) * (w + 2 * g.padding[1]) * c
    return patches + padded + 2 * g.kernel[0] * g.span * per_group * g.wide * weight[0]


def convolve(out: Tensor, x: Tensor, prepared: Tensor, g: Geometry) -> None:
    """out (N, OH, OW, O) += the convolution of x (N, H, W, C) with a `matrix`."""
    step, per = images_at_once(g, x.shape[3]), out.shape[3] // g.groups
    for start in range(0, x.shape[0], step):
        part, target = x[start : start + step], out[start : start + step]
        if g.groups == 1:
            target.view(-1, g.wide * per).addmm_(windows(part, g), prepared[0])
            continue
        for group in range(g.groups):
            result = windows(part, g, group) @ prepared[group]
            target[..., group * per : (group + 1) * per] += result.view(*target.shape[:3], per)


def scatter(out: Tensor, grad: Tensor, weights: Tensor, g: Geometry) -> None:
    """out (N, H, W, C) += the gradient for the image; grad (N, OH, OW, O), weights as `matrix` gives them with wide = 1."""
    n, h, w, c = out.shape
    (ph, pw), (kh, kw), each, per = g.padding, g.kernel, c // g.groups, grad.shape[3] // g.groups
    canvas = out.new_zeros(n, h + 2 * ph, w + 2 * pw, c)
    for group in range(g.groups):
        columns = grad[..., group * per : (group + 1) * per].reshape(-1, per) @ weights[group].t()
        patches = columns.view(n, *g.out, kh, kw, each)
        place = canvas[..., group * each : (group + 1) * each]
        for i in range(kh):
            for j in range(kw):
                place[:, _run(i, g, 0), _run(j, g, 1)] += patches[:, :, :, i, j]
    out += canvas[:, ph : ph + h, pw : pw + w]


def correlate(out: Tensor, x: Tensor, grad: Tensor, g: Geometry) -> None:
    """out (O, C/groups, kh, kw) += the gradient for the weight; x (N, H, W, C), grad (N, OH, OW, O)."""
    per, step = grad.shape[3] // g.groups, images_at_once(g, x.shape[3])
    for group in range(g.groups):
        target = out[group * per : (group + 1) * per]
        for start in range(0, x.shape[0], step):
            patches = windows(x[start : start + step], g, group)
            columns = grad[start : start + step, ..., group * per : (group + 1) * per].reshape(-1, per)
            target += (patches.t() @ columns).view(*g.kernel, -1, per).permute(3, 2, 0, 1)


def _run(offset: int, g: Geometry, axis: int) -> slice:
    """Where the kernel's element at ``offset`` lies in all windows along one axis."""
    start = offset * g.dilation[axis]
    return slice(start, start + (g.out[axis] - 1) * g.stride[axis] + 1, g.stride[axis])


def channels_last(x: Tensor) -> Tensor:
    """NCHW -> NHWC, contiguous: no copy of an image that a kernel made."""
    if x.dim() != 4:
        raise ValueError(f"an image has four dimensions, not the {x.dim()} of shape {tuple(x.shape)}")
    return x.permute(0, 2, 3, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """NHWC -> NCHW, in the memory of NHWC."""
    return x.permute(0, 3, 1, 2)
