"""What a node of a graph may do: each operator is one function of tensors, with static arguments that are checked.

    linear conv2d affine embedding            with weights
    relu leaky_relu clamp scale               elementwise
    avg_pool2d max_pool2d global_avg_pool global_max_pool mean sum amax
    flatten reshape permute expand pad slice concat identity
    add subtract multiply divide maximum minimum      of several inputs

Functions and norms: functions.py; rows of things: sequences.py, recurrent.py.

The first axis is the batch, and nothing mixes its rows. Images are (N, C, H, W). The functions are ordinary PyTorch: on plain tensors they
are the reference, on shared ones (docs/encrypted.md) the encrypted run.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Pair = tuple[int, int]
Quad = tuple[int, int, int, int]
Ints = tuple[int, ...]
Limit = float | None

LOWEST = -float(1 << 29)
"""What is no maximum of any window: fixed precision has no infinity, and values stay below 2^29."""


def _ints(value: Any, count: int | None = None, low: int = -(1 << 31)) -> bool:
    return type(value) is tuple and count in (None, len(value)) and all(type(v) is int and low <= v < 1 << 31 for v in value)


def _real(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


CHECKS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "int": ("a whole number", lambda v: type(v) is int),
    "float": ("a finite number", _real),
    "Limit": ("a finite number or None", lambda v: v is None or _real(v)),
    "bool": ("True or False", lambda v: type(v) is bool),
    "Pair": ("two whole numbers from 1", lambda v: _ints(v, 2, 1)),
    "Quad": ("four whole numbers from 0: top, bottom, left, right", lambda v: _ints(v, 4, 0)),
    "Ints": ("whole numbers", _ints),
}
"""By a static argument's annotation: what it is, and whether a value is one."""


