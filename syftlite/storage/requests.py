"""Requests on disk, in the node's database: what was asked for, how it was decided, and the values, until they are fetched or expire.

    requests          a row each, newest last
    request_values    a value in pieces of at most PIECE bytes; of one that failed, why (dtype "")
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import torch

from syftlite.engine.marks import Poison
from syftlite.engine.requests import Kept, Release
from syftlite.ops.dtypes import DTYPES, NUMBER_OF
from syftlite.storage.database import Database, Schema
from syftlite.wire.codec import buffer_of, tensor_of

PIECE = 64 << 20
REQUESTS = Schema(
    "requests",
    (
        "create table requests (number integer primary key, id text unique not null, filed text not null, state text not null,"
        " note text not null, votes text not null, expires real not null) strict",
        "create table request_values (request text not null references requests (id) on delete cascade, position integer not null,"
        " piece integer not null, dtype text not null, shape text not null, data blob not null,"
        " primary key (request, position, piece)) strict",
    ),
)
_FILED = ("principal", "reason", "what", "sources", "program", "nbytes", "filed_at", "quorum")


class FileRequests:
    """The requests in ``database``."""

    def __init__(self, database: Database) -> None:
        self.database = database
        database.adopt(REQUESTS)

    def load(self) -> Iterator[Release]:
        """All, oldest first."""
        for number, filed, state, note, votes, expires in self.database.rows(
            "select id, filed, state, note, votes, expires from requests order by number"
        ):
            yield Release(number, expires_at=expires, state=state, note=note, votes=json.loads(votes), **json.loads(filed))

    def add(self, release: Release, values: Sequence[Kept]) -> None:
        """Keep a new one with its values: on disk when this returns."""
        filed = json.dumps({name: getattr(release, name) for name in _FILED})
        with self.database.transaction() as run:
            run(
                "insert into requests (id, filed, state, note, votes, expires) values (?, ?, ?, ?, ?, ?)",
                release.id, filed, release.state, release.note, json.dumps(release.votes), release.expires_at,
            )  # fmt: skip
            for position, value in enumerate(values):
                dtype, shape, data = _written(value)
                for piece, start in enumerate(range(0, max(1, len(data)), PIECE)):
                    part = data[start : start + PIECE]
                    run("insert into request_values values (?, ?, ?, ?, ?, ?)", release.id, position, piece, dtype, shape, part)

    def update(self, release: Release, *, keep: bool) -> None:
        """Keep its new state; without ``keep`` its values go."""
        votes = json.dumps(release.votes)
        with self.database.transaction() as run:
            run(
                "update requests set state = ?, note = ?, votes = ?, expires = ? where id = ?",
                release.state, release.note, votes, release.expires_at, release.id,
            )  # fmt: skip
            if not keep:
                run("delete from request_values where request = ?", release.id)

    def forget(self, number: str) -> None:
        """Remove one."""
        with self.database.transaction() as run:
            run("delete from requests where id = ?", number)

    def values(self, number: str) -> list[Kept]:
        """The values of one."""
        rows = self.database.rows(
            "select position, dtype, shape, data from request_values where request = ? order by position, piece", number
        )
        pieces: dict[int, list[bytes]] = {}
        forms: dict[int, tuple[str, str]] = {}
        for position, dtype, shape, data in rows:
            pieces.setdefault(position, []).append(data)
            forms[position] = (dtype, shape)
        return [_read(*forms[position], b"".join(parts)) for position, parts in pieces.items()]


def _written(value: Kept) -> tuple[str, str, bytes | memoryview]:
    if isinstance(value, Poison):
        return "", json.dumps([]), json.dumps(value).encode()
    plain = value.detach().contiguous()
    return str(NUMBER_OF[plain.dtype]), json.dumps(list(plain.shape)), buffer_of(plain)


def _read(dtype: str, shape: str, data: bytes) -> Kept:
    if not dtype:
        return Poison(*json.loads(data))
    number, sizes = int(dtype), tuple(json.loads(shape))
    return tensor_of(number, sizes, bytearray(data)) if data else torch.empty(sizes, dtype=DTYPES[number])
