"""Cross entropy with weights that are here, while it is recorded: torch takes the weights of the classes that count, whose shape depends on
values, unless the weights are where the classes are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from syftlite.remote.recorder import Recorder


class Weighted(TorchFunctionMode):
    """Has the weights be constants of the program."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.cross_entropy:
            weight = args[2] if len(args) > 2 else kwargs.pop("weight", None)
            weight = self._recorder.constant(weight) if isinstance(weight, torch.Tensor) else weight
            return F.cross_entropy(*args[:2], weight, *args[3:], **kwargs)
        return func(*args, **kwargs)
