"""Policies: what a data owner lets whom do with a dataset.

    who     find, compute, release     names of principals, "role:scientist", "*": everybody
            share                      nodes (by name) that a value may move to, labels and all
    what    ops                        classes of operators; None: all that are reviewed
    how     free                       R0: it may simply leave
            aggregate                  R1: sums over at least min_units units (partition.py)
            dp                         R2: what a differentially private mechanism made, within a budget
            approve                    R3: what the owner approved
    when    rate, expires
    unit    the column that says whose a row is (its number; in a file, or its name); None: every row is its own

A release needs one of the ways; a policy with none lets nothing go. `a | b` has the ways of both (their who, what and when must be the
same); `a & b` must be satisfied twice. A value made of several datasets must satisfy the policy of each.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from datetime import date, datetime
from typing import Any

from syftlite.errors import ConfigurationError
from syftlite.ops.operator import Kind
from syftlite.policy.partition import Aggregate
from syftlite.policy.strictness import stricter
from syftlite.policy.terms import LISTS, TERMS, Approval, Budget, Rate, moment, need, read_terms

EVERYBODY = ("*",)
CLASSES: dict[str, frozenset[Kind]] = {
    "elementwise": frozenset({Kind.POINTWISE}),
    "linear": frozenset({Kind.MATMUL, Kind.CONV}),
    "reduce": frozenset({Kind.REDUCE}),
    "index": frozenset({Kind.INDEX}),
    "sort": frozenset({Kind.SORT}),
    "layers": frozenset({Kind.POOL, Kind.NORM}),
    "random": frozenset({Kind.RANDOM}),
    "linalg": frozenset({Kind.LINALG, Kind.FFT}),
}
"""Operator classes. Views, copies and factories, which compute nothing, are always allowed."""
ALWAYS = frozenset({Kind.VIEW, Kind.COPY, Kind.SHAPE, Kind.FACTORY})


@dataclass(frozen=True)
class Policy:
    """What an owner lets whom do with a dataset; see the module. The empty one lets nothing go."""

    find: tuple[str, ...] = EVERYBODY
    compute: tuple[str, ...] = EVERYBODY
    release: tuple[str, ...] = EVERYBODY
    share: tuple[str, ...] = ()
    ops: tuple[str, ...] | None = None
    free: bool = False
    aggregate: Aggregate | None = None
    dp: Budget | None = None
    approve: Approval | None = None
    rate: Rate | None = None
    expires: float | None = None
    unit: int | str | None = None
    also: tuple[Policy, ...] = ()

    def __post_init__(self) -> None:
        self._read()
        units = {part.unit for part in (self, *self.also) if part.unit is not None}
        need(len(units) < 2, f"a & b has the different units {', '.join(map(str, units))}: a row is one unit's")
        for unit in units:
            object.__setattr__(self, "unit", unit)
        unknown = sorted(set(self.ops or ()) - set(CLASSES))
        if unknown:
            raise ConfigurationError(f"{', '.join(unknown)} is no class of operators; there are {', '.join(CLASSES)}")
        if self.aggregate is not None:
            need(self.aggregate.min_units >= 2, f"min_units is 2 or more, not {self.aggregate.min_units}: a sum of one is that one")
            need(0 < self.aggregate.ratio <= 1, f"ratio is above 0 and at most 1, not {self.aggregate.ratio}")
            need(self.aggregate.probes >= 0, f"probes is 0 or more, not {self.aggregate.probes}")
        if self.dp is not None:
            for name in ("epsilon", "delta", "per_user_epsilon", "per_user_delta"):
                value = getattr(self.dp, name)
                need(isinstance(value, (int, float)) or (value is None and "user" in name), f"{name} is a number, not {value!r}")
            for name in ("epsilon", "per_user_epsilon"):
                need((value := getattr(self.dp, name)) is None or 0 < value < math.inf, f"{name} is above 0, and finite, not {value}")
            for name in ("delta", "per_user_delta"):
                need((value := getattr(self.dp, name)) is None or 0 <= value < 1, f"{name} is from 0 to below 1, not {value}")
        if self.approve is not None:
            need(self.approve.quorum >= 1, f"quorum is 1 or more, not {self.approve.quorum}")

    def _read(self) -> None:
        """Takes every field as a file has it, too: lists of names, true or a table for terms, texts and dates."""
        read: dict[str, Any] = {}
        rate, expires = (getattr(self, name) for name in ("rate", "expires"))
        for name in LISTS:
            given = getattr(self, name)
            if given is not None or name != "ops":
                lists = isinstance(given, (tuple, list, set, frozenset)) and all(type(v) is str for v in given)
                need(lists, f'{name} is a list of texts, as in ["carol"], not {given!r}')
                read[name] = tuple(given)
        for name, kind in TERMS.items():
            if (given := getattr(self, name)) is not None and not isinstance(given, kind):
                read[name] = read_terms(name, kind, given)
        if isinstance(rate, str):
            read["rate"] = Rate.parse(rate)
        if isinstance(expires, date):
            read["expires"] = moment("expires", expires)
        for name, value in read.items():
            object.__setattr__(self, name, value)

    def __or__(self, other: Policy) -> Policy:
        """The ways of both. Raises `ConfigurationError` where that has no exact meaning."""
        for name in ("find", "compute", "release", "share", "ops", "rate", "expires", "unit", "also"):
            mine, theirs = getattr(self, name), getattr(other, name)
            need(mine == theirs, f"a | b takes policies with the same {name}, not {mine} and {theirs}: state it once, with replace()")
        for name in ("aggregate", "dp", "approve"):
            mine, theirs = getattr(self, name), getattr(other, name)
            need(None in (mine, theirs) or mine == theirs, f"a | b has two different {name}, {mine} and {theirs}: choose one")
        ways = {name: getattr(self, name) or getattr(other, name) for name in ("aggregate", "dp", "approve")}
        return replace(self, free=self.free or other.free, **ways)

    def __and__(self, other: Policy) -> Policy:
        """Both must be satisfied. Raises `ConfigurationError` where they differ in whose a row is."""
        return replace(self, also=(*self.also, other))

    def without_unit(self) -> Policy:
        """The same for rows of which each is its own."""
        return replace(self, unit=None, also=tuple(part.without_unit() for part in self.also))

    def parts(self) -> Iterator[Policy]:
        """The policies that must all be satisfied."""
        yield replace(self, also=()) if self.also else self
        for policy in self.also:
            yield from policy.parts()

    def permits(self, right: str, name: str, role: str) -> bool:
        """Whether the principal ``name`` of ``role`` has the ``right`` to find, compute, release."""
        return all(_among(getattr(part, right), name, role) for part in self.parts())

    def runs(self, kind: Kind) -> bool:
        """Whether operators of ``kind`` may run."""
        return kind in ALWAYS or all(part.ops is None or any(kind in CLASSES[c] for c in part.ops) for part in self.parts())

    def moves_to(self, node: str) -> bool:
        """Whether values may move to ``node``, labels and all."""
        return all("*" in part.share or node in part.share for part in self.parts())

    def ended(self, now: float) -> bool:
        """Whether it has expired: then nothing is computed or released any more."""
        return any(part.expires is not None and part.expires <= now for part in self.parts())

    def strict(self, other: Policy) -> bool:
        """Whether this lets nothing go that ``other`` keeps: it is at least as strict in every field."""
        return all(any(stricter(mine, theirs) for mine in self.parts()) for theirs in other.parts())

    def ways(self) -> str:
        """What lets a value go, in words; for who is refused."""
        return " and ".join(_ways(part) for part in self.parts())

    def tables(self) -> list[dict[str, Any]]:
        """As plain values, for `from_tables`: a table for each part, as in a file."""
        made = []
        for part in self.parts():
            table: dict[str, Any] = {name: list(getattr(part, name)) for name in ("find", "compute", "release", "share")}
            for name, value in (("ops", part.ops), ("free", part.free or None), ("unit", part.unit), ("until", part.expires)):
                if value is not None:
                    table[name] = list(value) if type(value) is tuple else value
            for name in TERMS:
                terms = getattr(part, name)
                if terms is not None:
                    table[name] = {f.name: value for f in fields(terms) if (value := getattr(terms, f.name)) is not None}
            if part.rate is not None:
                table["rate"] = part.rate.text
            made.append(table)
        return made

    def toml(self) -> str:
        """The `[dataset.NAME]` keys that say this. Raises `ConfigurationError` for `a & b`, which has no such form."""
        need(not self.also, "a & b has no form in a file: state the stricter values in one table")
        lines = [f"{name} = {_quoted(getattr(self, name))}" for name in ("find", "compute", "release", "share")]
        lines += [] if self.unit is None else [f"unit = {_quoted(self.unit)}"]
        if self.ops is not None:
            lines.append(f"ops = {_quoted(self.ops)}")
        lines += ["free = true"] if self.free else []
        for name in ("aggregate", "dp", "approve"):
            terms = getattr(self, name)
            if terms is not None:
                lines += [f"{name}.{f.name} = {value}" for f in fields(terms) if (value := getattr(terms, f.name)) is not None]
        if self.rate is not None:
            lines.append(f"rate = {_quoted(self.rate.text)}")
        if self.expires is not None:
            lines.append(f"expires = {datetime.fromtimestamp(self.expires).isoformat(sep=' ', timespec='seconds')}")
        return "\n".join(lines)


def _quoted(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _among(who: tuple[str, ...], name: str, role: str) -> bool:
    return "*" in who or name in who or f"role:{role}" in who


def _ways(part: Policy) -> str:
    ways = ["anything"] if part.free else []
    if part.aggregate is not None:
        ways.append(
            f"a sum, mean, variance or count over rows of at least {part.aggregate.min_units} units, told apart from every other such "
            f"release by as many, even in its contributions, and of at most {part.aggregate.ratio:.2g} elements a unit"
        )
    if part.dp is not None:
        ways.append(f"a differentially private query, within epsilon {part.dp.epsilon:g} and delta {part.dp.delta:g}")
    if part.approve is not None:
        many = "" if part.approve.quorum == 1 else f" (by {part.approve.quorum})"
        ways.append(f"what its owner approved{many}: .request(reason='...') or .get(reason='...')")
    told = ", or ".join(ways) or "nothing"
    return told if "*" in part.release else f"{told}; to {', '.join(part.release) or 'nobody'} alone"


# -- as they are usually made


def aggregate_only(min_units: int = 10, ratio: float = 1 / 3, probes: int = 50) -> Policy:
    """Sums over at least ``min_units`` units may leave (R1), and nothing else."""
    return Policy(aggregate=Aggregate(min_units, ratio, probes))


def dp(epsilon: float = 4.0, delta: float = 1e-6, per_user_epsilon: float | None = None, per_user_delta: float | None = None) -> Policy:
    """Answers of differentially private queries may leave (R2), and nothing else."""
    return Policy(dp=Budget(epsilon, delta, per_user_epsilon, per_user_delta))


def approve(quorum: int = 1, expires: float | None = None) -> Policy:
    """What the owner approved may leave (R3), and nothing else: what ``private=True`` says."""
    return Policy(approve=Approval(quorum, expires))


def allow(*users: str) -> Policy:
    """It may simply leave (R0), but only to ``users``, who alone find it and compute with it; to everybody if none are named."""
    who = users or EVERYBODY
    return Policy(find=who, compute=who, release=who, free=True)


# -- from a file


def from_table(name: str, table: Mapping[str, Any]) -> Policy:
    """The policy in a TOML table `[dataset.NAME]`. Raises `ConfigurationError`, naming the key."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        where = f"dataset.{name}.{key}"
        if key in LISTS:
            need(type(value) is list and all(type(v) is str for v in value), f"{where} is a list of texts, not {value!r}")
            made[key] = tuple(value)
        elif key in TERMS:
            made[key] = read_terms(where, TERMS[key], value)
        elif key == "free":
            need(type(value) is bool, f"{where} is true or false, not {value!r}")
            made[key] = value
        elif key == "unit":
            need(type(value) in (int, str), f"{where} is a column's name or number, not {value!r}")
            made[key] = value
        elif key == "rate":
            need(type(value) is str, f'{where} is a text as "20/h", not {value!r}')
            made[key] = Rate.parse(value)
        elif key == "until":  # seconds since the epoch: how a message says it
            need(type(value) in (int, float), f"{where} is in seconds, not {value!r}")
            made["expires"] = float(value)
        elif key == "expires":
            made[key] = moment(where, value)
        else:
            raise ConfigurationError(f"{where} is no rule; there are {', '.join((*LISTS, *TERMS, 'free', 'rate', 'expires', 'unit'))}")
    return Policy(**made)


def from_tables(name: str, tables: Any) -> Policy:
    """The policy that `Policy.tables` described. Raises `ConfigurationError`."""
    right = type(tables) is list and len(tables) > 0 and all(type(table) is dict for table in tables)
    need(right, f"{name}: a policy is a list of tables")
    first, *rest = (from_table(name, table) for table in tables)
    for policy in rest:
        first &= policy
    return first


def from_json(name: str, text: str) -> Policy:
    """The policy of dataset ``name`` that a message describes, as JSON of `Policy.tables`. Raises `ConfigurationError`."""
    try:
        tables = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigurationError(f"the policy of {name} is no JSON") from None
    return from_tables(name, tables)
