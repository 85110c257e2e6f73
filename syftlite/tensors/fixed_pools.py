"""Pools on FixedPrecisionTensors, of rows and of images.

    max_pool2d          after a relu: the pool first, on four times as many; the relu, and the division, on what is left
    avg_pool2d          after a convolution: part of it
    unequal windows     of ceil_mode, padding that is not counted, adaptive pools: sums, divided by their sizes; for maxima, an element
                        of each smaller one again, as where windows have gaps
    ..._pool1d          of images with one row
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F

from syftlite.tensors.arithmetic import arithmetic
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_gradients import through
from syftlite.tensors.fixed_moves import beside
from syftlite.tensors.fixed_nn import Pair, needs_history, pair
from syftlite.tensors.waiting import Product, Waiting, bounded

Fixed = FixedPrecisionTensor


class _MaxPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Fixed, kernel: Pair, stride: Pair, padding: Pair) -> Fixed:
        child = x._child
        low = lowest_bit(current(), x.scale, padded=any(padding))
        out, ctx.mask = arithmetic(child).max_pool2d_and_mask(child, kernel, stride, padding, low)
        ctx.how = (pair(x.shape[2:]), kernel, stride, padding)
        return Fixed.of(out, x.attributes())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        mask, how = ctx.mask, ctx.how
        _, kernel, stride, (rows, columns) = how

        def spread(child: Any) -> Any:
            return arithmetic(child, mask).max_pool2d_grad(child, mask, *how)

        def chosen(child: Any) -> Any:
            windows = F.pad(child, (columns, columns, rows, rows)).unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1])
            return arithmetic(child, mask).mul(windows.reshape(mask.shape), mask, 0).sum(-1)

        return through(grads[0], spread, chosen), None, None, None


@Fixed.reexpresses(F.max_pool2d, torch.max_pool2d)
def max_pool2d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> Any:
    """Maxima of windows."""
    if return_indices:
        raise NotImplementedError("FixedPrecisionTensor knows max_pool2d without return_indices")
    if x.dim() == 3:
        return max_pool2d(x.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode).squeeze(0)
    kernel = pair(kernel_size)
    how = kernel, pair(stride if stride not in (None, [], ()) else kernel), pair(padding)
    if pair(dilation) != (1, 1) or _overhangs(x, *how, ceil_mode):
        return max_pool2d(_gathered(x, *how, pair(dilation), ceil_mode), kernel)
    if needs_history(x):
        return _MaxPool.apply(x, *how)  # type: ignore[no-untyped-call]
    waiting = bounded(x._waiting if x._waiting.pool is None else Waiting(x._child))
    sizes = [(x.shape[i + 2] + 2 * how[2][i] - kernel[i]) // how[1][i] + 1 for i in (0, 1)]
    if min(sizes) < 1:
        raise RuntimeError(f"max_pool2d of {kernel}: the image is {tuple(x.shape[2:])}")
    return Fixed.of(waiting._replace(pool=how), x.attributes(), torch.Size([*x.shape[:2], *sizes]))


@Fixed.reexpresses(F.avg_pool2d, torch._C._nn.avg_pool2d)
def avg_pool2d(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:
    """Means of windows."""
    if x.dim() == 3:
        return avg_pool2d(x.unsqueeze(0), kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override).squeeze(0)
    kernel = pair(kernel_size)
    step = pair(stride if stride not in (None, [], ()) else kernel)
    around = rows, columns = pair(padding)
    if _overhangs(x, kernel, step, around, ceil_mode) or (not count_include_pad and any(around)):
        return _unequal(x, kernel, step, around, ceil_mode, count_include_pad, divisor_override)
    area = divisor_override or kernel[0] * kernel[1]
    if any(around):
        x = F.pad(x, (columns, columns, rows, rows))
    waiting = x._waiting
    if not needs_history(x) and isinstance(waiting.raw, Product) and not waiting.relu and waiting.pool is None:
        folded = waiting.raw.pooled(kernel, step)
        if folded is not None:
            return Fixed.of(Waiting(folded, waiting.divisor * area), x.attributes(), folded.shape)
    return x.unfold(2, kernel[0], step[0]).unfold(3, kernel[1], step[1]).sum((-1, -2)) / area


@Fixed.reexpresses(F.adaptive_avg_pool2d)
def adaptive_avg_pool2d(x: Any, output_size: Any) -> Any:
    """Means of windows that give images of that size."""
    cuts = _windows("adaptive_avg_pool2d", x, _two(output_size))
    kernel = _equal(cuts)
    return _means(x, cuts) if kernel is None else avg_pool2d(x, kernel)


@Fixed.reexpresses(F.adaptive_max_pool2d)
def adaptive_max_pool2d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of windows that give images of that size."""
    x, kernel = _stretched(x, _windows("adaptive_max_pool2d", x, _two(output_size)))
    return max_pool2d(x, kernel, return_indices=return_indices)


