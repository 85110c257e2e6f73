"""Workers of a served Keras model, under the names that users of Syft Keras know: processes at named places, and clients of theirs.

    the model's owner                                            a client, in another process
        julia = sy.TFEWorker(host="localhost:4000")                  julia, greg, me = ...                the same addresses
        greg = sy.TFEWorker(host="localhost:4001")                   cluster = sy.TFECluster(julia, greg, me)
        me = sy.TFEWorker(host="localhost:4002")                     client = sy.TFEWorker()
        cluster = sy.TFECluster(julia, greg, me)                     client.connect_to_model((1, 28, 28, 1), (1, 10), cluster)
        cluster.start()                                              client.query_model(image)
        model.share(cluster)

All but the last of a cluster hold shares; the last deals correlated randomness. Making a worker or a cluster starts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from urllib.parse import urlsplit

from syftlite.errors import AuthenticationError, ConfigurationError, ConnectionLostError, WorkerNotFoundError
from syftlite.hooks.tfe_client import TFEClient
from syftlite.remote.client import WebsocketClientWorker, connect
from syftlite.remote.process import NodeProcess
from syftlite.transports.server import is_loopback

WAIT_SECONDS = 300.0
"""How long `TFECluster.start` waits for workers that somebody else starts."""
POLL_SECONDS = 0.2
PORT = 4000


class TFEWorker(TFEClient):
    """A worker at ``host``: "localhost:4000", or of another machine "wss://alice.example:4000". Without ``host``, a client alone.

    ``auto_managed``: `TFECluster.start` starts its process, on this machine only, and it ends with this one; otherwise whoever runs that
    host starts it, with a command that is printed. ``token``: for a worker of somebody else; those of this user's own workers on this
    machine are found. ``ca``: a certificate file to trust instead of the system's.
    """

    def __init__(self, host: str | None = None, auto_managed: bool = True, *, token: str | None = None, ca: str | None = None) -> None:
        self.host, self.auto_managed, self.token, self.ca = host, auto_managed, token, ca
        self.node: WebsocketClientWorker | None = None
        self._process: NodeProcess | None = None
        super().__init__()
        self.uri, self.id = ("", "client") if host is None else _address(host)

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine's loopback."""
        return self.host is not None and is_loopback(str(urlsplit(self.uri).hostname))

    def must_be_local(self) -> None:
        """Raise `ConfigurationError` if it is to be started from here and cannot be."""
        if not self.is_local:
            raise ConfigurationError(
                f"{self.host} is another machine, where nothing starts from here: auto_managed=False, and run there what is then printed"
            )

    def spawn(self) -> None:
        """Start its process, not waiting until it listens."""
        self.must_be_local()
        self._process = NodeProcess(self.id, port=urlsplit(self.uri).port or PORT, threads=1)

    def connect(self) -> WebsocketClientWorker:
        """A connection to it; of its own process when that listens."""
        if self.node is None:
            if self._process is not None:
                _ = self._process.port  # waits, and raises why it does not listen
            self.node = connect(self.uri, self.token, ca=self.ca)
        return self.node

    def command(self, others: Sequence[TFEWorker]) -> str:
        """What to run on its host, for it to be there; ``others`` are those that it works with."""
        if self.is_local:
            return f"syftlite worker start --id {self.id} --port {urlsplit(self.uri).port}"
        peers = ", ".join(f'"{other.uri}"' for other in others)
        lines = [
            f"syftlite worker start --config {self.id}.toml",
            f"    {self.id}.toml:",
            f'        id = "{self.id}"',
            '        host = "0.0.0.0"',
            f"        port = {urlsplit(self.uri).port}",
            '        cert = "node.crt"          # its TLS certificate',
            '        key = "node.key"',
            f"        peers = [{peers}]",
            f"    and for TFEWorker(token=...): syftlite token new OWNER --node {self.id}",
        ]
        return "\n    ".join(lines)

    def stop(self) -> None:
        """Close the connection, and end the process if it was started here."""
        self.disconnect()
        if self.node is not None:
            self.node.close()
            self.node = None
        if self._process is not None:
            self._process.stop()
            self._process = None

    def __repr__(self) -> str:
        if self.host is None:
            return f"<TFEWorker, a client{self._of()}>"
        state = "connected" if self.node is not None else "not started"
        return f"<TFEWorker at {self.uri}, {state}{', started here' if self._process is not None else ''}>"


