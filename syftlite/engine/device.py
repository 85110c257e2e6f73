"""Where a worker keeps its tensors: main memory, or the device that its owner names. Clients neither see it nor choose it.

    arrive    what comes (PUT, another worker's delivery, a dataset)        -> the device
    leave     what goes (GET, SHIP, a dataset to disk)                      -> main memory, which is all that the wire knows
    placed    a factory, which has no operand whose device it could take    -> the device
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch

from syftlite.errors import ConfigurationError, QuotaExceededError
from syftlite.ops.operator import Kind, Operator


class Device:
    """The device ``name``, as torch names it: "cpu", "cuda", "cuda:1". Raises `ConfigurationError` if tensors cannot be kept there."""

    def __init__(self, name: str) -> None:
        self.torch = named(name)
        try:
            torch.empty(1, device=self.torch).cpu()
        except (RuntimeError, NotImplementedError, AssertionError) as error:
            raise ConfigurationError(f"device {name!r} cannot be used: {str(error).split('. ')[0]}") from None

    def arrive(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` on the device. Raises `QuotaExceededError` if there is no room on it."""
        try:
            return tensor.to(self.torch)
        except torch.cuda.OutOfMemoryError:
            needed = f"{self.torch} has no room for {tensor.nbytes:,} bytes"
            raise QuotaExceededError(f"{needed}: delete pointers you no longer need") from None

    def leave(self, tensor: torch.Tensor) -> torch.Tensor:
        """``tensor`` in main memory."""
        return tensor.cpu()


def device_of(name: str | None) -> Device | None:
    """The device ``name``; None for main memory, which needs no moving."""
    device = None if name is None else Device(name)
    return None if device is None or device.torch.type == "cpu" else device


def named(name: str) -> torch.device:
    """The device of that name, without touching it. Raises `ConfigurationError`."""
    if not isinstance(name, str):
        raise ConfigurationError(f'device is a text such as "cpu" or "cuda:0", not {name!r}')
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigurationError(f'device {name!r} is none that torch knows: "cpu", "cuda" or "cuda:1", say') from None
    if device.type == "meta":
        raise ConfigurationError("device 'meta' keeps no values: leave device out for main memory")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError(
            f"device {name!r}: torch finds no CUDA device on this machine. Install a driver and a torch build with CUDA, or leave device "
            "out for main memory"
        )
    return device


@cache
def placed(operator: Operator, device: torch.device) -> Callable[..., Any]:
    """``operator``'s function; of a factory, one that makes its results on ``device``."""
    if "device" in operator.keywords and operator.kind in (Kind.FACTORY, Kind.RANDOM):
        return partial(operator.func, device=device)
    function: Callable[..., Any] = operator.func
    return function
