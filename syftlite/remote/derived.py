"""What torch's hooks make of a module's parameters before each forward, and keep as attributes: of pruning, weight norm, spectral norm.

Such an attribute holds a graph of its parameters, which keeps them from taking on other values, and is no longer true once they have.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from torch import nn
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm


def made_by_hooks(module: nn.Module) -> dict[str, Any]:
    """The attributes of ``module`` itself that hooks make, and the last hook that makes each."""
    made: dict[str, Any] = {}
    if not module._forward_pre_hooks:
        return made
    for hook in module._forward_pre_hooks.values():
        if isinstance(hook, BasePruningMethod):
            made[str(hook._tensor_name)] = hook
        elif isinstance(hook, (WeightNorm, SpectralNorm)):
            made[hook.name] = hook
    return {name: hook for name, hook in made.items() if name in vars(module)}


@contextmanager
def let_go(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Have ``modules`` be without what is made of their parameters meanwhile; it is made anew of what they are then."""
    made = [(part, name, hook) for module in modules for part in module.modules() for name, hook in made_by_hooks(part).items()]
    for part, name, _ in made:
        del vars(part)[name]  # and with it the graph
    try:
        yield
    except BaseException:
        with suppress(RuntimeError):  # where only some could be moved: a forward makes it
            _make(made)
        raise
    _make(made)


def _make(made: Iterable[tuple[nn.Module, str, Any]]) -> None:
    for part, name, hook in made:
        vars(part)[name] = _value(hook, part)


def _value(hook: Any, module: nn.Module) -> Any:
    if isinstance(hook, BasePruningMethod):
        return hook.apply_mask(module)
    return hook.compute_weight(module, *[False] * isinstance(hook, SpectralNorm))
