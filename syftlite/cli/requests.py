"""`syftlite requests`, `inspect`, `approve`, `deny`: what may leave a node. See docs/approve.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import click
import torch
from rich.text import Text

from syftlite.cli.common import output, plain, table, talks_to_a_node
from syftlite.remote.client import WebsocketClientWorker

PREVIEW = 20
"""Values that --preview shows of each."""
_STYLES = {"pending": "bold yellow", "approved": "green", "released": "green", "denied": "red", "expired": "dim"}


def age(seconds: float) -> str:
    """A time span for people.

    >>> age(5), age(500), age(5e4), age(5e5)
    ('5 s', '8 min', '13 h', '5 d')
    """
    for limit, unit, name in ((60, 1, "s"), (3600, 60, "min"), (86_400, 3600, "h")):
        if seconds < limit:
            return f"{max(0, int(seconds / unit))} {name}"
    return f"{int(seconds / 86_400)} d"


def summary(what: Iterable[str]) -> list[str]:
    """What a request is for, by its sources, a line each.

    >>> summary(["float32[3, 2] from x, y", "float32[3] from x, y", "int64[] from z"])
    ['float32[3, 2]  float32[3]  from x, y', 'int64[]  from z']
    """
    by_source: dict[str, list[str]] = {}
    for text in what:
        value, _, source = plain(text).rpartition(" from ")
        by_source.setdefault(source if value else "", []).append(value or source)
    return ["  ".join(values) + (f"  from {source}" if source else "") for source, values in by_source.items()]


@click.command()
@click.option("--pending", is_flag=True, help="Only those that wait for a decision.")
@talks_to_a_node
def requests(worker: WebsocketClientWorker, pending: bool) -> None:
    """List who asks for what, and why."""
    rows = [row for row in worker.requests() if not pending or row.state == "pending"]
    if not rows:
        output().print("no requests", markup=False)
        return
    shown = table("id", "who", "why", "what", "state", "age", whole=("id",), show_lines=True)
    for row in rows:
        shown.add_row(
            Text(plain(row.id), "bold"),
            Text(plain(row.principal), "cyan"),
            Text(plain(row.reason)),
            Text("\n".join(summary(row.what))),
            Text(row.state, _STYLES.get(row.state, "")),
            age(time.time() - row.filed_at),
        )
    output().print(shown)


@click.command()
@click.argument("id")
@click.option("--preview", is_flag=True, help="Show the first values too.")
@talks_to_a_node
def inspect(worker: WebsocketClientWorker, id: str, preview: bool) -> None:
    """Show what would leave by a request, and the program that made it."""
    found, console = worker.inspect(id, values=True), output()
    row = found.request
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(found.expires_at))
    who = (plain(row.principal), "cyan")
    console.print(Text.assemble(("request ", "dim"), (row.id, "bold"), " of ", who, f": {row.state}, until {until}"))
    console.print(Text(f"  why: {plain(row.reason)}"), soft_wrap=True)
    if found.quorum > 1:
        console.print(Text(f"  approved by {len(found.votes)} of {found.quorum}: {', '.join(map(plain, found.votes))}"))
    for number, text in enumerate(row.what):
        console.print(Text(f"  {plain(text)}"), soft_wrap=True)
        if number < len(found.values):
            console.print(Text(f"    {statistics(found.values[number])}", "dim"), soft_wrap=True)
            if preview:
                console.print(Text("\n".join(f"    {line}" for line in str(found.values[number].flatten()[:PREVIEW]).splitlines())))
    console.print("made by", style="dim")
    for line in found.program:
        console.print(Text(f"  {plain(line)}"), soft_wrap=True)


def statistics(value: torch.Tensor) -> str:
    """A tensor in a line.

    >>> statistics(torch.tensor([1.0, 2.0, 6.0])), statistics(torch.tensor([True, False]))
    ('3 elements, 1 to 6, mean 3, standard deviation 2.646', '2 elements, 1 of them true')
    """
    if value.dtype is torch.bool:
        return f"{value.numel():,} elements, {int(value.sum()):,} of them true"
    if not value.numel() or value.is_complex():
        return f"{value.numel():,} elements"
    exact = value.double()
    odd = int((~exact.isfinite()).sum())
    spread = f", standard deviation {exact.std():.4g}" if value.numel() > 1 else ""
    warning = f", {odd:,} not finite" if odd else ""
    return f"{value.numel():,} elements, {exact.min():.6g} to {exact.max():.6g}, mean {exact.mean():.6g}{spread}{warning}"


def _decides(command: Callable[..., None]) -> Callable[..., None]:
    ids = click.argument("ids", nargs=-1, required=True, metavar="ID...")
    note = click.option("--note", default="", help="A word to who asked.")
    return ids(note(talks_to_a_node(command)))


@click.command()
@_decides
def approve(worker: WebsocketClientWorker, ids: tuple[str, ...], note: str) -> None:
    """Let the values of requests go, each once, to who asked. A value that has changed since is asked for anew."""
    for number in ids:
        worker.approve(number, note)
        _print(worker, "approved", number, "may take once")


@click.command()
@_decides
def deny(worker: WebsocketClientWorker, ids: tuple[str, ...], note: str) -> None:
    """Refuse requests; who asked is told the note."""
    for number in ids:
        worker.deny(number, note)
        _print(worker, "denied", number, "may not take")


def _print(worker: WebsocketClientWorker, state: str, number: str, may: str) -> None:
    console = output()
    row = next(row for row in worker.requests() if row.id == number)
    if row.state == "pending":
        found, state = worker.inspect(number), "pending"
        may = f"may take once {found.quorum} owners have approved; {len(found.votes)} of them so far"
    console.print(Text.assemble((state, _STYLES[state]), f" {row.id}: ", (plain(row.principal), "cyan"), f" {may}"), soft_wrap=True)
    for line in summary(row.what):
        console.print(f"  {line}", markup=False, soft_wrap=True)
