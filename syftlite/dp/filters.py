"""Budgets for questions that depend on earlier answers: a Renyi filter (Feldman, Zrnic 2021; Lecuyer 2021).

    admitted while at some order a:   sum of rdp_i(a)  <=  B(a) = epsilon - offset_a(w_a delta)        offset of accountant.tight

For any way of choosing the i-th mechanism from the answers before it, M(a) = exp((a - 1) (loss - sum rdp_i(a))) is a supermartingale. With
a* the order that admits the last answer, (1 - exp(epsilon - loss))+ <= w_a* delta M(a*) (Canonne et al., proposition 12), so its mean is
at most delta times the sum of w_a E M(a) <= delta. One order has weight 1/2: the best one for Gaussian noise; one has 1/4: the best one for
steps on samples, which cost next to nothing up to some order, and so end at the first that has room; the others share the rest.
Where all are of pure epsilon and these add up to no more than the budget's, the loss never exceeds it, whatever the order of things:
what is admitted so adds nothing to that mean.
What is not Renyi (the error of noise tables, in total variation t) costs (1 + exp(epsilon)) t of delta, of which 1% is set aside.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import torch

from syftlite.dp.accountant import ORDERS, Event, offsets, rdp, tight
from syftlite.errors import ConfigurationError

_ASIDE = 0.01
_EVERY = 8
"""One order in so many takes part: fewer orders, larger shares of delta."""


@lru_cache(maxsize=64)
def limits(epsilon: float, delta: float) -> torch.Tensor:
    """(orders,) float64: B(a); minus infinity at orders that take no part."""
    if not 0 < epsilon < math.inf or not 0 < delta < 1:
        raise ConfigurationError(f"a budget is an epsilon above 0 and a delta between 0 and 1, not {epsilon} and {delta}")
    return _limits(torch.tensor([epsilon], dtype=torch.float64), delta)[0]


def _limits(epsilons: torch.Tensor, delta: float) -> torch.Tensor:
    """(epsilons, orders) float64: the `limits` of each."""
    a = torch.tensor(ORDERS, dtype=torch.float64)
    epsilon = epsilons.unsqueeze(1)
    best, first = _best(epsilon, a, delta), _first(epsilon, delta)
    others = (torch.arange(len(a)) % _EVERY == 0).repeat(len(epsilons), 1).scatter_(1, best, False).scatter_(1, first, False)
    weights = others.double() / others.sum(1, keepdim=True) * 0.25
    for order, weight in ((first, 0.25), (best, 0.5)):
        weights.scatter_add_(1, order, torch.full_like(epsilon, weight))
    return epsilon - torch.log1p(-1 / a) + (torch.log(weights * (1 - _ASIDE) * delta) + torch.log(a)) / (a - 1)


def _best(epsilon: torch.Tensor, a: torch.Tensor, delta: float) -> torch.Tensor:
    """The order at which B(a) / a is largest: where Gaussian noise, which costs a / 2 sigma^2, gets the most."""
    return ((epsilon - torch.tensor(offsets(delta / 2), dtype=torch.float64)) / a).argmax(1, keepdim=True)


def _first(epsilon: torch.Tensor, delta: float) -> torch.Tensor:
    """The first order with room for a sixth of epsilon; the last if none has."""
    enough = epsilon - torch.tensor(offsets(delta / 4), dtype=torch.float64) >= epsilon / 6
    enough[:, -1] = True
    return enough.int().argmax(1, keepdim=True)


class Spent:
    """What an account has been charged: a Renyi curve, a total variation, and the sum of its epsilons while all of it is pure."""

    __slots__ = ("curve", "pure", "variation")

    def __init__(self) -> None:
        self.curve = torch.zeros(len(ORDERS), dtype=torch.float64)
        self.variation = 0.0
        self.pure: Fraction | None = Fraction(0)

    def plus(self, events: tuple[Event, ...], variation: float) -> Spent:
        """After these too. Sums are rounded up."""
        after = Spent()
        after.curve = (self.curve + rdp(events)) * (1 + 2.0**-50)
        after.variation = self.variation + variation
        after.pure = None
        if self.pure is not None and all(event.kind == "pure" for event in events):
            after.pure = sum((Fraction(event.noise) * event.uses for event in events), self.pure)
        return after

    def admitted(self, epsilon: float, delta: float) -> bool:
        """Whether an account of (epsilon, delta) may come to this."""
        adds_up = self.pure is not None and self.pure <= Fraction(epsilon) and self._exact(epsilon, delta)
        return adds_up or self.fits(epsilon, delta)

    def _exact(self, epsilon: float, delta: float) -> bool:
        return epsilon <= self.exact_to(delta)

    def exact_to(self, delta: float) -> float:
        """The largest epsilon of an account at ``delta`` that the error of noise tables allows; below 0 where none does."""
        room = _ASIDE * delta - self.variation
        if room <= 0:
            return math.inf if not self.variation else -math.inf
        return math.log(room / self.variation) if self.variation else math.inf

    def fits(self, epsilon: float, delta: float) -> bool:
        """Whether its Renyi curve is within an account of (epsilon, delta)."""
        if not self._exact(epsilon, delta):
            return False
        return bool((self.curve <= limits(epsilon, delta)).any())

    def epsilon(self, delta: float) -> float:
        """What has been spent at ``delta``: the smallest account that it fits, to 1 in 1,000. 0 for nothing.

        From what conversion says on, which no filter is below, upwards: which orders have weight changes with the account, so that a
        larger one may have less room than a smaller one.
        """
        if not bool(self.curve.any()):
            return 0.0
        low = max(tight(self.curve, delta), 1e-6)
        while low < min(1e9, self.exact_to(delta)):
            accounts = low * 1.001 ** torch.arange(64, dtype=torch.float64)
            for account in accounts[(self.curve <= _limits(accounts, delta)).any(1)].tolist():
                if self.fits(account, delta):
                    return float(account)
            low = float(accounts[-1])
        return math.inf

    def least(self, delta: float) -> float:
        """The smallest account at ``delta`` that admits it: no more than the sum where all is pure."""
        added = float(self.pure) if self.pure is not None and self._exact(float(self.pure), delta) else math.inf
        return min(added, self.epsilon(delta))
