"""Lineage: which elements of a value depend on which rows of a dataset.

    Frame       a dataset's rows, and the privacy unit (a patient, say) that each belongs to
    Index       rows of a frame in some order, perhaps several times: what runs along one axis of a value
    Selection   a set of a frame's rows that a program has set apart: by an index, by weights, by a comparison
    Rows        a storage in stripes: which of its bytes belong to which place of an Index
    Axis        the same seen through one tensor in that storage

A label belongs to a storage and views share it, so rows are told by byte: the stripe of byte b is (b // inner) mod len(index).
Views need no rules then; `axis_of` reads the axis from their strides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import cached_property
from hashlib import blake2b
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

import numpy
import torch

from syftlite.errors import QuotaExceededError
from syftlite.ops.spec import Spec
from syftlite.policy.contributions import Looks, spread

MAX_KEPT, PER_ROW = 1 << 30, 64
"""Bytes that all live indices and selections of a dataset may take, and again those derived from values; more for each of its rows."""
PLACE = 16
"""Bytes of one place of an index, with its unit."""
ANY = 3
"""The degree of a value that is no polynomial of at most degree 2 in its row's columns."""

Bits = numpy.ndarray[Any, numpy.dtype[numpy.bool_]]
Whole = numpy.ndarray[Any, numpy.dtype[numpy.int64]]


class Frame:
    """Dataset ``name``'s rows. ``units``: (rows,) int64, the privacy unit of each; by default every row is its own.

    ``aggregates``: whether the owner's policy lets sums over its rows go; only then is it watched how they are made.
    """

    def __init__(self, name: str, count: int, units: Whole | None = None, *, aggregates: bool = False) -> None:
        self.name, self.count, self.aggregates = name, count, aggregates
        self.kept, self.most = {False: 0, True: 0}, MAX_KEPT + PER_ROW * count
        self.units_public = units is None
        if units is None:
            self.units: Whole = numpy.arange(count, dtype=numpy.int64)
        else:
            self.units = numpy.unique(units, return_inverse=True)[1].astype(numpy.int64).reshape(-1)
        self._known: WeakValueDictionary[Any, Any] = WeakValueDictionary()
        self.all = self.index(numpy.arange(count, dtype=numpy.int64))

    def index(self, rows: Whole) -> Index:
        """The one `Index` of these ``rows``."""
        key = ("index", blake2b(rows.tobytes(), digest_size=16).digest())
        found: Index | None = self._known.get(key)
        if found is None:
            self._keep(PLACE * len(rows))
            found = self._known[key] = Index(self, rows)
        return found

    def _keep(self, nbytes: int, derived: bool = False) -> None:
        """Something more of its rows is told apart, in ``nbytes``. Raises `QuotaExceededError` where that is too much for a node. What was
        ``derived`` from values is counted apart, so that where no values are looked at none are told of."""
        if self.kept[derived] + nbytes > self.most:
            raise QuotaExceededError(f"of {self.name} so many different rows are set apart in what is kept that no more can be told apart")
        self.kept[derived] += nbytes

    def selection(self, bits: Bits, *, derived: bool) -> Selection:
        """The one `Selection` of the rows where ``bits`` (rows,) is true. ``derived``: which rows depends on private values."""
        key = ("selection", derived, numpy.packbits(bits).tobytes())
        found: Selection | None = self._known.get(key)
        if found is None:
            self._keep(len(bits), derived)
            found = self._known[key] = Selection(self, bits, derived)
        return found

    def __repr__(self) -> str:
        return f"<rows of {self.name}>"


