"""What is written to a FixedPrecisionTensor is written to its views, and to what it is a view of: ring elements, and what is known of them.

    written(x, made)     x's ring elements become made's, where they are
    public memory        becomes shares for all that lie in it, once a secret is written to a part of it
    held(x)              its value as it is now, for a way back
    what is known        that values are comparisons, or were filled (waiting.py): it stays known of what lies beside the place written to
"""

from __future__ import annotations

from typing import Any
from weakref import WeakValueDictionary

import torch

from syftlite.errors import Misuse
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.waiting import Value, Waiting

Fixed = FixedPrecisionTensor


def written(x: Fixed, made: Fixed, op: Any, truths: bool) -> None:
    """Write ``made``, for ``op``, to ``x``, of the same shape. ``truths``: all of its values are 0 or 1."""
    _before_writes(x)
    mine, others = x._value, [v for v in x._memory.values or () if v is not x._value]
    known = [(value, value.truths and truths, value.filled) for value in others]
    child = made._child
    if made.is_secret and not x.is_secret and others:
        _become_shares([mine, *others], made.ring, op)
    if made.is_secret and not x.is_secret:
        x._waiting = Waiting(child if made._value.alone else child.clone())
    else:
        x._child.copy_(child)
    x._memory.writes += 1
    for value, stays, filled in known:
        if stays:
            value.note_truths()
        value.note_filled(_filled(value, filled, mine, made._value.filled))
    if truths:
        mine.note_truths()
    mine.note_filled(made._value.filled)


def held(x: Any) -> Any:
    """The value of ``x``, without history: another tensor that stays as it is, whatever is written to ``x`` later."""
    keeper = x.detach()
    if x._memory.keepers is None:
        x._memory.keepers = WeakValueDictionary()
    x._memory.keepers[id(keeper)] = keeper
    return keeper


def _before_writes(x: Fixed) -> None:
    """Give those that keep the value of ``x``, or of what it is a view of, one of their own."""
    for keeper in list((x._memory.keepers or {}).values()):
        keeper._value = Value(Waiting(keeper._child.clone()))
    x._memory.keepers = None


def _filled(value: Value, before: torch.Tensor | None, place: Value, written: torch.Tensor | None) -> torch.Tensor | None:
    """What ``value`` was filled with ``before``, where ``written`` is at ``place`` since."""
    if before is None and written is None:
        return None
    memory = torch.zeros(max(_end(value.waiting.raw), _end(place.waiting.raw)))
    for of, known in ((value, before), (place, written)):
        _put(memory, of.waiting.raw, torch.zeros(()) if known is None else known)
    found = _at(memory, value.waiting.raw).clone()
    return found if found.any() else None


def _at(memory: torch.Tensor, raw: torch.Tensor) -> torch.Tensor:
    """The part of a flat ``memory`` where ``raw`` lies in its own."""
    return memory.as_strided(raw.shape, raw.stride(), raw.storage_offset())


def _put(memory: torch.Tensor, raw: torch.Tensor, values: torch.Tensor) -> None:
    """Write ``values`` there; of places that ``raw`` has several times they are the same."""
    places = _at(torch.arange(len(memory)), raw)
    memory[places.reshape(-1)] = values.expand(raw.shape).reshape(-1)


def _extent(raw: torch.Tensor) -> int:
    """Elements of memory from its first to behind its last."""
    spans: list[int] = [(size - 1) * stride for size, stride in zip(raw.shape, raw.stride(), strict=True)]
    return sum(spans) + 1 if raw.numel() else 0


def _end(raw: torch.Tensor) -> int:
    return int(raw.storage_offset()) + _extent(raw)


# -- public memory that becomes shares


def _become_shares(values: list[Value], ring: Any, op: Any) -> None:
    """Have the public ring elements of all ``values``, which lie in one memory, be shares that lie in one."""
    raws = [value.waiting.raw for value in values]
    if any(type(raw) is not torch.Tensor for raw in raws):
        raise Misuse(f"{op} would write shared values to a part of what is at a worker: begin with a shared tensor, such as x * 0")
    memory = torch.zeros(max(map(_end, raws)), dtype=torch.int64)  # what no value has of the memory is nobody's to know
    for raw in raws:
        _put(memory, raw, raw)
    start = min(raw.storage_offset() for raw in raws)
    shared = ring.known(memory[start:])
    for value, raw in zip(values, raws, strict=True):
        value.waiting = Waiting(strided(shared.narrow(0, raw.storage_offset() - start, _extent(raw)), raw.shape, raw.stride()))


def strided(row: Any, shape: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    """A view of ``row``, all of which it spans, as as_strided would give: by views that know no more than their operand's elements."""
    wide = [d for d, size in enumerate(shape) if size > 1 and stride[d]]
    order = sorted(wide, key=lambda d: -stride[d])
    if 0 in shape:
        return row.view(shape)
    for place, d in enumerate(order):
        row = row.unfold(-1, 1 + sum((shape[inner] - 1) * stride[inner] for inner in order[place + 1 :]), stride[d])
    view = row.select(-1, 0).permute([order.index(d) for d in wide])
    for d in range(len(shape)):
        view = view if d in wide else view.unsqueeze(d)
    return view.expand(shape)
