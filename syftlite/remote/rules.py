"""What stands for a composite operator on remote operands, met before torch takes it apart.

torch takes a composite operator apart above `__torch_dispatch__`. Registering a kernel at AutogradCPU, where composite operators have none,
is how it is met before that; with local operands the kernel calls torch's own parts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from syftlite._torch import by_parts
from syftlite.remote.dispatch import HANDLERS
from syftlite.remote.handle import RemoteTensor

Rule = Callable[..., Any]
RULES: dict[Any, Rule] = {}
"""What stands for a composite operator on remote operands. Called with the operator first."""

_library: list[torch.library.Library] = []  # a registration ends with its library


def rule_of(*funcs: Any) -> Callable[[Rule], Rule]:
    """Have the decorated function stand for ``funcs``."""

    def register(rule: Rule) -> Rule:
        for func in funcs:
            RULES[func] = rule
            HANDLERS[id(func)] = lambda func, args, kwargs: rule(func, *args, **kwargs)  # in inference mode it arrives whole
        return rule

    return register


def install() -> None:
    """Meet the operators of `RULES`, once, however often it is called."""
    if not _library:
        _library.append(torch.library.Library("aten", "IMPL"))
        for func, rule in RULES.items():
            _library[0].impl(func, _kernel(func, rule), "AutogradCPU")


def _kernel(func: Any, rule: Rule) -> Rule:
    def kernel(*args: Any, **kwargs: Any) -> Any:
        if first_remote((*args, *kwargs.values())) is None:
            return by_parts(func, args, kwargs)
        return rule(func, *args, **kwargs)

    return kernel


def first_remote(values: Iterable[Any]) -> RemoteTensor | None:
    """The first remote operand, lists included."""
    for value in values:
        if isinstance(value, RemoteTensor):
            return value
        if isinstance(value, (list, tuple)) and (found := first_remote(value)) is not None:
            return found
    return None


def formula_of(*funcs: Any) -> Callable[[Rule], Rule]:
    """Have the decorated function stand for ``funcs`` below autograd: it takes their operands, and torch their gradients."""

    def register(rule: Rule) -> Rule:
        for func in funcs:
            HANDLERS[id(func)] = lambda func, args, kwargs: rule(*args, **kwargs)
        return rule

    return register


def at_worker(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """``x`` where ``like`` is: what torch or a formula makes here of numbers."""
    if isinstance(x, RemoteTensor) or not isinstance(like, RemoteTensor):
        return x
    worker = like._handle.worker
    return worker.constant(x) if worker.records else worker.send(x)
