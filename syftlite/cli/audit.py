"""`syftlite audit`: who did what at a node, on which data, decided how, and whether the record is as it was written. See docs/audit.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TextIO

import click
from rich.text import Text

from syftlite.cli.common import errors, output, plain, table
from syftlite.cli.naming import HERE, NODE, of_this_machine
from syftlite.errors import ConfigurationError
from syftlite.storage.audit import Entry, as_csv, as_json_lines, entries, select
from syftlite.storage.home import node_folder
from syftlite.storage.journal import verify as verify_journal
from syftlite.storage.keys import load_key, public_of

FILE = click.Path(dir_okay=False, path_type=Path)
_SPANS = {"min": 60, "h": 3600, "d": 86_400}


@click.group()
def audit() -> None:
    """The record of a node of this machine."""


def moment(text: str) -> float:
    """A point in time: a date, with or without a time of day (local), or a span before now. Seconds since the epoch.

    >>> moment("2024-02-29T12:00") - moment("2024-02-29")
    43200.0
    """
    for unit, seconds in _SPANS.items():
        number = text.removesuffix(unit).strip()
        if text.endswith(unit) and number.replace(".", "", 1).isdigit():
            return time.time() - float(number) * seconds
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise click.BadParameter(f"{text!r} is no time: it looks like 2024-02-29, 2024-02-29T12:00, 90min, 24h or 7d") from None


def _moment(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    return None if value is None else moment(value)


def _filtered(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--node", "node", callback=of_this_machine, default=HERE, show_default=True, metavar=NODE, help="The node."),
        click.option("--until", callback=_moment, metavar="TIME", help="Not after it."),
        click.option("--since", callback=_moment, metavar="TIME", help="2024-02-29, 2024-02-29T12:00, or 24h, 7d, 90min before now."),
        click.option("--data", metavar="NAME", help="Of this dataset only."),
        click.option("--who", metavar="NAME", help="Of this person only."),
    ):
        command = option(command)
    return command


def _path(node: str) -> Path:
    path = node_folder(node, make=False) / "journal.jsonl"
    if not path.exists():
        raise ConfigurationError(f"there is no {path}: has this node ever been started?")
    return path


def _chosen(node: str, who: str | None, data: str | None, since: float | None, until: float | None) -> Iterator[Entry]:
    try:
        yield from select(entries(_path(node)), who, data, since, until)
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"the journal cannot be read ({error}): `syftlite audit verify` says where it is damaged") from None


@audit.command()
@_filtered
@click.option("--last", type=click.IntRange(1), default=50, show_default=True, help="How many, from the end.")
def show(node: str, who: str | None, data: str | None, since: float | None, until: float | None, last: int) -> None:
    """Who did what, on which data, and what was said to it, oldest first."""
    chosen = list(_chosen(node, who, data, since, until))
    if not chosen:
        output().print("nothing of that is on record", markup=False)
        return
    shown = table("when", "who", "did", "on", "decided", whole=("when",))
    for entry in chosen[-last:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry.at))
        style = "red" if entry.decided.startswith(("refused", "denied")) else "green" if entry.decided else ""
        said = Text(plain(entry.decided), style)
        shown.add_row(when, Text(plain(entry.who), "cyan"), Text(plain(entry.did)), Text(plain(" ".join(entry.data))), said)
    output().print(shown)
    if len(chosen) > last:
        output().print(f"the last {last} of {len(chosen):,}; --last shows more", style="dim")


@audit.command()
@_filtered
@click.option("--format", "form", type=click.Choice(["csv", "jsonl"]), default="csv", show_default=True, help="Of what is written.")
@click.option("--out", type=click.File("w", encoding="utf-8"), default="-", help="Where to.  [default: the terminal]")
def export(node: str, who: str | None, data: str | None, since: float | None, until: float | None, form: str, out: TextIO) -> None:
    """Write the record for a spreadsheet or a program: CSV, or a JSON object a line."""
    lines = (as_csv if form == "csv" else as_json_lines)(_chosen(node, who, data, since, until))
    written = -1 if form == "csv" else 0
    for line in lines:
        out.write(line)
        written += 1
    errors().print(f"{written:,} records", style="dim")


@audit.command()
@click.option("--node", "node", callback=of_this_machine, default=HERE, show_default=True, metavar=NODE, help="The node.")
@click.option("--anchor", type=FILE, help="The file that the node's setting audit_anchor names: shows records cut off the end.")
def verify(node: str, anchor: Path | None) -> None:
    """Check that no record was changed, removed, added or reordered, and that the node signed them."""
    path = _path(node)
    keyfile = path.parent / "node.key"
    key = public_of(load_key(keyfile)) if keyfile.exists() else None
    try:
        verdict = verify_journal(path, key, anchor)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    console = output()
    console.print(f"{verdict.right:,} records are right; the last one's digest is {verdict.digest.hex()}", soft_wrap=True)
    if key is not None:
        console.print(f"{verdict.signed:,} of them carry a signature of the node's key {key.hex()}", soft_wrap=True)
    if verdict.torn:
        console.print(f"then comes an unfinished line of {verdict.torn} bytes, which a crash leaves", style="yellow")
    if verdict.broken is not None:
        console.print(f"record {verdict.right} is damaged: {verdict.broken}", style="bold red", soft_wrap=True)
        raise SystemExit(1)
    if anchor is None:
        console.print("records cut off the end do not show without --anchor", style="dim")
    else:
        console.print(f"none is missing that {anchor} knows of", soft_wrap=True)
