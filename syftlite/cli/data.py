"""`syftlite data add`, `syftlite data mock` and `syftlite ls`: what a node serves."""

from __future__ import annotations

from pathlib import Path

import click
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.text import Text

from syftlite.cli.common import errors, output, plain, privacy, shape, table, talks_to_a_node
from syftlite.remote.client import WebsocketClientWorker
from syftlite.remote.mock import Range, Values
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
    console = errors()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(named.name, total=tensor.numel() * tensor.element_size())
        worker.store(
            tensor,
            *named.tags,
            name=named.name,
            description=named.table.describe(description),
            private=private,
            progress=lambda sent: bar.update(task, completed=sent),
        )


@data.command()
@click.argument("name")
@click.option("--range", "ranges", multiple=True, metavar="COLUMN=LOW:HIGH", help="Where a column's values lie; any number. *: all others.")
@click.option("--values", "values", multiple=True, metavar="COLUMN=A,B,...", help="The values that a column takes; any number.")
@click.option("--rows", type=click.IntRange(1), help="How many rows.  [default: as many]")
@click.option("--seed", default=0, show_default=True, help="Another seed, other values.")
@talks_to_a_node
def mock(worker: WebsocketClientWorker, name: str, ranges: tuple[str, ...], values: tuple[str, ...], rows: int | None, seed: int) -> None:
    """Offer a synthetic twin of dataset NAME to everyone, to develop against: same columns and dtype, values from the ranges given here."""
    stated: dict[str, Range] = {column: _range(text) for column, text in map(_stated, ranges)}
    stated |= {column: Values(map(_number, text.split(","))) for column, text in map(_stated, values)}
    made = worker.publish_mock(name, stated, rows=rows, seed=seed)
    line = Text.assemble(f"{worker.id} offers a twin ({shape(made.shape)}), found by ", (plain(" ".join(made.tags)), "cyan"))
    output().print(line, soft_wrap=True)


def _stated(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals or not column:
        raise click.BadParameter(f"{text!r} is not COLUMN=..., such as age=0:120")
    return column, value


def _range(text: str) -> tuple[float, float]:
    low, colon, high = text.partition(":")
    if not colon:
        raise click.BadParameter(f"{text!r} is not LOW:HIGH, such as 0:120")
    return _number(low), _number(high)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is no number") from None


@click.command()
@talks_to_a_node
def ls(worker: WebsocketClientWorker) -> None:
    """List the datasets that a node serves, and what you may do with them."""
    found = worker.listing()
    if not found:
        output().print(f"{worker.id} serves nothing yet: syftlite data add FILE --tag ...", markup=False)
        return
    shown = table("tags", "shape", "dtype", "", "description", "id", whole=("id",), title=f"at {plain(worker.id)}", title_justify="left")
    for item in found:
        shown.add_row(
            Text(plain(" ".join(item.tags)), "cyan"),
            shape(item.shape),
            str(item.dtype).removeprefix("torch."),
            privacy(item.private),
            Text(plain(item.description)),
            Text(str(item.id), "dim"),
        )
    output().print(shown)
