"""The journal on disk: one JSON line a record, each chained to the one before it.

    digest(n) = BLAKE2b(digest(n-1) || canonical JSON of {at, event, n, record}),    digest(-1) = 32 zero bytes

A changed, removed, inserted or reordered record breaks the chain at that place (`verify`). Records cut off the end leave a shorter,
right chain: who must notice that keeps the last digest elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from syftlite.engine.journal import Clock
from syftlite.errors import ConfigurationError
from syftlite.storage.home import private_folder, sync_folder

log = logging.getLogger("syftlite.journal")
START = bytes(32)


class Verdict(NamedTuple):
    """What `verify` found: how many records from the start are ``right``, the last one's ``digest``, the bytes of an unfinished
    last line (``torn``), and what is wrong with record number ``right``, if anything (``broken``)."""

    right: int
    digest: bytes
    torn: int = 0
    broken: str | None = None


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _chained(digest: bytes, body: dict[str, Any]) -> bytes:
    return blake2b(digest + _canonical(body), digest_size=32).digest()


def verify(path: Path) -> Verdict:
    """Check the chain of the journal at ``path`` from its first record."""
    right, digest = 0, START
    with path.open("rb") as file:
        for line in file:
            if _torn(line) and not file.peek(1):
                return Verdict(right, digest, torn=len(line))
            try:
                digest = _next(right, digest, line)
            except (ValueError, RecursionError) as error:
                return Verdict(right, digest, broken=str(error))
            right += 1
    return Verdict(right, digest)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of the journal at ``path``, each {n, at, event, record, digest}, without checking their chain."""
    with path.open("rb") as file:
        for line in file:
            if not _torn(line):
                yield json.loads(line)


def _torn(line: bytes) -> bool:
    return not line.endswith(b"\n") or b"\0" in line  # a power cut may leave zeros in the last block


def _next(number: int, digest: bytes, line: bytes) -> bytes:
    """The digest of record ``number``, which ``line`` must hold. Raises ValueError."""
    row = json.loads(line)
    if type(row) is not dict or set(row) != {"n", "at", "event", "record", "digest"}:
        raise ValueError("it is no record of a journal")
    if _canonical(row) + b"\n" != line:
        raise ValueError("it is not written as the journal writes")
    claimed = row.pop("digest")
    chained = _chained(digest, row)
    if row["n"] != number:
        raise ValueError(f"number {row['n']} stands where {number} belongs: records were removed, added or reordered")
    if chained.hex() != claimed:
        raise ValueError("its digest does not continue the chain: it, or one before it, was changed")
    return chained


class FileJournal:
    """The journal at ``path``, for one process at a time. `append` returns when the record is on disk.

    An unfinished last line, which a crash leaves of a record that nobody was told of, is cut off; ``torn`` says how many bytes it had.
    Any other damage raises `ConfigurationError`: evidence is not repaired.
    """

    def __init__(self, path: Path, clock: Clock = time.time) -> None:
        self.path, self.clock = path, clock
        private_folder(path.parent)
        self._lock = threading.Lock()
        self._failed: str | None = None
        self._file: BinaryIO = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+", buffering=0)
        try:
            self._only_here()
            self._recover()
        except BaseException:
            self._file.close()
            raise

    def _only_here(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ConfigurationError(f"another process has {self.path} open: stop that node first, or give this one another id") from None

    def _recover(self) -> None:
        verdict = verify(self.path)
        if verdict.broken is not None:
            raise ConfigurationError(
                f"{self.path}: record {verdict.right} is damaged: {verdict.broken}. Find out why, then move the file away"
            )
        self.count, self._digest, self.torn = verdict.right, verdict.digest, verdict.torn
        self._size = os.fstat(self._file.fileno()).st_size - verdict.torn
        if verdict.torn:
            log.warning("%s: cut off an unfinished last record of %d bytes", self.path, verdict.torn)
            self._file.truncate(self._size)
        os.fsync(self._file.fileno())
        sync_folder(self.path.parent)

    def append(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event`` durably. After a failure to write nothing can be recorded, so nothing more is: every call raises."""
        with self._lock:
            if self._failed is not None:
                raise OSError(self._failed)
            body = {"n": self.count, "at": self.clock(), "event": event, "record": record}
            digest = _chained(self._digest, body)
            line = _canonical({**body, "digest": digest.hex()}) + b"\n"
            try:
                self._write(line)
            except OSError as error:
                self._failed = f"{self.path} cannot be written ({error}): make room or mend the disk, then start the node again"
                raise OSError(self._failed) from error
            self.count, self._digest, self._size = self.count + 1, digest, self._size + len(line)

    def _write(self, line: bytes) -> None:
        written = self._file.write(line)
        if written != len(line):  # the disk is full: leave no half record before a possible later one
            self._file.truncate(self._size)
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes fitted")
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Let another process have the journal."""
        self._failed = f"{self.path} was closed with its node"
        self._file.close()
