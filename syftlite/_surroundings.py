"""What a program has set that must not change what a worker in the same process computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

from syftlite._torch import clear_transforms, without_function_modes, without_modes

CASTING = ("cpu", "cuda")
"""Where autocast may be on; a worker in this process may keep its tensors on a card."""
_HERE: AbstractContextManager[None] = nullcontext()


def as_elsewhere(default: torch.dtype | None = None) -> AbstractContextManager[None]:
    """Compute as in a process of its own: without the caller's modes, transforms, autocast and inference mode.

    ``default``: torch's default dtype when what is computed was written. It is the whole process's, other threads' too: it changes only if
    the program has changed it since."""
    disturbed = (
        torch._C._len_torch_function_stack()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.peek_interpreter_stack() is not None
        or torch.is_inference_mode_enabled()
        or any(map(torch.is_autocast_enabled, CASTING))
        or default not in (None, torch.get_default_dtype())
    )
    return _undisturbed(default) if disturbed else _HERE


@contextmanager
def _undisturbed(default: torch.dtype | None) -> Iterator[None]:
    with without_function_modes(), ExitStack() as stack:
        if torch._C._len_torch_dispatch_stack():
            stack.enter_context(without_modes())
        if torch._C._functorch.peek_interpreter_stack() is not None:
            stack.enter_context(clear_transforms())
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        for kind in filter(torch.is_autocast_enabled, CASTING):
            torch.set_autocast_enabled(kind, False)
            stack.callback(torch.set_autocast_enabled, kind, True)
        now = torch.get_default_dtype()
        if default not in (None, now):
            torch.set_default_dtype(default)
            stack.callback(torch.set_default_dtype, now)
        yield
