"""Tensors that are here and may meet what is at a worker: those that hold no data, and those that a plan takes as they are."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import CodeType
from typing import TYPE_CHECKING, Any

import torch
from torch.functional import _unravel_index
from torch.nn.functional import multi_head_attention_forward

from syftlite._torch import aten, derives, is_zero
from syftlite.remote.handle import RemoteTensor

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

Emit = Callable[[Any, tuple[Any, ...], dict[str, Any], Any], Any]
"""Sends an operator to a worker: `dispatch.emit`."""

_ATTENTION = {multi_head_attention_forward.__code__}
_PLACES = {_unravel_index.__code__}
_taking: ContextVar[bool] = ContextVar("taking", default=False)


@contextmanager
def taking_constants() -> Iterator[None]:
    """Have what is here and meets what is there be sent meanwhile, as a recording takes it for a constant."""
    token = _taking.set(True)
    try:
        yield
    finally:
        _taking.reset(token)


def constant(emit: Emit, worker: BaseWorker, value: torch.Tensor) -> Any:
    """What stands for ``value`` at ``worker``, if it is a constant: zero by its type, as forward-mode derivatives make them; in a recording
    all that is here; while a derivative is taken all zeros or all ones, of which torch makes some here; the mask of what a step may not see
    of later ones, which its transformers make here; zeros that its attention adds; strides of `unravel_index`. Such hold no data."""
    if isinstance(value, RemoteTensor):
        return value
    make = aten.zeros
    if not is_zero(value):
        if worker.takes_constants:
            return worker.constant(value)
        if _taking.get() and value.dim() and not value.requires_grad:
            return worker.send(value)
        if is_causal(value):
            hidden = emit(aten.full.default, (list(value.shape), -math.inf), {"dtype": value.dtype}, worker)
            return emit(aten.triu.default, (hidden, 1), {}, None)
        if value.dim() and within(_PLACES):
            return worker.constant(value) if worker.records else worker.send(value)
        attended = value.dim() > 0 and not value.any() and within(_ATTENTION)
        if not attended and (worker.records or not value.dim() or not derives()):
            return value
        if value.any():
            if not (value == 1).all():
                return value
            make = aten.ones
    return emit(make.default, (list(value.shape),), {"dtype": value.dtype}, worker)


def is_causal(value: torch.Tensor) -> bool:
    """Whether ``value`` is minus infinity above its diagonal, and zero elsewhere."""
    if value.dim() != 2 or not value.is_floating_point() or len(value) < 2 or len(value) != value.shape[1] or value[0, 1] != -math.inf:
        return False
    return torch.equal(value, torch.full_like(value, -math.inf).triu(1))


def within(makers: Collection[CodeType]) -> bool:
    """Whether it is one of these functions of torch's that has made what is looked at."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code not in makers:
        module = frame.f_globals.get("__name__", "").split(".", 1)[0]
        if module not in ("torch", "syftlite"):
            return False
        frame = frame.f_back  # type: ignore[assignment]
    return frame is not None
