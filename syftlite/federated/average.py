"""What federated programs do with models and batches.

    average = sum_k w_k model_k / sum_k w_k        McMahan et al. 2017, algorithm 1; w_k = 1 if none are given
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import torch
from torch import nn

from syftlite._torch import is_plain
from syftlite.errors import ConfigurationError, TensorsNotCollocatedError
from syftlite.federated.loader import FederatedDataLoader
from syftlite.remote.modules import location
from syftlite.remote.worker import BaseWorker


def federated_avg(
    models: Mapping[Any, nn.Module] | Sequence[nn.Module], weights: Mapping[Any, float] | Sequence[float] | None = None
) -> nn.Module:
    """The mean of ``models`` (by worker, or a list of them), as a new module; they are all here, or all at one worker. ``weights``: of
    each, such as its number of rows; of weight 0, a model counts as nothing. Real and complex numbers are added in double precision.
    Buffers of integers, such as counts of batches, are taken from the first model."""
    models, weights = _named("models", models), None if weights is None else _named("weights", weights)
    if not models:
        raise ConfigurationError("federated_avg() needs models, got none")
    if others := {type(model).__name__ for model in models.values() if not isinstance(model, nn.Module)}:
        raise ConfigurationError(f"federated_avg() takes modules, by worker or in a list, not {', '.join(sorted(others))}")
    if weights is not None and (odd := [w for w in weights.values() if not _is_weight(w)]):
        raise ConfigurationError(f"weights are finite numbers, such as numbers of rows, not {odd[0]!r}")
    if weights is not None and (set(weights) != set(models) or sum(weights.values()) <= 0 or min(weights.values()) < 0):
        raise ConfigurationError("weights are one for each model, none negative, not all zero")
    places = {location(model) for model in models.values()}
    if len(places) > 1:
        told = ", ".join(sorted("here" if place is None else str(place.id) for place in places))
        raise TensorsNotCollocatedError(f"the models are at different places ({told}): move() them to one worker, or get() them all")
    factors = [1.0 / len(models) if weights is None else weights[name] / sum(weights.values()) for name in models]
    average = copy.deepcopy(next(iter(models.values())))
    columns = [_tensors(model) for model in models.values()]
    if len({len(column) for column in columns}) > 1:
        told = ", ".join(f"{name}: {len(column)}" for name, column in zip(models, columns, strict=True))
        raise ConfigurationError(f"not all models have as many parameters and buffers ({told}): they are to be of one kind")
    rows = zip(*columns, strict=True)
    with torch.no_grad():
        for (name, target), row in zip(_tensors(average), rows, strict=True):
            if any(other != name or tensor.shape != target.shape for other, tensor in row):
                raise ConfigurationError(f"not all models have a parameter {name} of shape {list(target.shape)} in common")
            if target.is_floating_point() or target.is_complex():
                wide = torch.promote_types(target.dtype, torch.float64)
                terms = [tensor.to(wide) * factor for (_, tensor), factor in zip(row, factors, strict=True) if factor]
                target.copy_(sum(terms[1:], terms[0]))
    average.zero_grad(set_to_none=True)
    return average


def _is_weight(value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return is_plain(value) and value.numel() == 1 and math.isfinite(value.item())
    return isinstance(value, Real) and math.isfinite(value)


def _named(what: str, given: Any) -> Mapping[Any, Any]:
    if isinstance(given, nn.Module) or not isinstance(given, Iterable):
        raise ConfigurationError(f"federated_avg() takes {what} by worker, or a list of them, not {type(given).__name__}")
    return given if isinstance(given, Mapping) else dict(enumerate(given))


def _tensors(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]


def extract_batches_per_worker(loader: FederatedDataLoader) -> dict[BaseWorker, list[Any]]:
    """All batches of an epoch, by worker."""
    if not isinstance(loader, FederatedDataLoader):
        raise ConfigurationError(f"{type(loader).__name__} is no FederatedDataLoader: its batches are of no workers")
    batches: dict[BaseWorker, list[Any]] = {loader.federated_dataset[w].location: [] for w in loader.workers}  # type: ignore[misc]
    for step in loader:
        if isinstance(step, dict):
            for worker, batch in step.items():
                batches[worker].append(batch)
        else:
            batches[step[0].location].append(step)
    return batches


def accuracy(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The share of rows of ``scores`` (n, classes) whose highest is at ``target`` (n): a number tensor, where its operands are."""
    if not all(isinstance(given, torch.Tensor) for given in (scores, target)):
        raise ConfigurationError(f"accuracy is of tensors or pointers, not of {type(scores).__name__} and {type(target).__name__}")
    if scores.dim() != 2 or target.numel() != len(scores):
        shapes = f"{list(scores.shape)} and {list(target.shape)}"
        raise ConfigurationError(f"accuracy is of scores (n, classes) and targets (n), not of {shapes}")
    return (scores.argmax(dim=1) == target.view(len(scores))).float().mean()