class TFECluster:
    """Three `TFEWorker`s or more: all but the last hold shares of a model, and the last deals what they need.

    ``timeout`` (s): how long `start` waits for workers that others start."""

    def __init__(self, *workers: TFEWorker, timeout: float = WAIT_SECONDS) -> None:
        if len(workers) < 3:
            raise ConfigurationError(f"a cluster has two workers that hold shares and a third that deals for them; it got {len(workers)}")
        if not all(isinstance(worker, TFEWorker) and worker.host is not None for worker in workers):
            raise ConfigurationError('a cluster is made of TFEWorker(host="localhost:4000") and the like')
        if len({worker.uri for worker in workers}) != len(workers):
            raise ConfigurationError(f"two workers have one address: {', '.join(worker.uri for worker in workers)}")
        self.workers, self.timeout = workers, timeout

    @property
    def nodes(self) -> tuple[WebsocketClientWorker, ...]:
        """Connections to its workers, which are started if they were not: holders first, then the provider."""
        self.start()
        return tuple(worker.connect() for worker in self.workers)

    def start(self, say: Callable[[str], object] = print) -> TFECluster:
        """Start the workers that are managed here, and connect to all. For the others, ``say`` what to run on their hosts, and wait.

        Raises `WorkerNotFoundError` that names those that did not come in time."""
        mine = [worker for worker in self.workers if worker.auto_managed and worker.node is None]
        for worker in mine:
            worker.must_be_local()
        try:
            for worker in mine:
                worker.spawn()
            for worker in mine:
                worker.connect()
            self._wait([worker for worker in self.workers if worker.node is None], say)
        except BaseException:
            for worker in mine:
                worker.stop()
            raise
        return self

    def _wait(self, missing: list[TFEWorker], say: Callable[[str], object]) -> None:
        deadline = time.monotonic() + self.timeout
        told: dict[TFEWorker, BaseException] = {}
        while True:
            for worker in list(missing):
                error = _tried(worker)
                if error is None:
                    missing.remove(worker)
                    continue
                if worker not in told:
                    say(f"{worker.host} is not there yet. On its host, run:\n    {worker.command(self._others(worker))}")
                told[worker] = error
            if not missing:
                return
            if time.monotonic() > deadline:
                names = ", ".join(f"{worker.host} ({told[worker]})" for worker in missing)
                commands = "\n    ".join(worker.command(self._others(worker)) for worker in missing)
                raise WorkerNotFoundError(f"not there after {self.timeout:g} s: {names}. Run on their hosts:\n    {commands}")
            time.sleep(POLL_SECONDS)

    def _others(self, worker: TFEWorker) -> list[TFEWorker]:
        return [other for other in self.workers if other is not worker]

    def stop(self, say: Callable[[str], object] = print) -> None:
        """Close the connections and end the workers that were started here; ``say`` which others still run, and how they end."""
        running = [worker for worker in self.workers if not worker.auto_managed and worker.node is not None]
        for worker in self.workers:
            worker.stop()
        if running:
            say("these workers were started elsewhere and still run; stop each with Ctrl-C, or by ending its process, on its host:")
            for worker in running:
                say(f"    {worker.host}: syftlite worker start --id {worker.id} ...")

    def __repr__(self) -> str:
        *holders, provider = (worker.host for worker in self.workers)
        state = "running" if all(worker.node is not None for worker in self.workers) else "not started"
        return f"<TFECluster {', '.join(map(str, holders))} hold, {provider} deals; {state}>"

    def __enter__(self) -> TFECluster:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()


def _address(host: str) -> tuple[str, str]:
    """The URI and the id of the worker at ``host``: "localhost:4000" -> ("ws://127.0.0.1:4000", "localhost-4000")."""
    text = host if "://" in host else f"//{host}"
    try:
        parsed = urlsplit(text)
        name, port = parsed.hostname, parsed.port or PORT
    except ValueError as error:
        raise ConfigurationError(f"{host!r} is no worker's address ({error}): it looks like localhost:4000") from None
    if not name or parsed.scheme not in ("", "ws", "wss") or parsed.path.strip("/"):
        raise ConfigurationError(f"{host!r} is no worker's address: it looks like localhost:4000 or wss://alice.example:4000")
    place = "127.0.0.1" if name == "localhost" else name
    scheme = parsed.scheme or ("ws" if is_loopback(place) else "wss")
    return f"{scheme}://{f'[{place}]' if ':' in place else place}:{port}", f"{name.replace(':', '.')}-{port}"


def _tried(worker: TFEWorker) -> BaseException | None:
    """Connect; what was in the way. A worker of this machine that has left no token is not there yet; elsewhere a wrong one is an error."""
    try:
        worker.connect()
        return None
    except AuthenticationError as error:
        if not worker.is_local:
            raise
        return error
    except (ConnectionLostError, TimeoutError, OSError) as error:
        return error
