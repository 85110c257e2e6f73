"""`syftlite worker start`: run a node until Ctrl-C or SIGTERM."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from syftlite.cli.common import list_table, output, plain, privacy, shape
from syftlite.remote.node import WebsocketServerWorker, identity_of
from syftlite.storage.home import node_folder
from syftlite.storage.node_config import NodeConfig
from syftlite.transports.server import is_loopback

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group()
def worker() -> None:
    """Run a node."""


@worker.command()
@click.option("--config", type=FILE, help="A TOML file with the settings below and the data to offer (docs/cli.md).")
@click.option("--id", help="The node's name.  [default: node]")
@click.option("--host", help="Where to listen; beyond loopback only with TLS and tokens.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0: any free port.  [default: 8777]")
@click.option("--cert", type=FILE, help="TLS certificate.")
@click.option("--key", type=FILE, help="Its key.")
@click.option("--device", help="Where to keep tensors, such as cuda or cuda:1.  [default: main memory]")
def start(config: Path | None, **options: Any) -> None:
    """Run a node until Ctrl-C. It serves what its owner stored and what the configuration lists."""
    logging.basicConfig(level=logging.WARNING, handlers=[_handler()])
    settings = NodeConfig() if config is None else NodeConfig.read(config)
    settings = replace(settings, **{name: value for name, value in options.items() if value is not None})
    node = WebsocketServerWorker.from_config(settings)
    try:
        node.start(wait=False)
    except BaseException:
        node.close()
        raise
    node.wait(ready=lambda: _announce(node, settings))
    output().print(f"{node.id} stopped", markup=False)


@worker.command()
@click.option("--id", "node", default="node", show_default=True, help="The node's name.")
def identity(node: str) -> None:
    """Print the line by which other owners' nodes know this one: for [aggregates_with] of their settings, to add values up with its own,
    or [registered], to compute with it on shares."""
    key = identity_of(node_folder(node)).public.hex()
    output().print(f'"{node}" = "{key}"', markup=False, soft_wrap=True, highlight=False)


def _handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(_Plain("%(asctime)s %(name)s: %(message)s"))
    return handler


class _Plain(logging.Formatter):
    """A log whose lines cannot be forged by what strangers sent."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record's line."""
        return plain(super().formatMessage(record))


def _announce(node: WebsocketServerWorker, settings: NodeConfig) -> None:
    """Print where ``node`` listens, what it serves, how to connect."""
    console = output()
    console.print(Text.assemble(("node ", "bold"), (node.id, "bold cyan"), " listens on ", (node.uri, "bold cyan")), soft_wrap=True)
    served = node.listing()
    if served:
        table = list_table("tags", "shape", "dtype", "", "description")
        for item in served:
            tags = Text(plain(" ".join(item.tags)), "cyan")
            dtype = str(item.dtype).removeprefix("torch.")
            table.add_row(tags, shape(item.shape), dtype, privacy(item.private), Text(plain(item.description)))
        console.print(table)
    else:
        console.print(f"it serves nothing yet: syftlite data add FILE --tag ... --node {_address(node)}", soft_wrap=True)
    if is_loopback(settings.host):
        console.print(f'connect, as this user: sy.connect("{node.uri}")', soft_wrap=True)
    where = f" --file {settings.tokens}" if settings.tokens else f" --node {node.id}"
    console.print(f'connect, as NAME:      sy.connect("{node.uri}", token=...) from `syftlite token new NAME{where}`', soft_wrap=True)
    console.print(f"what is asked for:     syftlite requests --node {_address(node)}", soft_wrap=True)
    console.print("stop: Ctrl-C", style="dim")


def _address(node: WebsocketServerWorker) -> str:
    return node.uri.removeprefix("ws://")
