"""The Keras layers that are served, each as nodes of a graph; arguments have Keras' names, and its defaults where old files leave them out.

    Dense Conv2D SeparableConv2D DepthwiseConv2D Embedding            with weights, moved to torch's order here
    BatchNormalization LayerNormalization                             as they are once trained
    Activation ReLU LeakyReLU Softmax                                 and `activation=` of the others
    AveragePooling2D MaxPooling2D Global...2D ZeroPadding2D
    Flatten Reshape Permute Dropout and other noise, Rescaling
    Add Subtract Multiply Average Maximum Minimum Concatenate

Padding "same" is Keras' own: ceil(size / stride) places, with the odd row or column of padding at the end.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from syftlite.errors import UnsupportedLayerError
from syftlite.serving.keras.call import FIRST, LAST, Axes, Call, Pair, Real, Sides, Size, Value, layer

# -- activations

ACTIVATIONS: dict[str, Callable[[Call, Value], Value]] = {
    "linear": lambda at, x: x,
    "relu": lambda at, x: at.add("relu", x),
    "relu6": lambda at, x: at.add("clamp", x, low=0.0, high=6.0),
    "leaky_relu": lambda at, x: at.add("leaky_relu", x, slope=0.2),
    "softmax": lambda at, x: at.add("softmax", x, axis=at.axis(x, -1)),
    "log_softmax": lambda at, x: at.add("log_softmax", x, axis=at.axis(x, -1)),
    "gelu": lambda at, x: at.add("gelu", x),
    "swish": lambda at, x: at.add("silu", x),
    "exponential": lambda at, x: at.add("exp", x),
} | {name: lambda at, x, name=name: at.add(name, x) for name in ("sigmoid", "tanh", "softplus", "elu", "selu", "silu")}


def activated(at: Call, x: Value, activation: str) -> Value:
    """The activation of that name, applied."""
    if activation not in ACTIVATIONS:
        at.refuse("activation", f"is {activation!r}; there are {', '.join(sorted(ACTIVATIONS))}")
    return ACTIVATIONS[activation](at, x)


@layer("Activation")
def _activation(at: Call, x: Value, *, activation: str) -> Value:
    return activated(at, x, activation)


@layer("ReLU")
def _relu(at: Call, x: Value, *, max_value: Real | None = None, negative_slope: Real = 0.0, threshold: Real = 0.0) -> Value:
    if threshold:
        at.refuse("threshold", f"is {threshold}, and 0 is served")
    if max_value is not None and max_value < 0:
        at.refuse("max_value", f"is {max_value}, below 0")
    if negative_slope:
        x = at.add("leaky_relu", x, slope=negative_slope)
        return x if max_value is None else at.add("clamp", x, high=max_value)
    return at.add("relu", x) if max_value is None else at.add("clamp", x, low=0.0, high=max_value)


@layer("LeakyReLU")
def _leaky_relu(at: Call, x: Value, *, negative_slope: Real | None = None, alpha: Real | None = None) -> Value:
    slopes = [slope for slope in (negative_slope, alpha, 0.3) if slope is not None]  # Keras 2 calls it alpha
    return at.add("leaky_relu", x, slope=slopes[0])


@layer("Softmax")
def _softmax(at: Call, x: Value, *, axis: Axes = (-1,)) -> Value:
    if len(axis) != 1:
        at.refuse("axis", f"is {list(axis)}, and one is served")
    return at.add("softmax", x, axis=at.axis(x, axis[0]))


# -- with weights


@layer("Dense")
def _dense(at: Call, x: Value, *, units: Size, activation: str = "linear", use_bias: bool = True) -> Value:
    x = at.plain(x)
    kernel = at.array("kernel", x.shape[-1], units)
    bias = at.array("bias", units) if use_bias else None
    return activated(at, at.add("linear", x, weights={"weight": kernel.T, "bias": bias}), activation)


def same(size: tuple[int, ...], window: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Sides:
    """Padding "same" of an image of ``size`` (H, W): top, bottom, left, right."""
    sides: list[int] = []
    for n, k, s, d in zip(size, window, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        sides += [total // 2, total - total // 2]
    return sides[0], sides[1], sides[2], sides[3]


def padded(at: Call, x: Value, padding: str, window: Pair, stride: Pair, dilation: Pair = (1, 1)) -> Sides:
    """The padding of that name, of the image ``x``."""
    if padding not in ("valid", "same"):
        at.refuse("padding", f"is {padding!r}, and valid and same are served")
    return (0, 0, 0, 0) if padding == "valid" else same(x.held[2:], window, stride, dilation)


@layer("Conv2D")
def _conv2d(
    at: Call,
    x: Value,
    *,
    filters: Size,
    kernel_size: Pair,
    strides: Pair = (1, 1),
    padding: str = "valid",
    data_format: str = LAST,
    dilation_rate: Pair = (1, 1),
    groups: Size = 1,
    activation: str = "linear",
    use_bias: bool = True,
) -> Value:
    x = at.images(x, data_format)
    kernel = at.array("kernel", *kernel_size, x.held[1] // groups, filters)
    bias = at.array("bias", filters) if use_bias else None
    x = at.add(
        "conv2d",
        x,
        weights={"weight": kernel.permute(3, 2, 0, 1), "bias": bias},
        stride=strides,
        padding=padded(at, x, padding, kernel_size, strides, dilation_rate),
        dilation=dilation_rate,
        groups=groups,
    )
    return activated(at, x, activation)


def depthwise(kernel: Tensor) -> Tensor:
    """(kh, kw, C, multiplier) -> (C * multiplier, 1, kh, kw): results of one channel stand side by side."""
    return kernel.permute(2, 3, 0, 1).flatten(0, 1).unsqueeze(1)


@layer("DepthwiseConv2D")
def _depthwise_conv2d(
    at: Call,
    x: Value,
    *,
    kernel_size: Pair,
    strides: Pair = (1, 1),
    padding: str = "valid",
    depth_multiplier: Size = 1,
    data_format: str = LAST,
    dilation_rate: Pair = (1, 1),
    activation: str = "linear",
    use_bias: bool = True,
) -> Value:
    x = at.images(x, data_format)
    channels = x.held[1]
    kernel = at.array("kernel", *kernel_size, channels, depth_multiplier)
    bias = at.array("bias", channels * depth_multiplier) if use_bias else None
    pad = padded(at, x, padding, kernel_size, strides, dilation_rate)
    weights = {"weight": depthwise(kernel), "bias": bias}
    x = at.add("conv2d", x, weights=weights, stride=strides, padding=pad, dilation=dilation_rate, groups=channels)
    return activated(at, x, activation)


@layer("SeparableConv2D")
def _separable_conv2d(
    at: Call,
    x: Value,
    *,
    filters: Size,
    kernel_size: Pair,
    strides: Pair = (1, 1),
    padding: str = "valid",
    data_format: str = LAST,
    dilation_rate: Pair = (1, 1),
    depth_multiplier: Size = 1,
    activation: str = "linear",
    use_bias: bool = True,
) -> Value:
    x = at.images(x, data_format)
    channels = x.held[1]
    deep = at.array("depthwise kernel", *kernel_size, channels, depth_multiplier)
    point = at.array("pointwise kernel", 1, 1, channels * depth_multiplier, filters)
    bias = at.array("bias", filters) if use_bias else None
    pad = padded(at, x, padding, kernel_size, strides, dilation_rate)
    x = at.add("conv2d", x, weights={"weight": depthwise(deep)}, stride=strides, padding=pad, dilation=dilation_rate, groups=channels)
    x = at.add("conv2d", x, weights={"weight": point.permute(3, 2, 0, 1), "bias": bias})
    return activated(at, x, activation)


@layer("Embedding")
def _embedding(at: Call, x: Value, *, input_dim: Size, output_dim: Size) -> Value:
    return at.add("embedding", x, weights={"weight": at.array("embeddings", input_dim, output_dim)})


@layer("BatchNormalization")
def _batch_normalization(at: Call, x: Value, *, axis: Axes = (-1,), epsilon: Real = 1e-3, center: bool = True, scale: bool = True) -> Value:
    """gamma (x - mean) / sqrt(variance + epsilon) + beta, of the moving mean and variance: a factor and a summand for each channel."""
    if len(axis) != 1:
        at.refuse("axis", f"is {list(axis)}, and one is served")
    place = at.axis(x, axis[0])
    size = x.held[place]
    gamma = at.array("gamma", size) if scale else torch.ones(size)
    beta = at.array("beta", size) if center else torch.zeros(size)
    mean, variance = at.array("moving mean", size), at.array("moving variance", size)
    factor = gamma.double() / (variance.double() + epsilon).sqrt()
    summand = beta.double() - mean.double() * factor
    return at.add("affine", x, weights={"scale": factor.float(), "shift": summand.float()}, axis=place)


@layer("LayerNormalization")
def _layer_normalization(at: Call, x: Value, *, axis: Axes = (-1,), epsilon: Real = 1e-3, center: bool = True, scale: bool = True) -> Value:
    x = at.plain(x)
    places = sorted(at.axis(x, a) for a in axis)
    rank = len(x.held)
    shape = [x.held[p] for p in places]
    weights = {"scale": at.array("gamma", *shape) if scale else None, "shift": at.array("beta", *shape) if center else None}
    order = tuple([i for i in range(rank) if i not in places] + places)
    if order == tuple(range(rank)):
        return at.add("layer_norm", x, weights=weights, axes=len(places), eps=epsilon)
    x = at.add("layer_norm", at.add("permute", x, order=order, before=True), weights=weights, axes=len(places), eps=epsilon)
    return at.add("permute", x, order=tuple(order.index(i) for i in range(rank)))


# -- pools


@layer("MaxPooling2D")
def _max_pooling2d(
    at: Call, x: Value, *, pool_size: Pair = (2, 2), strides: Pair | None = None, padding: str = "valid", data_format: str = LAST
) -> Value:
    x, strides = at.images(x, data_format), strides or pool_size
    return at.add("max_pool2d", x, kernel=pool_size, stride=strides, padding=padded(at, x, padding, pool_size, strides))


@layer("AveragePooling2D")
def _average_pooling2d(
    at: Call, x: Value, *, pool_size: Pair = (2, 2), strides: Pair | None = None, padding: str = "valid", data_format: str = LAST
) -> Value:
    """Padding is left out of the mean. Where sides differ, Keras on torch repeats the border instead of leaving it out: refused."""
    x, strides = at.images(x, data_format), strides or pool_size
    pad = padded(at, x, padding, pool_size, strides)
    if at.backend == "torch" and pad[::2] != pad[1::2]:
        at.refuse("padding", f"is 'same', where Keras on torch repeats the border of {list(x.shape)}: use another size, stride or backend")
    return at.add("avg_pool2d", x, kernel=pool_size, stride=strides, padding=pad)


def _global(operator: str) -> Callable[..., Value]:
    def pool(at: Call, x: Value, *, data_format: str = LAST, keepdims: bool = False) -> Value:
        x = at.images(x, data_format)
        return at.add(operator, x, keep=keepdims, image=x.image and keepdims)

    return pool


layer("GlobalAveragePooling2D")(_global("global_avg_pool"))
layer("GlobalMaxPooling2D")(_global("global_max_pool"))


@layer("ZeroPadding2D")
def _zero_padding2d(at: Call, x: Value, *, padding: Sides = (1, 1, 1, 1), data_format: str = LAST) -> Value:
    return at.add("pad", at.images(x, data_format), padding=padding)


# -- moving elements, and none


@layer("Dropout", "SpatialDropout2D", "GaussianDropout", "GaussianNoise", "AlphaDropout", "ActivityRegularization")
def _nothing(at: Call, x: Value, *, data_format: str = LAST) -> Value:
    return x


@layer("Flatten")
def _flatten(at: Call, x: Value, *, data_format: str = LAST) -> Value:
    """In the order of channels last, whichever the images have."""
    if data_format == FIRST and len(x.held) > 2:
        x = at.plain(x)
        return at.add("flatten", x, order=(0, *range(2, len(x.held)), 1))
    return at.add("flatten", x, order=(0, 2, 3, 1), image=False) if x.image else at.add("flatten", x)


@layer("Reshape")
def _reshape(at: Call, x: Value, *, target_shape: Axes) -> Value:
    return at.add("reshape", at.plain(x), shape=target_shape)


@layer("Permute")
def _permute(at: Call, x: Value, *, dims: Axes) -> Value:
    return at.add("permute", at.plain(x), order=(0, *dims))


@layer("Rescaling")
def _rescaling(at: Call, x: Value, *, scale: Real, offset: Real = 0.0) -> Value:
    return at.add("scale", x, factor=scale, offset=offset)


# -- of several inputs


def together(at: Call, xs: tuple[Value, ...]) -> tuple[Value, ...]:
    """All with their axes in one order."""
    if len(xs) < 2:
        raise UnsupportedLayerError(at.layer.name, f"{at.layer.kind} of {len(xs)} inputs")
    return xs if all(x.image for x in xs) else tuple(at.plain(x) for x in xs)


def _merge(operator: str) -> Callable[..., Value]:
    def merge(at: Call, *xs: Value) -> Value:
        xs = together(at, xs)
        if len({len(x.held) for x in xs}) > 1:
            raise UnsupportedLayerError(at.layer.name, f"{at.layer.kind} of inputs with different numbers of axes")
        return at.add(operator, *xs)

    return merge


for _kind in ("Add", "Subtract", "Maximum", "Minimum"):
    layer(_kind)(_merge(_kind.lower()))


@layer("Multiply")
def _multiply(at: Call, *xs: Value) -> Value:
    product, *others = together(at, xs)
    for x in others:
        product = at.add("multiply", product, x)
    return product


@layer("Average")
def _average(at: Call, *xs: Value) -> Value:
    return at.add("scale", _merge("add")(at, *xs), factor=1 / len(xs))


@layer("Concatenate")
def _concatenate(at: Call, *xs: Value, axis: int = -1) -> Value:
    xs = together(at, xs)
    return at.add("concat", *xs, axis=at.axis(xs[0], axis))
