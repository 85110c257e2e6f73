"""Operators of fixed-precision and shared tensors beside plain ones: operands, children, and how far results may be off.

    samples_of(operator)     fresh operands of the operator: those of tests/ops/samples.py, or OWN; floats are multiples of 1/8, so that
                             every scale here has them, and a comparison is as plain torch's
    Parties                  workers, and CHILDREN: what may be below a FixedPrecisionTensor
    value(result)            the plain tensors of a result
    sent(worker, ...)        which messages start something at a worker
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

import syftlite as sy
from syftlite._torch import aten
from syftlite.ops.table import BY_FUNC

sys.path.append(str(Path(__file__).parent / "ops"))

from placing import mapped
from samples import Make, Sample, clone, plain, samples

sy.TorchHook()

OWN: dict[Any, Callable[[Make], list[tuple[Any, ...]]]] = {
    aten.detach.default: lambda m: [(m.f(3, 4),), (m.f(),), (m.f(0, 2),)],
    aten.lift_fresh.default: lambda m: [(m.f(3, 4),)],
    aten.t_.default: lambda m: [(m.f(3, 4),), (m.f(3),), (m.f(0, 2),)],
    aten.unsqueeze_.default: lambda m: [(m.f(3, 4), 1), (m.f(), 0), (m.f(3, 2).t(), -1)],
    aten.squeeze_.default: lambda m: [(m.f(3, 1, 4),), (m.f(1, 1),)],
    aten.squeeze_.dim: lambda m: [(m.f(3, 1, 4), 1), (m.f(3, 4), 0)],
    aten.squeeze_.dims: lambda m: [(m.f(3, 1, 4, 1), [1, 3])],
    aten.transpose_.default: lambda m: [(m.f(3, 4, 2), 0, 2), (m.f(3, 4), 1, 0)],
    aten.is_nonzero.default: lambda m: [(m.f(1),)],
    aten.diagonal_scatter.default: lambda m: [(m.f(3, 4), m.f(3)), (m.f(2, 3, 4), m.f(2, 2), -1, 1, 2)],
    aten.select_scatter.default: lambda m: [(m.f(3, 4), m.f(4), 0, -1), (m.f(3, 4).t(), m.f(4), 1, 2)],
    aten.slice_scatter.default: lambda m: [(m.f(3, 4), m.f(2, 4), 0, 1), (m.f(3, 4), m.f(3, 2), 1, 0, 3, 2), (m.f(3, 4), m.f(0, 4), 0, 3)],
}  # fmt: skip

BESIDES: dict[Any, Callable[[Make], list[tuple[Any, ...]]]] = {
    aten.clamp.default: lambda m: [(m.f(3, 4), -1, 2), (m.f(3, 4), None, 1)],
    aten.clamp_min.default: lambda m: [(m.f(3, 4), -1)],
    aten.clamp_max.default: lambda m: [(m.f(3, 4), 1)],
    aten.full_like.default: lambda m: [(m.f(3, 4), 2), (m.f(), -1)],
    aten.new_full.default: lambda m: [(m.f(3, 4), [2, 1], -3)],
}
"""Operands of whole numbers, for operators that have no such samples."""


@cache
def samples_of(func: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> list[Sample]:
    """Operands of ``func`` with a float tensor among them, each float changed, for which plain torch has a finite result."""
    given = samples(BY_FUNC[func]) if func in BY_FUNC else [Sample(s, {}) for s in OWN[func](Make())]
    given = [*given, *(Sample(s, {}) for s in BESIDES.get(func, lambda m: [])(Make()))]
    changed = [Sample(*(mapped_all(part, change) for part in sample)) for sample in given if _fits(sample)]
    return [sample for sample in changed if _finite(func, sample)]


def _fits(sample: Sample) -> bool:
    tensors = [v for v in tree_leaves(tuple(sample)) if isinstance(v, torch.Tensor)]
    kinds = {t.dtype for t in tensors}
    whole = {torch.int64, torch.int32, torch.uint8, torch.bool}
    return torch.float32 in kinds and kinds <= whole | {torch.float32} and not any(type(v) is complex for v in tree_leaves(tuple(sample)))


def _finite(func: Any, sample: Sample) -> bool:
    out = [v for v in tree_leaves(expected(func, sample)) if isinstance(v, torch.Tensor)]
    return all(bool(v.isfinite().all()) for v in out)


def eighths(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` of multiples of 1/8 that are not 0, and at most 4, in its own order of memory."""
    if tensor.dtype != torch.float32:
        return tensor
    rounded = (tensor.clamp(-4, 4) * 8).round() / 8
    return torch.where(rounded == 0, torch.full_like(rounded, 0.125), rounded)


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` of whole numbers, int64."""
    return (eighths(tensor) * 8).long() if tensor.dtype == torch.float32 else tensor


def mapped_all(value: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """``value`` with each tensor changed, through tuples, lists and dicts."""
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    return tuple(mapped(v, change) for v in value)


def expected(func: Any, sample: Sample) -> Any:
    """What plain torch makes of it."""
    return func(*(clone(plain(a)) for a in sample.args), **{k: clone(plain(v)) for k, v in sample.kwargs.items()})


class Parties:
    """Alice, bob, carol and a provider: virtual workers of their own for one test module."""

    def __init__(self, prefix: str) -> None:
        self.all = [sy.VirtualWorker(id=f"{prefix}-{name}") for name in ("alice", "bob", "carol", "dealer")]
        self.alice, self.bob, self.carol, self.dealer = self.all
        self.coded = [sy.VirtualWorker(id=f"{prefix}-{name}-coded", serialize=True) for name in ("alice", "bob", "dealer")]

    def place(self, child: str) -> Callable[[torch.Tensor], Any]:
        """int64 tensors as ``child``."""
        return {
            "plain": lambda t: t,
            "pointer": lambda t: t.send(self.alice),
            "two": lambda t: t.share(self.alice, self.bob, crypto_provider=self.dealer),
            "three": lambda t: t.share(self.alice, self.bob, self.carol, crypto_provider=self.dealer),
            "coded": lambda t: t.share(*self.coded[:2], crypto_provider=self.coded[2]),
            "replicated": lambda t: t.share(*self.all[:3], protocol="aby3"),
        }[child]

    def fix(self, child: str, **scheme: int) -> Callable[[torch.Tensor], Any]:
        """Float tensors in fixed precision over ``child``."""
        if child == "pointer":
            return lambda t: t.send(self.alice).fix_precision(**scheme)
        if child == "plain":
            return lambda t: t.fix_precision(**scheme)
        if child == "replicated":
            return lambda t: t.fix_precision(**scheme).share(*self.all[:3], protocol="aby3")
        place = {"two": self.all[:2], "three": self.all[:3], "coded": self.coded[:2]}[child]
        dealer = self.coded[2] if child == "coded" else self.dealer
        return lambda t: t.fix_precision(**scheme).share(*place, crypto_provider=dealer)

    def close(self) -> None:
        """Free the ids."""
        for worker in (*self.all, *self.coded):
            worker.close()


def sent(worker: Any, monkeypatch: Any) -> list[int]:
    """Kinds of the messages that start something at ``worker``, from now on."""
    kinds: list[int] = []
    for name in ("cast", "hold"):
        way = getattr(worker, name)
        monkeypatch.setattr(worker, name, lambda message, site=None, way=way: kinds.append(message[0]) or way(message, site))
    return kinds


def value(result: Any) -> list[Any]:
    """The plain values of a result, in a list."""
    return list(_values(result))


def _values(result: Any) -> Iterator[Any]:
    if isinstance(result, (list, tuple)):
        for item in result:
            yield from _values(item)
    elif isinstance(result, sy.FixedPrecisionTensor):
        result = result.detach()
        there = result.is_secret or isinstance(result.child, sy.PointerTensor)
        yield (result.get_copy() if there else result).decode()
    elif isinstance(result, (sy.AdditiveSharingTensor, sy.PointerTensor)):
        yield result.detach().get_copy()
    else:
        yield result


def assert_close(got: Any, want: Any, units: float, scale: int) -> None:
    """Results of the same shapes, at most ``units`` / scale apart."""
    found, wanted = value(got), tree_leaves(want)
    assert len(found) == len(wanted)
    for mine, theirs in zip(found, wanted, strict=True):
        if not isinstance(theirs, torch.Tensor):
            assert mine == theirs if theirs is None else abs(mine - theirs) <= units / scale
            continue
        assert mine.shape == theirs.shape
        if theirs.numel():
            worst = (mine.double() - theirs.double()).abs().max().item()
            assert worst <= units / scale + 1e-6 * theirs.double().abs().max().item(), f"off by {worst * scale:.1f} units, {units:.1f} are allowed"
