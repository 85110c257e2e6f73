"""`with worker:` makes tensors at the worker: factories called inside, also deep inside torch's own code, land there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from syftlite._torch import DispatchMode, without_modes
from syftlite.ops.infer import infer
from syftlite.ops.operator import Kind
from syftlite.ops.table import BY_FUNC
from syftlite.remote.dispatch import emit

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker


class Factories(DispatchMode):
    """Sends factories to ``worker``; everything else runs where its operands are. `torch.tensor(values)` stays here: send() it."""

    def __init__(self, worker: BaseWorker) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.worker = worker

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        operator = BY_FUNC.get(func)
        if operator is None or operator.kind not in (Kind.FACTORY, Kind.RANDOM) or _has_tensor(args):
            return func(*args, **kwargs)
        if kwargs.get("dtype") is None and "dtype" in operator.keywords:  # the worker's default dtype is its own affair
            plain = {k: v for k, v in kwargs.items() if operator.keywords[k].code != "-"}
            kwargs = {**kwargs, "dtype": infer(operator, args, plain).dtype}  # type: ignore[union-attr]
        with without_modes():
            return emit(func, args, kwargs, self.worker)


def _has_tensor(values: Any) -> bool:
    return any(isinstance(v, torch.Tensor) or (isinstance(v, (list, tuple)) and _has_tensor(v)) for v in values)
