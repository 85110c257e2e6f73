"""What a program has set that must not change what a worker in the same process computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

from syftlite._torch import clear_transforms, without_functions, without_modes


@contextmanager
def as_elsewhere() -> Iterator[None]:
    """Compute as in a process of its own: without the caller's modes, transforms, autocast and inference mode, and with torch's own
    default dtype, which is what messages count on."""
    with without_functions(), ExitStack() as stack:
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(without_modes())
        if torch._C._functorch.peek_interpreter_stack() is not None:
            stack.enter_context(clear_transforms())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        if torch.is_autocast_enabled("cpu"):
            stack.enter_context(torch.autocast("cpu", enabled=False))
        default = torch.get_default_dtype()
        if default is not torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, default)
        yield
