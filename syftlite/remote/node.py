"""WebsocketServerWorker: this process as a node that others connect to.

A node with a ``folder`` keeps there what must outlive it:

    node.db          who may connect, what is asked for
    datasets/        what its owner stored
    journal.jsonl    what was done, asked for, decided and released
    node.key         signs the journal
    node.db          metadata: what has left of each dataset, what private answers have cost
"""

from __future__ import annotations

import logging
import os
import secrets
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from syftlite._malloc import keep_warm
from syftlite.dp.ledger import Ledger
from syftlite.engine.access import Admission
from syftlite.engine.engine import Engine
from syftlite.engine.journal import Datasets, Journal
from syftlite.engine.session import DEFAULT_MAX_BYTES, Role
from syftlite.errors import ConfigurationError
from syftlite.policy.rules import Policy
from syftlite.remote.virtual import VirtualWorker
from syftlite.secagg.identity import Identity
from syftlite.storage.database import Database
from syftlite.storage.datasets import FileDatasets
from syftlite.storage.history import StoredHistory
from syftlite.storage.home import node_folder
from syftlite.storage.journal import FileJournal
from syftlite.storage.keys import derived, key_of
from syftlite.storage.ledger import LedgerStore
from syftlite.storage.node_config import NodeConfig, registered_keys
from syftlite.storage.requests import FileRequests
from syftlite.storage.tables import named_tables
from syftlite.storage.tokens import announce
from syftlite.storage.users import DATABASE, Users
from syftlite.transports.peers import PeerLinks
from syftlite.transports.server import NodeServer, fingerprint, is_loopback, tls_of

log = logging.getLogger("syftlite.node")
HEED_SECONDS = 0.5
"""How often a node that serves looks whether it was told to stop: a signal that the kernel gives another thread does not wake it."""
STOP_SECONDS = 5.0
"""How long operators that still run may delay the end of a node that was told to stop."""

Given = Users | Mapping[str, str] | str | Path | None


