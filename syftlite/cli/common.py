"""What the commands share: where they print, how they find a node, and text from strangers made harmless."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from syftlite.cli.naming import HERE, NODE, Address, listening
from syftlite.remote.client import WebsocketClientWorker

_ANY_WIDTH = 10_000
_NARROW = 60
"""Columns of a terminal in which nothing is kept on one line."""


def output() -> Console:
    """Where results go. What is piped has the width that it needs, unless COLUMNS says another: a program reads it."""
    console = Console(highlight=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=_ANY_WIDTH)


def table(*names: str, whole: tuple[str, ...] = (), **style: Any) -> Table:
    """A table whose cells are folded, never cut; those of ``whole``, which people copy, stay on one line where there is room."""
    roomy, made = output().width >= _NARROW, Table(header_style="dim", **style)
    for name in names:
        made.add_column(name, overflow="fold", no_wrap=roomy and name in whole)
    return made


def list_table(*names: str) -> Table:
    """A `table` without lines."""
    return table(*names, box=None, padding=(0, 2, 0, 0))


def errors() -> Console:
    """Where everything else goes."""
    return Console(stderr=True, highlight=False)


def plain(text: str) -> str:
    """``text`` without what a terminal would obey or what would hide in it: a stranger wrote it, and the owner decides by it.

    >>> plain("model" + chr(27) + "[2Jweights")
    'model\ufffd[2Jweights'
    """
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def lines(text: str) -> str:
    """`plain`, but for line breaks: for an error's text."""
    return "\n".join(map(plain, text.split("\n")))


def shape(sizes: tuple[int, ...]) -> str:
    """A tensor's shape in words.

    >>> shape((455, 30)), shape(())
    ('455 x 30', 'scalar')
    """
    return " x ".join(f"{size:,}" for size in sizes) or "scalar"


def privacy(private: bool) -> Text:
    """PRIVATE or public, as a table shows it."""
    return Text("PRIVATE", "bold magenta") if private else Text("public", "green")


def _address(ctx: click.Context, param: click.Parameter, value: str) -> Address:
    return listening(value)


def talks_to_a_node(command: Callable[..., None]) -> Callable[..., None]:
    """Give ``command`` the options that name a node, and a connection to it as its first argument."""

    @click.option("--node", callback=_address, default=HERE, show_default=True, metavar=NODE, help="The node.")
    @click.option("--token", envvar="SYFTLITE_TOKEN", show_envvar=True, help="Who you are there; its owner, on its machine, needs none.")
    @click.option("--ca", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A certificate to trust; implies TLS.")
    @functools.wraps(command)
    def connected(node: Address, token: str | None, ca: Path | None, **options: Any) -> None:
        worker = WebsocketClientWorker(
            host=node.host, port=node.port, secure=node.secure or ca is not None, token=token, ca=str(ca) if ca else None, role="owner"
        )
        try:
            command(worker, **options)
        finally:
            worker.close()

    return connected
