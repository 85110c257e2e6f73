"""Which of two policies lets less go, field by field.

    who, share, ops     the same or fewer
    ways                none that the other lacks, on terms as strict; of what is free, any
    unit                the other's, where rows are counted by it; theirs may count rows by themselves
    rate                in no stretch of the other's length more than it lets go
    expires             no later
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from syftlite.policy.rules import Policy
    from syftlite.policy.terms import Budget, Rate


def stricter(mine: Policy, theirs: Policy) -> bool:
    """Whether ``mine`` lets nothing go that ``theirs`` keeps; both without others that are to be satisfied, too."""
    who = all(_within(getattr(mine, name), getattr(theirs, name)) for name in ("find", "compute", "release", "share", "ops"))
    when = _slower(mine.rate, theirs.rate) and (theirs.expires is None or (mine.expires is not None and mine.expires <= theirs.expires))
    return who and when and (theirs.free or (not mine.free and _ways(mine, theirs)))


def _ways(mine: Policy, theirs: Policy) -> bool:
    counted = mine.aggregate is None and mine.dp is None
    return (
        (counted or theirs.unit in (None, mine.unit))
        and _terms(mine.aggregate, theirs.aggregate, "min_units") and _budget(mine.dp, theirs.dp)
        and _terms(mine.approve, theirs.approve, "quorum")
    )  # fmt: skip


def _within(a: tuple[str, ...] | None, b: tuple[str, ...] | None) -> bool:
    return b is None or "*" in b or (a is not None and set(a) <= set(b))


def _terms(a: Any, b: Any, *least: str) -> bool:
    if a is None or b is None:
        return a is None
    for f in fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if y is not None and (x is None or (x < y if f.name in least else x > y)):
            return False
    return True


def _budget(a: Budget | None, b: Budget | None) -> bool:
    if a is None or b is None:
        return a is None
    if a.epsilon > b.epsilon or a.delta > b.delta:
        return False
    if b.per_user_epsilon is None:
        return True
    users = [budget.delta if budget.per_user_delta is None else budget.per_user_delta for budget in (a, b)]
    return a.per_user_epsilon is not None and a.per_user_epsilon <= b.per_user_epsilon and users[0] <= users[1]


def _slower(a: Rate | None, b: Rate | None) -> bool:
    return b is None or (a is not None and a.count * math.ceil(b.seconds / a.seconds) <= b.count)
