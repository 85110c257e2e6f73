"""Strategies: what a server makes of its clients' weights. w is the server's model, w_k client k's, n_k its rows, d = mean - w.

    linear, so that the mean is all they need (and all that secure aggregation shows)
      FedAvg       w <- sum n_k w_k / sum n_k                                        McMahan et al. 2017, algorithm 1
      FedProx      FedAvg; clients add (mu / 2) |w_k - w|^2 to their loss            Li et al. 2020, algorithm 2
      FedAvgM      v <- b v + d;  w <- w + eta v                                     Hsu et al. 2019, section 4.3
      FedAdagrad   v <- v + d^2                                                      Reddi et al. 2021, algorithm 2:
      FedYogi      v <- v - (1 - b2) d^2 sign(v - d^2)                                 m <- b1 m + (1 - b1) d
      FedAdam      v <- b2 v + (1 - b2) d^2                                            w <- w + eta m / (sqrt(v) + tau)
      Reptile      w <- w + eps d                                                    Nichol et al. 2018, algorithm 2
    robust, which need every client's weights
      Median       the coordinates' medians                                          Yin et al. 2018, definition 1
      TrimmedMean  the mean without the share of largest and smallest                Yin et al. 2018, definition 2
      Krum         the m clients nearest to their n - f - 2 nearest, averaged        Blanchard et al. 2017, section 4
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from numbers import Real
from typing import Any, NamedTuple, TypeVar

import torch

from syftlite.errors import ConfigurationError

Values = list[torch.Tensor]
S = TypeVar("S", bound="Strategy")


class Update(NamedTuple):
    """What one client has trained: its weights and buffers, and how many rows it learned from."""

    worker: str
    values: Values
    rows: int


class Strategy:
    """``step`` gives the server's next weights from its own and the clients' mean; a robust strategy overrides ``aggregate`` instead.
    ``state``: tensors that go into a checkpoint. ``least``: of how many clients it makes something."""

    least = 1
    linear = True
    proximal = 0.0
    _given: dict[str, Any]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """One that has an ``aggregate`` of its own is given every client's weights, unless it says that it is ``linear``."""
        super().__init_subclass__(**kwargs)
        if "aggregate" in vars(cls) and "linear" not in vars(cls):
            cls.linear = False

    def __new__(cls: type[S], *args: Any, **kwargs: Any) -> S:
        """Notes what it is made with."""
        made = super().__new__(cls)
        made._given = _settings(cls, args, kwargs)
        return made

    def __init__(self) -> None:
        self.state: dict[str, Values] = {}

    @property
    def form(self) -> str:
        """Its class and the numbers and texts that it was made with: what a checkpoint's has to be. Attributes may change."""
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self._given.items())})"

    def aggregate(self, current: Values, updates: Sequence[Update]) -> Values:
        """The server's next weights."""
        return self.step(current, weighted_mean(updates))

    def step(self, current: Values, mean: Values) -> Values:
        """The next weights from the clients' mean."""
        return mean

    def _kept(self, name: str, like: Values, value: float = 0.0) -> Values:
        if name not in self.state:
            self.state[name] = [torch.full_like(t, value, dtype=torch.float64) for t in like]
        return self.state[name]

    def __repr__(self) -> str:
        return self.form


