"""What no map over examples knows, and what to do instead: each raises `ConfigurationError`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from syftlite.errors import ConfigurationError

NO_MAP = {
    torch.lstm_cell: "nn.LSTMCell is one kernel, which no map over examples knows: use nn.LSTM(batch_first=True) on x.unsqueeze(1), or "
    "nn.GRUCell",
    F.embedding: "Embedding(max_norm=) writes to its weights while it looks at an example's rows, which no clipping covers: leave "
    "max_norm out, and shorten the weights between steps",
}  # fmt: skip
MIXES = "mixes examples, or keeps statistics of them, so no example has a gradient of its own: use LayerNorm or GroupNorm"
SPARSE = "Embedding(sparse=True) has gradients that no clipping covers: sparse=False"


def is_number(value: Any) -> bool:
    """Whether it is a real number."""
    return isinstance(value, Real)


def is_whole(value: Any) -> bool:
    """Whether it is a whole number."""
    return isinstance(value, Integral)


def must_map(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], places: Mapping[int, int]) -> None:
    """Raise `ConfigurationError` for a function that cannot be mapped. ``places``: of the parameters, by `id`."""
    told = NO_MAP.get(func)
    if told is not None and (func is not F.embedding or len(args) > 3 or kwargs.get("max_norm") is not None):
        raise ConfigurationError(told)
    if func in (F.embedding, F.embedding_bag) and kwargs.get("sparse") and any(id(value) in places for value in args):
        raise ConfigurationError(SPARSE)


def must_keep_apart(models: Iterable[nn.Module]) -> None:
    """Raise `ConfigurationError` for a layer of ``models`` that a record of one example would not tell of by name."""
    for layer in (layer for model in models for layer in model.modules()):
        if layer.training and getattr(layer, "track_running_stats", False):
            raise ConfigurationError(f"{type(layer).__name__} {MIXES}")
        if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)) and layer.sparse and layer.weight.requires_grad:
            raise ConfigurationError(SPARSE)


def must_be_number(value: Any) -> None:
    """Raise `ConfigurationError` unless ``value``, an example's loss, is one number."""
    if not isinstance(value, torch.Tensor):
        raise ConfigurationError(f"the loss of an example is one number tensor, and it gave {type(value).__name__}: return the sum of all")
    if value.numel() != 1:
        raise ConfigurationError(f"the loss of an example is one number, not {tuple(value.shape)}: take its mean or sum")


@contextmanager
def told_of_maps() -> Iterator[None]:
    """What torch cannot map over examples is an error of this package's, with what to do."""
    try:
        yield
    except RuntimeError as error:
        told = next((word for word in _UNMAPPED if word in str(error)), None)
        if told is None:
            raise
        raise ConfigurationError(f"the loss cannot be taken of each example by itself: {_UNMAPPED[told]} ({error})") from error


_UNMAPPED = {
    ".item()": "it reads a value: leave out .item(), float() and int()",
    "data-dependent control flow": "it goes by a value: torch.where(...) instead of if",
    "running_mean or running_var": "a layer keeps statistics of the data: track_running_stats=False, GroupNorm or LayerNorm",
    "atching rule not implemented": "an operator of it is not known by example: take another, or a layer without it",
    "in-place": "it writes to a tensor that all examples share: write to a clone()",
}
"""By words in what `torch.vmap` raises."""
