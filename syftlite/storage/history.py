"""What has left of each dataset as aggregates, and when something left to whom, in the node's database: on disk before a value leaves.

    left_as_aggregates(dataset text primary key, partition blob)        policy/partition.py says what is in it
    left_at(dataset text, principal text, at real)                      as long as a rate looks back
"""

from __future__ import annotations

from collections.abc import Mapping

from syftlite.storage.database import Database, Schema

HISTORY = Schema(
    "history",
    (
        "create table left_as_aggregates (dataset text primary key, partition blob not null) strict",
        "create table left_at (dataset text not null, principal text not null, at real not null) strict",
    ),
)


class StoredHistory:
    """The history in ``database``."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.adopt(HISTORY)

    def load(self, dataset: str) -> bytes | None:
        """What was saved last."""
        rows = self.database.rows("select partition from left_as_aggregates where dataset = ?", dataset)
        return bytes(rows[0][0]) if rows else None

    def save(self, changed: Mapping[str, bytes]) -> None:
        """Save what has changed, by dataset: all of it, on disk when this returns, or nothing."""
        with self.database.transaction() as run:
            for dataset, partition in changed.items():
                run(
                    "insert into left_as_aggregates values (?, ?) on conflict do update set partition = excluded.partition",
                    dataset,
                    partition,
                )

    def times(self, dataset: str, principal: str) -> list[float]:
        """When something of ``dataset`` left to ``principal``, as counted, in order."""
        rows = self.database.rows("select at from left_at where dataset = ? and principal = ? order by at", dataset, principal)
        return [float(at) for (at,) in rows]

    def count(self, dataset: str, principal: str, now: float, since: float, times: int = 1) -> None:
        """So many values leave ``now``: on disk when this returns; what left before ``since`` is forgotten."""
        with self.database.transaction() as run:
            run("delete from left_at where dataset = ? and principal = ? and at <= ?", dataset, principal, since)
            for _ in range(times):
                run("insert into left_at values (?, ?, ?)", dataset, principal, now)
