"""The provider: deals correlations by shape and sees nothing else.

    deal(number, kind, *args)  ->  for the last holder: sent secrets minus the other holders' shares, one buffer of bytes

Both the provider and a holder expand a share from Source(their secret).array(bytes, number, digest(kind, args), part): whatever order a
conductor gives the parties, bytes dealt for one correlation are never another's mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from syftlite.errors import Misuse
from syftlite.mpc.bilinear import MAPS, Params
from syftlite.mpc.bits import raw, tensor
from syftlite.mpc.correlations import FREE, KINDS, SENT, Field, Layout, Parts, Secrets, layout
from syftlite.mpc.ring import Z64, Ring
from syftlite.randomness import SECRET_BYTES, Purpose, Source, derive

if TYPE_CHECKING:
    from syftlite.mpc.kernel import WeightSpec
    from syftlite.mpc.products import Weight

_PREPARED_A_WEIGHT = 8


class Dealer:
    """Deals for holders with these ``keys`` (32 bytes each, all distinct, each shared with one holder)."""

    def __init__(self, keys: Sequence[bytes], ring: Ring = Z64) -> None:
        if len(keys) < 2:
            raise ValueError(f"a value is shared among at least two holders, not {len(keys)}")
        if len(set(keys)) != len(keys):
            raise ValueError("two holders with one key could each read the other's shares: derive one key for each")
        self.ring = ring
        self._keys = list(keys)
        self.sources = [Source(key) for key in keys]
        self._weights: dict[int, Tensor] = {}
        self._prepared: dict[int, dict[Params, Tensor]] = {}

    def fork(self, *purpose: Purpose) -> Dealer:
        """A dealer for holders that forked for ``purpose`` (`Party.fork`), which knows the same fixed weights."""
        fork = Dealer([derive(key, "fork", *purpose, length=SECRET_BYTES) for key in self._keys], self.ring)
        fork._weights, fork._prepared = self._weights, self._prepared
        return fork

    def deal(self, number: int, kind: str, *args: Any, known: Secrets | None = None) -> Tensor:
        """Make correlation ``number``; return the last holder's correction, uint8, empty if it needs none. ``known``: secrets that follow
        from no mask."""
        found = layout(kind, args)
        parts = [self._expand(i, number, found) for i in range(len(self.sources))]
        secrets: Secrets = dict(known or {})
        for field in found.fields:
            if field.part == FREE:
                secrets[field.name] = self._sum(field, parts)
        if kind == "fixed":
            secrets["b"] = self._weight(args)
        KINDS[kind].follow(self.ring, secrets, *args)
        if kind == "weight":
            self._weights[number] = secrets["b"]
        return self._correction(found, secrets, parts[:-1])

    def free(self, holder: int, number: int, kind: str, args: Params) -> Secrets:
        """A holder's shares of the free fields of correlation ``number``."""
        found = layout(kind, args)
        parts = {FREE: self.sources[holder].array(found.free, number, found.label, FREE)}
        return {field.name: field.view(parts) for field in found.fields if field.part == FREE}

    def forget(self, number: int) -> None:
        """Drop the weight that correlation ``number`` fixed."""
        self._weights.pop(number, None)
        self._prepared.pop(number, None)

    def nbytes(self, weight: WeightSpec | Weight) -> int:
        """What a fixed weight takes here, with what it was prepared for."""
        return 8 * (math.prod(weight.shape) + sum(kept.numel() for kept in self._prepared.get(weight.number, {}).values()))

    @property
    def weights(self) -> int:
        """How many weights are kept."""
        return len(self._weights)

    def _expand(self, holder: int, number: int, found: Layout) -> Parts:
        take, last = self.sources[holder].array, holder == len(self.sources) - 1
        sent = 0 if last else found.sent
        return {FREE: take(found.free, number, found.label, FREE), SENT: take(sent, number, found.label, SENT)}

    def _sum(self, field: Field, parts: list[Parts]) -> Any:
        """The secret of a free field, written over the last holder's share, which nobody needs any more."""
        x = field.memory(parts[-1])
        for other in parts[:-1]:
            if field.xor:
                x ^= field.memory(other)
            else:
                x += field.memory(other)
        x = x if field.xor else self.ring.reduce(x)
        return x if field.array else tensor(x)

    def _correction(self, found: Layout, secrets: Secrets, parts: list[Parts]) -> Tensor:
        """Sent secrets minus these holders' shares, written over the first one's; its pads are keystream, so they become zeros."""
        out = parts[0][SENT]
        for field in found.fields:
            if field.part == SENT:
                x, secret = field.memory(parts[0]), raw(secrets[field.name]).reshape(field.shape)
                for other in parts[1:]:
                    if field.xor:
                        x ^= field.memory(other)
                    else:
                        x += field.memory(other)
                if field.xor:
                    x ^= secret
                else:
                    np.subtract(secret.astype(field.kind, copy=False), x, out=x)
        for pad in found.pads:
            out[pad] = 0
        return tensor(out)

    def _weight(self, args: tuple[Any, ...]) -> Tensor:
        """The mask of a fixed weight, prepared for one shape of input."""
        name, x, number, y, params = args
        if number not in self._weights:
            raise Misuse(f"no weight is fixed under correlation {number} (it may have been dropped): fix the weight again")
        if tuple(self._weights[number].shape) != y:
            raise Misuse(f"the weight of correlation {number} has shape {tuple(self._weights[number].shape)}, not {y}")
        kept = self._prepared.setdefault(number, {})
        key = (name, x[1:], params)
        if key not in kept:
            if len(kept) >= _PREPARED_A_WEIGHT:
                kept.pop(next(iter(kept)))
            kept[key] = MAPS[name].prepare(self._weights[number], x, params)
        return kept[key]
