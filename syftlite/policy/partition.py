"""What may leave as an aggregate, given all that left before: R1, for one dataset.

All that was released so far is made of sums over *selections* of rows (labels.py). The selections cut the rows into atoms, rows that no
selection tells apart; whatever anybody computes from the released sums is made of sums over whole atoms. So

    every atom has rows of at least ``min_units`` units       no combination of releases comes closer to anybody
    an atom takes part in at most ``ratio`` x its units elements   fewer equations than unknowns

Comparing selections by pairs would not do: of A + {x}, B + {x} and A + B, far apart each from each, the sums give x (the tracker of
Denning, Denning & Schwartz, "The Tracker", 1979). Atoms see the first two. Refusing tells something when it depends on private values
(Kenthapadi, Mishra & Nissim, "Simulatable Auditing", 2005), so such refusals are counted, and end: after ``probes`` of them no aggregate
of the dataset goes any more, until its owner says so.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy

from syftlite.policy.lineage import Frame, Selection, Whole

_HEAD = struct.Struct("<qqq?")


@dataclass(frozen=True)
class Aggregate:
    """The terms of R1: units that a release must not come closer to than, elements per unit, refusals that may tell something."""

    min_units: int = 10
    ratio: float = 1 / 3
    probes: int = 50


@dataclass(frozen=True)
class Partition:
    """What has left of a dataset. ``atoms`` (rows,): the atom of each row; ``touched`` (atoms,): elements that each took part in;
    ``told``: refusals and answers that told something else; ``derived``: a cut depended on private values.

    ``seen``: comparisons that have been released, in this process.
    """

    atoms: Whole
    touched: Whole
    told: int = 0
    derived: bool = False
    seen: frozenset[Selection] = field(default=frozenset(), compare=False)

    @classmethod
    def fresh(cls, rows: int) -> Partition:
        """Of a dataset from which nothing has left."""
        return cls(numpy.zeros(rows, dtype=numpy.int64), numpy.zeros(1, dtype=numpy.int64))

    def of_size(self, rows: int) -> Partition:
        """The same for a dataset that has been given more rows, which are an atom of their own, or fewer."""
        missing = rows - len(self.atoms)
        if missing <= 0:
            return replace(self, atoms=self.atoms[:rows]) if missing else self
        if not self.touched.any():
            return Partition.fresh(rows)
        added = numpy.full(missing, len(self.touched), dtype=numpy.int64)
        return replace(self, atoms=numpy.concatenate([self.atoms, added]), touched=numpy.append(self.touched, 0))

    def dump(self) -> bytes:
        """As bytes, for `load`."""
        head = _HEAD.pack(len(self.atoms), len(self.touched), self.told, self.derived)
        return head + self.atoms.astype("<i4").tobytes() + self.touched.astype("<i8").tobytes()

    @classmethod
    def load(cls, data: bytes) -> Partition:
        """From what `dump` gave."""
        rows, atoms, told, derived = _HEAD.unpack_from(data)
        split = _HEAD.size + 4 * rows
        of = numpy.frombuffer(data[_HEAD.size : split], dtype="<i4").astype(numpy.int64)
        return cls(of, numpy.frombuffer(data[split : split + 8 * atoms], dtype="<i8").astype(numpy.int64), told, derived)

    def told_one(self) -> Partition:
        """One more answer told something."""
        return self.with_told(self.told + 1)

    def with_told(self, told: int) -> Partition:
        """The same with another count of answers that told something."""
        return self if told == self.told else replace(self, told=told)

    def watched(self, frame: Frame, selections: Collection[Selection]) -> bool:
        """Whether the answer to a release with these selections depends on private values."""
        return self.derived or not frame.units_public or any(s.derived for s in selections)

    def release(self, frame: Frame, selections: Collection[Selection], elements: int, terms: Aggregate) -> Partition | None:
        """What has left once ``elements`` made of sums over ``selections`` have, too; None if they may not."""
        atoms, parents = self.atoms, numpy.arange(len(self.touched))
        involved = numpy.zeros(frame.count, dtype=numpy.bool_)
        for selection in selections:
            involved |= selection.bits
            keys, atoms = numpy.unique(atoms * 2 + selection.bits, return_inverse=True)
            parents = parents[keys // 2]
        units = _units(frame, atoms, len(parents))
        taking = numpy.bincount(atoms[involved], minlength=len(parents)) > 0
        touched = self.touched[parents] + elements * taking
        if units.min() < terms.min_units or (touched > terms.ratio * units).any():
            return None
        fresh = {s for s in selections if s.derived and s not in self.seen}
        told = self.told + (1 if fresh and len(parents) == len(self.touched) else 0)  # nothing new is set apart: that is news too
        derived = self.derived or any(s.derived for s in selections)
        return Partition(atoms.astype(numpy.int64), touched, told, derived, self.seen | fresh)


def _units(frame: Frame, atoms: Whole, count: int) -> Whole:
    """How many different units each atom has rows of."""
    if frame.units_public:
        return numpy.bincount(atoms, minlength=count)
    width = int(frame.units.max(initial=0)) + 1
    return numpy.bincount(numpy.unique(atoms * width + frame.units) // width, minlength=count)
