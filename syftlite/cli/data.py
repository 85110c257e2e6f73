"""`syftlite data add` and `syftlite ls`: what a node serves."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table
from rich.text import Text

from syftlite.cli.common import errors, output, plain, privacy, shape, talks_to_a_node
from syftlite.remote.client import WebsocketClientWorker
from syftlite.storage.tables import Named, named_tables


@click.group()
def data() -> None:
    """What a node serves."""


@data.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--tag", "tags", multiple=True, help="What a search finds it by; any number.  [default: # and the name]")
@click.option("--name", default="", help="What the owner calls it.  [default: the file's name]")
@click.option("--description", default="", help="What a search shows.")
@click.option("--private", is_flag=True, help="Nothing made of it leaves without approval. Without: anyone who connects may read it.")
@talks_to_a_node
def add(worker: WebsocketClientWorker, file: Path, tags: tuple[str, ...], name: str, description: str, private: bool) -> None:
    """Store FILE (.npy, .csv or .safetensors) at a running node, which keeps it.

    A .csv file holds numbers in columns; a first line without a number names them.
    """
    for named in named_tables(file, name, tags):
        _upload(worker, named, description, private)
        size = f"{shape(tuple(named.table.tensor.shape))} {str(named.table.tensor.dtype).removeprefix('torch.')}"
        line = Text.assemble(f"{worker.id} stored ", (named.name, "bold"), f" ({size}, ", privacy(private), "), found by ")
        output().print(line.append(" ".join(map(plain, named.tags)), "cyan"), soft_wrap=True)


def _upload(worker: WebsocketClientWorker, named: Named, description: str, private: bool) -> None:
    tensor = named.table.tensor
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=errors(), transient=True) as bar:
        task = bar.add_task(named.name, total=tensor.numel() * tensor.element_size())
        worker.store(
            tensor,
            *named.tags,
            name=named.name,
            description=named.table.describe(description),
            private=private,
            progress=lambda sent: bar.update(task, completed=sent),
        )


@click.command()
@talks_to_a_node
def ls(worker: WebsocketClientWorker) -> None:
    """List the datasets that a node serves, and what you may do with them."""
    found = worker.listing()
    if not found:
        output().print(f"{worker.id} serves nothing yet: syftlite data add FILE --tag ...", markup=False)
        return
    table = Table("tags", "shape", "dtype", "", "description", "id", title=f"at {plain(worker.id)}", title_justify="left")
    for item in found:
        table.add_row(
            Text(plain(" ".join(item.tags)), "cyan"),
            shape(item.shape),
            str(item.dtype).removeprefix("torch."),
            privacy(item.private),
            Text(plain(item.description)),
            Text(str(item.id), "dim"),
        )
    output().print(table)
