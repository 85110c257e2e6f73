"""A node's settings, from a TOML file. What is not in this list is an error, and so is a value of another type:

    id          text      the node's name and that of its folder          "node"
    host        text      where it listens                                "127.0.0.1"
    port        number    0: any free port                                8777
    cert, key   files     TLS; both, and needed beyond loopback           none
    max_bytes   number    what one session may hold                       8 GiB
    device      text      where tensors are kept: "cuda", "cuda:1"        main memory
    tokens      file      who may connect: a database                     node.db in the node's folder
    audit_anchor  file    where signed heads of the audit trail go too    none: records cut off the end do not show
    peers       texts     addresses of nodes that this one may send to    none, but those on this machine if it is on loopback
    peer_ca     file      the certificate that those nodes show           the system's
    [[data]]              a dataset to offer while the node runs; any number of them
      file      file      .npy, .csv or .safetensors
      private   true/false   whether what is made of it leaves only with approval; has no default
      name      text      what it is called                               the file's name
      tags      texts     what a search finds it by                       "#" and its name
      description  text   what a search shows                             ""

    [aggregates_with]     who PRIVATE data may be added up with (docs/federated.md)   nobody
      NAME      text      that node's key, as `syftlite worker identity` prints it there
    [registered]          whom policies' `share` may name (docs/policy.md): keys as above            nobody

    [dataset.NAME]        its policies, that of dataset NAME here (docs/policy.md): who, what, how and when; `unit` is a column

File names are relative to the TOML file.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from syftlite.engine.session import DEFAULT_MAX_BYTES
from syftlite.errors import ConfigurationError, DependencyError
from syftlite.policy.rules import Policy, from_table
from syftlite.storage.home import file_name
from syftlite.storage.keys import parse_public
from syftlite.wire.login import unhex
from syftlite.wire.signatures import has_owner


@dataclass(frozen=True)
class DataConfig:
    """One `[[data]]` table."""

    file: Path
    private: bool
    name: str = ""
    tags: tuple[str, ...] = ()
    description: str = ""


@dataclass(frozen=True)
class NodeConfig:
    """A node's settings; see the module."""

    id: str = "node"
    host: str = "127.0.0.1"
    port: int = 8777
    cert: Path | None = None
    key: Path | None = None
    max_bytes: int = DEFAULT_MAX_BYTES
    tokens: Path | None = None
    audit_anchor: Path | None = None
    peers: tuple[str, ...] = ()
    peer_ca: Path | None = None
    device: str | None = None
    data: tuple[DataConfig, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    registered: Mapping[str, str] = field(default_factory=dict)
    aggregates_with: Mapping[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        file_name(self.id, "a node's id")
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is 0 to 65535, not {self.port}")
        if self.max_bytes <= 0:
            raise ConfigurationError(f"max_bytes is above 0, not {self.max_bytes}")
        registered_keys(self.registered)

    @classmethod
    def read(cls, path: Path | str) -> NodeConfig:
        """The settings in the TOML file at ``path``. Raises `ConfigurationError`, naming file and key."""
        path = Path(path)
        try:
            table = toml_reader().loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"cannot read {path}: {error}") from None
        table["data"] = _datasets(path, table.get("data", []))
        if "policies" in table:
            raise ConfigurationError(f"{path}: policies is no setting: a policy is written as [dataset.NAME]")
        table["policies"] = _policies(path, table.pop("dataset", {}))
        table["aggregates_with"] = _keys(path, table.get("aggregates_with", {}))
        try:
            return cls(**_checked(path, "", table, _NODE))
        except ConfigurationError as error:
            raise error if str(path) in str(error) else ConfigurationError(f"{path}: {error}") from None


_NODE = {
    "id": str,
    "host": str,
    "port": int,
    "cert": Path,
    "key": Path,
    "max_bytes": int,
    "tokens": Path,
    "audit_anchor": Path,
    "peers": list,
    "peer_ca": Path,
    "device": str,
    "data": tuple,
    "policies": dict,
    "registered": dict,
    "aggregates_with": dict,
}
_DATA: dict[str, Any] = {"file": Path, "private": bool, "name": str, "tags": list, "description": str}
_WORDS: dict[Any, str] = {str: "text", int: "a whole number", bool: "true or false", Path: "a file's name", list: "a list of texts"}


def registered_keys(registered: Mapping[str, str]) -> dict[str, bytes]:
    """The public keys of other owners' nodes, by name, from hexadecimal. Raises `ConfigurationError`."""
    keys: dict[str, bytes] = {}
    for name, text in registered.items():
        key = unhex(text, 32) if type(text) is str else None
        if key is None:
            raise ConfigurationError(f"registered.{name} is a node's public key, 64 hexadecimal digits, not {text!r}")
        if not has_owner(key):
            raise ConfigurationError(f"registered.{name} is a key for which everybody can sign, not a node's: ask its owner for it")
        keys[name] = key
    return keys


def toml_reader() -> Any:
    """The module that reads TOML. Raises `DependencyError`."""
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        return importlib.import_module("tomli")
    except ImportError:
        raise DependencyError('configuration files need tomli on this Python: pip install "syftlite[cli]"') from None


def _policies(path: Path, tables: Any) -> dict[str, Policy]:
    if type(tables) is not dict or not all(type(table) is dict for table in tables.values()):
        raise ConfigurationError(f"{path}: a policy is written as [dataset.NAME], with its rules below")
    try:
        return {name: from_table(name, table) for name, table in tables.items()}
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: {error}") from None


def _keys(path: Path, table: Any) -> dict[str, bytes]:
    if type(table) is not dict or not all(type(key) is str for key in table.values()):
        raise ConfigurationError(f'{path}: aggregates_with is a table of names and keys: NAME = "64 hexadecimal digits"')
    try:
        return {name: parse_public(key) for name, key in table.items()}
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: aggregates_with: {error}") from None


def _datasets(path: Path, tables: Any) -> tuple[DataConfig, ...]:
    if type(tables) is not list or not all(type(table) is dict for table in tables):
        raise ConfigurationError(f"{path}: data is written as [[data]], once for each dataset")
    made = []
    for number, table in enumerate(tables, 1):
        where = f"data {number}: "
        checked = _checked(path, where, table, _DATA)
        for needed in ("file", "private"):
            if needed not in checked:
                raise ConfigurationError(f"{path}: {where}{needed} is missing: it is {_WORDS[_DATA[needed]]}")
        made.append(DataConfig(**checked))
    return tuple(made)


def _checked(path: Path, where: str, table: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, Any]:
    """``table`` with its values as the fields want them."""
    checked: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise ConfigurationError(f"{path}: {where}{key} is no setting; there are {', '.join(known)}")
        kind = known[key]
        wanted = str if kind is Path else kind
        if type(value) is not wanted or (kind is list and not all(type(item) is str for item in value)):
            raise ConfigurationError(f"{path}: {where}{key} is {_WORDS[kind]}, not {value!r}")
        checked[key] = path.parent / value if kind is Path else tuple(value) if kind is list else value
    return checked
