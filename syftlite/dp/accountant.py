"""What mechanisms cost: Renyi differential privacy at fixed orders, and its conversion to (epsilon, delta).

    Gaussian, sigma per unit of sensitivity    rdp(a) = a / 2 sigma^2          Mironov 2017; discrete: Canonne, Kamath, Steinke 2020
    the same on a Poisson sample of rate q     rdp(a) = log A(a) / (a - 1)     Mironov, Talwar, Zhang 2019, section 3.3
    anything of pure epsilon e                 rdp(a) = log((sinh a e - sinh (a-1) e) / sinh e) / (a - 1)      Bun, Steinke 2016, 3.3

    to epsilon at delta, over orders a:
    mironov    rdp(a) + log(1/delta) / (a - 1)                                 Mironov 2017, proposition 3
    tight      rdp(a) + log1p(-1/a) - (log delta + log a) / (a - 1)            Canonne, Kamath, Steinke 2020, proposition 12

Costs add up, order by order. At integer orders a discrete Gaussian on a grid costs exactly what the continuous one does, sampled or not:
the moments that the formulas add up are those of shifts by whole grid steps. Between, the two differ by a factor within
1 +- exp(-2 pi^2 s^2), s the noise in grid steps: below 2^-100 from s = 2 on, and nothing here draws with less for a sample.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import torch

from syftlite.dp.refusals import is_number, is_whole
from syftlite.errors import ConfigurationError

ORDERS: tuple[float, ...] = (
    *(1 + x / 10 for x in range(1, 100)), *map(float, range(11, 64)), 80.0, 96.0, 128.0, 192.0, *(2.0**k for k in range(8, 18)),
)  # fmt: skip
"""Renyi orders at which costs are kept."""


class Event(NamedTuple):
    """One kind of noise, drawn for ``uses`` releases.

    ``kind``: "gaussian" (``noise``: standard deviation over sensitivity; ``rate``: the Poisson sample's), or "pure" (``noise``: epsilon).
    """

    kind: str
    noise: float
    rate: float = 1.0
    uses: int = 1

    def times(self, count: int) -> Event:
        """The event, ``count`` times as often."""
        return self._replace(uses=self.uses * _counted(count))


def gaussian(noise: float, rate: float = 1.0, uses: int = 1) -> Event:
    """Gaussian noise of ``noise`` times the sensitivity, on a Poisson sample of ``rate``."""
    if not (is_number(noise) and is_number(rate)) or not (noise > 0 and math.isfinite(noise)) or not 0 < rate <= 1:
        raise ConfigurationError(f"Gaussian noise needs a multiplier above 0 and a sampling rate in (0, 1], not {noise} and {rate}")
    return Event("gaussian", float(noise), float(rate), _counted(uses))


def pure(epsilon: float, uses: int = 1) -> Event:
    """A mechanism of pure ``epsilon``."""
    if not is_number(epsilon) or not 0 < epsilon < math.inf:
        raise ConfigurationError(f"epsilon is a number above 0, not {epsilon!r}")
    return Event("pure", float(epsilon), 1.0, _counted(uses))


def _counted(uses: int) -> int:
    if not is_whole(uses) or uses < 0:
        raise ConfigurationError(f"how often noise was drawn is a whole number, not {uses!r}")
    return int(uses)


def rdp(events: Iterable[Event]) -> torch.Tensor:
    """(orders,) float64: what ``events`` cost together at each of `ORDERS`."""
    total = torch.zeros(len(ORDERS), dtype=torch.float64)
    for event in filter(lambda event: event.uses, _events(events)):
        total += event.uses * torch.tensor(_curve(event.kind, event.noise, event.rate), dtype=torch.float64)
    return total


def _events(given: Any) -> Iterator[Event]:
    if isinstance(given, Event) or not isinstance(given, Iterable):
        raise ConfigurationError(f"costs are of a list of events, such as [gaussian(1.1, 0.01, 1000)], not of {given!r}")
    for event in given:
        if not isinstance(event, Event):
            raise ConfigurationError(f"costs are of events, such as gaussian(1.1, 0.01, 1000), not of {event!r}")
        _counted(event.uses)
        if event.kind in ("gaussian", "pure"):
            pure(event.noise) if event.kind == "pure" else gaussian(event.noise, event.rate)
        yield event


@lru_cache(maxsize=1024)
def _curve(kind: str, noise: float, rate: float) -> tuple[float, ...]:
    if kind == "pure":
        return tuple(_pure(noise, order) for order in ORDERS)
    if kind != "gaussian":
        raise ConfigurationError(f"there is no kind of noise {kind!r}: gaussian and pure are known")
    if noise < _NONE:
        return (math.inf,) * len(ORDERS)
    if rate == 1.0:
        return tuple(order / (2 * noise * noise) for order in ORDERS)
    between = [a for a in ORDERS if a != int(a)]
    moments = dict(zip(between, _log_moments_between(rate, noise, torch.tensor(between, dtype=torch.float64)).tolist(), strict=True))
    moments |= {a: _log_moment_whole(rate, noise, int(a)) for a in ORDERS if a == int(a)}
    return tuple(max(0.0, moments[a]) / (a - 1) for a in ORDERS)


def _pure(epsilon: float, order: float) -> float:
    if order * epsilon < _SMALL:  # a bound, and nearly it: what follows would be the difference of numbers that round alike
        return order * epsilon * epsilon / 2
    # sinh x - sinh y = 2 cosh((x+y)/2) sinh((x-y)/2), and sinh e = 2 sinh(e/2) cosh(e/2)
    return min(epsilon, (_log_cosh((2 * order - 1) * epsilon / 2) - _log_cosh(epsilon / 2)) / (order - 1))


def _log_cosh(x: float) -> float:
    return x + math.log1p(math.exp(-2 * x)) - math.log(2)


# -- the sampled Gaussian: log E over N(0, s^2) of ((1 - q) + q N(1, s^2) / N(0, s^2))^a


def _log_moment_whole(q: float, sigma: float, order: int) -> float:
    # sum over k of binom(a, k) (1-q)^(a-k) q^k exp((k^2 - k) / 2 s^2)
    k = torch.arange(order + 1, dtype=torch.float64)
    log_binom = math.lgamma(order + 1) - torch.lgamma(k + 1) - torch.lgamma(order - k + 1)
    terms = log_binom + k * math.log(q) + (order - k) * math.log1p(-q) + (k * k - k) / (2 * sigma**2)
    return float(torch.logsumexp(terms, 0))


_NONE = 1e-150
"""Noise whose square is no number above 0: it hides nothing."""
_SMALL = 1e-3
_LITTLE = 0.05
"""Noise below which the integral would take more points than it is worth: epsilon is in the hundreds there."""


def _log_moments_between(q: float, sigma: float, orders: torch.Tensor) -> torch.Tensor:
    """(orders,): the integral by the trapezoid rule. Its error is exp(-2 pi d / h): h the step, d = pi sigma^2 the distance from the real
    axis of the nearest singularity, where the sum is 0; and exp(-2 pi^2 sigma^2 / h^2) for the Gaussian factor. Both below 1e-60. With
    little noise a bound, by Minkowski's inequality: |(1 - q) + q r|_a <= (1 - q) + q |r|_a, |r|_a = exp((a - 1) / 2 s^2)."""
    if sigma < _LITTLE:
        return orders * torch.logaddexp(torch.tensor(math.log1p(-q), dtype=torch.float64), math.log(q) + (orders - 1) / (2 * sigma**2))
    h = sigma * min(1.0, sigma) / 8
    z = torch.arange(-40 * sigma, float(orders.max()) + 40 * sigma, h, dtype=torch.float64)
    mixture = torch.logaddexp(torch.tensor(math.log1p(-q), dtype=torch.float64), math.log(q) + (2 * z - 1) / (2 * sigma**2))
    density = -z * z / (2 * sigma**2) - math.log(sigma * math.sqrt(2 * math.pi)) + math.log(h)
    return torch.logsumexp(density + orders[:, None] * mixture, 1)


# -- conversion


def _checked(delta: float) -> float:
    if not is_number(delta) or not 0 < delta < 1:
        raise ConfigurationError(f"delta lies between 0 and 1, not {delta!r}: a value well below one over the number of people is usual")
    return delta


def mironov(curve: Sequence[float] | torch.Tensor, delta: float) -> float:
    """epsilon at ``delta`` of costs ``curve`` at `ORDERS`, as Mironov 2017 converts."""
    _checked(delta)
    return max(0.0, min(float(r) - math.log(delta) / (a - 1) for r, a in zip(_curved(curve), ORDERS, strict=True)))


def tight(curve: Sequence[float] | torch.Tensor, delta: float) -> float:
    """epsilon at ``delta`` of costs ``curve`` at `ORDERS`, as Canonne, Kamath and Steinke 2020 convert: the smaller one, equally proven."""
    return max(0.0, min(float(r) + offset for r, offset in zip(_curved(curve), offsets(_checked(delta)), strict=True)))


def _curved(curve: Any) -> Sequence[float] | torch.Tensor:
    if not isinstance(curve, (Sequence, torch.Tensor)) or len(curve) != len(ORDERS):
        raise ConfigurationError(f"costs are those that rdp(events) gives, one at each of {len(ORDERS)} orders, not {str(curve)[:60]!r}")
    return curve


@lru_cache(maxsize=64)
def offsets(delta: float) -> tuple[float, ...]:
    """What conversion to epsilon at ``delta`` adds to the cost at each order."""
    return tuple(math.log1p(-1 / a) - (math.log(delta) + math.log(a)) / (a - 1) for a in ORDERS)


def noise_for(epsilon: float, delta: float, rate: float = 1.0, count: int = 1) -> float:
    """The smallest noise multiplier with which ``count`` Gaussian releases on samples of ``rate`` are (epsilon, delta)-DP, to 1 in 10^4."""
    pure(epsilon), _checked(delta)
    if not is_whole(count) or count < 1:
        raise ConfigurationError(f"count is how many releases there are, at least 1, not {count!r}")

    def enough(noise: float) -> bool:
        return tight(rdp([gaussian(noise, rate, count)]), delta) <= epsilon

    high = 1.0
    while not enough(high):
        high *= 2
        if high > 1e9:
            raise ConfigurationError(f"no noise reaches epsilon {epsilon} at delta {delta}: ask for a larger epsilon")
    low = high / 2 if high > 1 else 1e-3
    while high / low > 1.0001:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
