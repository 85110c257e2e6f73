"""The ledger: who has been charged what, per dataset, and per dataset and user. A release must fit every account that it touches.

    reserve    all accounts have room -> charged, durably -> compute -> commit (the result, durably) -> answer
    crash      between the two: it stays charged; the same request, sent again, is computed under that charge
    retry      of a committed request: the result that was committed, free: it is the same random draw, so it tells nothing new

A request is told by its key (the client's number for it, and who asks); the same key with another question is refused. One lock holds
from the look at the accounts to the charge on disk, so requests at the same time cannot overspend together. What is kept on disk are
events, not their cost: a later accountant that proves less may count less.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from syftlite.dp.accountant import Event
from syftlite.dp.filters import Spent
from syftlite.errors import BudgetExceededError, ConfigurationError

KEPT = 1 << 20
"""Bytes of a result that is kept for a retry. A larger one is answered once: another draw under the same charge would tell more."""
ANSWERED = b""
"""Stands for a result that was too large to keep."""


class Account(NamedTuple):
    """An account of ``dataset``, for all its users ("") or one; the budget that it has now."""

    dataset: str
    user: str
    epsilon: float
    delta: float

    @property
    def name(self) -> tuple[str, str]:
        """What it is kept under, whatever the budget."""
        return self.dataset, self.user

    def __str__(self) -> str:
        return f"{self.dataset} for {self.user}" if self.user else self.dataset


class Standing(NamedTuple):
    """How an account stands: its budget, and what has been spent of epsilon at its delta."""

    account: Account
    spent: float

    @property
    def left(self) -> float:
        """What is left of epsilon: about what a further release may cost, as costs do not simply add up."""
        return max(0.0, self.account.epsilon - self.spent)

    def __str__(self) -> str:
        account = self.account
        return f"{account}: {self.left:.3g} left of epsilon {account.epsilon:g} at delta {account.delta:g}"


class Cost(NamedTuple):
    """What a release costs: its noise, and the total variation of its tables."""

    events: tuple[Event, ...]
    variation: float = 0.0


class Entry(NamedTuple):
    """A charge to one account."""

    dataset: str
    user: str
    cost: Cost


class Kept(NamedTuple):
    """A request that has been charged. ``result`` None: it was not committed."""

    question: str
    result: bytes | None


class Store(Protocol):
    """Where a ledger's rows are. Each call is one transaction, as durable as the store promises when it returns."""

    def entries(self) -> Iterable[Entry]:
        """All that has been charged."""

    def find(self, key: str) -> Kept | None:
        """The request ``key``."""

    def charge(self, key: str, question: str, entries: Sequence[Entry]) -> None:
        """Write a request and its charges."""

    def commit(self, key: str, result: bytes) -> None:
        """Write the result of request ``key``."""


class MemoryStore:
    """Rows that live as long as the process: for virtual workers and tests."""

    def __init__(self) -> None:
        self._kept: dict[str, Kept] = {}
        self._entries: dict[str, list[Entry]] = {}

    def entries(self) -> Iterable[Entry]:
        """All that has been charged."""
        return [entry for entries in self._entries.values() for entry in entries]

    def find(self, key: str) -> Kept | None:
        """The request ``key``."""
        return self._kept.get(key)

    def charge(self, key: str, question: str, entries: Sequence[Entry]) -> None:
        """Keep a request and its charges."""
        self._kept[key], self._entries[key] = Kept(question, None), list(entries)

    def commit(self, key: str, result: bytes) -> None:
        """Keep the result of request ``key``."""
        self._kept[key] = self._kept[key]._replace(result=result)


class Ledger:
    """Accounts over ``store``. Thread-safe; one process at a time charges a store."""

    def __init__(self, store: Store | None = None) -> None:
        self.store: Store = store if store is not None else MemoryStore()
        self._lock = threading.Lock()
        self._open: set[str] = set()  # requests that are being computed in this process
        self._spent: dict[tuple[str, str], Spent] = {}
        for dataset, user, cost in self.store.entries():
            self._spent[(dataset, user)] = self._spent.get((dataset, user), Spent()).plus(cost.events, cost.variation)

    def reserve(self, key: str, question: str, accounts: Sequence[Account], cost: Cost) -> bytes | None:
        """Charge request ``key`` to all ``accounts``, or to none. Returns its result if it has been committed already.

        Raises `BudgetExceededError`, with what is left, if it does not fit.
        """
        with self._lock:
            kept = self.store.find(key)
            if kept is not None:
                if kept.question != question:
                    raise ConfigurationError("this request's name stands for another question: give every question a name of its own")
                if kept.result == ANSWERED:
                    raise ConfigurationError("this request was answered, with more than is kept: ask again under a name of its own")
                if kept.result is None:  # a crash, or a failure, left it charged and unanswered
                    self._begin(key)
                return kept.result
            after = {account.name: self._of(account).plus(cost.events, cost.variation) for account in accounts}
            if not accounts or not all(after[account.name].admitted(account.epsilon, account.delta) for account in accounts):
                for account in accounts:
                    _must_be_exact(account, after[account.name])
                left = "; ".join(map(str, self._standings(accounts))) or "no account lets it"
                raise BudgetExceededError(f"it would cost more than is left: {left}. Ask with a smaller epsilon, or the owner for more")
            self.store.charge(key, question, [Entry(*name, cost) for name in after])
            self._begin(key)
            self._spent |= after
            return None

    def _begin(self, key: str) -> None:
        if key in self._open:
            raise ConfigurationError("this request is being answered: wait for it, a second draw under its charge would tell more")
        self._open.add(key)

    def commit(self, key: str, result: bytes) -> None:
        """Keep the result of request ``key``, or that there was one; it may be answered once this returns."""
        self.store.commit(key, result if len(result) <= KEPT else ANSWERED)
        self._open.discard(key)

    def abandon(self, key: str) -> None:
        """Request ``key`` failed and nothing was answered: it stays charged, and may be sent again."""
        self._open.discard(key)

    def standings(self, accounts: Sequence[Account]) -> list[Standing]:
        """How ``accounts`` stand."""
        with self._lock:
            return self._standings(accounts)

    def _standings(self, accounts: Sequence[Account]) -> list[Standing]:
        return [Standing(account, self._of(account).least(account.delta)) for account in accounts]

    def _of(self, account: Account) -> Spent:
        return self._spent.get(account.name) or Spent()


def _must_be_exact(account: Account, after: Spent) -> None:
    if account.epsilon > (most := after.exact_to(account.delta)):
        told = f"accounts of up to epsilon {most:.3g}" if most > 0 else "none"
        raise BudgetExceededError(
            f"the noise of more than a few numbers comes from tables, at delta {account.delta:g} exact enough for {told}, and {account} "
            f"has {account.epsilon:g}: its owner can state a smaller epsilon or a larger delta"
        )