def _settings(kind: type, args: Sequence[Any], kwargs: dict[str, Any]) -> dict[str, Any]:
    """The numbers and texts among the arguments of a constructor, defaults among them, by name."""
    try:
        bound = inspect.signature(kind.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
    except (TypeError, ValueError):
        return {}  # the constructor itself says what is wrong
    bound.apply_defaults()
    named = dict(list(bound.arguments.items())[1:])
    for name, parameter in bound.signature.parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            named |= named.pop(name, {})
    return {name: value for name, value in named.items() if value is None or isinstance(value, (bool, int, float, str))}


def weighted_mean(updates: Sequence[Update], weights: Sequence[float] | None = None) -> Values:
    """sum w_k x_k / sum w_k in float64; w_k is the number of rows if it is not given."""
    factors = [float(u.rows) for u in updates] if weights is None else list(weights)
    total = sum(factors)
    mean: Values = []
    for column in zip(*[u.values for u in updates], strict=True):
        summed = torch.zeros_like(column[0], dtype=torch.float64)
        for value, factor in zip(column, factors, strict=True):
            summed.add_(value, alpha=factor / total)
        mean.append(summed)
    return mean


class FedAvg(Strategy):
    """The mean, weighted by rows."""


class FedProx(Strategy):
    """As FedAvg; ``mu`` holds clients near the round's weights."""

    def __init__(self, mu: float = 0.01) -> None:
        super().__init__()
        _finite(mu=mu)
        _must(mu >= 0, "mu is at least 0", mu)
        self.proximal = self.mu = mu


class FedAvgM(Strategy):
    """Server momentum ``beta``, learning rate ``eta``."""

    def __init__(self, beta: float = 0.9, eta: float = 1.0) -> None:
        super().__init__()
        _finite(beta=beta, eta=eta)
        _must(0 <= beta < 1 and eta > 0, "beta is at least 0 and below 1, eta above 0", beta, eta)
        self.beta, self.eta = beta, eta

    def step(self, current: Values, mean: Values) -> Values:
        """See the module."""
        momentum = self._kept("momentum", current)
        for v, w, x in zip(momentum, current, mean, strict=True):
            v.mul_(self.beta).add_(x - w)
        return [w + self.eta * v for w, v in zip(current, momentum, strict=True)]


class _Adaptive(Strategy):
    """Reddi et al. 2021, algorithm 2. ``eta``: learning rate, ``beta1``, ``beta2``: decay of the moments, ``tau``: adaptivity."""

    def __init__(self, eta: float = 0.01, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> None:
        super().__init__()
        _finite(eta=eta, beta1=beta1, beta2=beta2, tau=tau)
        sound = eta > 0 and 0 <= beta1 < 1 and 0 <= beta2 < 1 and tau > 0
        _must(sound, "eta and tau are above 0, beta1 and beta2 at least 0 and below 1", eta, tau, beta1, beta2)
        self.eta, self.beta1, self.beta2, self.tau = eta, beta1, beta2, tau

    def step(self, current: Values, mean: Values) -> Values:
        """See the module."""
        first, second = self._kept("first", current), self._kept("second", current, self.tau**2)
        made: Values = []
        for m, v, w, x in zip(first, second, current, mean, strict=True):
            d = x - w
            m.mul_(self.beta1).add_(d, alpha=1 - self.beta1)
            self._second(v, d * d)
            made.append(w + self.eta * m / (v.sqrt() + self.tau))
        return made

    def _second(self, v: torch.Tensor, squared: torch.Tensor) -> None:
        raise NotImplementedError


class FedAdagrad(_Adaptive):
    """Sums of squares."""

    def _second(self, v: torch.Tensor, squared: torch.Tensor) -> None:
        v.add_(squared)


class FedYogi(_Adaptive):
    """Squares that change slowly."""

    def _second(self, v: torch.Tensor, squared: torch.Tensor) -> None:
        v.sub_((1 - self.beta2) * squared * (v - squared).sign())


class FedAdam(_Adaptive):
    """Decaying means of squares."""

    def _second(self, v: torch.Tensor, squared: torch.Tensor) -> None:
        v.mul_(self.beta2).add_(squared, alpha=1 - self.beta2)


class Reptile(Strategy):
    """A step ``epsilon`` of the way to the clients' mean: linear in it, so it works unchanged over secure aggregation."""

    def __init__(self, epsilon: float = 0.5) -> None:
        super().__init__()
        _finite(epsilon=epsilon)
        _must(epsilon > 0, "epsilon is above 0", epsilon)
        self.epsilon = epsilon

    def step(self, current: Values, mean: Values) -> Values:
        """See the module."""
        return [w + self.epsilon * (x - w) for w, x in zip(current, mean, strict=True)]


class Median(Strategy):
    """Right while fewer than half of the clients lie."""

    linear = False

    def aggregate(self, current: Values, updates: Sequence[Update]) -> Values:
        """Coordinate by coordinate; of an even number, the mean of the middle two."""
        return [_stack(column).quantile(0.5, dim=0) for column in zip(*[u.values for u in updates], strict=True)]


class TrimmedMean(Strategy):
    """The mean of what is left when the share ``trim`` of the largest and of the smallest values is gone; ``trim`` < 0.5."""

    linear = False

    def __init__(self, trim: float = 0.1) -> None:
        super().__init__()
        _finite(trim=trim)
        _must(0 <= trim < 0.5, "trim is at least 0 and below 0.5", trim)
        self.trim = trim

    def aggregate(self, current: Values, updates: Sequence[Update]) -> Values:
        """See the module."""
        cut = int(round(self.trim * len(updates), 9))
        ordered = [_stack(column).sort(dim=0).values for column in zip(*[u.values for u in updates], strict=True)]
        return [values[cut : len(updates) - cut].mean(0) for values in ordered]


class Krum(Strategy):
    """``byzantine`` clients may lie: f < (n - 2) / 2; ``keep`` of those nearest to others are averaged (Multi-Krum), 1 for Krum itself."""

    linear = False

    def __init__(self, byzantine: int, keep: int = 1) -> None:
        super().__init__()
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in (byzantine, keep))
        _must(whole and byzantine >= 0 and keep >= 1, "byzantine is at least 0, keep at least 1, and both are whole", byzantine, keep)
        self.byzantine, self.keep = byzantine, keep
        self.least = max(2 * byzantine + 3, byzantine + keep)

    def aggregate(self, current: Values, updates: Sequence[Update]) -> Values:
        """See the module. Raises `ConfigurationError` for too few clients."""
        near = len(updates) - self.byzantine - 2
        needed = 2 * self.byzantine + 2
        if needed >= len(updates):
            raise ConfigurationError(f"Krum with {self.byzantine} that lie needs more than {needed} clients, not {len(updates)}")
        if self.keep > near + 2:
            raise ConfigurationError(f"Krum that keeps {self.keep} needs {self.keep + self.byzantine} clients, not {len(updates)}")
        moved = [torch.cat([(v.double() - w).reshape(-1) for v, w in zip(u.values, current, strict=True)]) for u in updates]
        flat = torch.stack(moved)  # from where they began: differences of what has moved little would cancel
        scores = torch.cdist(flat, flat).pow(2).sort(dim=1).values[:, 1 : near + 1].sum(1)
        chosen = scores.argsort()[: self.keep].tolist()
        return weighted_mean([updates[i] for i in chosen], [1.0] * len(chosen))


def _finite(**given: Any) -> None:
    for name, value in given.items():
        if type(value) is bool or not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigurationError(f"{name} is a finite number, not {value!r}")


def _must(sound: bool, told: str, *given: float) -> None:
    if not sound:
        raise ConfigurationError(f"{told}: got {', '.join(map(str, given))}")


def _stack(column: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([value.double() for value in column])
