"""Splits of a dataset for simulated clients: every row is in exactly one part.

    split_iid         rows in random order, parts of nearly equal length
    split_dirichlet   of each class, shares p ~ Dirichlet(alpha, ..., alpha) to the parts: alpha 0.1 gives parts with few classes each, 100
                      nearly IID ones                                                                 Hsu, Qi, Brown 2019, section 3
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch.utils.data import Dataset

from syftlite.dp.refusals import is_number
from syftlite.errors import ConfigurationError
from syftlite.federated.checks import must_be_whole
from syftlite.federated.datasets import BaseDataset, as_dataset

TRIES = 100


def split_iid(dataset: Dataset[Any], parts: int, *, seed: int = 0) -> list[BaseDataset]:
    """``parts`` parts of nearly equal length, of rows in random order."""
    dataset = _checked(dataset, parts, 1, seed)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed))
    return _cut(dataset, order.tensor_split(parts))


def split_dirichlet(dataset: Dataset[Any], parts: int, *, alpha: float, least: int = 1, seed: int = 0) -> list[BaseDataset]:
    """``parts`` parts, each with its own mixture of classes; the targets are classes, (n,). Drawn again until each has ``least`` rows."""
    dataset = _checked(dataset, parts, least, seed)
    if not is_number(alpha) or not 0 < alpha < math.inf or dataset.targets.dim() != 1 or dataset.targets.is_floating_point():
        shape = f"{list(dataset.targets.shape)} {dataset.targets.dtype}"
        told = f"alpha above 0, not {alpha!r}, and targets that are classes, (n,) integers, not {shape}"
        raise ConfigurationError(f"a Dirichlet split has {told}")
    generator, shares = torch.Generator().manual_seed(seed), numpy.random.default_rng(seed % (1 << 64))
    for _ in range(TRIES):
        rows: list[list[torch.Tensor]] = [[] for _ in range(parts)]
        for label in dataset.targets.unique():
            where = (dataset.targets == label).nonzero().flatten()
            where = where[torch.randperm(len(where), generator=generator)]
            ends = (shares.dirichlet([alpha] * parts).cumsum()[:-1] * len(where)).round().astype(int)
            for mine, part in zip(rows, where.tensor_split(ends.tolist()), strict=True):
                mine.append(part)
        whole = [torch.cat(mine) for mine in rows]
        if min(map(len, whole)) >= least:
            return _cut(dataset, whole)
    raise ConfigurationError(f"in {TRIES} draws some part had fewer than {least} rows: take a larger alpha, or fewer parts")


def _checked(given: Dataset[Any], parts: int, least: int, seed: int) -> BaseDataset:
    must_be_whole(0, parts=parts, least=least)
    if type(seed) is not int:
        raise ConfigurationError(f"seed is a whole number, not {seed!r}")
    dataset = as_dataset(given)
    if not 1 <= parts * max(least, 1) <= len(dataset):
        raise ConfigurationError(f"{len(dataset)} rows cannot be split into {parts} parts of at least {max(least, 1)}")
    return dataset


def _cut(dataset: BaseDataset, rows: Sequence[torch.Tensor]) -> list[BaseDataset]:
    parts = []
    for part in rows:
        made = BaseDataset(dataset.data[part], dataset.targets[part], dataset.transform)
        made.tags, made.description = set(dataset.tags), dataset.description
        parts.append(made)
    return parts
