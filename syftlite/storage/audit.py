"""The audit trail for people: who did what, on which data, decided how.

    journal line  ->  Entry(number, at, who, did, data, decided)  ->  `select` by who, data, time  ->  a table, CSV or JSON lines

A decision or a release names its request; what that was for is looked up among the lines before it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from syftlite.dp.mechanisms import KINDS
from syftlite.storage.journal import records


class Entry(NamedTuple):
    """One record. ``data``: names of datasets. ``decided``: what the node or its owner said to it, "" where nothing was to decide.
    ``at`` is in seconds since the epoch."""

    number: int
    at: float
    event: str
    who: str
    did: str
    data: tuple[str, ...]
    decided: str


class Known(NamedTuple):
    """What an earlier line said of a request: who asks, for what, made of which data."""

    who: str
    what: str
    data: tuple[str, ...]


Told = tuple[str, str, tuple[str, ...], str]
"""who, did, data, decided"""
Reader = Callable[[dict[str, Any], dict[str, Known]], Told]
_readers: dict[str, Reader] = {}


def _reads(*events: str) -> Callable[[Reader], Reader]:
    def add(reader: Reader) -> Reader:
        _readers.update(dict.fromkeys(events, reader))
        return reader

    return add


def entries(path: Path) -> Iterator[Entry]:
    """All records of the journal at ``path``, oldest first."""
    asked: dict[str, Known] = {}
    for row in records(path):
        record, event = row["record"], row["event"]
        if event == "filed":
            data = tuple(record.get("sources", ())) or _sources(record["what"])
            asked[record["release"]] = Known(record["principal"], ", ".join(record["what"]), data)
        who, did, data, decided = _readers.get(event, _any)(record, asked)
        yield Entry(row["n"], row["at"], event, who, did, data, decided)


def select(
    all_of: Iterable[Entry], who: str | None = None, data: str | None = None, since: float | None = None, until: float | None = None
) -> Iterator[Entry]:
    """Those of one principal, of one dataset, between two times (s); None: whichever."""
    for entry in all_of:
        if who is not None and entry.who != who:
            continue
        if data is not None and data not in entry.data:
            continue
        if (since is None or entry.at >= since) and (until is None or entry.at < until):
            yield entry


def as_csv(rows: Iterable[Entry]) -> Iterator[str]:
    """Lines of a CSV file, the first with the columns' names. A text that a spreadsheet would take for a formula begins with a quote."""
    for row in (Entry._fields, *rows):
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow([_cell(" ".join(v) if isinstance(v, tuple) else v) for v in row])
        yield text.getvalue()


def as_json_lines(rows: Iterable[Entry]) -> Iterator[str]:
    """A JSON object a line."""
    for row in rows:
        yield json.dumps(row._asdict(), ensure_ascii=False) + "\n"


def _cell(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


# -- what each event says


@_reads("frame")
def _frame(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    operators = ", ".join(f"{name} x{count}" if count > 1 else name for name, count in record["operators"].items())
    return record["principal"], f"computed: {operators}", tuple(record["sources"]), ""


@_reads("connected")
def _connected(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    return record["principal"], f"connected as {record['role']} by {record['scheme']}", (), ""


@_reads("cut off")
def _cut_off(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    return record["principal"], "was connected", (), "cut off: revoked or expired"


@_reads("stored")
def _stored(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    kind = "PRIVATE" if record["private"] else "public"
    return record["by"], f"stored a {kind} dataset", (record["dataset"],), ""


@_reads("refused")
def _refused(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    rule = record.get("rule") or record.get("why") or ""
    return record["principal"], "tried to take a value", tuple(record["sources"]), f"refused{f': {rule}' if rule else ''}"


@_reads("filed")
def _filed(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    known = asked[record["release"]]
    return known.who, f"asked ({record['release']}) for {known.what}: {record['reason']}", known.data, "waits for the owner"


@_reads("voted", "approved", "denied", "expired")
def _decided(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    known = asked.get(record["release"], Known("", "", ()))
    note = f": {record['note']}" if record.get("note") else ""
    said = record.get("state") or record.get("said", "")
    return record.get("by", ""), f"on request {record['release']} of {known.who}, {known.what}", known.data, f"{said}{note}"


@_reads("inspected")
def _inspected(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    known = asked.get(record["release"], Known("", "", ()))
    return record["by"], f"looked at request {record['release']} of {known.who}", known.data, ""


@_reads("released")
def _released(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    numbers = record.get("releases", ())
    of = [asked[number] for number in numbers if number in asked]
    data = tuple(sorted({name for known in of for name in known.data} | set(record.get("sources", ()))))
    what = "; ".join(known.what for known in of) or ", ".join(record.get("what", ())) or "a value"
    how = f"approved as {', '.join(numbers)}" if numbers else record.get("rule", record.get("route", ""))
    return record["principal"], f"took {what}", data, f"released{f': {how}' if how else ''}"


@_reads("measured")
def _measured(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    terms = json.loads(record["question"])[0]
    if len(terms) == len(("kind", "epsilon", "delta", "bounds", "grid")):
        what = f"a private {KINDS[terms[0]]} at epsilon {terms[1]:g}"
    else:
        what = f"a sum over rows of a plan, clipped to {terms[0]:g}, with {terms[1]:g} times that as noise"
    return record["principal"], f"asked for {what}", tuple(record["sources"]), "told again" if record["again"] else "told with noise"


@_reads("shared")
def _shared(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    return record["principal"], "had a value shared", tuple(record["sources"]), "this node's share stays PRIVATE"


def _any(record: dict[str, Any], asked: dict[str, Known]) -> Told:
    """An event without words of its own."""
    who = str(record.get("principal") or record.get("by") or record.get("user") or "")
    data = record.get("sources") or ([record["dataset"]] if "dataset" in record else [])
    rest = {k: v for k, v in record.items() if k not in ("principal", "by", "sources", "dataset")}
    return who, " ".join(f"{k}={v}" for k, v in rest.items()), tuple(map(str, data)), ""


def _sources(what: Iterable[str]) -> tuple[str, ...]:
    names = {name for text in what for name in text.rpartition(" from ")[2].split(", ") if " from " in text}
    return tuple(sorted(names - {"public"}))
