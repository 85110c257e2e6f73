"""A dataset's columns by name: in its description, and in a policy's unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from syftlite.errors import ConfigurationError
from syftlite.policy.rules import Policy


def by_column(name: str, policy: Policy, columns: Sequence[str]) -> Policy:
    """``policy``, with the number of the one of dataset ``name``'s ``columns`` that its unit is, where it has that by name."""
    if type(policy.unit) is not str:
        return policy
    if policy.unit not in columns:
        known = ", ".join(columns) or "no names"
        raise ConfigurationError(f"dataset {name} has no column {policy.unit!r} for its unit; it has {known}")
    return replace(policy.without_unit(), unit=columns.index(policy.unit))


def columns_in(description: str, width: int) -> list[str]:
    """The names in a description's "columns: a, b, c", if they are as many as the columns."""
    found = re.search(r"columns: ([^;\n]*)", description)
    names = [name.strip() for name in found[1].split(",")] if found else []
    return names if len(names) == width else []
