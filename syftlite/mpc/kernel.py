"""What an entry of `kernels.py` is: a coroutine function with its operands and its static arguments, checked by a dry run.

    Kernel.run(party, *operands, **static)      one holder's coroutine; checks everything before it draws a correlation
    requests(number, specs, **static)           what the kernel returns and what it asks of the provider: the provider runs this, then deals

A dry run is the same coroutine on meta tensors with a party that records, so that shapes and requests have no second description. It is
cached by operand shapes and static arguments.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from syftlite.errors import Misuse
from syftlite.mpc.bilinear import MAPS, Params
from syftlite.mpc.convolution import Shape
from syftlite.mpc.correlations import Request, layout
from syftlite.mpc.party import Recorder, Shareholder
from syftlite.mpc.products import Weight
from syftlite.mpc.ring import Z64, Ring
from syftlite.mpc.rounds import Protocol, run_dry
from syftlite.ops.operator import Kind
from syftlite.ops.shapes import ByRule


class WeightSpec(NamedTuple):
    """A fixed weight as the provider knows it: its shape, and the number of the correlation that fixed it."""

    shape: Shape
    number: int


Spec: TypeAlias = Shape | WeightSpec
Operand: TypeAlias = Tensor | Weight
Static: TypeAlias = "int | tuple[int, ...]"


class Plan(NamedTuple):
    """What a dry run told."""

    results: tuple[Spec, ...]
    requests: tuple[Request, ...]
    """What is asked of the provider, in order."""
    strides: tuple[tuple[int, ...], ...]
    """Of the results; a weight has none."""
    rounds: int
    sent: int
    """Bytes that a holder sends to each other."""
    dealt: int
    """Bytes of corrections that the provider sends to the last holder."""
    memory: int
    """Bytes of the results, and of the correlations twice: what a holder needs at most."""


RANGES: dict[str, tuple[int, int]] = {
    "f": (0, 62),
    "low": (-1, 32),
    "stride": (1, 4096),
    "padding": (0, 64),
    "dilation": (1, 4096),
    "groups": (1, 4096),
    "pool": (1, 64),
    "kernel": (1, 64),
    "size": (1, 1 << 20),
    "relu": (0, 1),
    "invert": (0, 1),
    "dim": (-64, 63),
    "which": (0, 63),
    "slope": (0, 1),
    "what": (1, 15),
    "signed": (0, 1),
    "count": (1, 1 << 20),
    "divisor": (2, (1 << 44) - 1),
}
"""What each static argument, or each part of a pair, may be."""


@dataclass(frozen=True)
class Kernel:
    """One entry. ``operands`` are "share" or "weight"; ``defaults`` has every static argument, None where it must be given."""

    number: int
    name: str
    operands: tuple[str, ...]
    protocol: Callable[..., Protocol[Any]] = field(repr=False)
    pairs: frozenset[str]
    """Static arguments that are two ints."""
    defaults: dict[str, Static | None]
    kind: Kind
    """What it is to policies."""

    async def run(self, party: Shareholder, /, *operands: Operand, **static: Static) -> Any:
        """This holder's part: a Tensor, a tuple of them, or a Weight. Everything is checked before the first correlation is drawn."""
        for operand, kind in zip(operands, self.operands):
            if isinstance(operand, Weight) != (kind == "weight"):
                raise Misuse(f"{self.name} takes {' and '.join(self.operands)}: a weight is what fix_weight returned")
            if isinstance(operand, Tensor) and operand.dtype != torch.int64:
                raise Misuse(f"{self.name} takes shares in int64, not {operand.dtype}: fix_precision() before share()")
        specs = tuple([WeightSpec(o.shape, o.number) if isinstance(o, Weight) else tuple(o.shape) for o in operands])
        checked = _planned(self.number, specs, party.ring, static)[0]
        return await self.protocol(party, *operands, **checked)

    def checked(self, static: dict[str, Any]) -> dict[str, Static]:
        """All static arguments, or a ValueError that names the wrong one."""
        if unknown := static.keys() - self.defaults.keys():
            raise ValueError(f"{self.name} has no argument {', '.join(sorted(unknown))}: it takes {', '.join(self.defaults) or 'none'}")
        out: dict[str, Static] = {}
        for name, default in self.defaults.items():
            value = static.get(name, default)
            parts, (low, high) = value if name in self.pairs else (value,), RANGES[name]
            if type(parts) is not tuple or len(parts) != (2 if name in self.pairs else 1) or any(type(v) is not int for v in parts):
                raise ValueError(f"{self.name}: {name} is {'a pair of ints' if name in self.pairs else 'an int'}, not {value!r}")
            if any(not low <= v <= high for v in parts):
                raise ValueError(f"{self.name}: {name} = {value} is not within {low} ... {high}")
            out[name] = value  # type: ignore[assignment]
        return out


