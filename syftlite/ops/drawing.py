"""Torch's generator is one for all threads: whoever draws, draws in turn, and what is drawn apart leaves no trace in it.

    in_turn    an operator that draws as others do                                    executor.py, straight.py
    apart      from a stream of its own: nobody else sees how much was drawn          mapping.py: rows that fail are computed again
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch

DRAWING = threading.RLock()
"""Held by whoever draws from torch's generator."""


def in_turn(func: Callable[..., Any]) -> Callable[..., Any]:
    """``func``, while nobody else draws."""

    @wraps(func)
    def draw(*args: Any, **kwargs: Any) -> Any:
        with DRAWING:
            return func(*args, **kwargs)

    return draw


@contextmanager
def apart() -> Iterator[None]:
    """What is drawn here comes from a stream of its own; torch's generator is afterwards, and for everybody else, as it was."""
    with DRAWING:
        state = torch.default_generator.get_state()
        torch.default_generator.manual_seed(secrets.randbits(63))
        try:
            yield
        finally:
            torch.default_generator.set_state(state)
