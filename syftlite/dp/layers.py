"""How a layer's use contributes to per-example gradients: book-keeping (Bu, Wang, Zha, Karypis 2023).

    out = x W^T + b     gradient of example i:  G_i^T x_i, (out, in)     G: the loss's gradient with respect to out, from one backward
    norm                one position:  |G_i| |x_i|                       several: from the gradients themselves
    weighted sum        (c_i G_i)^T x_i over all i: one product

A `Use` is one application of a parameter pair (weight, bias) to a batch: x (groups, rows, ..., in), out alike. `RULES` says which torch
function applies which layer; what no rule covers gets a copy of the parameter for each example (clipping.py).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.nn import functional as F

from syftlite._torch import aten
from syftlite.dp.sizes import Norms, inner, outer, size, summed

LARGEST = 1 << 27
"""Elements of per-example gradients of one parameter that are held at once; beyond it norms come from inner products in float64."""

HALF = (torch.bfloat16, torch.float16)


class Use(ABC):
    """One application of a layer. ``x``, ``out``: (groups, ...), set once the batch has run."""

    x: torch.Tensor
    out: torch.Tensor

    def __init__(self, weight: int, bias: int | None, shape: torch.Size) -> None:
        self.weight, self.bias, self.shape = weight, bias, shape

    def grown(self, grad: torch.Tensor) -> torch.Tensor:
        """``grad`` in single precision, and `x` as it was met, where autocast had the layer compute in half."""
        if grad.dtype not in HALF:
            return grad
        if self.x.is_floating_point():
            self.x = self.x.to(grad.dtype).float()
        return grad.float()

    @abstractmethod
    def rows(self, grad: torch.Tensor) -> torch.Tensor:
        """(groups, *weight's shape) gradients of the weight."""

    def norms(self, grad: torch.Tensor, biased: bool) -> Norms | None:
        """(groups,) norms, together with the bias's gradients if ``biased``, where they come cheaper than from `rows`."""
        return None

    def weighted(self, grad: torch.Tensor, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """sum_i factors_i of the weight's gradients, and of the bias's. Called where `norms` gave some."""
        raise NotImplementedError

    def bias_rows(self, grad: torch.Tensor) -> torch.Tensor:
        """(groups, *bias's shape) gradients of the bias."""
        return grad.flatten(1, -2).sum(1) if grad.dim() > 2 else grad


class Linear(Use):
    """x (groups, ..., in), out (groups, ..., out)."""

    def _flat(self, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        groups = grad.shape[0]
        return self.x.reshape(groups, -1, self.x.shape[-1]), grad.reshape(groups, -1, grad.shape[-1])

    def rows(self, grad: torch.Tensor) -> torch.Tensor:
        """G_i^T x_i"""
        x, g = self._flat(grad)
        return torch.bmm(g.mT, x)

    def norms(self, grad: torch.Tensor, biased: bool) -> Norms | None:
        """|G_i| sqrt(|x_i|^2 + 1), the 1 being the bias's, where there is one position."""
        x, g = self._flat(grad)
        if x.shape[1] == 1:
            return outer(size(g), size(x), biased)
        return None if len(g) * g.shape[-1] * x.shape[-1] <= LARGEST else inner(g, x, biased)

    def weighted(self, grad: torch.Tensor, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(c G)^T x over all groups and positions, (c G)^T 1."""
        x, g = self._flat(grad)
        scaled = (g * factors[:, None, None]).flatten(0, 1)
        return scaled.mT @ x.flatten(0, 1), scaled.sum(0)


class Conv(Use):
    """x (groups, rows, in, *space), out (groups, rows, out, *space): products over windows of x."""

    def __init__(self, weight: int, bias: int | None, shape: torch.Size, options: dict[str, Any]) -> None:
        super().__init__(weight, bias, shape)
        self.options = options

    def rows(self, grad: torch.Tensor) -> torch.Tensor:
        """Output gradients times windows, by convolution group."""
        out, n = grad.shape[3:], self.options["groups"]
        windows = self._windows(self.x.flatten(0, 1), out).reshape(-1, self.shape[1:].numel(), out.numel())
        found = torch.bmm(grad.reshape(-1, self.shape[0] // n, out.numel()), windows.mT).view(*grad.shape[:2], *self.shape)
        return found.sum(1) if grad.shape[1] > 1 else found.squeeze(1)

    def _windows(self, x: torch.Tensor, out: torch.Size) -> torch.Tensor:
        """(n, in, *kernel, *out): what each element of the kernel meets. Copied with the output innermost, in half of `F.unfold`'s time."""
        dims = len(out)
        step, padding, apart = [_each(self.options[name], dims) for name in ("stride", "padding", "dilation")]
        x = F.pad(x, [side for one in reversed(padding) for side in (one, one)])
        strides = x.stride()[2:]
        inner = [s * a for s, a in zip(strides, apart, strict=True)] + [s * a for s, a in zip(strides, step, strict=True)]
        return x.as_strided((*x.shape[:2], *self.shape[2:], *out), (*x.stride()[:2], *inner), x.storage_offset())

    def bias_rows(self, grad: torch.Tensor) -> torch.Tensor:
        """Output gradients, summed over rows and space."""
        return grad.sum((1, *range(3, grad.dim())))


def _each(given: Any, dims: int) -> tuple[int, ...]:
    return tuple(given) if isinstance(given, (tuple, list)) else (given,) * dims


class Embedding(Use):
    """x (groups, ...) indices, out (groups, ..., width). ``padding``: the row that never gets a gradient."""

    def __init__(self, weight: int, shape: torch.Size, padding: int | None) -> None:
        super().__init__(weight, None, shape)
        self.padding = padding

    def _flat(self, grad: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        groups = len(grad)
        x, g = self.x.reshape(groups, -1), grad.reshape(groups, -1, grad.shape[-1])
        return x, g if self.padding is None else g * (x != self.padding)[..., None]

    def rows(self, grad: torch.Tensor) -> torch.Tensor:
        """Gradients added up at their indices."""
        x, g = self._flat(grad)
        return g.new_zeros(len(g), *self.shape).scatter_add_(1, x[..., None].expand_as(g), g)

    def norms(self, grad: torch.Tensor, biased: bool) -> Norms | None:
        """Positions with the same index add up: |sum of theirs|, over indices."""
        x, g = self._flat(grad)
        order = torch.sort(x, 1)
        g = g.gather(1, order.indices[..., None].expand_as(g))
        fresh = torch.ones_like(order.values, dtype=torch.bool)
        fresh[:, 1:] = order.values[:, 1:] != order.values[:, :-1]
        place = fresh.cumsum(1) - 1
        found = size(torch.zeros_like(g).scatter_add_(1, place[..., None].expand_as(g), g))
        return summed(found, size(g.flatten(0, 1)), g.shape[1])

    def weighted(self, grad: torch.Tensor, factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted gradients added up at their indices; there is no bias."""
        x, g = self._flat(grad)
        scaled = (g * factors[:, None, None]).flatten(0, 1)
        return g.new_zeros(self.shape).index_add_(0, x.flatten(), scaled), scaled.sum(0)


class Scale(Use):
    """out = x * weight + bias over the last dimensions: what follows a normalisation; x is what it normalised."""

    def rows(self, grad: torch.Tensor) -> torch.Tensor:
        """x times output gradients, summed over all but the weight's dimensions."""
        return (self.x * grad).reshape(len(grad), -1, *self.shape).sum(1)

    def bias_rows(self, grad: torch.Tensor) -> torch.Tensor:
        """Output gradients, likewise."""
        return grad.reshape(len(grad), -1, *self.shape).sum(1)


# -- which function is which layer

Applied = tuple[Use, torch.Tensor, torch.Tensor]
"""The use, its x, its out, inside the map over examples."""
Rule = Callable[..., "Applied | None"]


class Places(Protocol):
    """Which parameter a value is. ``maps``: whether rows are mapped over, so that a function is given one of them."""

    maps: bool

    def place(self, value: Any) -> int | None:
        """Its place among those whose use is noted."""

    def turned(self, value: Any) -> tuple[int, torch.Tensor] | None:
        """The place of, and, the parameter that ``value`` is the transpose of."""


RULES: dict[Any, Rule] = {}


def _rule(*functions: Any) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        RULES.update(dict.fromkeys(functions, rule))
        return rule

    return add


@_rule(F.linear)
def _linear(taps: Places, x: torch.Tensor, weight: torch.Tensor, bias: Any = None) -> Applied | None:
    at = taps.place(weight)
    if at is None or (bias is not None and taps.place(bias) is None):
        return None
    return Linear(at, taps.place(bias), weight.shape), x, _affine(taps, x, weight, bias)


def _affine(taps: Places, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`F.linear`, which inside a map would copy what it adds the bias to."""
    if not taps.maps:
        return F.linear(x, weight, bias)
    out = F.linear(x, weight)
    return out if bias is None else out.add_(bias)


@_rule(torch.conv1d, torch.conv2d)
def _conv(
    taps: Places, x: torch.Tensor, weight: torch.Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0,
    dilation: Any = 1, groups: int = 1,
) -> Applied | None:  # fmt: skip
    at, function = taps.place(weight), torch.conv1d if weight.dim() == 3 else torch.conv2d
    if at is None or isinstance(padding, str) or x.dim() != weight.dim() or (bias is not None and taps.place(bias) is None):
        return None
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    return Conv(at, taps.place(bias), weight.shape, options), x, function(x, weight, bias, **options)


@_rule(F.embedding)
def _embedding(
    taps: Places, x: torch.Tensor, weight: torch.Tensor, padding_idx: int | None = None,
    max_norm: float | None = None, norm_type: float = 2.0, scale_grad_by_freq: bool = False, sparse: bool = False,
) -> Applied | None:  # fmt: skip
    at = taps.place(weight)
    if at is None or max_norm is not None or scale_grad_by_freq or sparse:
        return None
    padding = None if padding_idx is None else padding_idx % len(weight)
    return Embedding(at, weight.shape, padding), x, F.embedding(x, weight)


@_rule(F.layer_norm)
def _layer_norm(
    taps: Places, x: torch.Tensor, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Applied | None:
    at = taps.place(weight)
    if at is None or (bias is not None and taps.place(bias) is None):
        return None
    flat = F.layer_norm(x, normalized_shape, None, None, eps)
    out = flat * weight
    return Scale(at, taps.place(bias), weight.shape), flat, out if bias is None else out + bias


def cross_entropy(
    scores: torch.Tensor, target: torch.Tensor, weight: Any = None, size_average: Any = None, ignore_index: int = -100, reduce: Any = None,
    reduction: str = "mean", label_smoothing: float = 0.0,
) -> torch.Tensor | None:  # fmt: skip
    """`F.cross_entropy` of one row whose target is a class, in half of the operators that torch maps it by; otherwise None."""
    given = weight is not None or size_average is not None or reduce is not None or label_smoothing or reduction not in ("mean", "sum")
    if given or scores.dim() != 2 or len(scores) != 1 or target.dim() != 1 or target.dtype != torch.int64:
        return None
    counted = target != ignore_index
    right = scores.gather(1, (target * counted)[:, None])[:, 0]
    return ((scores.logsumexp(1) - right) * counted).sum()


# -- the same as recorded programs have them


@_rule(aten.mm.default)
def _mm(taps: Places, x: torch.Tensor, weight: torch.Tensor) -> Applied | None:
    known = taps.turned(weight)
    return None if known is None else (Linear(known[0], None, known[1].shape), x, F.linear(x, known[1]))


@_rule(aten.addmm.default)
def _addmm(taps: Places, bias: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, *scales: Any, **named: Any) -> Applied | None:
    known, at = taps.turned(weight), taps.place(bias)
    if known is None or at is None or scales or named or bias.dim() != 1 or len(bias) != len(known[1]):
        return None
    return Linear(known[0], at, known[1].shape), x, _affine(taps, x, known[1], bias)


@_rule(aten.convolution.default)
def _convolution(
    taps: Places, x: torch.Tensor, weight: torch.Tensor, bias: Any, stride: Any, padding: Any, dilation: Any, transposed: bool,
    output_padding: Any, groups: int,
) -> Applied | None:  # fmt: skip
    if transposed or weight.dim() not in (3, 4):
        return None
    return _conv(taps, x, weight, bias, tuple(stride), tuple(padding), tuple(dilation), groups)


@_rule(aten.embedding.default)
def _aten_embedding(
    taps: Places, weight: torch.Tensor, x: torch.Tensor, padding_idx: int = -1, scale_grad_by_freq: bool = False, sparse: bool = False
) -> Applied | None:
    return _embedding(taps, x, weight, None if padding_idx < 0 else padding_idx, None, 2.0, scale_grad_by_freq, sparse)
