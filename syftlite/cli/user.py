"""`syftlite user` and `syftlite token`: who may connect to a node, as what. A node that runs sees changes at once, and closes within a
second the connections of whom was revoked. See docs/identity.md."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from rich.text import Text

from syftlite.cli.common import errors, list_table, output
from syftlite.cli.naming import HERE, NODE, of_this_machine
from syftlite.engine.access import ROLES, SCOPES
from syftlite.engine.session import Role
from syftlite.errors import ConfigurationError
from syftlite.storage.home import file_name, has_node, node_folder
from syftlite.storage.keys import new_key, parse_public, public_of
from syftlite.storage.users import DATABASE, Grant, Users, database_at

FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def user() -> None:
    """Who may connect to a node of this machine, and as what."""


@user.group()
def key() -> None:
    """Ed25519 keys: what people log in with instead of a token."""


@click.group()
def token() -> None:
    """Tokens: what people show to be let in to a node of this machine."""


# -- options


def _of_a_node(command: Callable[..., None]) -> Callable[..., None]:
    at = click.option("--node", "node", callback=of_this_machine, default=HERE, show_default=True, metavar=NODE, help="The node.")
    elsewhere = click.option("--file", type=FILE, help="Its users' database, if its settings name one.")
    return at(elsewhere(command))


def _limited(command: Callable[..., None]) -> Callable[..., None]:
    days = click.option("--days", type=click.FloatRange(0, min_open=True), help="How long it is valid.  [default: until it is revoked]")
    names = click.Choice(sorted(SCOPES))
    scope = click.option("--scope", multiple=True, type=names, help="All that it may do; any number.  [default: what its role may]")
    return days(scope(command))


def _role(default: str | None) -> Callable[..., Callable[..., None]]:
    return click.option("--role", type=click.Choice([role.value for role in Role]), default=default, show_default=True)


def _users(node: str, file: Path | None, *, make: bool = False) -> Users:
    if file is None and make and not has_node(node):
        errors().print(f"no node {node} has run on this machine so far: it knows these users once it does", style="yellow", markup=False)
    folder = None if file is not None else node_folder(node, make=make)
    old = file if folder is None else folder / "tokens.json"
    assert old is not None
    path = database_at(old) if folder is None else folder / DATABASE
    if not make and not path.exists() and not old.exists():
        raise ConfigurationError(f"there is no {path}, so nobody is known there: check --node, or `syftlite token new NAME`")
    users = Users(path)
    if old.suffix == ".json":
        users.take_in(old)
    return users


def _name(name: str) -> None:
    """Raise `ConfigurationError` unless ``name`` can be a user's."""
    if file_name(name, "a principal's name") in {role.value for role in Role}:
        raise ConfigurationError(f"{name!r} is what a node calls this user's own clients: choose another name")


# -- users


@user.command()
@click.argument("name")
@_role("scientist")
@click.option("--key", "public", metavar="PUBLIC", help="The public key, 64 hexadecimal digits, that NAME logs in with.")
@_limited
@_of_a_node
def add(
    name: str, role: str, public: str | None, days: float | None, scope: tuple[str, ...], node: str, file: Path | None
) -> None:
    """Make NAME known. With --key, who owns that key may connect as NAME; `syftlite token new NAME` gives a token instead."""
    _name(name)
    raw = None if public is None else parse_public(public)
    if raw is None and (days is not None or scope):
        raise ConfigurationError("--days and --scope are a key's or a token's: add --key, or give them to `syftlite token new`")
    users = _users(node, file, make=True)
    users.user(name, Role(role))
    if raw is not None:
        users.add_key(name, raw, Role(role), days, scope or None)
    output().print(f"{name} is a {role}" + ("" if raw is None else f", and logs in with key {raw.hex()[:16]}"), markup=False)


@user.command("list")
@_of_a_node
def list_users(node: str, file: Path | None) -> None:
    """List who is known, what they may do, and what they hold."""
    users = _users(node, file)
    held: dict[str, list[Grant]] = {}
    for grant in users.grants():
        held.setdefault(grant.principal, []).append(grant)
    table = list_table("name", "role", "holds", "may", "valid")
    for name, role in users.users():
        for number, grant in enumerate(held.get(name, [Grant(name, role, None, kind="nothing yet")])):
            first = number == 0
            holds = Text(f"{grant.kind} {grant.label}".strip())
            may = Text(_may(role, grant.scope))
            table.add_row(Text(name if first else "", "cyan"), role.value if first else "", holds, may, _validity(grant))
    output().print(table)


