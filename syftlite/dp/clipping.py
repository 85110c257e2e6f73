"""Gradients of each example, clipped, and their sum, from one forward and one backward.

    loss(example) --vmap--> losses (examples,)        an example sees itself alone, whatever the function does; unmapped where all that
                                                     it calls keeps rows apart (rowwise.py)
      each layer's x and out come along              book-keeping: norms from x and the gradient of out (layers.py)
      a parameter used in another way                is copied for each example: its gradients are what autograd gives
    c_i = min(1, clip / |gradient_i|)                over all parameters together
    sums = sum_i c_i gradient_i

An example whose gradient is not finite counts as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import syftlite.dp.rowwise as rowwise
from syftlite._recurrent import by_layers
from syftlite._surroundings import as_elsewhere
from syftlite._torch import aten, decomposition, tree_flatten
from syftlite.dp.layers import RULES, Use, cross_entropy
from syftlite.dp.refusals import must_be_number, must_map, told_of_maps
from syftlite.dp.sizes import LEAST, Norms, size, together
from syftlite.errors import ConfigurationError

MARGIN = 1 - 2.0**-12
"""Norms are computed in single precision: what is clipped is clipped by so much more, beyond what sizes.py allows for."""
RECURRENT: dict[Any, Any] = {
    torch.lstm: aten.lstm.input, torch.gru: aten.gru.input, torch.rnn_tanh: aten.rnn_tanh.input, torch.rnn_relu: aten.rnn_relu.input,
}  # fmt: skip
"""Kernels over a sequence, which no map knows: each as the products of matrices that it stands for."""
_DIFFERENTIATED = torch.zeros((), requires_grad=True)
"""Added to a sequence: of one that nobody differentiates by torch makes a fused kernel again."""
MIXING = frozenset({torch.batch_norm, torch.nn.functional.batch_norm})


class Taps(TorchFunctionMode):
    """Inside the map: notes each use of a parameter. ``copies``: for parameters (by place) that are copied for each example."""

    maps = True

    def __init__(self, places: dict[int, int], copies: dict[int, torch.Tensor], apart: bool) -> None:
        super().__init__()
        self.places, self.copies, self.apart = places, copies, apart
        self.uses: list[Use] = []
        self.inputs: list[torch.Tensor] = []
        self.outputs: list[torch.Tensor] = []
        self.missed: set[int] = set()
        self._turned: dict[int, tuple[int, torch.Tensor, torch.Tensor]] = {}
        self.written = False

    def place(self, value: Any) -> int | None:
        """The place of ``value`` among the parameters that are tapped."""
        place = self.places.get(id(value))
        return None if place in self.copies else place

    def turned(self, value: Any) -> tuple[int, torch.Tensor] | None:
        """The place of, and, the parameter that ``value`` is the transpose of."""
        known = self._turned.get(id(value))
        return None if known is None else known[:2]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        derives = torch.is_grad_enabled()
        rule = RULES.get(func) if derives else None
        if rule is not None and (applied := rule(self, *args, **kwargs)) is not None:
            use, x, out = applied
            self.uses.append(use)
            self.inputs.append(x)
            self.outputs.append(out)
            return out.clone() if self.apart else out
        if func is F.cross_entropy and (loss := cross_entropy(*args, **kwargs)) is not None:
            return loss
        if func in MIXING and (kwargs.get("training") or (len(args) > 5 and args[5] is True)):
            raise ConfigurationError("batch norm mixes examples, so no example has a gradient of its own: use LayerNorm or GroupNorm")
        must_map(func, args, kwargs, self.places)
        if func is aten.t.default and (place := self.place(args[0])) is not None:
            out = func(*args)
            self._turned[id(out)] = (place, args[0], out)  # with the value itself, so that its id stays its own
            return out
        self._check_written(func, args, kwargs)
        for value in args:
            if (known := self._turned.get(id(value))) is not None:
                self.missed.add(known[0])
        args, kwargs, met = self._substituted(args, kwargs)
        if func in RECURRENT:
            if not isinstance(args[3], bool):
                raise ConfigurationError("a packed sequence has rows of several examples: pad them, and give a row for each example")
            parts = decomposition(RECURRENT[func])
            assert parts is not None
            func = partial(by_layers, parts)
            args = (args[0] + _DIFFERENTIATED, *args[1:])
        result = func(*args, **kwargs)
        if derives and met and any(isinstance(r, torch.Tensor) for r in tree_flatten(result)[0]):
            self.missed |= met
        return result

    def _check_written(self, func: Any, args: Any, kwargs: Any) -> None:
        name = getattr(func, "__name__", "")
        if args and (kwargs.get("inplace") or (name.endswith("_") and not name.endswith("__"))):
            self.written = self.written or any(args[0] is out for out in self.outputs)

    def _substituted(self, args: Any, kwargs: Any) -> tuple[Any, Any, set[int]]:
        met: set[int] = set()

        def replaced(value: Any) -> Any:
            if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value):
                return type(value)([replaced(v) for v in value])
            place = self.places.get(id(value))
            if place is None:
                return value
            if place in self.copies:
                return self.copies[place]
            met.add(place)
            return value

        return tuple([replaced(a) for a in args]), {k: replaced(v) for k, v in kwargs.items()}, met


class Clipper:
    """Clipped sums of the gradients of ``parameters``. What a first run finds about their use is kept."""

    def __init__(self, parameters: Sequence[torch.Tensor]) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ConfigurationError("there are no parameters to take gradients of")
        if rough := {str(p.dtype).removeprefix("torch.") for p in self.parameters} - {"float32", "float64"}:
            told = f"parameters in {', '.join(sorted(rough))}: sums of clipped gradients would be further apart than the noise is made for"
            raise ConfigurationError(f"{told}: model.float() has 32 bits")
        self._copied: set[int] = set()
        self._apart = False
        self._mapped = False

    def sums(
        self, loss: Callable[..., torch.Tensor], data: Sequence[torch.Tensor], clip: float, without: Sequence[int] = ()
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """(sum of clipped gradients of each parameter, (examples,) norms) of ``loss(*example)``, a number.

        ``data``: tensors (examples, ...); a loss is given batches of one, (1, ...). The examples at ``without`` count as zero.
        """
        if not self._mapped:
            try:
                places = {id(p): k for k, p in enumerate(self.parameters)}
                return self._clipped(*rowwise.run(loss, _rows(data), places), {}, clip, without)
            except rowwise.Mixed:
                self._mapped = True
        while True:
            taps = self._run(loss, data)
            if taps is not None:
                losses, uses, copies = taps
                return self._clipped(losses, uses, copies, clip, without)

    def _run(self, loss: Callable[..., torch.Tensor], data: Sequence[torch.Tensor]) -> Any:
        groups = [row.unsqueeze(1) for row in _rows(data)]
        places = {id(p): k for k, p in enumerate(self.parameters)}
        order = sorted(self._copied)
        copies = [self.parameters[k].detach().expand(len(groups[0]), *self.parameters[k].shape).requires_grad_() for k in order]
        kept: list[Taps] = []

        def one(*own: torch.Tensor) -> tuple[torch.Tensor, ...]:
            with Taps(places, dict(zip(order, own[len(groups) :], strict=True)), self._apart) as taps:
                value = loss(*own[: len(groups)])
            kept[:] = [taps]
            must_be_number(value)
            return value.reshape(()), *taps.inputs, *taps.outputs

        with torch.enable_grad(), told_of_maps():
            losses, *met = torch.vmap(one, randomness="different")(*groups, *copies)
        taps = kept[0]
        if not taps.missed <= self._copied or taps.written > self._apart:
            self._copied |= taps.missed
            self._apart = self._apart or taps.written
            return None
        for use, x, out in zip(taps.uses, met, met[len(taps.uses) :], strict=False):
            use.x, use.out = x.detach(), out
        return losses, taps.uses, dict(zip(order, copies, strict=True))

    def _clipped(
        self, losses: torch.Tensor, uses: list[Use], copies: dict[int, torch.Tensor], clip: float, without: Sequence[int]
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        wanted = [use.out for use in uses] + list(copies.values())
        if not losses.requires_grad:
            raise ConfigurationError("the loss does not depend on the parameters")
        with torch.enable_grad():
            total = losses.sum()
        with as_elsewhere(), torch.no_grad(), np.errstate(all="ignore"):
            grads = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)
            of_uses = [use.grown(grad) for use, grad in zip(uses, grads, strict=False)]
            parts = _parts(uses, of_uses, dict(zip(copies, grads[len(uses) :], strict=True)))
            norms = together([part.norms for part in parts])
            factors = np.minimum(MARGIN * clip / norms, 1.0)
            factors[factors < np.finfo(np.float32).tiny] = 0.0
            if without or not np.isfinite(norms).all():
                bad = ~np.isfinite(norms)
                bad[list(without)] = True
                factors[bad] = 0.0
                for part in parts:
                    part.silence(torch.from_numpy(bad))
            weights = torch.from_numpy(factors)
            sums: dict[int, torch.Tensor] = {}
            for part in parts:
                sums.update(part.weighted(weights))
            norms[norms < LEAST] = 0.0  # nothing but what may not have been seen
            found = [sums[k] if k in sums else torch.zeros_like(p) for k, p in enumerate(self.parameters)]
            return found, torch.from_numpy(norms).to(self.parameters[0])


def _rows(data: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    if not data or any(d.dim() == 0 or d.shape[0] != data[0].shape[0] for d in data):
        raise ConfigurationError(f"every tensor has a row for each example, got {[tuple(d.shape) for d in data]}")
    return [d.detach() for d in data]


class _Rows:
    """The gradients of the parameter at ``place`` for each example, and their norms."""

    def __init__(self, place: int, rows: torch.Tensor) -> None:
        self.place, self.rows = place, rows
        self.norms = size(rows)

    def silence(self, bad: torch.Tensor) -> None:
        """Make the gradients of ``bad`` examples zero: a factor of 0 would leave a NaN."""
        self.rows = self.rows.clone()
        self.rows[bad] = 0

    def weighted(self, factors: torch.Tensor) -> dict[int, torch.Tensor]:
        """The weighted sum, at its place."""
        return {self.place: torch.tensordot(factors.to(self.rows), self.rows, 1)}


class _Kept:
    """A use that gave norms, of its weight and, where it is ``biased``, its bias: the sums come from what it was given."""

    def __init__(self, use: Use, grad: torch.Tensor, norms: Norms, biased: bool) -> None:
        self.use, self.grad, self.norms, self.biased = use, grad, norms, biased

    def silence(self, bad: torch.Tensor) -> None:
        """As above."""
        self.grad, self.use.x = self.grad.clone(), self.use.x.clone()
        self.grad[bad] = 0
        self.use.x[bad] = 0

    def weighted(self, factors: torch.Tensor) -> dict[int, torch.Tensor]:
        """The weighted sums, at their places."""
        weight, bias = self.use.weighted(self.grad, factors.to(self.grad))
        return {self.use.weight: weight, self.use.bias: bias} if self.biased and self.use.bias is not None else {self.use.weight: weight}


def _parts(uses: list[Use], grads: Sequence[torch.Tensor], copied: dict[int, torch.Tensor]) -> list[_Rows | _Kept]:
    """Of each parameter that was used."""
    times: dict[int | None, int] = {}
    for use in uses:
        for place in (use.weight, use.bias):
            times[place] = times.get(place, 0) + 1
    kept: list[_Rows | _Kept] = []
    summed: dict[int, torch.Tensor] = dict(copied)
    for use, grad in zip(uses, grads, strict=True):
        biased = use.bias is not None and times[use.bias] == 1
        norms = use.norms(grad, biased) if times[use.weight] == 1 else None
        if norms is not None:
            kept.append(_Kept(use, grad, norms, biased))
        else:
            rows = use.rows(grad)
            summed[use.weight] = summed[use.weight] + rows if use.weight in summed else rows
        if use.bias is not None and not (biased and norms is not None):
            rows = use.bias_rows(grad)
            summed[use.bias] = summed[use.bias] + rows if use.bias in summed else rows
    return kept + [_Rows(place, rows) for place, rows in summed.items()]
