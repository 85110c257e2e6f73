"""The audit trail on disk: one JSON line a record, each chained to the one before it.

    digest(n) = BLAKE2b(digest(n-1) || canonical JSON of {at, event, n, record}),    digest(-1) = 32 zero bytes
    signature = Ed25519(node's key, "syftlite audit head" || n in 8 bytes || digest(n))

    append      on disk when it returns, and all before it; signed
    note        written at once, on disk with the next `append` at the latest; every 1,000th record is signed and synced anyway

A changed, removed, inserted or reordered record breaks the chain at that place, and who writes the rest of the chain anew lacks the key.
Records cut off the end leave a shorter, right chain: so signed heads go to an ``anchor`` too, a file elsewhere, which `verify` compares.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from syftlite.engine.journal import Clock
from syftlite.errors import ConfigurationError
from syftlite.storage.home import private_folder, sync_folder
from syftlite.storage.keys import PrivateKey, public_of
from syftlite.wire.signatures import signed_by

log = logging.getLogger("syftlite.journal")
START = bytes(32)
SIGN_EVERY = 1000
"""Records, of those that are only noted, from one signature to the next."""
NOTED = frozenset({"frame", "connected"})
"""Events that are only noted: they let nothing go."""
_FIELDS = frozenset({"n", "at", "event", "record", "digest"})


class Verdict(NamedTuple):
    """What `verify` found: how many records from the start are ``right``, the last one's ``digest``, the bytes of an unfinished last line
    (``torn``), what is wrong with record number ``right``, if anything (``broken``), how many signatures there are (``signed``)."""

    right: int
    digest: bytes
    torn: int = 0
    broken: str | None = None
    signed: int = 0


def _to_sign(number: int, digest: bytes) -> bytes:
    return b"syftlite audit head" + number.to_bytes(8, "big") + digest


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _canonical(value: Any) -> bytes:
    return _encode(value).encode()


def _chained(digest: bytes, body: dict[str, Any]) -> bytes:
    return blake2b(digest + _canonical(body), digest_size=32).digest()


def verify(path: Path, key: bytes | None = None, anchor: Path | None = None) -> Verdict:
    """Check the chain of the journal at ``path`` from its first record; with the node's public ``key`` its signatures, and that the heads
    in ``anchor`` are in it."""
    heads = {} if anchor is None else anchored(anchor, key)
    right, digest, signed = 0, START, 0
    with path.open("rb") as file:
        for line in file:
            if _torn(line) and not file.peek(1):
                return _cut_off(Verdict(right, digest, torn=len(line), signed=signed), heads)
            try:
                found, signature = _next(right, digest, line)
                signed += _check_signature(json.loads(line)["event"], right, found, signature, key, bool(signed))
                if heads.get(right, found) != found:
                    raise ValueError("the anchor knows another record of that number: the journal was written anew")
            except (ValueError, RecursionError) as error:
                return Verdict(right, digest, broken=str(error), signed=signed)
            right, digest = right + 1, found
    return _cut_off(Verdict(right, digest, signed=signed), heads)


def _cut_off(verdict: Verdict, heads: Mapping[int, bytes]) -> Verdict:
    last = max(heads, default=-1)
    if last < verdict.right:
        return verdict
    gone = last + 1 - verdict.right
    return verdict._replace(broken=f"it is missing: the anchor knows {last + 1:,} records, so the last {gone:,} were cut off")


def _check_signature(event: str, number: int, digest: bytes, signature: bytes | None, key: bytes | None, begun: bool) -> bool:
    """Whether there is a right signature. ``begun``: there was one before, so that from here on what must have one has."""
    if signature is None:
        if begun and (event not in NOTED or number % SIGN_EVERY == SIGN_EVERY - 1):
            raise ValueError("its signature was taken away")
        return False
    if key is not None and not signed_by(key, signature, _to_sign(number, digest)):
        raise ValueError("its signature is not by the node's key: it, and perhaps what comes before, was written by someone else")
    return True


def anchored(path: Path, key: bytes | None) -> dict[int, bytes]:
    """The heads in an anchor file, {number: digest}. Raises `ConfigurationError` for a file that no node wrote, or another node."""
    heads: dict[int, bytes] = {}
    try:
        lines = path.read_text().splitlines(keepends=True)
        for line in lines:
            if not line.endswith("\n"):
                continue  # a crash left it
            row = json.loads(line)
            heads[row["n"]] = digest = bytes.fromhex(row["digest"])
            if key is not None and not signed_by(key, bytes.fromhex(row["signature"]), _to_sign(row["n"], digest)):
                raise ValueError(f"the head of record {row['n']} was not signed by this node")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} is no anchor of this node's: {error}") from None
    return heads


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of the journal at ``path``, each {n, at, event, record, digest}, without checking their chain."""
    with path.open("rb") as file:
        for line in file:
            if not _torn(line):
                yield json.loads(line)


