"""All that a conductor can ask holders for, by number. Numbers are append-only.

     1 truncate             x; f                                              x / 2^f
     2 mul                  x, y; f                                           x * y / 2^f, broadcasting
     3 square               x; f
     4 matmul               x, y; f                                           x @ y / 2^f, batched
     5 fix_weight           w                                                 a Weight, masked and opened once
     6 linear               x, W; f                                           x @ W / 2^f
     7 conv2d_fixed         x, W; stride, padding, dilation, groups, pool, f  NCHW, W (O, C/groups, kh, kw); pool = (kernel, stride) of sums
     8 conv2d               x, w; stride, padding, dilation, groups, f
     9 conv2d_input_grad    g, w; size, stride, padding, dilation, groups, f  the gradient for an image of (height, width) = size
    10 conv2d_weight_grad   x, g; size, stride, padding, dilation, groups, f  the gradient for a kernel of (kh, kw) = size
    11 negative             x; low, f, invert                                 [x < 0] 2^f, inverted [x >= 0] 2^f
    12 relu                 x; f, low
    13 relu_and_mask        x; f, low                                         and [x >= 0]
    14 max_pool2d           x; kernel, stride, padding, f, relu, low
    15 max_pool2d_and_mask  x; kernel, stride, padding, low                   and one-hot (N, C, OH, OW, kh kw)
    16 max_pool2d_grad      g, mask; size, kernel, stride, padding
    17 maximum              x, y; low                                         broadcasting
    18 minimum              x, y; low
    19 max                  x; dim, low                                       over one axis, which goes
    20 max_and_mask         x; dim, low                                       max, one-hot over that axis, and its index
    21 equal                x, y                                              [x = y], broadcasting
    22 equal_zero           x                                                 [x = 0]
    23 select               bit, x, y                                         x where bit is 1, y where it is 0; broadcasting
    24 refresh              x                                                 a fresh sharing of x
    25 less                 x, y; low, f, invert                                 [x < y] 2^f, inverted [x >= y] 2^f; broadcasting
    26 quotient             x; divisor                                        x / divisor, which is no power of two
    32 ...                  functions of secrets: function_kernels.py
    64 ...                  the same numbers again, of replicated shares: replicated_kernels.py

Operands are int64 shares, or a `Weight` where W stands. Bits are additive shares of 0 or 1. f = 0 truncates nothing; low = -1 compares
all bits, low >= 0 the 32 bits from there (comparison.py says where that is right). Static arguments are ints and tuples of ints: they
come off the wire, and are checked, together with the shapes, by running the same coroutine on meta tensors before anything is drawn.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from syftlite.mpc import comparison, pooling, products, release, replicated_kernels, selection, truncation
from syftlite.mpc import function_kernels as function_kernels  # they enter the list
from syftlite.mpc.bits import difference, raw
from syftlite.mpc.convolution import Conv, Pair, channels_first, channels_last
from syftlite.mpc.kernel import KERNELS, NUMBERS, Kernel, Operand, Spec, Static, WeightSpec, kernel, requests
from syftlite.mpc.party import Party
from syftlite.mpc.pieces import elementwise
from syftlite.mpc.pooling import Pool
from syftlite.mpc.products import Weight, fixed_product, product
from syftlite.ops.operator import Kind

__all__ = ["KERNELS", "NUMBERS", "Kernel", "Operand", "Spec", "Static", "Weight", "WeightSpec", "requests"]

MAX_CANDIDATES = 4096
"""Of one maximum."""
S, W = "share", "weight"


async def _scaled(p: Party, x: Tensor, f: int) -> Tensor:
    """x / 2^f of any shape."""
    return (await elementwise(p, truncation.truncate, x, f=f))[0] if f else x


@kernel(1, S)
async def _truncate(p: Party, x: Tensor, *, f: int) -> Tensor:
    return await _scaled(p, x, f) if f else x.clone()


async def _mul_of(p: Party, x: Tensor, y: Tensor, f: int) -> Tensor:
    z = await product(p, "mul", x, y)
    return await truncation.truncate(p, z, f) if f else z


@kernel(2, S, S)
async def _mul(p: Party, x: Tensor, y: Tensor, *, f: int = 0) -> Tensor:
    if x.shape == y.shape:
        return (await elementwise(p, _mul_of, x, y, f=f))[0]
    return await _scaled(p, await product(p, "mul", x, y), f)


async def _square_of(p: Party, x: Tensor, f: int) -> Tensor:
    z = await products.square(p, x)
    return await truncation.truncate(p, z, f) if f else z


@kernel(3, S)
async def _square(p: Party, x: Tensor, *, f: int = 0) -> Tensor:
    return (await elementwise(p, _square_of, x, f=f))[0]


@kernel(4, S, S, kind=Kind.MATMUL)
async def _matmul(p: Party, x: Tensor, y: Tensor, *, f: int = 0) -> Tensor:
    return await _scaled(p, await product(p, "matmul", x, y), f)


@kernel(5, S, kind=Kind.COPY)
async def _fix_weight(p: Party, w: Tensor) -> Weight:
    return await products.fix_weight(p, w)


@kernel(6, S, W, kind=Kind.MATMUL)
async def _linear(p: Party, x: Tensor, w: Weight, *, f: int = 0) -> Tensor:
    if len(w.shape) != 2 or x.dim() < 1 or x.shape[-1] != w.shape[0]:
        raise ValueError(
            f"a fixed weight {w.shape} does not multiply an input {tuple(x.shape)}: last axis of the input, first of the weight"
        )
    z = await fixed_product(p, "matmul", x.reshape(math.prod(x.shape[:-1]), w.shape[0]), w)
    return await _scaled(p, z.view(*x.shape[:-1], w.shape[1]), f)


@kernel(7, S, W, kind=Kind.CONV)
async def _conv2d_fixed(
    p: Party,
    x: Tensor,
    w: Weight,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    pool: Pair = (1, 1),
    f: int = 0,
) -> Tensor:
    z = await fixed_product(p, "conv2d", channels_last(x), w, tuple(Conv(stride, padding, dilation, groups, pool)))
    return await _scaled(p, channels_first(z), f)


@kernel(8, S, S, kind=Kind.CONV)
async def _conv2d(
    p: Party, x: Tensor, w: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1), groups: int = 1, f: int = 0
) -> Tensor:
    z = await product(p, "conv2d", channels_last(x), w, tuple(Conv(stride, padding, dilation, groups)))
    return await _scaled(p, channels_first(z), f)


@kernel(9, S, S, kind=Kind.CONV)
async def _conv2d_input_grad(
    p: Party,
    g: Tensor,
    w: Tensor,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    f: int = 0,
) -> Tensor:
    z = await product(p, "conv2d_input_grad", channels_last(g), w, (*Conv(stride, padding, dilation, groups), size))
    return await _scaled(p, channels_first(z), f)


@kernel(10, S, S, kind=Kind.CONV)
async def _conv2d_weight_grad(
    p: Party,
    x: Tensor,
    g: Tensor,
    *,
    size: Pair,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
    f: int = 0,
) -> Tensor:
    z = await product(p, "conv2d_weight_grad", channels_last(x), channels_last(g), (*Conv(stride, padding, dilation, groups), size))
    return await _scaled(p, z, f)


def _bit(p: Party, bit: Tensor, f: int, invert: int) -> Tensor:
    """The bit, or its opposite, times 2^f."""
    if invert:
        bit = 1 - bit if p.first else -bit
    if f:
        shifted = raw(bit)
        shifted <<= f
    return bit


@kernel(11, S)
async def _negative(p: Party, x: Tensor, *, low: int = -1, f: int = 0, invert: int = 0) -> Tensor:
    return _bit(p, (await elementwise(p, comparison.negative, x, low=low))[0], f, invert)


@kernel(12, S)
async def _relu(p: Party, x: Tensor, *, f: int = 0, low: int = -1) -> Tensor:
    return (await elementwise(p, selection.relu, x, f=f, low=low))[0]


@kernel(13, S)
async def _relu_and_mask(p: Party, x: Tensor, *, f: int = 0, low: int = -1) -> tuple[Tensor, Tensor]:
    y, mask = await elementwise(p, selection.relu_and_mask, x, outputs=2, f=f, low=low)
    return y, mask


def _pool(x: Tensor, kernel: Pair, stride: Pair, padding: Pair) -> Pool:
    """The pooling, or a ValueError that says why not."""
    if x.dim() != 4:
        raise ValueError(f"an image has four dimensions, not the {x.dim()} of shape {tuple(x.shape)}")
    if any(2 * pad > k for pad, k in zip(padding, kernel)):
        raise ValueError(f"a pooling's padding {padding} is at most half of its kernel {kernel}")
    pool = Pool(kernel, stride, padding)
    if min(pool.out(x.shape[2], x.shape[3])) < 1:
        raise ValueError(f"a pooling of {kernel} is larger than the padded image of {tuple(x.shape[2:])}")
    return pool


@kernel(14, S, kind=Kind.POOL)
async def _max_pool2d(
    p: Party, x: Tensor, *, kernel: Pair, stride: Pair, padding: Pair = (0, 0), f: int = 0, relu: int = 0, low: int = -1
) -> Tensor:
    return await pooling.max_pool2d(p, x, _pool(x, kernel, stride, padding), f, bool(relu), low)


@kernel(15, S, kind=Kind.POOL)
async def _max_pool2d_and_mask(
    p: Party, x: Tensor, *, kernel: Pair, stride: Pair, padding: Pair = (0, 0), low: int = -1
) -> tuple[Tensor, Tensor]:
    return await pooling.max_pool2d_and_mask(p, x, _pool(x, kernel, stride, padding), low)


@kernel(16, S, S, kind=Kind.POOL)
async def _max_pool2d_grad(
    p: Party, grad: Tensor, mask: Tensor, *, size: Pair, kernel: Pair, stride: Pair, padding: Pair = (0, 0)
) -> Tensor:
    if grad.dim() != 4 or mask.shape != (*grad.shape, kernel[0] * kernel[1]):
        raise ValueError(f"a mask of shape {tuple(mask.shape)} does not belong to a gradient {tuple(grad.shape)} of windows of {kernel}")
    pool = _pool(grad.new_empty(0, 0, *size), kernel, stride, padding)
    if pool.out(*size) != tuple(grad.shape[2:]):
        raise ValueError(f"a pooling of an image of {size} gives {pool.out(*size)}, not a gradient of {tuple(grad.shape)}")
    return await pooling.max_pool2d_grad(p, grad, mask, size, pool)


@kernel(17, S, S)
async def _maximum(p: Party, x: Tensor, y: Tensor, *, low: int = -1) -> Tensor:
    return (await elementwise(p, selection.maximum, *torch.broadcast_tensors(x, y), low=low))[0]


@kernel(18, S, S)
async def _minimum(p: Party, x: Tensor, y: Tensor, *, low: int = -1) -> Tensor:
    return (await elementwise(p, selection.minimum, *torch.broadcast_tensors(x, y), low=low))[0]


def _rows(x: Tensor, dim: int) -> list[Tensor]:
    """Slices of one axis."""
    if not -x.dim() <= dim < x.dim() or not 1 <= x.shape[dim] <= MAX_CANDIDATES:
        raise ValueError(f"a maximum over axis {dim} of shape {tuple(x.shape)}: there are 1 to {MAX_CANDIDATES} elements along it")
    return list(x.movedim(dim, 0).contiguous().unbind(0))


@kernel(19, S, kind=Kind.REDUCE)
async def _max(p: Party, x: Tensor, *, dim: int, low: int = -1) -> Tensor:
    return (await selection.greatest(p, _rows(x, dim), low)).clone()


@kernel(20, S, kind=Kind.REDUCE)
async def _max_and_mask(p: Party, x: Tensor, *, dim: int, low: int = -1) -> tuple[Tensor, Tensor, Tensor]:
    best, mask = await selection.greatest_and_mask(p, _rows(x, dim), low)
    place = torch.arange(len(mask), device=mask.device).view(-1, *[1] * best.dim())
    return best.clone(), mask.movedim(0, dim).contiguous(), (mask * place).sum(0)


@kernel(21, S, S)
async def _equal(p: Party, x: Tensor, y: Tensor) -> Tensor:
    return (await elementwise(p, comparison.equal_zero, difference(x, y)))[0]


@kernel(22, S)
async def _equal_zero(p: Party, x: Tensor) -> Tensor:
    return (await elementwise(p, comparison.equal_zero, x))[0]


@kernel(23, S, S, S)
async def _select(p: Party, bit: Tensor, x: Tensor, y: Tensor) -> Tensor:
    if bit.shape == x.shape == y.shape:
        return (await elementwise(p, selection.select, bit, x, y))[0]
    return await selection.select(p, bit, x, y)


@kernel(24, S, kind=Kind.COPY)
async def _refresh(p: Party, x: Tensor) -> Tensor:
    return await release.refresh(p, x)


@kernel(25, S, S)
async def _less(p: Party, x: Tensor, y: Tensor, *, low: int = -1, f: int = 0, invert: int = 0) -> Tensor:
    return _bit(p, (await elementwise(p, comparison.negative, difference(x, y), low=low))[0], f, invert)


@kernel(26, S)
async def _quotient(p: Party, x: Tensor, *, divisor: int) -> Tensor:
    return (await elementwise(p, truncation.quotient, x, divisor=divisor))[0]


replicated_kernels.enter()
