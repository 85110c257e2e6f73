"""What a round's model is worth: by data that is kept here, or as a function of the user's says."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from syftlite.errors import ConfigurationError
from syftlite.federated.average import accuracy
from syftlite.federated.training import Loss

Evaluation = Callable[[nn.Module], "Mapping[str, float] | float | None"]
ROWS = 1000
"""That are evaluated at a time."""


def evaluated(model: nn.Module, evaluate: tuple[torch.Tensor, torch.Tensor] | Evaluation | None, loss: Loss) -> dict[str, float]:
    """Metrics by name. Raises `ConfigurationError` for what is no number."""
    if evaluate is None:
        return {}
    if callable(evaluate):
        return _numbers(evaluate(model))
    data, target = evaluate
    training, _ = model.training, model.eval()
    with torch.no_grad():
        scores = torch.cat([model(part) for part in data.split(ROWS)])
        told = {"test loss": float(loss(scores, target))}
        if not target.is_floating_point():
            told["accuracy"] = float(accuracy(scores, target))
    model.train(training)
    return told


def must_evaluate(evaluate: Any) -> None:
    """Raises `ConfigurationError` if it is neither data with targets nor a function."""
    if evaluate is None or callable(evaluate):
        return
    pair = isinstance(evaluate, (tuple, list)) and len(evaluate) == 2 and all(isinstance(t, torch.Tensor) and t.dim() for t in evaluate)
    if not pair or len(evaluate[0]) != len(evaluate[1]) or not len(evaluate[0]):
        raise ConfigurationError("evaluate is (data, target), tensors with as many rows, at least one, or a function of the model")


def _numbers(told: Any) -> dict[str, float]:
    """As plain numbers; one that has no name is called "evaluation"."""
    if told is None:
        return {}
    named = told if isinstance(told, Mapping) else {"evaluation": told}
    found = {}
    for name, value in named.items():
        if not isinstance(value, numbers.Real) and getattr(value, "shape", None) not in ((), (1,)):
            raise ConfigurationError(f"evaluate gave {value!r} for {name}: a number, or numbers by name, goes into the history")
        found[str(name)] = float(value)
    return found