@dataclass(frozen=True)
class Operator:
    """One entry. ``weights``: the roles of its weights, ``optional`` those that may be missing. ``arity``: how many inputs, None for any
    number from 2. ``client``: as the last of a graph it is the client's."""

    name: str
    function: Callable[..., Tensor]
    arity: int | None
    weights: tuple[str, ...]
    optional: frozenset[str]
    arguments: Mapping[str, tuple[str, Any]]
    """By name: annotation, and default (`inspect.Parameter.empty` where it must be given)."""
    client: bool

    def checked(self, layer: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All static arguments. Raises ValueError that names layer and argument."""
        if unknown := given.keys() - self.arguments.keys():
            takes = ", ".join(self.arguments) or "none"
            raise ValueError(f"layer {layer!r}: {self.name} has no argument {', '.join(sorted(unknown))}; it takes {takes}")
        out = {}
        for name, (annotation, default) in self.arguments.items():
            value = given.get(name, default)
            told, accepts = CHECKS[annotation]
            if value is inspect.Parameter.empty or not accepts(value):
                what = "is missing" if value is inspect.Parameter.empty else f"is {value!r}"
                raise ValueError(f"layer {layer!r}: {self.name}'s {name} {what}, and must be {told}")
            out[name] = value
        return out


OPERATORS: dict[str, Operator] = {}


def operator(*weights: str, arity: int | None = 1, client: bool = False) -> Callable[..., Any]:
    """Enter a function in the table: inputs first, then its ``weights`` by role ("bias?" may be missing), then keyword-only arguments."""

    def enter(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        name = function.__name__.strip("_")
        keyword = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
        arguments = {p.name: (str(p.annotation), p.default) for p in keyword}
        assert name not in OPERATORS and all(annotation in CHECKS for annotation, _ in arguments.values())
        roles = tuple(w.rstrip("?") for w in weights)
        optional = frozenset(w.rstrip("?") for w in weights if w.endswith("?"))
        OPERATORS[name] = Operator(name, function, arity, roles, optional, arguments, client)
        return function

    return enter


# -- with weights


@operator("weight", "bias?")
def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """(..., in) -> (..., out); weight (out, in), bias (out,)."""
    return F.linear(x, weight, bias)


@operator("weight", "bias?")
def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Quad = (0, 0, 0, 0),
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> Tensor:
    """(N, C, H, W) -> (N, O, H', W'); weight (O, C / groups, kh, kw); groups = C is a depthwise convolution."""
    x, symmetric = _padded(x, padding, 0.0)
    return F.conv2d(x, weight, bias, stride, symmetric, dilation, groups)


@operator("scale?", "shift?")
def _affine(x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, *, axis: int = 1) -> Tensor:
    """x * scale + shift, one of each for each place along ``axis``: a batch norm as it is once trained, a scaler."""
    view = [1] * x.dim()
    view[axis] = -1
    x = x if scale is None else x * scale.view(view)
    return x if shift is None else x + shift.view(view)


@operator("weight")
def _plus(x: Tensor, weight: Tensor) -> Tensor:
    """x + a table of one row's shape, or one that broadcasts with it: what is known of places."""
    return x + weight


@operator("weight")
def _times(x: Tensor, weight: Tensor) -> Tensor:
    """x * a table of one row's shape, or one that broadcasts with it."""
    return x * weight


@operator("weight")
def _embedding(x: Tensor, weight: Tensor) -> Tensor:
    """(N, ...) whole numbers -> (N, ..., dim); weight (numbers, dim). Of secret numbers, which index nothing, the client sends one-hot
    rows: (N, ..., numbers) as reals."""
    return F.embedding(x, weight) if not x.is_floating_point() else x @ weight


# -- elementwise


@operator()
def _relu(x: Tensor) -> Tensor:
    return F.relu(x)


@operator()
def _leaky_relu(x: Tensor, *, slope: float) -> Tensor:
    """x where it is positive, slope * x elsewhere."""
    return F.relu(x) * (1 - slope) + x * slope


@operator()
def _clamp(x: Tensor, *, low: Limit = None, high: Limit = None) -> Tensor:
    """max(low, min(x, high))."""
    return x if low is None and high is None else x.clamp(low, high)


@operator()
def _scale(x: Tensor, *, factor: float = 1.0, offset: float = 0.0) -> Tensor:
    """x * factor + offset, which everybody may know."""
    x = x if factor == 1 else x * factor
    return x if offset == 0 else x + offset


@operator()
def _identity(x: Tensor) -> Tensor:
    """x: dropout once trained, casts."""
    return x


# -- pools


@operator()
def _avg_pool2d(x: Tensor, *, kernel: Pair, stride: Pair, padding: Quad = (0, 0, 0, 0), count_padding: bool = False) -> Tensor:
    """Means of windows; of those that reach into the padding, means of what is there unless ``count_padding``."""
    if not any(padding):
        return F.avg_pool2d(x, kernel, stride)
    top, bottom, left, right = padding
    means = F.avg_pool2d(F.pad(x, (left, right, top, bottom)), kernel, stride)
    if count_padding:
        return means
    there = F.avg_pool2d(F.pad(torch.ones(1, 1, *x.shape[2:]), (left, right, top, bottom)), kernel, stride)
    return means * (1 / there).expand(means.shape)


@operator()
def _adaptive_avg_pool2d(x: Tensor, *, size: Pair) -> Tensor:
    """Means of windows that give images of that size, and overlap where sizes do not divide."""
    return F.adaptive_avg_pool2d(x, size)


@operator()
def _max_pool2d(x: Tensor, *, kernel: Pair, stride: Pair, padding: Quad = (0, 0, 0, 0), dilation: Pair = (1, 1)) -> Tensor:
    """Maxima of windows."""
    x, symmetric = _padded(x, padding, LOWEST)
    return F.max_pool2d(x, kernel, stride, symmetric, dilation)


@operator()
def _global_avg_pool(x: Tensor, *, keep: bool = False) -> Tensor:
    """(N, C, ...) -> (N, C), or (N, C, 1, ...): the mean of each channel."""
    means = x.flatten(2).mean(-1)
    return means.view(*means.shape, *[1] * (x.dim() - 2)) if keep else means


@operator()
def _global_max_pool(x: Tensor, *, keep: bool = False) -> Tensor:
    """(N, C, ...) -> (N, C), or (N, C, 1, ...): the maximum of each channel."""
    best = x.flatten(2).amax(-1)
    return best.view(*best.shape, *[1] * (x.dim() - 2)) if keep else best


@operator()
def _mean(x: Tensor, *, dims: Ints, keep: bool = False) -> Tensor:
    """The mean over some axes."""
    return x.mean(dims, keepdim=keep)


@operator()
def _sum(x: Tensor, *, dims: Ints, keep: bool = False) -> Tensor:
    """The sum over some axes."""
    return x.sum(dims, keepdim=keep)


@operator()
def _amax(x: Tensor, *, dims: Ints, keep: bool = False) -> Tensor:
    """The maximum over some axes."""
    return x.amax(dims, keepdim=keep)


def _padded(x: Tensor, padding: Quad, value: float) -> tuple[Tensor, Pair]:
    """The image and the padding that is left to do: what differs from side to side is done here."""
    top, bottom, left, right = padding
    if (top, left) == (bottom, right):
        return x, (top, left)
    return F.pad(x, (left, right, top, bottom), value=value), (0, 0)


# -- moving elements


@operator()
def _flatten(x: Tensor, *, order: Ints = ()) -> Tensor:
    """(N, ...) -> (N, all): in row-major order of the axes as they are, or permuted by ``order`` before. (0, 2, 3, 1) is what channels last
    frameworks make of an image."""
    return (x.permute(order) if order else x).flatten(1)


@operator()
def _reshape(x: Tensor, *, shape: Ints) -> Tensor:
    """(N, ...) -> (N, *shape); one of ``shape`` may be -1."""
    return x.reshape(x.shape[0], *shape)


@operator()
def _permute(x: Tensor, *, order: Ints) -> Tensor:
    """The axes in another order; the first stays."""
    return x.permute(order)


@operator()
def _expand(x: Tensor, *, shape: Ints) -> Tensor:
    """(N, ...) -> (N, *shape): along axes of one place, that place again."""
    return x.expand(x.shape[0], *shape)


@operator()
def _pad(x: Tensor, *, padding: Quad, value: float = 0.0) -> Tensor:
    """(N, C, H, W) with more rows and columns."""
    top, bottom, left, right = padding
    return F.pad(x, (left, right, top, bottom), value=value)


@operator()
def _slice(x: Tensor, *, axis: int, start: int, stop: int, step: int = 1) -> Tensor:
    """Some places along one axis, which is not the first."""
    return x[(slice(None),) * (axis % x.dim()) + (slice(start, stop, step),)]


@operator(arity=None)
def _concat(*xs: Tensor, axis: int) -> Tensor:
    """One after the other along ``axis``."""
    return torch.cat(xs, axis)


# -- of several inputs, which broadcast


@operator(arity=None)
def _add(*xs: Tensor) -> Tensor:
    return sum(xs[1:], start=xs[0])


@operator(arity=2)
def _subtract(x: Tensor, y: Tensor) -> Tensor:
    return x - y


@operator(arity=2)
def _multiply(x: Tensor, y: Tensor) -> Tensor:
    return x * y


@operator(arity=2)
def _divide(x: Tensor, y: Tensor) -> Tensor:
    """x / y; y of 2^-12 to 2^14 in magnitude."""
    return x / y


@operator(arity=None)
def _maximum(*xs: Tensor) -> Tensor:
    best = xs[0]
    for x in xs[1:]:
        best = torch.maximum(best, x)
    return best


@operator(arity=None)
def _minimum(*xs: Tensor) -> Tensor:
    least = xs[0]
    for x in xs[1:]:
        least = torch.minimum(least, x)
    return least
