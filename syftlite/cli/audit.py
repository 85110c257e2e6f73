"""`syftlite audit verify`: whether a node's journal is as it was written."""

from __future__ import annotations

import click

from syftlite.cli.common import output
from syftlite.errors import ConfigurationError
from syftlite.storage.home import node_folder
from syftlite.storage.journal import verify as verify_journal


@click.group()
def audit() -> None:
    """The journal of a node of this machine."""


@audit.command()
@click.option("--node", "node", default="node", show_default=True, metavar="ID", help="The node's name.")
def verify(node: str) -> None:
    """Check that no record was changed, removed or reordered. Records cut off the end show as another last digest."""
    path = node_folder(node, make=False) / "journal.jsonl"
    try:
        verdict = verify_journal(path)
    except OSError as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    console = output()
    console.print(f"{verdict.right:,} records are right; the last one's digest is {verdict.digest.hex()}", soft_wrap=True)
    if verdict.torn:
        console.print(f"then comes an unfinished line of {verdict.torn} bytes, which a crash leaves", style="yellow")
    if verdict.broken is not None:
        console.print(f"record {verdict.right} is damaged: {verdict.broken}", style="bold red", soft_wrap=True)
        raise SystemExit(1)
