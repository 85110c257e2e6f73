"""`syftlite token`: who may connect to a node. A node that runs sees the change at the next connection."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.table import Table
from rich.text import Text

from syftlite.cli.common import errors, output
from syftlite.engine.session import Role
from syftlite.errors import ConfigurationError
from syftlite.storage.home import file_name, node_folder
from syftlite.storage.tokens import Grant, Tokens


@click.group()
def token() -> None:
    """Who may connect to a node of this machine."""


def _of_a_node(command: Callable[..., None]) -> Callable[..., None]:
    at = click.option("--node", "node", default="node", show_default=True, metavar="ID", help="The node's name.")
    elsewhere = click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="Its token file, if its settings name one.")
    return at(elsewhere(command))


def _path(node: str, file: Path | None, *, make: bool = False) -> Path:
    path = file or node_folder(node, make=make) / "tokens.json"
    if not make and not path.exists():
        raise ConfigurationError(f"there is no {path}, so no token has been made there: check --node, or `syftlite token new NAME`")
    return path


@token.command()
@click.argument("name")
@click.option("--days", type=click.FloatRange(0, min_open=True), help="How long it is valid.  [default: until it is revoked]")
@click.option("--role", type=click.Choice([role.value for role in Role]), default=Role.SCIENTIST.value, show_default=True)
@_of_a_node
def new(name: str, days: float | None, role: str, node: str, file: Path | None) -> None:
    """Make a token for NAME and print it, once: the node keeps only its hash."""
    if file_name(name, "a principal's name") in {role.value for role in Role}:
        raise ConfigurationError(f"{name!r} is what a node calls this user's own clients: choose another name")
    made = Tokens(_path(node, file, make=True)).new(name, Role(role), days)
    errors().print(f"the token of {name} ({role}), shown this once; hand it over on a safe way:", soft_wrap=True)
    click.echo(made)


@token.command("list")
@_of_a_node
def list_(node: str, file: Path | None) -> None:
    """List who has a token."""
    table = Table("name", "role", "valid", box=None, padding=(0, 2, 0, 0), header_style="dim")
    for grant in Tokens(_path(node, file)).grants():
        table.add_row(Text(grant.principal, "cyan"), grant.role.value, _validity(grant))
    output().print(table)


def _validity(grant: Grant) -> Text:
    if grant.expires is None:
        return Text("until revoked")
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(grant.expires))
    return Text(f"expired {day}", "red") if grant.expires <= time.time() else Text(f"until {day}")


@token.command()
@click.argument("name")
@_of_a_node
def revoke(name: str, node: str, file: Path | None) -> None:
    """Accept no token of NAME any more. A connection that is open stays open until the node restarts."""
    gone = Tokens(_path(node, file)).revoke(name)
    if not gone:
        raise ConfigurationError(f"{name!r} has no token: `syftlite token list` shows who has")
    output().print(f"{gone} token{'s' if gone > 1 else ''} of {name} revoked", markup=False)