def _may(role: Role, scope: frozenset[str] | None) -> str:
    if scope is None:
        return "all" if role is Role.OWNER else " ".join(sorted(ROLES[role] - {"session"}))
    return " ".join(sorted(scope & ROLES[role])) or "nothing: the scope has none of the role's"


@user.command("revoke")
@click.argument("name")
@_of_a_node
def revoke_user(name: str, node: str, file: Path | None) -> None:
    """Know NAME no more: all tokens and keys go, and open connections are closed within a second."""
    users = _users(node, file)
    if name not in {known for known, _ in users.users()}:
        raise ConfigurationError(f"nobody is called {name!r}: `syftlite user list` shows who is known")
    gone = users.revoke(name)
    output().print(f"{name} revoked, with {gone} token{'' if gone == 1 else 's'} or keys", markup=False)


# -- keys


@key.command("new")
@click.argument("file", type=FILE)
def new_key_file(file: Path) -> None:
    """Make a key, keep it in FILE, and print the public half, which the node's owner needs."""
    public = public_of(new_key(file))
    errors().print(f"{file} is yours alone; the owner of a node adds you with this:", soft_wrap=True)
    click.echo(public.hex())


@key.command("add")
@click.argument("name")
@click.argument("public")
@_role(None)
@_limited
@_of_a_node
def add_key(
    name: str, public: str, role: str | None, days: float | None, scope: tuple[str, ...], node: str, file: Path | None
) -> None:
    """Let who owns the key PUBLIC (64 hexadecimal digits) connect as NAME."""
    raw = parse_public(public)
    _name(name)
    _users(node, file, make=True).add_key(name, raw, None if role is None else Role(role), days, scope or None)
    output().print(f"{name} may log in with key {raw.hex()[:16]}", markup=False)


@key.command("revoke")
@click.argument("digits")
@_of_a_node
def revoke_key(digits: str, node: str, file: Path | None) -> None:
    """Accept one key no more: the one that begins with DIGITS, at least 8."""
    whose = _users(node, file).revoke_key(digits.lower())
    if whose is None:
        raise ConfigurationError(f"not exactly one key begins with {digits!r} (8 digits or more): `syftlite user list` shows them")
    output().print(f"key {digits} of {whose} revoked", markup=False)


# -- tokens


@token.command()
@click.argument("name")
@_role("scientist")
@_limited
@_of_a_node
def new(name: str, role: str, days: float | None, scope: tuple[str, ...], node: str, file: Path | None) -> None:
    """Make a token for NAME and print it, once: the node keeps only its hash."""
    _name(name)
    made = _users(node, file, make=True).new(name, Role(role), days, scope or None)
    at = node if file is None else str(file)
    errors().print(f"the token of {name} ({role}) at {at}, shown this once; hand it over on a safe way:", soft_wrap=True)
    click.echo(made)


@token.command("list")
@_of_a_node
def list_tokens(node: str, file: Path | None) -> None:
    """List who has a token."""
    _print_tokens(grant for grant in _users(node, file).grants() if grant.kind == "token")


def _print_tokens(grants: Iterable[Grant]) -> None:
    table = list_table("name", "role", "valid")
    for grant in grants:
        table.add_row(Text(grant.principal, "cyan"), grant.role.value, _validity(grant))
    output().print(table)


def _validity(grant: Grant) -> Text:
    if grant.expires is None:
        return Text("until revoked")
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(grant.expires))
    return Text(f"expired {day}", "red") if grant.expires <= time.time() else Text(f"until {day}")


@token.command("revoke")
@click.argument("name")
@_of_a_node
def revoke_tokens(name: str, node: str, file: Path | None) -> None:
    """Accept no token and no key of NAME any more; open connections are closed within a second."""
    gone = _users(node, file).revoke(name)
    if not gone:
        raise ConfigurationError(f"{name!r} has no token: `syftlite token list` shows who has")
    output().print(f"{gone} token{'s' if gone > 1 else ''} of {name} revoked", markup=False)
