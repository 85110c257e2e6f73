"""Private answers about rows. Each mechanism is a few integer statistics, a share of the cost for each, and what is made of them.

    count       number of rows; of booleans, how many are True                          sensitivity m
    sum         sum of x, each within bounds                                            m max(|low|, |high|)
    mean        middle + sum(x - middle) / count                                        1/2 for each of the two
    variance    sum((x - middle)^2) / count - (mean - middle)^2                         1/3 for each of the three
    histogram   rows in each bin                                                        m
    quantile    an edge of the grid over bounds, by permute-and-flip (McKenna, Sheldon 2020), pure epsilon
    bounds      where they are not stated: a noised histogram of magnitudes, 1/4 of epsilon (Wilson et al. 2020)

One privacy unit, with at most m rows, comes or goes: that is what sensitivity is about. What a row contributes is cut to the bounds
first, so costs depend on what is declared, never on a value. A NaN counts as the bound nearest to zero (in `quantile`, the lower one).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

import torch

import syftlite.dp.exact as exact
from syftlite.dp.accountant import Event, noise_for, pure
from syftlite.dp.noise import Noise, Statistic, noised, step_for, variation
from syftlite.dp.refusals import is_number
from syftlite.errors import ConfigurationError

KINDS = ("count", "sum", "mean", "variance", "histogram", "quantile")
"""By their numbers on the wire."""
MAX_BINS = 1 << 16
BOUNDS_SHARE = 0.25
"""Of epsilon, for estimating bounds that are not stated."""
_EXPONENTS = range(-64, 65)
_FALSE_BOUNDS = 1e-3
"""The chance that noise alone makes an empty bin look occupied while bounds are estimated."""

Bounds = tuple[float, float]


@dataclass(frozen=True)
class Query:
    """What is asked: a mechanism, its cost, and what it needs to know.

    ``delta`` None: pure epsilon, Laplace noise; otherwise Gaussian noise that is (epsilon, delta)-DP by itself. ``grid``: a histogram's
    edges; a quantile's (probability, number of cells).
    """

    kind: str
    epsilon: float
    delta: float | None = None
    bounds: Bounds | None = None
    grid: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigurationError(f"there is no private {self.kind!r}: {', '.join(KINDS)} are known")
        pure(self.epsilon)
        if self.delta is not None and not (is_number(self.delta) and 0 < self.delta < 1):
            raise ConfigurationError(f"delta lies between 0 and 1, not {self.delta!r}: leave it out for pure epsilon")
        if self.bounds is not None:
            low, high = self.bounds
            if not (math.isfinite(low) and math.isfinite(high) and low <= high):
                raise ConfigurationError(f"bounds are (low, high), finite, not {self.bounds}")
        if self.kind == "histogram":
            _check_edges(self.grid)
        if self.kind == "quantile":
            _check_quantile(self)

    @property
    def noise(self) -> Noise:
        """The noise of the answer, after what bounds take."""
        epsilon = self.epsilon * (1 - BOUNDS_SHARE) if self.estimates else self.epsilon
        if self.delta is None or self.kind == "quantile":
            return Noise(epsilon)
        return Noise(epsilon, noise_for(epsilon, self.delta))

    @property
    def estimates(self) -> bool:
        """Whether bounds are estimated."""
        return self.bounds is None and self.kind in ("sum", "mean", "variance", "quantile")

    def cost(self) -> tuple[Event, ...]:
        """What the answer costs; the same whatever the data."""
        head = (pure(self.epsilon * BOUNDS_SHARE),) if self.estimates else ()
        parts = _PARTS.get(self.kind, 1)
        return (*head, self.noise.share(1 / parts).event.times(parts))

    def variation(self) -> float:
        """The total variation to charge for noise from tables."""
        drawn = [len(self.grid) - 1 if self.kind == "histogram" else 1, 2 * len(_EXPONENTS) + 1 if self.estimates else 0]
        return sum(map(variation, drawn))

    def check(self, values: torch.Tensor) -> None:
        """Raise `ConfigurationError` unless ``values`` are numbers, one a row."""
        if values.dim() != 1:
            shape = tuple(values.shape)
            raise ConfigurationError(f"a private {self.kind} is about one number a row, not values of shape {shape}: select a column")
        if values.is_complex():
            raise ConfigurationError(f"a private {self.kind} is about real numbers")

    def run(self, values: torch.Tensor, rows_per_unit: int = 1) -> torch.Tensor:
        """The noised answer about ``values``, (n,) numbers or booleans; float64.

        ``rows_per_unit``: the most rows that one privacy unit has.
        """
        self.check(values)
        if rows_per_unit < 1:
            raise ConfigurationError(f"a unit has at least one row, not {rows_per_unit}")
        query, noise = self, self.noise
        if self.estimates:
            query = replace(self, bounds=estimated_bounds(values, self.epsilon * BOUNDS_SHARE, rows_per_unit))
        if self.kind == "quantile":
            return _quantile(query, values, rows_per_unit, noise.epsilon)
        statistics = STATISTICS[self.kind](query, values, rows_per_unit)
        answers = [noised(statistic, noise.share(1 / len(statistics))) for statistic in statistics]
        return FINISH[self.kind](query, answers)


def _check_edges(edges: tuple[float, ...]) -> None:
    if not 2 <= len(edges) <= MAX_BINS + 1:
        raise ConfigurationError(f"a histogram has 1 to {MAX_BINS:,} bins, so 2 to {MAX_BINS + 1:,} edges, not {len(edges)}")
    if not all(map(math.isfinite, edges)) or any(a >= b for a, b in pairwise(edges)):
        raise ConfigurationError("a histogram's edges are finite and rise")


def _check_quantile(query: Query) -> None:
    if len(query.grid) != 2 or not 0 <= query.grid[0] <= 1:
        raise ConfigurationError(f"a quantile's probability lies in [0, 1], not {query.grid[:1]}")
    if not 1 <= query.grid[1] <= MAX_BINS or query.grid[1] != int(query.grid[1]):
        raise ConfigurationError(f"a quantile's resolution is a whole number from 1 to {MAX_BINS:,}, not {query.grid[1]}")
    if query.delta is not None:
        raise ConfigurationError("a quantile is pure epsilon: leave delta out")


# -- sums on a grid


class _Grid(NamedTuple):
    step: float
    most: int

    @classmethod
    def of(cls, largest: float) -> _Grid:
        step = step_for(largest)
        return cls(step, math.ceil(largest / step))

    def whole(self, values: torch.Tensor) -> torch.Tensor:
        """``values`` in steps, at most ``most`` of them either way, int64. A NaN is 0."""
        return torch.nan_to_num(values / self.step, nan=0.0).round().clamp(-self.most, self.most).long()


def _sum(values: torch.Tensor, largest: float, m: int) -> Statistic:
    grid = _Grid.of(largest)
    if grid.most * max(values.numel(), m) >= 1 << 60:
        raise ConfigurationError(f"{values.numel():,} rows are more than a sum of 60 bits takes")
    return Statistic(grid.whole(values).sum(), m * grid.most, grid.step)


def _counted(total: int, m: int) -> Statistic:
    return Statistic(torch.tensor(total), m, 1.0)


def _within(query: Query, values: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    assert query.bounds is not None
    low, high = query.bounds
    nearest = min(max(0.0, low), high)
    return torch.nan_to_num(values.double(), nan=nearest, posinf=high, neginf=low).clamp(low, high), low, high


StatisticsOf = Callable[[Query, torch.Tensor, int], list[Statistic]]
Finish = Callable[[Query, list[torch.Tensor]], torch.Tensor]
STATISTICS: dict[str, StatisticsOf] = {}
FINISH: dict[str, Finish] = {}
_PARTS = {"mean": 2, "variance": 3}


def _statistic(kind: str) -> Callable[[StatisticsOf], StatisticsOf]:
    def add(function: StatisticsOf) -> StatisticsOf:
        STATISTICS[kind] = function
        return function

    return add


def _finish(*kinds: str) -> Callable[[Finish], Finish]:
    def add(function: Finish) -> Finish:
        FINISH.update(dict.fromkeys(kinds, function))
        return function

    return add


@_statistic("count")
def _count(query: Query, values: torch.Tensor, m: int) -> list[Statistic]:
    return [_counted(int(values.sum()) if values.dtype == torch.bool else len(values), m)]


@_statistic("sum")
def _bounded_sum(query: Query, values: torch.Tensor, m: int) -> list[Statistic]:
    x, low, high = _within(query, values)
    return [_sum(x, max(abs(low), abs(high)), m)]


@_statistic("mean")
def _centred(query: Query, values: torch.Tensor, m: int) -> list[Statistic]:
    x, low, high = _within(query, values)
    return [_sum(x - (low + high) / 2, (high - low) / 2, m), _counted(len(values), m)]


@_statistic("variance")
def _squares(query: Query, values: torch.Tensor, m: int) -> list[Statistic]:
    x, low, high = _within(query, values)
    half = (high - low) / 2  # squares lie in [0, half^2]: centred, they contribute half as much
    return [*_centred(query, values, m), _sum((x - (low + high) / 2) ** 2 - half * half / 2, half * half / 2, m)]


@_statistic("histogram")
def _bins(query: Query, values: torch.Tensor, m: int) -> list[Statistic]:
    edges = torch.tensor(query.grid, dtype=torch.float64)
    x = values.double()
    place = torch.searchsorted(edges, x, right=True) - 1
    place[x == edges[-1]] = len(edges) - 2  # the last bin has both its edges
    inside = (place >= 0) & (place < len(edges) - 1) & ~x.isnan()
    return [Statistic(torch.bincount(place[inside], minlength=len(edges) - 1), m, 1.0)]


@_finish("count", "sum")
def _alone(query: Query, answers: list[torch.Tensor]) -> torch.Tensor:
    return answers[0]


@_finish("histogram")
def _all(query: Query, answers: list[torch.Tensor]) -> torch.Tensor:
    return answers[0]


@_finish("mean")
def _mean(query: Query, answers: list[torch.Tensor]) -> torch.Tensor:
    assert query.bounds is not None
    low, high = query.bounds
    return ((low + high) / 2 + answers[0] / answers[1].clamp(min=1)).clamp(low, high)


@_finish("variance")
def _variance(query: Query, answers: list[torch.Tensor]) -> torch.Tensor:
    assert query.bounds is not None
    half = (query.bounds[1] - query.bounds[0]) / 2
    count = answers[1].clamp(min=1)
    offset = (answers[0] / count).clamp(-half, half)
    return (answers[2] / count + half * half / 2 - offset**2).clamp(0, half * half)


# -- the exponential mechanism's better sister


def _quantile(query: Query, values: torch.Tensor, m: int, epsilon: float) -> torch.Tensor:
    """An edge of the grid: permute-and-flip over how far its rank is from p n; all in integers and coin flips (section 3 there)."""
    x, low, high = _within(query, values)
    if values.is_floating_point():
        x[values.isnan()] = low
    p, cells = Fraction(query.grid[0]).limit_denominator(10**6), int(query.grid[1])
    edges = low + (high - low) * torch.arange(cells + 1, dtype=torch.float64) / cells
    ranks = torch.searchsorted(torch.sort(x).values, edges, right=True).tolist()
    # utility -|rank - p n|, times p's denominator; one row moves it by at most max(p, 1 - p)
    utilities = [-abs(rank * p.denominator - p.numerator * len(x)) for rank in ranks]
    rate = Fraction(epsilon) / (2 * m * p.denominator * max(p, 1 - p))
    return edges[permute_and_flip(utilities, rate)]


def permute_and_flip(utilities: list[int], rate: Fraction) -> int:
    """An index, chosen by permute-and-flip: indices in random order, each taken with probability exp(rate (its utility - the best))."""
    bits, best = exact.sampler(), max(utilities)
    left = list(range(len(utilities)))
    while True:
        at = bits.below(len(left))
        left[at], left[-1] = left[-1], left[at]
        index = left.pop()
        if exact.bernoulli_exp(rate * (best - utilities[index]), bits):
            return index


# -- bounds


def estimated_bounds(values: torch.Tensor, epsilon: float, m: int) -> Bounds:
    """Bounds that most values lie within, of pure ``epsilon``: powers of two whose bins of magnitudes are, with noise, not empty.

    Raises `ConfigurationError` where no bin stands out; that too is decided by noised counts alone.
    """
    first, count = _EXPONENTS.start, len(_EXPONENTS)
    x = torch.nan_to_num(values.double(), nan=0.0, posinf=2.0**64, neginf=-(2.0**64))
    exponent = torch.frexp(x.abs()).exponent.clamp(first, first + count - 1).long() - first + 1
    place = count + x.sign().long() * torch.where(x == 0, 0, exponent)  # bin count: zero; above and below it, 2^(e-1) <= |x| < 2^e
    counts = noised(Statistic(torch.bincount(place, minlength=2 * count + 1), m, 1.0), Noise(epsilon))
    threshold = m / epsilon * math.log((2 * count + 1) / (2 * _FALSE_BOUNDS))
    occupied = (counts > threshold).nonzero().flatten().tolist()
    if not occupied:
        raise ConfigurationError("the values' bounds could not be estimated at this epsilon: state bounds=(low, high)")

    def edge(k: int, outer: int) -> float:
        if k == count:
            return 0.0
        exponent = abs(k - count) + first - 1
        sign = 1 if k > count else -1
        return sign * 2.0 ** (exponent if sign == outer else exponent - 1)

    return edge(occupied[0], -1), edge(occupied[-1], 1)