class WebsocketServerWorker(VirtualWorker):
    """A node named ``id``; `start` makes it listen on ``host``:``port`` (0: any free port; `port` tells which).

    ``data``: public datasets to offer, with their tags; `load` adds more, also PRIVATE ones. ``tokens``: {principal: token},
    `Users`, or the path of their database; on loopback they may be left out. There the node also leaves tokens where only this user's
    clients find them, unless ``announce`` is false. Beyond loopback it needs ``tokens`` and TLS (``cert_path``, ``key_path``) and raises
    `ConfigurationError` without. ``folder``: where it keeps tokens, stored datasets and journal; without one, nowhere. ``audit_anchor``: a
    file elsewhere, best on another machine's disk, that gets the journal's signed heads. ``device``: where it
    keeps its tensors, as torch names it ("cuda:0"); main memory if left out. ``registered``: {name: `public_key`} of other
    owners' nodes, by the names that policies' `share` has for them. ``aggregates_with``: the keys, by name, of the nodes that PRIVATE data
    may be added up with; its own is ``identity``: if left out, `public_key`'s.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        return object.__new__(cls)

    def __init__(
        self,
        hook: Any = None,
        host: str = "127.0.0.1",
        port: int = 8777,
        id: str = "node",
        data: Iterable[torch.Tensor] = (),
        *,
        cert_path: str | Path | None = None,
        key_path: str | Path | None = None,
        tokens: Given = None,
        folder: str | Path | None = None,
        audit_anchor: str | Path | None = None,
        announce: bool = True,
        journal: Journal | None = None,
        datasets: Datasets | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        peers: Iterable[str] = (),
        peer_ca: str | Path | None = None,
        device: str | None = None,
        policies: Mapping[str, Policy] | None = None,
        registered: Mapping[str, str] | None = None,
        identity: Identity | None = None,
        aggregates_with: Mapping[str, bytes] | None = None,
        **_: Any,
    ) -> None:
        self._announced: Path | None = None
        self._own = {role.value: secrets.token_urlsafe(32) for role in Role} if announce and is_loopback(host) else {}
        self._files: FileJournal | None = None
        self._database: Database | None = None
        if folder is not None:
            folder = Path(folder)
            anchor = None if audit_anchor is None else Path(audit_anchor)
            key = key_of(folder / "node.key")
            journal = self._files = FileJournal(folder / "journal.jsonl", key=key, anchor=anchor)  # first: it keeps a second process away
        try:
            if folder is not None:
                self._database = Database(folder / DATABASE)
                datasets = FileDatasets(folder / "datasets")
                if tokens is None:
                    tokens = Users(database=self._database)
                    tokens.take_in(folder / "tokens.json")
            history = None if self._database is None else StoredHistory(self._database)
            tls = tls_of(cert_path, key_path)
            if identity is None:
                identity = Identity(None if self._files is None or self._files.key is None else self._files.key.private_bytes_raw())
            ca = None if peer_ca is None else str(peer_ca)
            links = PeerLinks(peers, local=is_loopback(host), ca=ca, host=host, tls=tls, identity=identity)
            requests = None if self._database is None else FileRequests(self._database)
            secret = None if self._files is None or self._files.key is None else derived(self._files.key, b"audit digests")
            engine = Engine(
                id,
                journal=journal,
                datasets=datasets,
                peers=links,
                max_bytes=max_bytes,
                device=device,
                history=history,
                policies=policies,
                registered=registered_keys(registered or {}),
                identity=identity,
                requests=requests,
                secret=secret,
                aggregates_with=aggregates_with or None,
                ledger=None if self._database is None else Ledger(LedgerStore(self._database)),
            )
            keys = _Keys(self._own, tokens)
            channel = b"" if cert_path is None else fingerprint(cert_path)
            self.server = NodeServer(engine, keys, host, port, tls=tls, guarded=tokens is not None, channel=channel)
            if not is_loopback(host):
                keys.must_be_some(id, host)
            super().__init__(id=id, engine=engine)
            self._links = links
        except BaseException:
            self._close_files()
            raise
        self.load_data(data)

    @property
    def public_key(self) -> str:
        """By which other nodes know this one, as 64 hexadecimal digits: kept in its folder; without one, fresh each time."""
        return self._links.server.identity.public.hex()

    @classmethod
    def from_config(cls, config: NodeConfig | str | Path) -> WebsocketServerWorker:
        """The node that ``config``, or the TOML file of that name, describes, its datasets loaded. Its folder is
        $SYFTLITE_HOME/nodes/ID."""
        if not isinstance(config, NodeConfig):
            config = NodeConfig.read(config)
        node = cls(
            id=config.id,
            host=config.host,
            port=config.port,
            cert_path=config.cert,
            key_path=config.key,
            tokens=config.tokens,
            audit_anchor=config.audit_anchor,
            max_bytes=config.max_bytes,
            peers=config.peers,
            peer_ca=config.peer_ca,
            device=config.device,
            policies=config.policies,
            registered=config.registered,
            aggregates_with=config.aggregates_with,
            folder=node_folder(config.id),
        )
        try:
            for data in config.data:
                node.load_file(data.file, *data.tags, name=data.name, description=data.description, private=data.private)
        except BaseException:
            node.close()
            raise
        return node

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return self.server.port

    @property
    def uri(self) -> str:
        """Where clients connect."""
        return self.server.uri

    def load_data(self, data: Iterable[torch.Tensor]) -> None:
        """Offer public datasets, with the tags and descriptions that the tensors carry."""
        for tensor in data:
            tags = tuple(sorted(getattr(tensor, "_tags", ())))
            self.load(tensor, *tags, description=getattr(tensor, "_description", ""))

    def load_file(self, path: str | Path, *tags: str, name: str = "", description: str = "", private: bool = False) -> None:
        """Offer what is in the .npy, .csv or .safetensors file ``path``, for as long as this node runs."""
        for full, found_by, table in named_tables(Path(path), name, tags):
            policy = self.engine.policies.stated(full, table.columns)
            self.load(table.tensor, *found_by, name=full, description=table.describe(description), private=private, policy=policy)

    def start(self, wait: bool = True) -> WebsocketServerWorker:
        """Listen. ``wait``: serve until Ctrl-C or SIGTERM, as a program's last line does; otherwise return once the port is open."""
        self.server.start()
        if self._own:
            self._announced = announce(self.server.host, self.port, self._own, self.id, self.uri.startswith("wss:"))
        if wait:
            self.wait()
        return self

    def wait(self, ready: Callable[[], object] | None = None) -> None:
        """Serve until Ctrl-C or SIGTERM, then close. Operators that outlast `STOP_SECONDS` end with the process.

        ``ready`` is called when either would be heard.
        """
        keep_warm()
        stop = threading.Event()
        previous: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for name in (signal.SIGINT, signal.SIGTERM):
                previous[name] = signal.signal(name, lambda *_: stop.set())
        try:
            if ready is not None:
                ready()
            while not stop.wait(HEED_SECONDS):
                pass
            closing = threading.Thread(target=self.close, daemon=True)
            closing.start()
            closing.join(STOP_SECONDS)
            if closing.is_alive():
                log.warning("%s: operators still run; they end with the process", self.id)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(0)  # nothing is lost: what was acknowledged is on disk already
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def close(self) -> None:
        """Stop listening, close all connections, and forget this node. What it stored stays."""
        if self._announced is not None:
            self._announced.unlink(missing_ok=True)
            self._announced = None
        self.server.stop()
        self._links.close()
        super().close()
        self._close_files()

    def _close_files(self) -> None:
        if self._database is not None:
            self._database.close()
        if self._files is not None:
            self._files.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} at {self.uri} #objects:{self.objects_count()}>"


def identity_of(folder: Path) -> Identity:
    """Whom others know the node with this ``folder`` as: its `public_key` is this one's."""
    return Identity(key_of(folder / "node.key").private_bytes_raw())


class _Keys:
    """Whom a node lets in: this user's own clients with the tokens ``own`` {role: token}, and those ``given``."""

    def __init__(self, own: Mapping[str, str], given: Given) -> None:
        self.own = Users()
        for role, token in own.items():
            self.own.add(role, token, Role(role))
        if isinstance(given, Users):
            self.given = given
        else:
            self.given = Users(Path(given)) if isinstance(given, (str, Path)) else Users.of(given or {})

    def must_be_some(self, node: str, host: str) -> None:
        """Raise `ConfigurationError` if no token and no key exists."""
        if not self.given.grants():
            raise ConfigurationError(
                f"refusing to listen on {host}: no token or key exists, so nobody could connect. Make one: "
                f"`syftlite token new NAME --node {node}`"
            )

    def __call__(self, scheme: str, secret: str) -> Admission | None:
        return self.own.authenticate(scheme, secret) or self.given.authenticate(scheme, secret)

    def current(self) -> frozenset[str]:
        """The credentials that are good now."""
        return self.own.current() | self.given.current()
