"""What a round's model is worth: by data that is kept here, as a function of the user's says, or where the clients' rows are."""

from __future__ import annotations

import copy
import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn

from syftlite._torch import tree_flatten, tree_unflatten
from syftlite.errors import ConfigurationError, GetNotPermittedError
from syftlite.federated.average import accuracy
from syftlite.federated.clients import Client
from syftlite.federated.crew import Crew
from syftlite.federated.training import Loss
from syftlite.remote.transfer import read

Evaluation = Callable[[nn.Module], "Mapping[str, float] | float | None"]
ROWS = 1000
"""That are evaluated at a time."""


def evaluated(model: nn.Module, evaluate: tuple[torch.Tensor, torch.Tensor] | Evaluation | None, loss: Loss) -> dict[str, float]:
    """Metrics by name. Raises `ConfigurationError` for what is no number."""
    if evaluate is None:
        return {}
    with _at_rest(model):
        if callable(evaluate):
            return _numbers(evaluate(model))
        data, target = evaluate
        with torch.no_grad():
            scores = _scores(model, data)
            told = {"test loss": float(loss(scores, target))}
            if _are_classes(scores, target):
                told["accuracy"] = float(accuracy(scores, target))
    return told


@contextmanager
def _at_rest(model: nn.Module) -> Iterator[None]:
    """Without dropout, and with statistics as they are; after it layers are in the modes in which they were."""
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _scores(model: nn.Module, data: torch.Tensor) -> Any:
    """What ``model`` says of all rows: a tensor, or a structure of tensors."""
    flat, structures = zip(*[tree_flatten(model(part)) for part in data.split(ROWS)], strict=True)
    return tree_unflatten([torch.cat(column) for column in zip(*flat, strict=True)], structures[0])


def _are_classes(scores: Any, target: torch.Tensor) -> bool:
    """Whether ``scores`` are one for each of several classes, and ``target`` names one of them for each row."""
    classes = isinstance(scores, torch.Tensor) and scores.dim() == 2 and scores.shape[1] > 1
    return classes and not target.is_floating_point() and target.numel() == len(scores)


def at_clients(
    model: nn.Module, clients: Sequence[Client], loss: Loss, crew: Crew, deadline: float, dropped: dict[str, str]
) -> dict[str, dict[str, float]]:
    """By client, the loss of its rows, and their accuracy where targets are classes; computed there. Of a client whose policy keeps them
    there is nothing; whoever fails is in ``dropped``."""
    futures = {client[0].id: crew.submit(_there, copy.deepcopy(model).train(False), client, loss) for client in clients}
    done = crew.wait(futures.values(), deadline)
    found = {}
    for name, future in futures.items():
        if future not in done:
            dropped.setdefault(name, f"not evaluated within {deadline:g} s")
        elif (error := future.exception()) is None:
            found[name] = future.result()
        elif not isinstance(error, GetNotPermittedError):
            dropped.setdefault(name, f"not evaluated: {type(error).__name__}: {error}")
    return found


def _there(model: nn.Module, client: Client, loss: Loss) -> dict[str, float]:
    worker, data, target = client
    model.send(worker)  # type: ignore[operator]
    with torch.no_grad():
        scores = _scores(model, data)
        told: dict[str, Any] = {"loss": loss(scores, target)}
        if _are_classes(scores, target):
            told["accuracy"] = accuracy(scores, target)
        return dict(zip(told, [float(value) for value in read(list(told.values()), take=True)], strict=True))


def weighted(told: Mapping[str, Mapping[str, float]], rows: Mapping[str, int]) -> dict[str, float]:
    """The clients' means, weighted by their rows; "loss at clients" and so on."""
    found = {}
    for metric in dict.fromkeys(metric for values in told.values() for metric in values):
        given = [(values[metric], rows[name]) for name, values in told.items() if metric in values]
        with suppress(ZeroDivisionError):
            found[f"{metric} at clients"] = sum(value * n for value, n in given) / sum(n for _, n in given)
    return found


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
