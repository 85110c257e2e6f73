"""Which of a model's tensors take which part in a round, in the order of its parameters, then its buffers.

    weights       floating parameters that are trained    clients train them; strategies step, clips cut and noise covers them
    statistics    floating buffers, such as running means  the clients' weighted mean; with noise on the sum they stay as they were
    counts        buffers of integers and booleans         the first client's; where updates are hidden they stay as they were
    all others    parameters that are frozen, or that no optimizer has; buffers that begin with infinity or NaN, such as masks: they stay

Statistics that nobody has changed stay to the bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from syftlite._torch import lendable
from syftlite.errors import AggregationError, ConfigurationError
from syftlite.federated.strategies import Values


class Layout:
    """Of ``model``: places among its tensors. ``stepped``: of its parameters, which ones clients' optimizers have, if not all."""

    def __init__(self, model: nn.Module, stepped: Sequence[bool] | None = None) -> None:
        self.model = model
        parameters, buffers = list(model.parameters()), list(model.buffers())
        if any(p.requires_grad and not p.is_floating_point() for p in parameters):
            raise ConfigurationError("rounds train real numbers: a model with complex parameters is to hold their real and imaginary parts")
        if stepped is None or len(stepped) != len(parameters):
            stepped = [True] * len(parameters)
        self.weights = [at for at, p in enumerate(parameters) if p.requires_grad and stepped[at]]
        if not self.weights:
            raise ConfigurationError("the model has no parameters that are trained (requires_grad)")
        placed = list(enumerate(buffers, len(parameters)))
        self.statistics = [at for at, b in placed if b.is_floating_point() and bool(b.isfinite().all())]
        self.counts = [at for at, b in placed if not b.is_floating_point() and not b.is_complex()]
        self.tensors: list[torch.Tensor] = [*parameters, *buffers]

    def must_be_like(self, values: Sequence[torch.Tensor], places: Sequence[int]) -> None:
        """Raise `AggregationError` unless ``values``, which a client gave, may stand for the tensors at ``places``."""
        forms = [(tuple(value.shape), value.is_floating_point(), value.is_complex()) for value in values]
        wanted = [(tuple(self.tensors[at].shape), self.tensors[at].is_floating_point(), False) for at in places]
        if forms != wanted:
            odd = next((f": {list(made[0])} for {list(w[0])}" for made, w in zip(forms, wanted, strict=False) if made != w), "")
            raise AggregationError(f"it gave {len(forms)} tensors for {len(wanted)}, and not all of the model's shapes and kinds{odd}")

    def snapshot(self) -> Values:
        """All tensors as they are now. Clients in this process copy them when they write."""
        return [lendable(t) for t in self.tensors]

    def restore(self, values: Sequence[torch.Tensor]) -> None:
        """Give all tensors the values of a `snapshot`."""
        with torch.no_grad():
            for tensor, value in zip(self.tensors, values, strict=True):
                if not torch.equal(tensor, value):
                    tensor.copy_(value)

    def write(
        self, weights: Sequence[torch.Tensor], statistics: Sequence[torch.Tensor], counts: Sequence[torch.Tensor], by: object = "the mean"
    ) -> None:
        """Give the model new values, in the order of the places. ``statistics`` and ``counts`` may be left out. Raises `AggregationError`,
        before anything is written, if the ``weights`` or ``statistics`` that ``by`` made are others than these."""
        weights, statistics = list(weights), list(statistics)
        self._must_be(weights, self.weights, by)
        if statistics:
            self._must_be(statistics, self.statistics, by)
        with torch.no_grad():
            for at, value in zip(self.weights, weights, strict=True):
                self.tensors[at].copy_(value)
            for at, value in [*zip(self.statistics, statistics, strict=False), *zip(self.counts, counts, strict=False)]:
                if not torch.equal(self.tensors[at], value := value.to(self.tensors[at].dtype)):
                    self.tensors[at].copy_(value)  # one that is expanded cannot be written, and does not change

    def _must_be(self, values: Sequence[Any], places: Sequence[int], by: object) -> None:
        wanted = [list(self.tensors[at].shape) for at in places]
        made = [list(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__ for value in values]
        if made != wanted:
            odd = next((f", among them {m} where {w} is wanted" for m, w in zip(made, wanted, strict=False) if m != w), "")
            raise AggregationError(f"{by} gave {len(made)} values for {len(wanted)} tensors{odd}. The model stays as it was")


def statistical(model: nn.Module) -> list[str]:
    """The names of layers that keep statistics of the data, such as batch norm."""
    return [name for name, layer in model.named_modules() if getattr(layer, "running_mean", None) is not None]


def picked(values: Sequence[torch.Tensor], places: Sequence[int]) -> list[torch.Tensor]:
    """Those of ``values`` that are at ``places``."""
    return [values[at] for at in places]


def must_be_finite(values: Sequence[torch.Tensor]) -> None:
    """Raises `AggregationError` if a value is NaN or infinite."""
    for value in values:
        if not torch.isfinite(value.sum()) and not value.isfinite().all():  # a sum is one fast pass; it may overflow by itself
            raise AggregationError("its weights have NaN or infinity: train with a lower learning rate, or look at its rows")
