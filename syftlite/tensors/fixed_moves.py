"""What moves or weighs the elements of FixedPrecisionTensors by their places alone, which are public: torch's own function tells how.

    interpolate(nearest), pad(replicate, reflect), take     function(0, 1, 2, ...) is where each element comes from; its gradient goes there
    put, masked_scatter                                     places are where elements go
    interpolate(linear, cubic, area)                        function(the identity) is a matrix, for one axis after the other
    diagonal_scatter, slice_scatter, select_scatter         view(0, 1, 2, ...) is where the elements go
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn import functional as F

from syftlite._torch import aten, below_functions
from syftlite.tensors.fixed import FixedPrecisionTensor, fix_precision
from syftlite.tensors.fixed_ops import Args, Named, implements

Fixed = FixedPrecisionTensor
NEAREST = ("nearest", "nearest-exact")
WEIGHED = ("linear", "bilinear", "trilinear", "bicubic", "area")


def moved(x: Fixed, axes: int, function: Callable[[Any], Any]) -> Any:
    """What ``function``, which moves elements of (1, 1, ...), makes of the last ``axes`` of ``x``."""
    size, rest = x.shape[x.dim() - axes :], x.shape[: x.dim() - axes]
    places = function(torch.arange(math.prod(size), dtype=torch.float64).view(1, 1, *size))[0, 0].long()
    row: Any = x.reshape(*rest, math.prod(size))
    return row.index_select(-1, beside(x, places.reshape(-1))).reshape(*rest, *places.shape)


def _worker(x: Any) -> Any:
    """Who has the ring elements of ``x``, if they are neither here nor shared."""
    return None if not isinstance(x, Fixed) or x.is_secret else x.location


def beside(x: Any, public: torch.Tensor) -> Any:
    """``public``, here, where the ring elements of ``x`` are."""
    worker = _worker(x)
    return public if worker is None else public.send(worker)  # type: ignore[attr-defined]


def weighed(x: Any, functions: Sequence[Callable[[torch.Tensor], torch.Tensor]]) -> Any:
    """What ``functions``, each linear along axis 2 of (n, 1, n, 1), make of as many last axes of ``x``."""
    given = x
    for axis, function in enumerate(functions, x.dim() - len(functions)):
        weights = function(torch.eye(x.shape[axis])[:, None, :, None])[:, 0, :, 0]
        if weights.shape[0] != weights.shape[1] or not torch.equal(weights, torch.eye(len(weights))):
            table: Any = weights if _worker(x) is None else beside(x, fix_precision(weights, **x.attributes()))
            x = (x.movedim(axis, -1) @ table).movedim(-1, axis)
    return x.clone() if x is given else x


# -- images


@Fixed.reexpresses(F.interpolate)
def interpolate(
    x: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", align_corners: Any = None,
    recompute_scale_factor: Any = None, antialias: bool = False,
) -> Any:  # fmt: skip
    """Images of another size."""
    axes = x.dim() - 2
    if antialias:
        raise NotImplementedError("FixedPrecisionTensor knows interpolate without antialias: avg_pool2d() the image before")

    def resized(image: Any) -> Any:
        return F.interpolate(image, size, scale_factor, mode, align_corners, recompute_scale_factor)

    if mode in NEAREST or mode not in WEIGHED or axes < 1:
        return moved(x, axes, resized)
    out = resized(torch.empty(1, 1, *x.shape[2:], device="meta")).shape[2:]
    scales = (None,) * axes if scale_factor is None or recompute_scale_factor else _each(scale_factor, axes)
    if mode == "area":
        return weighed(x, [lambda rows, to=to: F.adaptive_avg_pool2d(rows, (to, 1)) for to in out])  # type: ignore[misc]
    image = "bicubic" if mode == "bicubic" else "bilinear"

    def along(to: int, scale: Any) -> Callable[[torch.Tensor], torch.Tensor]:
        how: dict[str, Any] = {"size": (to, 1)} if scale is None else {"scale_factor": (float(scale), 1.0)}
        return lambda rows: F.interpolate(rows, **how, mode=image, align_corners=align_corners)

    return weighed(x, [along(to, scale) for to, scale in zip(out, scales, strict=True)])


def _each(value: Any, count: int) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * count


# -- padding


def padded(x: Any, pad: Any, mode: str, value: Any) -> Any:
    """``x`` with elements of its own, or constant ones, at the ends."""
    if mode == "constant":
        with below_functions():
            return F.pad(x, pad, mode, value)
    return moved(x, len(pad) // 2, lambda image: F.pad(image, pad, mode))


# -- places


@Fixed.reexpresses(torch.take, torch.Tensor.take)
def take(x: Any, index: Any) -> Any:
    """Elements at public places, counted row by row."""
    return x.reshape(-1)[beside(x, index) if type(index) is torch.Tensor else index]


@Fixed.reexpresses(torch.put, torch.Tensor.put)
def put(x: Any, index: Any, source: Any, accumulate: bool = False) -> Any:
    """``source`` at public places, counted row by row."""
    if index.numel() != source.numel():
        raise ValueError(f"put: places of shape {tuple(index.shape)}, and what is put there of {tuple(source.shape)}")
    places = beside(x, index.reshape(-1)) if type(index) is torch.Tensor else index.reshape(-1)
    return x.reshape(-1).index_put([places], source.reshape(-1), accumulate).view(x.shape)


@Fixed.reexpresses(torch.masked_scatter, torch.Tensor.masked_scatter)
def masked_scatter(x: Any, mask: Any, source: Any) -> Any:
    """The first elements of ``source`` where a public mask is true, row by row."""
    if type(mask) is not torch.Tensor:
        raise NotImplementedError("FixedPrecisionTensor knows masked_scatter of a public mask: what goes where would tell a secret one")
    x, mask = torch.broadcast_tensors(x, mask)
    places = mask.reshape(-1).nonzero().squeeze(1)
    if len(places) > source.numel():
        raise RuntimeError(f"masked_scatter: {len(places)} places, and a source of {source.numel()} elements")
    return put(x, places, source.reshape(-1)[: len(places)])


Fixed.reexpresses(torch.Tensor.put_)(lambda x, *args, **kwargs: x.copy_(put(x, *args, **kwargs)))
Fixed.reexpresses(torch.Tensor.masked_scatter_)(lambda x, mask, source: x.copy_(masked_scatter(x, mask, source)))

_VIEWS = {
    aten.diagonal_scatter.default: aten.diagonal.default, aten.slice_scatter.default: aten.slice.Tensor,
    aten.select_scatter.default: aten.select.int,
}  # fmt: skip


@implements(*_VIEWS)
def _scattered(cls: type[Fixed], func: Any, args: Args, kwargs: Named) -> Any:
    x, source, *where = args
    places = _VIEWS[func](torch.arange(x.numel()).view(x.shape), *where, **kwargs)
    if places.shape != source.shape:
        raise RuntimeError(f"{func}: the place has shape {tuple(places.shape)}, and what is put there {tuple(source.shape)}")
    held = x if isinstance(x, Fixed) else source
    return x.reshape(-1).index_put([beside(held, places.reshape(-1))], source.reshape(-1)).view(x.shape)
