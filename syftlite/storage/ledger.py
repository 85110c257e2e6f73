"""The ledger of differential privacy in a node's database.

    dp_requests(key, question, result)                                   a request that was charged; its result once committed
    dp_charges(key, dataset, user, kind, noise, rate, uses, variation)   what it was charged, an event a row
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from syftlite.dp.accountant import Event
from syftlite.dp.ledger import Cost, Entry, Kept
from syftlite.storage.database import Database, Run, Schema

LEDGER = Schema(
    "ledger",
    (
        "create table dp_requests (key text primary key, question text not null, result blob) strict",
        "create table dp_charges (key text not null references dp_requests, dataset text not null, user text not null, kind text not null, "
        "noise real not null, rate real not null, uses integer not null, variation real not null) strict",
        "create index dp_charges_of on dp_charges (key)",
    ),
)


class LedgerStore:
    """A ledger's rows in ``database``: on disk when a call returns."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.adopt(LEDGER)

    def entries(self) -> Iterable[Entry]:
        """What has been charged, equal events of an account added up."""
        rows = self.database.rows(
            "select dataset, user, kind, noise, rate, sum(uses), sum(variation) from dp_charges group by dataset, user, kind, noise, rate"
        )
        for dataset, user, kind, noise, rate, uses, variation in rows:
            yield Entry(dataset, user, Cost((Event(kind, noise, rate, uses),) if uses else (), variation))

    def find(self, key: str) -> Kept | None:
        """The request ``key``."""
        rows = self.database.rows("select question, result from dp_requests where key = ?", key)
        return Kept(*rows[0]) if rows else None

    def charge(self, key: str, question: str, entries: Sequence[Entry]) -> None:
        """Write a request and its charges."""
        with self.database.transaction() as run:
            run("insert into dp_requests values (?, ?, null)", key, question)
            _insert(run, key, entries)

    def commit(self, key: str, result: bytes) -> None:
        """Write the result of request ``key``."""
        with self.database.transaction() as run:
            run("update dp_requests set result = ? where key = ?", result, key)


def _insert(run: Run, key: str, entries: Sequence[Entry]) -> None:
    for dataset, user, cost in entries:
        for number, event in enumerate(cost.events):
            variation = cost.variation if number == 0 else 0.0
            run("insert into dp_charges values (?, ?, ?, ?, ?, ?, ?, ?)", key, dataset, user, *event, variation)
