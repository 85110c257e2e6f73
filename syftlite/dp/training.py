"""DP-SGD: each step's gradients are clipped example by example, summed and noised (Abadi et al. 2016).

    rows --Poisson sample of rate q--> clipped sums (clipping.py) --/ step, rounded, + discrete Gaussian--> / batch --> p.grad

Sums come in floating point, so two neighbouring sums on the grid differ by at most

    clip / step  +  sqrt(d)  +  rounding          sqrt(d): each of d coordinates is rounded, by 1 / 2 and 1 / 2
                                                   rounding: n terms summed in single precision, n^2 2^-24 clip; n: most rows of a batch

and the noise is ``noise_multiplier`` times that. With the step at clip / 2^16 both together add 1 to 3% for some 10^5 parameters.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import singledispatch
from typing import Any

import torch

import syftlite.dp.accountant as accountant
from syftlite.dp.accountant import Event
from syftlite.dp.clipping import Clipper
from syftlite.dp.gaussians import NARROW
from syftlite.dp.noise import gaussian_integers, step_for, variation
from syftlite.dp.refusals import is_number
from syftlite.dp.sizes import check_clip
from syftlite.errors import ConfigurationError
from syftlite.randomness import random_like

Loss = Callable[..., torch.Tensor]
NOTHING = 40.0
"""An epsilon beyond which no delta helps."""


def most_rows(batch: float) -> int:
    """How many rows a Poisson sample of ``batch`` expected ones may have; what is beyond is left out (less often than 1 in 10^12)."""
    return math.ceil(batch + 8 * math.sqrt(batch)) + 64


def sample(count: int, rate: float) -> torch.Tensor:
    """Indices of a Poisson sample: each of ``count`` with probability ``rate``, by secret coins of 63 bits."""
    if rate >= 1:
        return torch.arange(count)
    return ((random_like((count,)) & ((1 << 63) - 1)) < int(rate * 2**63)).nonzero().flatten()


def noised_sums(
    sums: Sequence[torch.Tensor], clip: float, noise_multiplier: float, rows: int, over: float = 1.0
) -> list[torch.Tensor]:
    """``sums`` of at most ``rows`` contributions of norm ``clip``, with discrete Gaussian noise: multiples of a step, divided by ``over``.
    In their place."""
    step, sizes = step_for(clip), [s.numel() for s in sums]
    sensitivity = math.ceil(clip / step * (1 + rows * rows * 2.0**-24) + math.sqrt(sum(sizes)))
    # whole numbers, both exact here; their sum is rounded once, after the noise: that depends on nothing else
    short = noise_multiplier * sensitivity < NARROW and all(s.dtype != torch.float64 for s in sums)
    dtype = torch.float32 if short else torch.float64
    noise = gaussian_integers(Fraction(noise_multiplier) * sensitivity, sum(sizes), torch.float32 if short else torch.int32).to(dtype)
    noised = []
    for drawn, part in zip(noise.split(sizes), sums, strict=True):
        whole = (part if part.dtype is dtype else part.to(dtype)).mul_(1 / step).round_().nan_to_num_(0.0)
        made = whole.add_(drawn.view_as(part)).mul_(step / over)
        noised.append(made if part.dtype is dtype else made.to(part.dtype))
    return noised


@singledispatch
def gradients(first: torch.Tensor, optimizer: DPOptimizer, loss: Loss, data: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Noised sums of clipped gradients of ``loss`` on a sample of ``data``, whose first tensor is ``first``, over the sample's expected
    size: this is the local way."""
    count = first.shape[0]
    rate = optimizer.rate(count)
    rows = most_rows(rate * count)
    if rate < 1:
        chosen = sample(count, rate)[:rows]
        count, data = len(chosen), [d[chosen] for d in data]
    if count:
        sums, _ = optimizer.clipper.sums(loss, data, optimizer.l2_norm_clip)
    else:
        sums = [torch.zeros_like(p) for p in optimizer.parameters]
    return noised_sums(sums, optimizer.l2_norm_clip, optimizer.noise_multiplier, rows, rate * first.shape[0])


