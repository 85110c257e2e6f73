"""Operators on pointers that are not simply sent: views by running indices, values, copies across, what forward-mode derivatives ask for,
and views in place."""

from __future__ import annotations

import math
from typing import Any

import torch

from syftlite._torch import aten, correct_aliasing, is_written_down
from syftlite.errors import PointerMisuseError
from syftlite.ops.infer import BY_HAND
from syftlite.ops.table import BY_KEY
from syftlite.remote.dispatch import emit, handles
from syftlite.remote.handle import Handle, RemoteTensor, site
from syftlite.wire.messages import OP

_RUNNING = {id(func): (rule, BY_KEY[id(func)].number) for func, rule in BY_HAND.items()}


@handles(*BY_HAND)
def _running(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A view by a running index: inferred by hand and not remembered, since the next index is another."""
    handle: Handle = args[0]._handle
    spec, places = handle.spec, args[1:]
    if kwargs or spec is None:
        return emit(func, args, kwargs, None)
    for place in places:
        if type(place) is not int and place is not None:
            return emit(func, args, kwargs, None)
    rule, number = _RUNNING[id(func)]
    view, worker = rule(spec, *places), handle.worker
    fresh = Handle(worker, worker.next_id(), view, handle.borrowed)
    worker.cast((OP, number, (handle.id, *places), None, fresh.id), site())
    return worker.pointer(fresh)


@handles(aten.detach.default)
def _detach(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> RemoteTensor:
    handle: Handle = args[0]._handle
    worker = handle.worker
    if worker.cut is not None and args[0].requires_grad:  # a name of its own, by which its use is found
        handle = Handle(worker, worker.next_id(), handle.spec, borrowed=True)
        worker.cut.add(handle.id)
    return worker.pointer(handle)


@handles(aten._local_scalar_dense.default)
def _value(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return args[0].item()


@handles(aten.copy_.default)
def _copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    target, source = args[:2]
    if not isinstance(target, RemoteTensor):
        local: torch.Tensor = target
        return local.copy_(source.get_copy())
    if not isinstance(source, RemoteTensor) and source.dim():
        source = target._handle.worker.send(source)
    emit(func, (target, source), {}, None)
    return target


@handles(aten.is_same_size.default, aten._has_same_storage_numel.default)
def _same_size(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Forward-mode derivatives ask whether a tangent lies as its tensor does. Raises `PointerMisuseError` while torch writes down what a
    derivative does with tensors: it would take what it does with pointers for constants."""
    if is_written_down():
        raise PointerMisuseError("torch.func.linearize cannot follow pointers: torch.func.jvp gives the same derivatives")
    return bool(args[0].shape == args[1].shape)


@handles(aten._new_zeros_with_same_feature_meta.default)
def _like_both(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Zeros of ``other``'s shape and strides, for a tangent."""
    other = args[1]._handle.spec
    return emit(aten.new_empty_strided.default, (args[0], list(other.shape), list(other.stride)), {}, None)  # which is filled with zeros


@handles(aten._to_copy.default)
def _to_copy(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What has a shape and no values needs nothing of the worker: forward-mode derivatives ask for it."""
    if kwargs.get("device") != torch.device("meta"):
        return emit(func, args, kwargs, None)
    spec = args[0]._handle.spec
    return torch.empty_strided(spec.shape, spec.stride, dtype=kwargs.get("dtype") or spec.dtype, device="meta")


@handles(aten.diagonal_scatter.default, aten.select_scatter.default, aten.slice_scatter.default)
def _scatter_into_view(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A copy of the first, in a view of which the second is written."""
    view = {aten.diagonal_scatter: torch.diagonal, aten.select_scatter: torch.select, aten.slice_scatter: aten.slice}[func.overloadpacket]
    twin = args[0].clone()
    view(twin, *args[2:], **kwargs).copy_(args[1])
    return twin


@handles(aten.masked_scatter_backward.default)
def _masked_scatter_backward(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The gradients of the places that the mask has, in order, and zeros for what it did not take of ``sizes``."""
    grad, mask, sizes = args
    kept, count = mask.expand_as(grad).flatten(), math.prod(sizes)
    places = torch.where(kept, kept.cumsum(0) - 1, count)
    return grad.new_zeros(count + 1).scatter(0, places, grad.flatten())[:count].view(sizes)


_OUT_OF_PLACE = {
    aten.t_.default: aten.t.default,
    aten.transpose_.default: aten.transpose.int,
    aten.squeeze_.default: aten.squeeze.default,
    aten.squeeze_.dim: aten.squeeze.dim,
    aten.squeeze_.dims: aten.squeeze.dims,
    aten.unsqueeze_.default: aten.unsqueeze.default,
}


@handles(*_OUT_OF_PLACE)
def _view_in_place(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The wrapper takes on the view: the remote tensor itself, which others may alias, keeps its shape."""
    pointer = args[0]
    view = emit(_OUT_OF_PLACE[func], args, kwargs, None)
    pointer._handle = view._handle
    viewed: torch.Tensor = correct_aliasing(func, args, kwargs, pointer)
    return viewed
