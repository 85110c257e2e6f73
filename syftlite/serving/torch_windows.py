"""Rules for ATen operators on windows of images, and what is made of such.

    max_pool2d avg_pool2d adaptive_avg_pool2d       of ceil_mode, windows that reach beyond the image: it has more padding at its end
    convolution                                     conv2d, or the next
    conv_transpose2d conv_transpose1d               conv2d, by the kernel turned round, of the image with zeros between its elements
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syftlite.serving.torch_call import Call, Value, rule
from syftlite.serving.torch_rules import conv2d, pair, sides
from syftlite.serving.torch_sequences import Chain

# -- pools


def _static(at: Call, x: Value, kernel: Any, stride: Any, padding: Any, ceil: bool, apart: tuple[int, int] = (1, 1)) -> dict[str, Any]:
    """What is static about a pool; of ``ceil``, with the padding that its last windows reach into."""
    k, s, around = pair(kernel), pair(stride or kernel), sides(padding)
    reach = [d * (size - 1) + 1 for d, size in zip(apart, k, strict=True)]
    beyond = [max(0, (at.shape[i - 2] - 1) * s[i] + reach[i] - x.shape[i - 2] - 2 * around[2 * i]) if ceil else 0 for i in (0, 1)]
    top, bottom, left, right = around
    return {"kernel": k, "stride": s, "padding": (top, bottom + beyond[0], left, right + beyond[1])}


@rule("max_pool2d", "max_pool2d_with_indices")
def _max_pool2d(at: Call, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: bool = False) -> Value:
    at.refuse(dimensions=len(x.shape) != 4)
    return at.add("max_pool2d", [x], **_static(at, x, kernel, stride, padding, ceil, pair(dilation)), dilation=pair(dilation))


@rule("avg_pool2d")
def _avg_pool2d(
    at: Call, x: Value, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False, count: bool = True, divisor: Any = None
) -> Value:
    at.refuse(divisor_override=divisor is not None, dimensions=len(x.shape) != 4)
    static = _static(at, x, kernel, stride, padding, ceil)
    beyond = static["padding"] != sides(padding)
    at.refuse(ceil_mode=beyond and count and any(pair(padding)))
    return at.add("avg_pool2d", [x], **static, count_padding=bool(count) and not beyond)


@rule("adaptive_avg_pool2d", "_adaptive_avg_pool2d")
def _adaptive(at: Call, x: Value, size: Any) -> Value:
    out, have = pair(size), x.shape[2:]
    if out == (1, 1):
        return at.add("global_avg_pool", [x], keep=True)
    if any(h % o for h, o in zip(have, out, strict=True)):
        return at.add("adaptive_avg_pool2d", [x], size=out)
    kernel = (have[0] // out[0], have[1] // out[1])
    return at.add("avg_pool2d", [x], kernel=kernel, stride=kernel)

# -- transposed convolutions


@rule("convolution")
def _convolution(
    at: Call, x: Value, weight: Value, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool, extra: Any, groups: int
) -> Value:
    at.refuse(dimensions=len(x.shape) != 4)
    if transposed:
        return _conv_transpose2d(at, x, weight, bias, stride, padding, extra, groups, dilation)
    return conv2d(at, x, weight, bias, stride, padding, dilation, groups)


@rule("conv_transpose2d")
def _conv_transpose2d(
    at: Call, x: Value, weight: Value, bias: Value | None = None, stride: Any = 1, padding: Any = 0, extra: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Value:  # fmt: skip
    at.refuse(dimensions=len(x.shape) != 4)
    chain = Chain(at)
    how = pair(stride), pair(padding), pair(extra), groups, pair(dilation)
    return chain.done(_transposed(at, chain, x.name, x.shape[1:], at.weight(weight, "weight"), at.weight(bias, "bias"), *how))


@rule("conv_transpose1d")
def _conv_transpose1d(
    at: Call, x: Value, weight: Value, bias: Value | None = None, stride: Any = 1, padding: Any = 0, extra: Any = 0, groups: int = 1,
    dilation: Any = 1,
) -> Value:  # fmt: skip
    at.refuse(dimensions=len(x.shape) != 3)
    chain, w = Chain(at), at.weight(weight, "weight")
    assert w is not None
    shape = (x.shape[1], 1, x.shape[2])
    how = (1, pair(stride)[0]), (0, pair(padding)[0]), (0, pair(extra)[0]), groups, (1, pair(dilation)[0])
    image = chain.add("reshape", [x.name], shape=shape)
    made = _transposed(at, chain, image, shape, w.unsqueeze(2), at.weight(bias, "bias"), *how)
    return chain.done(chain.add("reshape", [made], shape=at.shape[1:]))


def _transposed(
    at: Call, chain: Chain, image: str, shape: Sequence[int], weight: Any, bias: Any, stride: Any, padding: Any, extra: Any, groups: int,
    dilation: Any,
) -> str:  # fmt: skip
    """The name of what a transposed convolution makes of ``image`` (channels, height, width)."""
    kernel = weight.shape[2:]
    at.refuse(output_padding=any(e >= s for e, s in zip(extra, stride, strict=True)))
    turned = weight.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)
    image, size = _apart(chain, image, shape, stride)
    around = []
    for i in (0, 1):
        begin = dilation[i] * (kernel[i] - 1) - padding[i]
        end = begin + extra[i] - (stride[i] - 1)  # so many zeros are there
        cut = (max(-begin, 0), size[i] - max(-end, 0))
        if cut != (0, size[i]):
            image = chain.add("slice", [image], axis=i + 2, start=cut[0], stop=cut[1])
        around += [max(begin, 0), max(end, 0)]
    weights = {"weight": turned, "bias": bias}
    return chain.add("conv2d", [image], weights, padding=tuple(around), dilation=tuple(dilation), groups=groups)


def _apart(chain: Chain, image: str, shape: Sequence[int], stride: Any) -> tuple[str, tuple[int, int]]:
    """``image`` with stride - 1 zeros after each row and column, and its size."""
    (channels, rows, columns), (down, right) = shape, stride
    along, across = (channels, rows * columns, 1), (channels * rows, 1, columns * right)
    for of, padding in ((along, (0, 0, 0, right - 1)), (across, (0, down - 1, 0, 0))):
        if any(padding):
            image = chain.add("pad", [chain.add("reshape", [image], shape=of)], padding=padding)
    size = rows * down, columns * right
    return chain.add("reshape", [image], shape=(channels, *size)) if max(stride) > 1 else image, size
