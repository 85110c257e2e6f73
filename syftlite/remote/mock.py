"""Mock data: a synthetic twin of a dataset to develop against. Its shape, dtype and columns are the dataset's, which are public anyway; its
values are drawn from ranges that the owner states, and from nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from syftlite.errors import ConfigurationError
from syftlite.policy.columns import columns_in

Range = tuple[float, float] | Sequence[float]
"""(lowest, highest) of a column, or a list of the values that it takes."""


class Values(list[float]):
    """The values that a column takes."""


def columns_of(description: str, width: int) -> list[str]:
    """The names in a description's "columns: a, b, c", if they are as many as the columns; else their numbers."""
    return columns_in(description, width) or [str(number) for number in range(width)]


def twin(
    shape: Sequence[int], dtype: torch.dtype, columns: Sequence[str], ranges: Mapping[str, Range], rows: int | None = None, seed: int = 0
) -> torch.Tensor:
    """A tensor of ``shape`` (with ``rows`` rows, if given) and ``dtype``, each column drawn evenly from its range in ``ranges``; "*":
    that of all others; without either, from 0 to 1. Raises `ConfigurationError` for a column that is not there or a range that is none."""
    unknown = sorted(set(ranges) - set(columns) - {"*"})
    if unknown:
        raise ConfigurationError(f"there is no column {', '.join(unknown)}; there are {', '.join(columns) or 'none'}")
    sizes = (rows, *shape[1:]) if rows is not None and shape else tuple(shape)
    generator = torch.Generator().manual_seed(seed)
    if len(sizes) < 2:
        return _column(sizes, dtype, ranges.get("*", (0.0, 1.0)), "*", generator)
    made = [_column(sizes[:-1], dtype, ranges.get(name, ranges.get("*", (0.0, 1.0))), name, generator) for name in columns]
    return torch.stack(made, -1)


def _column(sizes: Sequence[int], dtype: torch.dtype, given: Range, name: str, generator: torch.Generator) -> torch.Tensor:
    if isinstance(given, list) or len(given) != 2:
        if not len(given):
            raise ConfigurationError(f"column {name}: a list of values has at least one")
        choice = torch.randint(len(given), tuple(sizes), generator=generator)
        return torch.tensor(list(given), dtype=torch.float64)[choice].to(dtype)
    low, high = given
    if not low <= high:
        raise ConfigurationError(f"column {name}: a range is (lowest, highest), not {tuple(given)}")
    drawn = torch.rand(tuple(sizes), generator=generator, dtype=torch.float64)
    if dtype.is_floating_point or dtype.is_complex:
        return (low + drawn * (high - low)).to(dtype)
    return (low + drawn * (high - low + 1)).floor().clamp(low, high).to(dtype)
