"""WebsocketServerWorker: this process as a node that others connect to."""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any, Iterable, Mapping

import torch

from syftlite.engine.engine import Engine
from syftlite.engine.journal import Datasets, Journal
from syftlite.engine.session import DEFAULT_MAX_BYTES, Role
from syftlite.remote.worker import VirtualWorker
from syftlite.storage.tokens import Tokens, announce
from syftlite.transports.server import NodeServer, is_loopback, tls_of


class WebsocketServerWorker(VirtualWorker):
    """A node named ``id``; `start` makes it listen on ``host``:``port`` (0: any free port; `port` tells which).

    ``data``: public datasets to offer, with their tags; `load` adds more, also PRIVATE ones. ``tokens``: {principal: token}, a `Tokens`, or the
    path of a token file. On loopback they may be left out: fresh ones are left where only this user's clients find them. Beyond
    loopback the node needs ``tokens`` and TLS (``cert_path``, ``key_path``) and raises `ConfigurationError` without.
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
        cert_path: str | None = None,
        key_path: str | None = None,
        tokens: Tokens | Mapping[str, str] | str | Path | None = None,
        journal: Journal | None = None,
        datasets: Datasets | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **_: Any,
    ) -> None:
        self._announced: Path | None = None
        self._own: dict[str, str] | None = None
        if tokens is None and is_loopback(host):
            self._own = {role.value: secrets.token_urlsafe(32) for role in Role}
            accepted = Tokens()
            for role in Role:
                accepted.add(role.value, self._own[role.value], role)
        elif isinstance(tokens, Tokens):
            accepted = tokens
        elif isinstance(tokens, (str, Path)):
            accepted = Tokens(Path(tokens))
        else:
            accepted = Tokens.of(tokens or {})
        engine = Engine(id, journal=journal, datasets=datasets, max_bytes=max_bytes)
        self.server = NodeServer(
            engine, accepted.authenticate, host, port, tls=tls_of(cert_path, key_path), guarded=tokens is not None
        )
        super().__init__(id=id, engine=engine)
        self.load_data(data)

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

    def start(self, wait: bool = True) -> WebsocketServerWorker:
        """Listen. ``wait``: serve until Ctrl-C, as a program's last line does; otherwise return once the port is open."""
        self.server.start()
        if self._own is not None:
            self._announced = announce(self.server.host, self.port, self._own)
        try:
            while wait:
                time.sleep(3600)
        except KeyboardInterrupt:
            self.close()
        return self

    def close(self) -> None:
        """Stop listening, close all connections, and forget this node."""
        self.server.stop()
        if self._announced is not None:
            self._announced.unlink(missing_ok=True)
            self._announced = None
        super().close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} id:{self.id} at {self.uri} #objects:{self.objects_count()}>"
