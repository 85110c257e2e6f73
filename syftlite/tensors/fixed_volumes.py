"""Convolutions and pools of FixedPrecisionTensors over (n, channels, depth, height, width).

    conv3d                      conv2d of windows along the depth, whose places are channels
    conv_transpose3d            conv_transpose2d of each image, to as many as the kernel is deep, which are added up where they lie
    avg_pool3d, max_pool3d      of images, and then along the depth
"""

from __future__ import annotations

from typing import Any

from torch.nn import functional as F

from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.fixed_nn import conv2d
from syftlite.tensors.fixed_pools import avg_pool1d, avg_pool2d, max_pool1d, max_pool2d

Fixed = FixedPrecisionTensor


def _three(value: Any) -> list[Any]:
    return [value] * 3 if isinstance(value, (int, str)) else [*value] * (3 // len(value))


@Fixed.reexpresses(F.conv3d)
def conv3d(x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1) -> Any:
    """A convolution of (n, channels, depth, height, width)."""
    if x.dim() == 4:
        return conv3d(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups).squeeze(0)
    (step, *steps), (apart, *aparts), (around, *arounds) = _three(stride), _three(dilation), _three(padding)
    span = apart * (weight.shape[2] - 1) + 1
    if around == "same":
        x = F.pad(x, (0, 0, 0, 0, (span - 1) // 2, span // 2))
    elif around not in (0, "valid"):
        x = F.pad(x, (0, 0, 0, 0, around, around))
    if x.shape[2] < span or step < 1:
        raise RuntimeError(f"a kernel of depth {span} is larger than the padded depth of {x.shape[2]}")
    windows = x.unfold(2, span, step)[..., ::apart].permute(0, 2, 1, 5, 3, 4)
    flat = windows.reshape(-1, x.shape[1] * weight.shape[2], *x.shape[3:])
    out = conv2d(flat, weight.flatten(1, 2), bias, steps, padding if isinstance(padding, str) else arounds, aparts, groups)
    return out.view(x.shape[0], windows.shape[1], *out.shape[1:]).transpose(1, 2)


@Fixed.reexpresses(F.conv_transpose3d)
def conv_transpose3d(
    x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, output_padding: Any = 0, groups: int = 1, dilation: Any = 1
) -> Any:
    """A transposed convolution of (n, channels, depth, height, width)."""
    if x.dim() == 4:
        return conv_transpose3d(x.unsqueeze(0), weight, bias, stride, padding, output_padding, groups, dilation).squeeze(0)
    (step, *steps), (apart, *aparts), (around, *arounds), (extra, *extras) = map(_three, (stride, dilation, padding, output_padding))
    deep, depth = weight.shape[2], x.shape[2]
    kernel = weight.transpose(1, 2).flatten(1, 2)  # (in, deep * out / groups, height, width)
    images = x.transpose(1, 2).flatten(0, 1)
    made = F.conv_transpose2d(images, kernel, None, steps, arounds, extras, groups, aparts)
    made = made.unflatten(1, (groups, deep, -1)).unflatten(0, (x.shape[0], depth))  # (n, depth, groups, deep, out / groups, h, w)
    size, reach = (depth - 1) * step + 1, apart * (deep - 1)
    total: Any = None
    for at in range(deep):
        layer = made[:, :, :, at].flatten(2, 3).movedim(1, -1)  # (n, out, h, w, depth)
        wide = F.pad(layer.unsqueeze(-1), (0, step - 1)).flatten(-2)[..., :size] if step > 1 else layer
        placed = F.pad(wide, (at * apart, reach - at * apart + extra))
        total = placed if total is None else total + placed
    whole = total.narrow(-1, around, size + reach + extra - 2 * around).movedim(-1, 2)
    return whole if bias is None else whole + bias.view(-1, 1, 1, 1)


def _pooled(x: Any, images: Any, rows: Any) -> Any:
    """What ``images`` makes of (n, channels, height, width), and then ``rows`` of (n, channels, depth)."""
    flat = images(x.flatten(1, 2)).unflatten(1, x.shape[1:3]).movedim(2, -1)
    return rows(flat.flatten(1, 3)).unflatten(1, flat.shape[1:4]).movedim(-1, 2)


@Fixed.reexpresses(F.avg_pool3d)
def avg_pool3d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False, count_include_pad: bool = True,
    divisor_override: Any = None,
) -> Any:  # fmt: skip
    """Means of windows."""
    if divisor_override is not None:
        raise NotImplementedError("FixedPrecisionTensor knows avg_pool3d without divisor_override")
    if x.dim() == 4:
        return avg_pool3d(x.unsqueeze(0), kernel_size, stride, padding, ceil_mode, count_include_pad).squeeze(0)
    (k, *ks), (p, *ps) = _three(kernel_size), _three(padding)
    s, *ss = _three(stride if stride not in (None, [], ()) else kernel_size)
    return _pooled(
        x,
        lambda images: avg_pool2d(images, ks, ss, ps, ceil_mode, count_include_pad),
        lambda rows: avg_pool1d(rows, k, s, p, ceil_mode, count_include_pad),
    )


@Fixed.reexpresses(F.max_pool3d)
def max_pool3d(
    x: Any, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, ceil_mode: bool = False, return_indices: bool = False
) -> Any:
    """Maxima of windows."""
    if return_indices:
        raise NotImplementedError("FixedPrecisionTensor knows max_pool3d without return_indices")
    if x.dim() == 4:
        return max_pool3d(x.unsqueeze(0), kernel_size, stride, padding, dilation, ceil_mode).squeeze(0)
    (k, *ks), (p, *ps), (d, *ds) = _three(kernel_size), _three(padding), _three(dilation)
    s, *ss = _three(stride if stride not in (None, [], ()) else kernel_size)
    return _pooled(x, lambda images: max_pool2d(images, ks, ss, ps, ds, ceil_mode), lambda rows: max_pool1d(rows, k, s, p, d, ceil_mode))