def requests(
    number: int, operands: Sequence[Spec], ring: Ring = Z64, /, **static: Static
) -> tuple[tuple[Spec, ...], tuple[Request, ...]]:
    """(specs of the results, what is asked of the provider in order), from a dry run on meta tensors."""
    return plan(number, operands, ring, **static)[:2]


def plan(number: int, operands: Sequence[Spec], ring: Ring = Z64, /, **static: Static) -> Plan:
    """Everything that is known of a kernel before it runs, from a dry run on meta tensors.

    The number in a result's `WeightSpec` counts from this kernel's first correlation. Raises ValueError or Misuse where `run` would.
    """
    if number not in KERNELS:
        raise Misuse(f"there is no kernel {number} here: the other side is of a newer version, so update this one")
    specs = tuple([WeightSpec(tuple(s.shape), s.number) if isinstance(s, WeightSpec) else tuple(s) for s in operands])
    return _planned(number, specs, ring, static)[1]


def _planned(number: int, specs: tuple[Spec, ...], ring: Ring, static: dict[str, Static]) -> tuple[dict[str, Static], Plan]:
    """(the static arguments, the plan), from the cache if they are ints and tuples of ints: to it 1, 1.0 and True are one."""
    for value in static.values():
        if type(value) is not int and (type(value) is not tuple or any(type(part) is not int for part in value)):
            KERNELS[number].checked(static)  # names it
    return _dry(number, specs, ring.bits, tuple(static.items()))


@lru_cache(maxsize=4096)
def _dry(number: int, specs: tuple[Spec, ...], bits: int, static: tuple[tuple[str, Static], ...]) -> tuple[dict[str, Static], Plan]:
    entry, recorder = KERNELS[number], Recorder(Ring(bits))
    checked = entry.checked(dict(static))
    if [isinstance(s, WeightSpec) for s in specs] != [kind == "weight" for kind in entry.operands]:
        raise Misuse(f"{entry.name} takes {' and '.join(entry.operands)}, not {specs}")
    try:
        with ByRule():  # type: ignore[no-untyped-call]
            result = run_dry(entry.protocol(recorder, *map(_stand_in, specs), **checked), recorder)
    except (RuntimeError, IndexError) as error:  # torch's own words about shapes
        if isinstance(error, Misuse):
            raise
        raise ValueError(f"{entry.name} of {', '.join(map(str, specs))}: {error}") from error
    results = result if isinstance(result, tuple) else (result,)
    shapes = tuple(WeightSpec(r.shape, r.number) if isinstance(r, Weight) else tuple(r.shape) for r in results)
    strides = tuple(() if isinstance(r, Weight) else r.stride() for r in results)
    found = [layout(kind, args) for kind, args in recorder.requests]
    memory = sum(8 * math.prod(r.shape) for r in results) + sum(2 * (f.free + f.sent) for f in found)
    memory += max((8 * _work(kind, args) for kind, args in recorder.requests), default=0)
    return checked, Plan(shapes, tuple(recorder.requests), strides, recorder.rounds, recorder.sent, sum(f.sent for f in found), memory)


def _work(kind: str, args: Params) -> int:
    """Elements that the product which takes this correlation needs meanwhile."""
    if kind == "product":
        name, x, y, params = args
    elif kind == "fixed":
        name, x, _, y, params = args
    else:
        return 0
    return MAPS[name].work(x, y, params)


def _stand_in(spec: Spec) -> Operand:
    """An operand without values."""
    if isinstance(spec, WeightSpec):
        meta = torch.empty(spec.shape, dtype=torch.int64, device="meta")
        return Weight(spec.number, spec.shape, meta, meta)
    return torch.empty(spec, dtype=torch.int64, device="meta")


KERNELS: dict[int, Kernel] = {}
NUMBERS: dict[str, int] = {}
"""Numbers by name."""


Entered = Callable[..., Protocol[Any]]


def kernel(number: int, *operands: str, kind: Kind = Kind.POINTWISE) -> Callable[[Entered], Entered]:
    """Enter a coroutine function: its keyword-only parameters are the static arguments."""

    def enter(protocol: Entered) -> Entered:
        name = protocol.__name__.lstrip("_")
        static = {n: p for n, p in inspect.signature(protocol).parameters.items() if p.kind is p.KEYWORD_ONLY}
        defaults = {n: None if p.default is p.empty else p.default for n, p in static.items()}
        pairs = frozenset(n for n, p in static.items() if p.annotation == "Pair")
        assert number not in KERNELS and name not in NUMBERS and defaults.keys() <= RANGES.keys()
        KERNELS[number], NUMBERS[name] = Kernel(number, name, operands, protocol, pairs, defaults, kind), number
        return protocol

    return enter