class Index:
    """``rows`` (n,) int64 of ``frame``, as they run along an axis. Made by `Frame.index` alone, so equal ones are one object."""

    def __init__(self, frame: Frame, rows: Whole) -> None:
        self.frame, self.rows = frame, rows

    def __del__(self) -> None:
        self.frame.kept[False] -= PLACE * len(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def units(self) -> Whole:
        """The privacy unit at each place, (n,) int64."""
        return self.frame.units[self.rows]

    @cached_property
    def distinct(self) -> bool:
        """Whether no row stands here twice."""
        return len(numpy.unique(self.rows)) == len(self.rows)

    @cached_property
    def selections(self) -> frozenset[Selection]:
        """What a sum along this axis sets apart: the rows that are here, by how often they are."""
        times = numpy.bincount(self.rows, minlength=self.frame.count)
        levels = [v for v in numpy.unique(times) if v]
        return frozenset(self.frame.selection(times == v, derived=False) for v in levels)

    def part(self, start: int, step: int, size: int) -> Index:
        """The ``size`` places from ``start``, every ``step``-th."""
        if start == 0 and step == 1 and size == len(self):
            return self
        return self.frame.index(self.rows[start : start + step * (size - 1) + 1 : step])


class Selection:
    """A set of ``frame``'s rows. Made by `Frame.selection` alone, so equal ones are one object."""

    def __init__(self, frame: Frame, bits: Bits, derived: bool) -> None:
        self.frame, self.bits, self.derived = frame, bits, derived

    def __del__(self) -> None:
        self.frame.kept[self.derived] -= len(self.bits)


class Rows(NamedTuple):
    """A storage in stripes of ``inner`` bytes, which run through ``along`` over and over. What lies in a stripe depends on its row alone
    (and on public values, and on those that the label's selections tell of).

    ``degree``: 0, constant within every combination of ``gates``; 1, affine in the row's columns; 2, a product of two such; ANY.
    ``gates``: the selections that it was weighted by. ``reach``: no element is larger. ``fine``: no column varies less; 0 if unknown.
    """

    along: Index
    inner: int
    degree: int = ANY
    gates: frozenset[Selection] = frozenset()
    reach: float = math.inf
    fine: float = 0.0


class Axis(NamedTuple):
    """Axis number ``axis`` of a tensor runs over ``along``."""

    axis: int
    along: Index

    @property
    def units(self) -> Whole:
        """The privacy unit at each place of the axis, (n,) int64."""
        return self.along.units


MAX_AXES = 16_384
MAX_PLACES = 8 << 20
"""Places that the remembered axes may keep alive."""


class _Axes:
    """What `axis_of` remembers."""

    def __init__(self) -> None:
        self.known: dict[tuple[Index, int, Spec], Axis | None] = {}
        self.places = 0

    def add(self, key: tuple[Index, int, Spec], axis: Axis | None) -> Axis | None:
        """Remember it."""
        if len(self.known) >= MAX_AXES or self.places > MAX_PLACES:
            self.known, self.places = {}, 0
        self.known[key] = axis
        self.places += 0 if axis is None else len(axis.along)
        return axis


_axes = _Axes()


def axis_of(rows: Rows | None, tensor: torch.Tensor) -> Axis | None:
    """Which axis of ``tensor``, which lies in a storage of ``rows``, runs over them; None if no single one does."""
    if rows is None:
        return None
    key = (rows.along, rows.inner, Spec.of(tensor))
    known = _axes.known
    return known[key] if key in known else _axes.add(key, _axis(rows.along, rows.inner, key[2]))


def _axis(index: Index, inner: int, spec: Spec) -> Axis | None:
    size, count = spec.dtype.itemsize, len(index)
    within, axis, step = spec.offset * size % inner + size, -1, 0
    for dim, (length, stride) in enumerate(zip(spec.shape, spec.stride, strict=True)):
        moved = stride * size
        if length == 1 or moved % (inner * count) == 0:
            continue
        if moved % inner == 0:
            if axis >= 0:
                return None
            axis, step = dim, moved // inner
        else:
            within += (length - 1) * moved
    start = spec.offset * size // inner % count
    if axis < 0 or within > inner or 0 in spec.shape or start + (spec.shape[axis] - 1) * step >= count:
        return None
    return Axis(axis, index.part(start, step, spec.shape[axis]))


def stripes(index: Index, axis: int, tensor: torch.Tensor, **told: Any) -> Rows | None:
    """`Rows` for the fresh ``tensor`` whose ``axis`` runs over ``index``; None if its storage is not in such stripes."""
    spec = Spec.of(tensor)
    if len(index) < 2 or spec.shape[axis] != len(index) or spec.offset or spec.extent != spec.elements or not spec.elements:
        return None
    return Rows(index, spec.stride[axis] * spec.dtype.itemsize, **told)


def own(frame: Frame, tensor: torch.Tensor) -> Rows | None:
    """The rows of a dataset's own contiguous ``tensor``, whose first axis runs over ``frame``; None if it has fewer than two."""
    if not tensor.dim() or tensor.shape[0] != frame.count:
        return None
    if not frame.aggregates or tensor.is_complex() or not tensor.numel():
        return stripes(frame.all, 0, tensor)
    exact = tensor.to(torch.float64)
    known = exact[torch.isfinite(exact)]
    reach = float(known.abs().amax()) if known.numel() else 0.0
    fine = float(spread(tensor, 0).amin())
    return stripes(frame.all, 0, tensor, degree=1, reach=reach, fine=fine if math.isfinite(fine) else 0.0)


def gates_of(index: Index, weights: torch.Tensor, *, derived: bool, most: int = 2, columns: int = 64) -> frozenset[Selection] | None:
    """The selections that ``weights`` (n, m), constant on each, set apart along ``index``. None if that are too many: more than ``most``
    values in a column, or more than ``columns`` of those; or if a row is there twice, and may have two weights."""
    Looks.count += 1
    flat = weights.reshape(len(index), -1).T.contiguous()
    flat = torch.unique(flat, dim=0) if flat.shape[0] > 1 else flat
    if flat.shape[0] > columns or not index.distinct:
        return None
    found = set()
    for column in flat.cpu().numpy():
        values = numpy.unique(column)
        if len(values) > most or not numpy.isfinite(values).all():
            return None
        for value in values[: max(1, len(values) - 1)]:
            bits = numpy.zeros(index.frame.count, dtype=numpy.bool_)
            bits[index.rows[column == value]] = True
            found.add(index.frame.selection(bits, derived=derived))
    return frozenset(found)


def frames(selections: Iterable[Selection]) -> dict[str, list[Selection]]:
    """``selections`` by the name of their dataset."""
    found: dict[str, list[Selection]] = {}
    for selection in selections:
        found.setdefault(selection.frame.name, []).append(selection)
    return found
