"""What a `Federation` is asked for, looked at before anything begins. Each raises `ConfigurationError`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from numbers import Real
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from syftlite.errors import ConfigurationError
from syftlite.federated.layout import statistical
from syftlite.federated.strategies import Strategy
from syftlite.secagg import Terms

if TYPE_CHECKING:
    from syftlite.federated.federation import Federation

AGGREGATIONS = ("plain", "secure", "shares")
HIDDEN = ("deadline", "minimum", "threshold", "neighbours", "noise_multiplier", "clip", "fraction_bits", "max_weight")
"""Options of `secure_average`."""


def must_be_whole(least: int, /, **given: Any) -> None:
    """Whole numbers, ``least`` or more."""
    for name, value in given.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ConfigurationError(f"{name} is a whole number, {least} or more, not {value!r}")


def must_be_strategy(strategy: Any) -> None:
    """An instance, of `Strategy`."""
    if strategy is not None and not isinstance(strategy, Strategy):
        made = f"{strategy.__name__}()" if inspect.isclass(strategy) else "FedAvg()"
        raise ConfigurationError(f"strategy is an object of syftlite.federated.strategies, such as {made}, not {strategy!r}")


def must_be_callable(model_fn: Any, **given: Any) -> None:
    """``model_fn`` makes a model, and is none; others are functions, where they are given."""
    if isinstance(model_fn, nn.Module) or not callable(model_fn):
        made = f"lambda: {type(model_fn).__name__}(...)"
        raise ConfigurationError(f"model_fn is a function that makes the model, such as {made}, and not one itself")
    for name, value in given.items():
        if value is not None and not callable(value):
            raise ConfigurationError(f"{name} is a function, such as {_SUCH_AS[name]}, not {type(value).__name__} {str(value)[:40]!r}")
    if inspect.isclass(loss := given.get("loss")):
        raise ConfigurationError(f"loss is a function of output and target, and no class: {loss.__name__}(), not {loss.__name__}")


_SUCH_AS = {
    "loss": "torch.nn.functional.cross_entropy",
    "optimizer": "lambda parameters: torch.optim.SGD(parameters, lr=0.1)",
    "scheduler": "lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 10)",
}


def must_be_loss(made: Any) -> torch.Tensor:
    """What loss(output, target) made: a number that follows from the output."""
    if not isinstance(made, torch.Tensor):
        raise ConfigurationError(f"loss gives one number tensor, and it gave {type(made).__name__}: return the sum of what is to go down")
    if made.numel() != 1 or not made.is_floating_point():
        told = "its mean, say" if made.is_floating_point() else "a real one"
        raise ConfigurationError(f"loss gives one number, and it gave {list(made.shape)} of {made.dtype}: return {told}")
    if not made.requires_grad:
        raise ConfigurationError("the loss does not follow from what is trained: no detach(), argmax() or no_grad() lies between")
    return made


def must_train(training: Any) -> None:
    """An object that has what `federated.training.Training` has."""
    if training is None:
        return
    there = all(callable(getattr(training, name, None)) for name in ("record", "start"))
    if inspect.isclass(training) or not there:
        told = "an object with record() and start(), such as PrivateTraining(model_fn, ...)"
        raise ConfigurationError(f"training is {told}, not {training!r}")


def must_be_rounds(rounds: Any) -> None:
    """A number of them."""
    if not isinstance(rounds, int) or rounds < 0:
        raise ConfigurationError(f"fit() takes how many rounds more, a whole number, not {rounds!r}")


def must_be_module(made: Any) -> nn.Module:
    """What model_fn made."""
    if not isinstance(made, nn.Module):
        raise ConfigurationError(f"model_fn is a function that makes a torch.nn.Module, and it made {made!r}")
    return made


def must_be_optimizer(made: Any) -> torch.optim.Optimizer:
    """What optimizer(parameters) made."""
    if not isinstance(made, torch.optim.Optimizer):
        raise ConfigurationError(f"optimizer is a function of the parameters that makes a torch.optim.Optimizer, and it made {made!r}")
    return made


def must_fit(federation: Federation) -> None:
    """Numbers within their bounds, and an aggregation that goes with the strategy, the buffer and the clients."""
    f, clients = federation, len(federation.clients)
    if not isinstance(f.seed, int) or isinstance(f.seed, bool):
        raise ConfigurationError(f"seed is a whole number, not {f.seed!r}")
    if f.aggregation not in AGGREGATIONS:
        raise ConfigurationError(f"aggregation is one of {', '.join(AGGREGATIONS)}, not {f.aggregation!r}")
    if f.hidden and not f.strategy.linear:
        raise ConfigurationError(f"{f.strategy!r} looks at every client's weights, and {f.aggregation} aggregation hides them")
    if f.hidden and f.buffer is not None:
        raise ConfigurationError(f"a buffer needs each client's weights as they come, and {f.aggregation} aggregation hides them")
    if f.buffer is not None and not (isinstance(f.buffer, int) and 1 <= f.buffer <= clients):
        raise ConfigurationError(f"a buffer holds 1 to {clients} (the clients), not {f.buffer}")
    given: tuple[Any, ...] = (f.fraction, f.minimum, f.deadline)
    if not all(map(isinstance, given, (Real, int, Real))) or not (0 < f.fraction <= 1 and 1 <= f.minimum <= clients and f.deadline > 0):
        told = f"fraction is in (0, 1], minimum 1 to {clients} (the clients), deadline positive"
        raise ConfigurationError(f"{told}: got {', '.join(map(repr, given))}")
    least, most = f.strategy.least, f.sampled if f.buffer is None else f.buffer
    if least > most:
        raise ConfigurationError(f"{f.strategy!r} needs {least} clients in a round, and here one has {most} of {clients}")
    if f.path is not None:
        must_have_folder(f.path)


def must_have_folder(path: Path) -> None:
    """A checkpoint is a file, in a folder that is there."""
    if not path.absolute().parent.is_dir():
        raise ConfigurationError(f"the checkpoint's folder {path.absolute().parent} is not there: make it first")
    if path.is_dir():
        raise ConfigurationError(f"the checkpoint {path} is a folder: name a file, such as {path / 'run.safetensors'}")


def must_hide(federation: Federation) -> None:
    """Options of secure sums and of shares, of those alone, and sums that cannot be of one client."""
    f = federation
    if f.secure and f.aggregation != "secure":
        told = f"with {f.aggregation!r} nothing is masked, and no noise added"
        raise ConfigurationError(f'secure={f.secure} is for aggregation="secure": {told}')
    if (f.aggregators or f.crypto_provider is not None) and f.aggregation != "shares":
        told = f"with {f.aggregation!r} nobody shares"
        raise ConfigurationError(f'aggregators= and crypto_provider= are for aggregation="shares": {told}')
    if f.aggregation == "shares" and len(f.aggregators) < 2:
        raise ConfigurationError("aggregation by shares needs aggregators=(one, another, ...), workers that hold the shares")
    if not f.hidden:
        return
    if f.sampled < 2:
        told = f"a round here has {f.sampled} of {len(f.clients)} clients: take more, or a larger fraction"
        raise ConfigurationError(f"what hides updates adds two at least, for a sum of one is that one's: {told}")
    if f.aggregation == "secure":
        _must_be_options(dict(f.secure), f.sampled, sum(f.layout.tensors[at].numel() for at in f.layout.weights))
    if f.noised and (mixing := statistical(f.model)):
        told = f"the statistics of {', '.join(mixing)} follow the data, and noise covers weights alone"
        raise ConfigurationError(f"{told}: use GroupNorm or LayerNorm, or track_running_stats=False")


def must_be_numbers(options: Mapping[str, Any]) -> None:
    """Options of a secure sum: those that are given are numbers, and whole where they count something."""
    for name, value in options.items():
        kind = Real if name in ("deadline", "noise_multiplier", "clip", "max_weight") else int
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            raise ConfigurationError(f"{name} is a {'' if kind is Real else 'whole '}number, not {value!r}")


def must_be_path(name: str, value: Any) -> Path | None:
    """A file's name, if any."""
    if value is not None and not isinstance(value, (str, PathLike)):
        raise ConfigurationError(f"{name} is a file's name, not {value!r}")
    return None if value is None else Path(value)


