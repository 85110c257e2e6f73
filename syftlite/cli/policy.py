"""`syftlite policy`: read a node's policies before it runs, and what they would have meant for what was asked so far."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from syftlite.cli.common import list_table, output, plain
from syftlite.errors import ConfigurationError
from syftlite.policy.rules import CLASSES, Policy, approve
from syftlite.storage.node_config import NodeConfig

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
ROLES = ("scientist", "owner")


@click.group()
def policy() -> None:
    """Read, compare and try a node's policies."""


def _policies(path: Path) -> Mapping[str, Policy]:
    found = NodeConfig.read(path).policies
    if not found:
        raise ConfigurationError(f"{path} has no [dataset.NAME] table: what is private there leaves with approval only")
    return found


@policy.command()
@click.argument("file", type=FILE)
def lint(file: Path) -> None:
    """Check the policies in FILE, a node's configuration, and warn of what is rarely meant. Exits with 1 if there is a warning."""
    warned = 0
    for name, stated in _policies(file).items():
        output().print(Text(f"{name}: lets go {plain(stated.ways())}"), soft_wrap=True)
        for warning in _doubts(stated):
            warned += 1
            output().print(Text(f"  warning: {warning}", "yellow"), soft_wrap=True)
    if warned:
        raise SystemExit(1)


def _doubts(stated: Policy) -> Iterator[str]:
    for part in stated.parts():
        if not (part.free or part.aggregate or part.dp or part.approve):
            yield "it lets nothing go: state free, aggregate, dp or approve"
        if part.free and (part.aggregate or part.dp or part.approve):
            yield "free lets everything go, whatever the other ways say"
        if part.free and "*" in part.release:
            yield "everybody may have everything: state release"
        if part.aggregate and part.aggregate.min_units < 5:
            yield f"min_units = {part.aggregate.min_units}: sums of fewer than 5 people are often guessed"
        for right in ("find", "compute", "release"):
            for name in sorted({"free", "aggregate", "dp", "approve"}.intersection(getattr(part, right))):
                yield f"{right} names who may, and {name} is a way to let go: {name} = true, or a table of its terms"
        if part.dp and part.dp.epsilon > 40:
            yield "beyond some epsilon 40 answers of more than 64 numbers are refused: their noise is not drawn that exactly"
        if part.dp and part.dp.epsilon > 10:
            yield f"epsilon = {part.dp.epsilon:g} promises next to nothing"
        if part.dp and part.dp.delta > 1e-3:
            yield f"delta = {part.dp.delta:g} is the chance that a row is simply told: choose less than one in as many as there are rows"
        if (part.aggregate or part.dp) and part.unit is None:
            yield "every row counts as its own person: state unit if people have several"
        if part.aggregate and part.ops is not None and "reduce" not in part.ops and "linear" not in part.ops:
            yield "aggregates are allowed, and no operator that sums: add reduce or linear to ops"


@policy.command()
@click.argument("file", type=FILE)
@click.option("--as", "who", default="scientist:somebody", show_default=True, metavar="ROLE:NAME", help="Who asks.")
def test(file: Path, who: str) -> None:
    """Show what one principal may do with each dataset in FILE."""
    role, _, name = who.partition(":")
    if role not in ROLES or not name:
        raise ConfigurationError(f"--as is a role and a name, as scientist:carol; roles are {', '.join(ROLES)}")
    table = list_table("dataset", "finds", "computes", "operators", "lets go")
    for dataset, stated in _policies(file).items():
        finds, computes, releases = (role == "owner" or stated.permits(right, name, role) for right in ("find", "compute", "release"))
        runs = [c for c, kinds in CLASSES.items() if all(stated.runs(kind) for kind in kinds)]
        operators = "all" if len(runs) == len(CLASSES) else ", ".join(runs)
        table.add_row(dataset, _yes(finds), _yes(computes), operators, stated.ways() if releases else "nothing")
    output().print(table)


def _yes(right: bool) -> Text:
    return Text("yes", "green") if right else Text("no", "red")


@policy.command()
@click.argument("before", type=FILE)
@click.argument("after", type=FILE)
def diff(before: Path, after: Path) -> None:
    """Say how the policies in AFTER differ from those in BEFORE; a dataset without one lets go what its owner approved. Exits with 1 if
    one is looser."""
    old, new = NodeConfig.read(before).policies, NodeConfig.read(after).policies
    looser = 0
    for name in sorted({*old, *new}):
        one, other = old.get(name), new.get(name)
        if one == other:
            continue
        verdict = _compare(one or approve(), other or approve())
        looser += verdict == "looser" or verdict.startswith("neither")
        said = "new, " if one is None else "gone: approval only, " if other is None else ""
        output().print(Text.assemble((name, "cyan"), f": {said}", (verdict, "red" if verdict == "looser" else "")))
        for sign, stated in (("-", one), ("+", other)):
            for line in () if stated is None else stated.toml().splitlines():
                if stated is None or line not in ((other if sign == "-" else one) or Policy()).toml().splitlines():
                    output().print(Text(f"  {sign} {line}"), soft_wrap=True)
    if looser:
        raise SystemExit(1)


def _compare(one: Policy, other: Policy) -> str:
    stricter, looser = other.strict(one), one.strict(other)
    return "the same" if stricter and looser else "stricter" if stricter else "looser" if looser else "neither stricter nor looser"


@policy.command()
@click.argument("file", type=FILE)
@click.argument("auditlog", type=FILE)
def simulate(file: Path, auditlog: Path) -> None:
    """What the policies in FILE would have said to the releases and refusals in AUDITLOG, a node's journal, as far as it tells:
    who asked, and for what was made of which datasets."""
    stated = _policies(file)
    counts: dict[tuple[str, str, str, str], int] = {}
    for event, record in _events(auditlog):
        for source in record.get("sources", ()):
            policy = stated.get(source, approve())
            allowed = policy.permits("release", record.get("principal", ""), "scientist")
            verdict = policy.ways() if allowed else "nothing, to this principal"
            key = (record.get("principal", ""), source, event, verdict)
            counts[key] = counts.get(key, 0) + 1
    table = list_table("who", "dataset", "then", "times", "now would go")
    for (who, source, event, verdict), times in sorted(counts.items()):
        table.add_row(plain(who), plain(source), event, str(times), plain(verdict))
    output().print(table)


def _events(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
                event, told = record["event"], record["record"]
            except (ValueError, KeyError, TypeError):
                raise ConfigurationError(f"{path}, line {number}: it is no journal's record: `syftlite audit verify` says more") from None
            if event in ("released", "refused"):
                yield event, told