def _torn(line: bytes) -> bool:
    return not line.endswith(b"\n") or b"\0" in line  # a power cut may leave zeros in the last block


def _next(number: int, digest: bytes, line: bytes) -> tuple[bytes, bytes | None]:
    """The digest of record ``number``, which ``line`` must hold, and its signature. Raises ValueError."""
    row = json.loads(line)
    if type(row) is not dict or set(row) - {"signature"} != _FIELDS:
        raise ValueError("it is no record of a journal")
    if _canonical(row) + b"\n" != line:
        raise ValueError("it is not written as the journal writes")
    claimed, signature = row.pop("digest"), row.pop("signature", None)
    chained = _chained(digest, row)
    if row["n"] != number:
        raise ValueError(f"number {row['n']} stands where {number} belongs: records were removed, added or reordered")
    if chained.hex() != claimed:
        raise ValueError("its digest does not continue the chain: it, or one before it, was changed")
    return chained, None if signature is None else bytes.fromhex(signature)


class FileJournal:
    """The journal at ``path``, for one process at a time. `append` returns when the record is on disk.

    ``key``: the node's, which signs. ``anchor``: where signed heads go too; opening raises `ConfigurationError` if it knows of records that
    are not here. An unfinished last line, which a crash leaves of a record that nobody was told of, is cut off; ``torn`` says how
    many bytes it had. Any other damage raises `ConfigurationError`: evidence is not repaired.
    """

    def __init__(self, path: Path, clock: Clock = time.time, *, key: PrivateKey | None = None, anchor: Path | None = None) -> None:
        self.path, self.clock, self.key = path, clock, key
        private_folder(path.parent)
        self._lock = threading.Lock()
        self._failed: str | None = None
        self._file = _open(path)
        self._anchor: BinaryIO | None = None
        try:
            self._only_here()
            self._recover(anchor)
            if anchor is not None:
                self._anchor = _open(anchor)
        except OSError as error:
            self._file.close()
            raise ConfigurationError(f"cannot write {error.filename or path}: {error}") from None
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

    def _recover(self, anchor: Path | None) -> None:
        known = anchor if anchor is not None and anchor.exists() else None
        verdict = verify(self.path, None if self.key is None else public_of(self.key), known)
        if verdict.broken is not None:
            raise ConfigurationError(
                f"{self.path}: record {verdict.right} is damaged: {verdict.broken}. Find out why, then move the file away"
                + ("" if known is None else f", and {known} with it")
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
        self._add(event, record, durably=True)

    def note(self, event: str, record: dict[str, Any]) -> None:
        """Record ``event``, on disk with the next `append` at the latest: a crash of this process loses nothing, a power cut may."""
        self._add(event, record, durably=False)

    def _add(self, event: str, record: dict[str, Any], *, durably: bool) -> None:
        with self._lock:
            if self._failed is not None:
                raise OSError(self._failed)
            durably = durably or self.count % SIGN_EVERY == SIGN_EVERY - 1
            body = {"at": self.clock(), "event": event, "n": self.count, "record": record}
            text = _canonical(body)
            digest = blake2b(self._digest + text, digest_size=32).digest()
            proof = {"digest": digest.hex()}
            if durably and self.key is not None:
                proof["signature"] = self.key.sign(_to_sign(self.count, digest)).hex()
            line = _canonical({**body, **proof}) + b"\n" if durably else _with(text, digest)
            try:
                self._write(line, durably)
                if durably and self._anchor is not None:
                    self._write_anchor(_canonical({"at": body["at"], "n": self.count, **proof}) + b"\n")
            except (OSError, ValueError) as error:
                self._failed = f"{self.path} cannot be written ({error}): make room or mend the disk, then start the node again"
                raise OSError(self._failed) from error
            self.count, self._digest, self._size = self.count + 1, digest, self._size + len(line)

    def _write(self, line: bytes, durably: bool) -> None:
        written = self._file.write(line)
        if written != len(line):  # the disk is full: leave no half record before a possible later one
            self._file.truncate(self._size)
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes fitted")
        if durably:
            os.fsync(self._file.fileno())

    def _write_anchor(self, line: bytes) -> None:
        assert self._anchor is not None
        if self._anchor.write(line) != len(line):
            raise OSError(errno.ENOSPC, "the anchor's disk is full")
        os.fsync(self._anchor.fileno())

    def close(self) -> None:
        """Let another process have the journal."""
        self._failed = f"{self.path} was closed with its node"
        self._file.close()
        if self._anchor is not None:
            self._anchor.close()


def _open(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600), "rb+", buffering=0)


def _with(text: bytes, digest: bytes) -> bytes:
    """The line of a record of this canonical ``text``: what `_canonical` would give, for its fields stand in order but for digest."""
    at, event = text.split(b',"event":', 1)
    return at + b',"digest":"' + digest.hex().encode() + b'","event":' + event + b"\n"
