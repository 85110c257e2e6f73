"""What rules consist of: the terms of each way to leave, how fast values may leave, and reading them as files and messages have them.

Whoever reads says where a value stands (``where``); what is wrong is a `ConfigurationError` that names it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from syftlite.errors import ConfigurationError
from syftlite.policy.partition import Aggregate

PERIODS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}


@dataclass(frozen=True)
class Budget:
    """The terms of R2, for the dataset and for each user of it; None: only the dataset's counts."""

    epsilon: float = 4.0
    delta: float = 1e-6
    per_user_epsilon: float | None = None
    per_user_delta: float | None = None


@dataclass(frozen=True)
class Approval:
    """The terms of R3: how many owners must approve, and for how many seconds that holds; None: as long as the session."""

    quorum: int = 1
    expires: float | None = None


@dataclass(frozen=True)
class Rate:
    """At most ``count`` releases in any ``seconds``, to one principal."""

    count: int
    seconds: float

    def __post_init__(self) -> None:
        need(self.count > 0 and self.seconds in PERIODS.values(), f"a rate is a number above 0 per s, min, h or d, not {self}")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """From "20/h"; s, min, h and d are known. Raises `ConfigurationError`."""
        count, _, period = text.partition("/")
        if not count.strip().isdigit() or period.strip() not in PERIODS or not int(count):
            raise ConfigurationError(f'a rate is a number above 0 per s, min, h or d, as in "20/h", not {text!r}')
        return cls(int(count), PERIODS[period.strip()])

    @property
    def text(self) -> str:
        """What `parse` takes."""
        return f"{self.count}/{next(name for name, seconds in PERIODS.items() if seconds == self.seconds)}"


LISTS = ("find", "compute", "release", "share", "ops")
TERMS: dict[str, Any] = {"aggregate": Aggregate, "dp": Budget, "approve": Approval}


def need(condition: bool, otherwise: str) -> None:
    """Raises `ConfigurationError` unless it holds."""
    if not condition:
        raise ConfigurationError(otherwise)


def read_terms(where: str, kind: Any, value: Any) -> Any:
    """``kind`` of `TERMS` from true or a table; None from false."""
    if value is True:
        return kind()
    if value is False:
        return None
    need(type(value) is dict, f"{where} is true, or a table of {', '.join(f.name for f in fields(kind))}; not {value!r}")
    known = {f.name: int if f.name in ("min_units", "probes", "quorum") else float for f in fields(kind)}
    for key, given in value.items():
        need(key in known, f"{where}.{key} is no term of it; there are {', '.join(known)}")
        right = type(given) is int or (known[key] is float and type(given) is float)
        need(right, f"{where}.{key} is a {'whole ' if known[key] is int else ''}number, not {given!r}")
    return kind(**value)


def moment(where: str, value: Any) -> float:
    """Seconds since the epoch: of a day, of its beginning here."""
    if isinstance(value, datetime):
        return value.timestamp()
    if isinstance(value, date):
        return time.mktime(value.timetuple())
    raise ConfigurationError(f"{where} is a date, as in 2027-01-31, not {value!r}")