def _two(value: Any) -> tuple[Any, Any]:
    return (value, value) if isinstance(value, int) or value is None else tuple(value)


Cuts = list[list[tuple[int, int]]]
"""For each of the last axes, where each window begins and ends."""


def _windows(name: str, x: Any, sizes: tuple[Any, ...]) -> Cuts:
    """The windows that give images of ``sizes``: as torch has them, they overlap where sizes do not divide."""
    image = x.shape[-len(sizes) :]
    wanted = [have if want is None else want for want, have in zip(sizes, image, strict=True)]
    if min(*wanted, *image) < 1:
        raise ValueError(f"{name}: there is no image of {wanted} from one of {tuple(image)}")
    return [[(i * have // want, -(-(i + 1) * have // want)) for i in range(want)] for have, want in zip(image, wanted, strict=True)]


def _equal(cuts: Cuts) -> list[int] | None:
    """Sizes of the windows, where they are equal and do not overlap."""
    kernel = [windows[0][1] for windows in cuts]
    return kernel if all(begin == i * k for k, windows in zip(kernel, cuts) for i, (begin, _) in enumerate(windows)) else None


def _means(x: Any, cuts: Cuts) -> Any:
    for axis, windows in enumerate(cuts, -len(cuts)):
        x = torch.stack([x.narrow(axis, begin, end - begin).sum(axis) for begin, end in windows], axis)
    return _averaged(x, [[end - begin for begin, end in windows] for windows in cuts])


def _averaged(sums: Any, counts: list[list[int]]) -> Any:
    """Sums, divided by how many each is of, by axis. Of a secret all are divided at once; elsewhere, where no local tensor may be met,
    each by its own number."""
    if sums.is_secret:
        areas = torch.ones(())
        for along in counts:
            areas = areas[..., None] * torch.tensor(along, dtype=torch.float32)
        return sums / areas
    for axis, along in enumerate(counts, -len(counts)):
        sums = torch.stack([part / count for part, count in zip(sums.unbind(axis), along, strict=True)], axis)
    return sums


# -- windows that reach beyond the image, and that have gaps


def _reaching(size: int, kernel: int, stride: int, around: int, apart: int = 1, ceil: bool = False) -> range:
    """Where windows of ``kernel`` elements begin, along an axis with ``around`` more at each end: of ``ceil``, all that begin before the
    last padding."""
    room = size + 2 * around - apart * (kernel - 1) - 1
    if room < 0 and not (ceil and room + stride > 0):
        raise RuntimeError(f"a pool of {kernel}, {apart} apart: the image has {size}, and {around} more at each end")
    count = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (count - 1) * stride >= size + around:
        count -= 1
    return range(-around, count * stride - around, stride)


def _overhangs(x: Any, kernel: Pair, stride: Pair, around: Pair, ceil: bool) -> bool:
    """Whether some windows reach beyond the padding."""
    return ceil and any(
        _reaching(x.shape[i + 2], kernel[i], stride[i], around[i], 1, ceil)[-1] + kernel[i] > x.shape[i + 2] + around[i] for i in (0, 1)
    )


def _unequal(x: Any, kernel: Pair, stride: Pair, around: Pair, ceil: bool, counted: bool, area: Any) -> Any:
    """Means of windows that reach beyond the image: of what lies in it, or with its padding where that is ``counted``."""
    ends, counts = [], []
    for size, k, s, p in zip(x.shape[2:], kernel, stride, around, strict=True):
        begins = _reaching(size, k, s, p, 1, ceil)
        first, last = (-p, size + p) if counted else (0, size)
        counts.append([min(b + k, last) - max(b, first) for b in begins])
        ends.append(max(begins[-1] + k - size, 0))
    wide = F.pad(x, (around[1], ends[1], around[0], ends[0]))
    sums = wide.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).sum((-1, -2))
    return _averaged(sums, counts) if area is None else sums / area


def _gathered(x: Any, kernel: Pair, stride: Pair, around: Pair, apart: Pair, ceil: bool) -> Any:
    """The image with the elements of each window one after the other; for those that lie beyond it, the nearest in the window once more."""
    for axis in (2, 3):
        size, k, s, p, d = x.shape[axis], kernel[axis - 2], stride[axis - 2], around[axis - 2], apart[axis - 2]
        places = []
        for begin in _reaching(size, k, s, p, d, ceil):
            inside = [at for at in range(begin, begin + k * d, d) if 0 <= at < size]
            if not inside:
                raise RuntimeError(f"a pool of {kernel}, {apart} apart: a window has nothing of the image, and fixed precision no infinity")
            places += [min(max(at, inside[0]), inside[-1]) for at in range(begin, begin + k * d, d)]
        x = x.index_select(axis, beside(x, torch.tensor(places)))
    return x


def _stretched(x: Any, cuts: Cuts) -> tuple[Any, list[int]]:
    """The image with as many elements in each window as in the largest, one after the other; and how many."""
    kernel = _equal(cuts)
    if kernel is not None:
        return x, kernel
    kernel = [max(end - begin for begin, end in windows) for windows in cuts]
    for axis, (most, windows) in enumerate(zip(kernel, cuts, strict=True), -len(cuts)):
        x = torch.cat([x.narrow(axis, min(begin + i, end - 1), 1) for begin, end in windows for i in range(most)], axis)
    return x, kernel


# -- of rows


def _one(value: Any) -> Any:
    """An int, in a list or not."""
    return value if isinstance(value, int) or value is None else value[0] if len(value) else None


@Fixed.reexpresses(F.max_pool1d, torch.max_pool1d)
def max_pool1d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> Any:
    """Maxima of windows of (..., channels, length)."""
    kernel, step = _one(kernel_size), _one(stride)
    how = [1, kernel], [1, kernel if step is None else step], [0, _one(padding)], [1, _one(dilation)]
    return max_pool2d(x.unsqueeze(-2), *how, ceil_mode, return_indices).squeeze(-2)


@Fixed.reexpresses(F.avg_pool1d)
def avg_pool1d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True
) -> Any:
    """Means of windows of (..., channels, length)."""
    kernel, step = _one(kernel_size), _one(stride)
    how = [1, kernel], [1, kernel if step is None else step], [0, _one(padding)]
    return avg_pool2d(x.unsqueeze(-2), *how, ceil_mode, count_include_pad).squeeze(-2)


@Fixed.reexpresses(F.adaptive_avg_pool1d)
def adaptive_avg_pool1d(x: Any, output_size: Any) -> Any:
    """Means of windows of (..., channels, length)."""
    cuts = _windows("adaptive_avg_pool1d", x, (_one(output_size),))
    kernel = _equal(cuts)
    return _means(x, cuts) if kernel is None else avg_pool1d(x, kernel)


@Fixed.reexpresses(F.adaptive_max_pool1d)
def adaptive_max_pool1d(x: Any, output_size: Any, return_indices: bool = False) -> Any:
    """Maxima of windows of (..., channels, length)."""
    x, kernel = _stretched(x, _windows("adaptive_max_pool1d", x, (_one(output_size),)))
    return max_pool1d(x, kernel, return_indices=return_indices)