class DPOptimizer:
    """Any torch optimizer, fed with private gradients. On a local model and data, or both at a worker (then the worker's owner samples,
    clips, draws the noise and keeps the account).

        optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.15), l2_norm_clip=1.0, noise_multiplier=1.1, batch_size=256)
        optimizer.step(lambda x, y: F.cross_entropy(model(x), y), images, labels)          # all rows: it samples by itself
        optimizer.epsilon(1e-5)

    A learning rate's schedule is the wrapped optimizer's: ``StepLR(optimizer.optimizer, 10)``.

    ``batch_size``: the expected size of a step's Poisson sample; None takes every row every time. ``l2_norm_clip``: the largest norm of one
    example's gradient. ``noise_multiplier``: noise over clip.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, *, l2_norm_clip: float, noise_multiplier: float, batch_size: float | None = None
    ) -> None:
        _must_step(optimizer)
        given = [("l2_norm_clip", l2_norm_clip), ("noise_multiplier", noise_multiplier), ("batch_size", batch_size or 1)]
        if odd := [f"{name}={value!r}" for name, value in given if not is_number(value)]:
            raise ConfigurationError(f"{', '.join(odd)}: l2_norm_clip, noise_multiplier and batch_size are numbers")
        if not 0 < l2_norm_clip < math.inf or not 0 < noise_multiplier < math.inf:
            raise ConfigurationError(f"l2_norm_clip and noise_multiplier are numbers above 0, not {l2_norm_clip} and {noise_multiplier}")
        if batch_size is not None and not batch_size >= 1:
            raise ConfigurationError(f"batch_size is the expected number of rows of a step, at least 1, not {batch_size}")
        check_clip(l2_norm_clip)
        self.optimizer, self.l2_norm_clip, self.noise_multiplier, self.batch_size = optimizer, l2_norm_clip, noise_multiplier, batch_size
        self.parameters = self._trained()
        self.clipper = Clipper(self.parameters)
        self.events: dict[Event, int] = {}
        self.recorded: dict[Any, Any] = {}  # plans of losses, by their code (questions.py)

    def _trained(self) -> list[torch.Tensor]:
        return [p for group in self.optimizer.param_groups for p in group["params"] if p.requires_grad]

    def _follow(self) -> None:
        """Have the parameters that are trained now: others may have been frozen, or added to the optimizer. A frozen one loses its last
        gradient, by which the optimizer would go on moving it."""
        now = self._trained()
        if list(map(id, now)) != list(map(id, self.parameters)):
            for parameter in self.parameters:
                if not parameter.requires_grad:
                    parameter.grad = None
            self.parameters, self.clipper = now, Clipper(now)

    def rate(self, count: int) -> float:
        """The sampling rate with ``count`` rows."""
        return 1.0 if self.batch_size is None else min(1.0, self.batch_size / count)

    def step(self, loss: Loss, *data: torch.Tensor) -> None:
        """One step. ``loss(*example)``: a number, from batches of one row of each of ``data``, tensors with a row an example."""
        if not callable(loss):
            raise ConfigurationError(f"the loss is a function, such as lambda x, y: F.mse_loss(model(x), y), not {str(loss)[:60]!r}")
        if kinds := {type(d).__name__ for d in data if not isinstance(d, torch.Tensor)}:
            raise ConfigurationError(f"step(loss, *data) takes tensors, not {', '.join(sorted(kinds))}: torch.as_tensor(...)")
        if not data or any(d.dim() == 0 or d.shape[0] != data[0].shape[0] or not d.shape[0] for d in data):
            raise ConfigurationError(f"step(loss, *data) takes tensors with a row for each example, got {[tuple(d.shape) for d in data]}")
        self._follow()
        rate = self.rate(data[0].shape[0])
        event = accountant.gaussian(self.noise_multiplier, rate)
        self.events[event] = self.events.get(event, 0) + 1
        for parameter, noised in zip(self.parameters, gradients(data[0], self, loss, data), strict=True):
            parameter.grad = noised
        self.optimizer.step()
        torch.clear_autocast_cache()  # it has the weights from before

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The wrapped optimizer's, with their learning rates."""
        return self.optimizer.param_groups

    def state_dict(self) -> dict[str, Any]:
        """The wrapped optimizer's state, and the steps so far, so that `epsilon` goes on counting."""
        return {"optimizer": self.optimizer.state_dict(), "events": [(*event, count) for event, count in self.events.items()]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave. Steps that this optimizer has done itself stay counted."""
        if not isinstance(state, dict) or not {"optimizer", "events"} <= state.keys():
            raise ConfigurationError("this is no state_dict() of a DPOptimizer: the wrapped one's alone goes to optimizer.load_state_dict")
        self.optimizer.load_state_dict(state["optimizer"])
        for *event, count in state["events"]:
            known = Event(*event)
            self.events[known] = self.events.get(known, 0) + count

    def zero_grad(self) -> None:
        """Forget the gradients. A step does not need it."""
        self.optimizer.zero_grad()

    def epsilon(self, delta: float, *, conversion: str = "tight") -> float:
        """What the steps so far cost at ``delta``, planned ahead: by the "tight" conversion, or by "mironov", that of older papers.
        Infinity where so little noise promises nothing: beyond `NOTHING`, as soon as the noise tables' error counts."""
        convert = {"tight": accountant.tight, "mironov": accountant.mironov}.get(conversion)
        if convert is None:
            raise ConfigurationError(f'conversion is "tight" or "mironov", not {conversion!r}')
        convert(accountant.rdp([]), delta)  # which says what is no delta
        if not self.events:
            return 0.0
        curve = accountant.rdp(event.times(n) for event, n in self.events.items())
        values = sum(p.numel() for p in self.parameters) * sum(self.events.values())
        found = convert(curve, delta * (1 - 2.0**-10))
        if (1 + math.exp(min(found, NOTHING))) * variation(values) > delta * 2.0**-10:
            raise ConfigurationError(f"delta {delta} is below what the noise tables are exact to for {values:,} values: take a larger one")
        return found if (1 + math.exp(min(found, 700.0))) * variation(values) <= delta * 2.0**-10 else math.inf


def _must_step(optimizer: Any) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        told = "torch.optim.SGD(model.parameters(), lr=0.1)"
        raise ConfigurationError(f"a DPOptimizer is around a torch optimizer, such as {told}, not {type(optimizer).__name__}")
    closure = inspect.signature(inspect.unwrap(type(optimizer).step)).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        told = "looks at the loss more than once a step, and a private step is one: take another"
        raise ConfigurationError(f"{type(optimizer).__name__} {told}")


def private_step(
    optimizer: torch.optim.Optimizer, loss: Loss, *data: torch.Tensor, l2_norm_clip: float, noise_multiplier: float,
    batch_size: float | None = None,
) -> Event:  # fmt: skip
    """One step of a `DPOptimizer` around ``optimizer``: arguments as of its constructor and its `step`. Returns what it costs: of several,
    ``tight(rdp(events), delta)`` is the epsilon. In a loop a `DPOptimizer` is faster, and keeps count itself."""
    private = DPOptimizer(optimizer, l2_norm_clip=l2_norm_clip, noise_multiplier=noise_multiplier, batch_size=batch_size)
    private.step(loss, *data)
    (event,) = private.events
    return event