def must_be_mapping(name: str, value: Any) -> dict[str, Any]:
    """Options by name."""
    if value is not None and not isinstance(value, Mapping):
        raise ConfigurationError(f"{name} is a dictionary of options by name, such as {{'clip': 4.0}}, not {value!r}")
    return dict(value or {})


def _must_be_options(options: dict[str, Any], sampled: int, values: int) -> None:
    unknown = options.keys() - set(HIDDEN)
    if unknown:
        raise ConfigurationError(f"secure= has no option {', '.join(sorted(unknown))}: it has {', '.join(HIDDEN)}")
    must_be_numbers(options)
    deadline, noise = options.pop("deadline", 1.0), options.get("noise_multiplier", 0.0)
    if not deadline > 0 or not noise >= 0:
        raise ConfigurationError(f"deadline is positive, noise_multiplier at least 0: got {deadline}, {noise}")
    for name in ("minimum", "threshold"):
        if (number := options.get(name)) is not None and not (isinstance(number, int) and 2 <= number <= sampled):
            raise ConfigurationError(f"{name} is 2 to {sampled}, of so many clients in a round, not {number}")
    if not noise:
        options.setdefault("max_weight", 2.0**20)
    Terms.of(bytes(16), {str(n): n.to_bytes(32, "big") for n in range(sampled)}, values, **options)
