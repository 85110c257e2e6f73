"""The private questions, as a scientist asks them.

    sy.dp.count(x, epsilon=0.5)     sum  mean  variance  histogram  quantile     of a tensor, or of a pointer to rows at their owner
    sy.dp.map_sum(plan, rows, ...)                                               any function of one row, clipped and summed
    sy.dp.budget(pointer)                                                        what is left

One table of who answers, `measure`: here it is a local tensor's mechanism; remote/measuring.py adds pointers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import singledispatch
from typing import Any

import torch

from syftlite.dp.ledger import Standing
from syftlite.dp.mechanisms import Bounds, Query
from syftlite.errors import ConfigurationError


@singledispatch
def measure(values: torch.Tensor, query: Query, request: str | None) -> torch.Tensor:
    """The answer to ``query`` about ``values``, wherever they are."""
    if not isinstance(values, torch.Tensor):
        raise ConfigurationError(f"a private question is about a tensor or a pointer, not a {type(values).__name__}")
    query.check(values)
    return query.run(values)


def count(values: torch.Tensor, *, epsilon: float, delta: float | None = None, request: str | None = None) -> Any:
    """How many rows there are; of booleans, how many are True.

    ``epsilon``: what it costs. ``delta``: left out, noise is discrete Laplace, otherwise discrete Gaussian, which is less of it in the
    long run. ``request``: a name of your own for the question: asked again by the same name, it costs nothing and the answer is the same.
    A 0-dim float64 tensor, or a pointer to one that `get` may bring. Raises `BudgetExceededError`, with what is left.
    """
    return measure(values, Query("count", epsilon, delta), request)


def sum(
    values: torch.Tensor, *, epsilon: float, bounds: Bounds | None = None, delta: float | None = None, request: str | None = None
) -> Any:
    """The sum of ``values`` (n,), each cut to ``bounds``; left out, they are estimated with a quarter of ``epsilon``."""
    return measure(values, Query("sum", epsilon, delta, _bounds(bounds)), request)


def mean(
    values: torch.Tensor, *, epsilon: float, bounds: Bounds | None = None, delta: float | None = None, request: str | None = None
) -> Any:
    """The mean of ``values`` (n,), each cut to ``bounds``; see `sum`."""
    return measure(values, Query("mean", epsilon, delta, _bounds(bounds)), request)


def variance(
    values: torch.Tensor, *, epsilon: float, bounds: Bounds | None = None, delta: float | None = None, request: str | None = None
) -> Any:
    """The variance (over n) of ``values`` (n,), each cut to ``bounds``; see `sum`."""
    return measure(values, Query("variance", epsilon, delta, _bounds(bounds)), request)


def histogram(
    values: torch.Tensor, *, epsilon: float, edges: Sequence[float] | torch.Tensor, delta: float | None = None, request: str | None = None
) -> Any:
    """How many of ``values`` (n,) lie in each bin between rising ``edges``, the last one included: (bins,) float64."""
    return measure(values, Query("histogram", epsilon, delta, grid=_floats("edges are rising numbers, one more than bins", edges)), request)


def quantile(
    values: torch.Tensor, q: float = 0.5, *, epsilon: float, bounds: Bounds | None = None, resolution: int = 1024,
    request: str | None = None,
) -> Any:  # fmt: skip
    """A value below which a share ``q`` of ``values`` (n,) lies: one of ``resolution`` + 1 even steps over ``bounds``. Pure epsilon."""
    grid = _pair("a probability and a resolution are numbers", (q, resolution))
    return measure(values, Query("quantile", epsilon, None, _bounds(bounds), grid), request)


@singledispatch
def mapped(
    rows: torch.Tensor, plan: Callable[..., Any], others: Sequence[torch.Tensor], terms: tuple[float, float], request: str | None
) -> Any:
    """What `map_sum` does where ``rows`` are."""
    raise ConfigurationError("map_sum is about rows at a worker: send() them, or load() them as a dataset there")


def map_sum(
    plan: Callable[..., Any], rows: torch.Tensor, *others: torch.Tensor, clip: float, noise_multiplier: float, request: str | None = None
) -> Any:
    """The noised sum of ``plan(row, *others)`` over ``rows``, at their owner. What the plan returns for a row, all of it together, is cut
    to the norm ``clip``; the noise is discrete Gaussian of ``noise_multiplier`` times that.

    ``plan``: a function or a `Plan` of one row (without the axis of rows) and ``others``, pointers to public values at the same worker.
    Pointers in the structure that it returns, float64.
    """
    return mapped(rows, plan, others, _pair("clip and noise_multiplier are numbers", (clip, noise_multiplier)), request)


@singledispatch
def budget(values: torch.Tensor) -> list[Standing]:
    """How the accounts of the datasets that ``values`` derives from stand: for everybody, and for you."""
    raise ConfigurationError("a budget is a worker's: ask with a pointer to its data")


def _bounds(given: Bounds | None) -> Bounds | None:
    return None if given is None else _pair("bounds are (low, high), two numbers", given)


def _pair(told: str, given: Any) -> tuple[float, float]:
    found = _floats(told, given)
    if len(found) != 2:
        raise ConfigurationError(f"{told}, not {given!r}")
    return found[0], found[1]


def _floats(told: str, given: Any) -> tuple[float, ...]:
    """The numbers in ``given``. ``told``: what they are, for the error if they are none."""
    try:
        return tuple(float(value) for value in given)
    except (TypeError, ValueError):
        raise ConfigurationError(f"{told}, not {given!r}") from None
