"""A node's metadata: one SQLite file, each module's tables its own.

    schema(owner, version)      how far each module's tables have come; a `Schema`'s steps bring them further

    LEDGER = Schema("ledger", "create table spent (account text primary key, epsilon real) strict", ...)

    database.adopt(LEDGER)
    with database.transaction() as run:                         all or nothing, on disk when the block ends
        run("insert into spent values (?, ?)", "icu", 0.5)
    database.rows("select account, epsilon from spent")         [("icu", 0.5)]

Write-ahead log, synchronous=FULL: what a transaction wrote survives kill -9 and a power cut once its block has ended, and nothing of one
that did not end is ever seen. Threads take turns; other processes (a node and the commands about it) may have the file open too.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from syftlite.errors import ConfigurationError
from syftlite.storage.home import private_folder, sync_folder

PATIENCE = 10.0
"""Seconds to wait for another process that writes."""


class Schema(NamedTuple):
    """The tables of module ``owner``: ``steps`` are SQL statements that made them what they are. Steps are only ever added."""

    owner: str
    steps: tuple[str, ...]


class Run(Protocol):
    """Executes one statement within a transaction; returns the rows that it gives."""

    def __call__(self, sql: str, *values: Any) -> list[tuple[Any, ...]]: ...


class Database:
    """The database at ``path``, made when missing, readable by its user alone; None: in memory, for as long as this object lives.

    Raises `ConfigurationError` for a file that is no database. What fails later raises OSError, and its transaction leaves no trace.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._depth = 0
        self._process = os.getpid()
        if path is not None:
            private_folder(path.parent)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            sync_folder(path.parent)
        name = ":memory:" if path is None else str(path)
        self._connection = sqlite3.connect(name, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        weakref.finalize(self, _close, self._connection, self._process)
        try:
            self._connection.execute("pragma journal_mode = wal")
            self._connection.execute("pragma synchronous = full")
            self._connection.execute("pragma foreign_keys = on")
            self.adopt(Schema("schema", ("create table if not exists schema (owner text primary key, version integer not null) strict",)))
        except (sqlite3.DatabaseError, OSError) as error:
            self._connection.close()
            raise ConfigurationError(f"{path} cannot be used as a node's database: {error}. Restore it, or move it away") from None

    def adopt(self, schema: Schema) -> None:
        """Bring the tables of ``schema`` up to its last step. Raises `ConfigurationError` if a later syftlite has been here."""
        with self.transaction() as run:
            known = run("select 1 from sqlite_master where name = 'schema'")
            (version,) = next(iter(run("select version from schema where owner = ?", schema.owner)), (0,)) if known else (0,)
            if version > len(schema.steps):
                raise ConfigurationError(f"{self.path}: its {schema.owner} tables were made by a later syftlite: upgrade this one")
            for step in schema.steps[version:]:
                run(step)
            run("insert into schema values (?, ?) on conflict do update set version = excluded.version", schema.owner, len(schema.steps))

    @contextmanager
    def transaction(self) -> Iterator[Run]:
        """A block that is carried out whole, on disk when it ends, or, where it raises, not at all. One within another is part of it."""
        with self._lock:
            self._only_here()
            depth = self._depth
            self._do("begin immediate" if depth == 0 else f"savepoint s{depth}")
            self._depth += 1
            try:
                yield self._do
                self._do("commit" if depth == 0 else f"release s{depth}")
            except BaseException:
                for undo in ("rollback",) if depth == 0 else (f"rollback to s{depth}", f"release s{depth}"):
                    if self._connection.in_transaction:  # a full disk may have ended it
                        self._connection.execute(undo)
                raise
            finally:
                self._depth = depth

    def rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a select gives."""
        with self._lock:
            self._only_here()
            return self._do(sql, *values)

    def _do(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        try:
            return self._connection.execute(sql, values).fetchall()
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
            raise OSError(f"{self.path or 'the database'}: {error}; nothing of the transaction is kept") from error

    def _only_here(self) -> None:
        if os.getpid() != self._process:
            raise ConfigurationError(f"{self.path} was opened before a fork: open it anew in this process")

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            _close(self._connection, self._process)


def _close(connection: sqlite3.Connection, process: int) -> None:
    """In a fork's child it is the parent's: there it stays open."""
    if os.getpid() == process:
        connection.close()
