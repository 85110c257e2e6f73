"""The accounts that noise is charged to, as policies state them: one of the dataset, and one of each user where that is asked for."""

from __future__ import annotations

from collections.abc import Iterator

from syftlite.dp.ledger import Account
from syftlite.policy.rules import Policy

SMALLEST_DELTA = 1e-300
"""An account of pure epsilon, or next to it, is kept at this delta."""


def accounts_of(source: str, user: str, part: Policy) -> Iterator[Account]:
    """What ``part`` of dataset ``source``'s policy has what ``user`` asks fit into; nothing where it has no way by noise."""
    if part.dp is None:
        return
    yield Account(source, "", part.dp.epsilon, max(part.dp.delta, SMALLEST_DELTA))
    if part.dp.per_user_epsilon is not None:
        delta = part.dp.delta if part.dp.per_user_delta is None else part.dp.per_user_delta
        yield Account(source, user, part.dp.per_user_epsilon, max(delta, SMALLEST_DELTA))
