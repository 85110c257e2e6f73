"""The owner's side of a served model.

    served = sy.serve(module, alice, bob, crypto_provider=carol, name="digits")     shared and served: clients may come
    served.wait()                                                                   one line for each request, until num_requests, or Ctrl-C
    served.serve(num_requests=3); served.pause(); served.stop()
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from syftlite.errors import ConnectionLostError, Misuse, SharingAbortedError, SyftliteError
from syftlite.mpc.counting import Cost
from syftlite.remote.encrypting import is_replicated
from syftlite.remote.group import Group
from syftlite.remote.joining import members_of
from syftlite.serving.client import gone
from syftlite.serving.graph import Graph
from syftlite.serving.importers import graph_of
from syftlite.serving.lower import lower, must_fit
from syftlite.serving.publish import Published, publish
from syftlite.tensors.fixed import BASE, PRECISION
from syftlite.wire import messages as m

SCHEME = {"base": BASE, "precision_fractional": PRECISION}


class ServedModel:
    """See `serve`. The model is at its workers: this object may go away, and so may this process."""

    def __init__(
        self, graph: Graph, group: Group, name: str, output: str, batch: int, scheme: dict[str, Any], clients: Sequence[str] | None = None
    ) -> None:
        self.graph, self.group, self.name, self.output, self.batch, self.scheme = graph, group, name, output, batch, scheme
        if isinstance(clients, str) or (clients is not None and not all(type(c) is str and c for c in clients)):
            raise Misuse(f"clients= are names of principals, such as ('ben', 'clara'), or None for anyone, not {clients!r}")
        self.clients = None if clients is None else tuple(clients)
        self._lowered = lower(graph, output)
        must_fit(self._lowered.graph, scheme["base"] ** scheme["precision_fractional"])
        self._published: Published | None = None
        self._seen = 0

    # -- serving

    def share(self) -> ServedModel:
        """Share the weights among the workers, which then hold the model and take no queries yet. Done by `serve` if it was not before."""
        self._published = publish(self._lowered, self.name, self.group, self.batch, self.scheme, self.clients)
        self._seen = 0
        return self

    def serve(self, num_requests: int | None = None) -> ServedModel:
        """Take ``num_requests`` queries, None for any number. Also after `pause`, `stop`, or when a worker was away."""
        if num_requests is not None and num_requests < 1:
            raise Misuse(f"num_requests is at least 1, or None for any number, not {num_requests}")
        if self._published is None or self._is_broken():
            self.share()
        self._leader.ask(m.ADMIT, self.name, num_requests)
        return self

    def _is_broken(self) -> bool:
        try:
            return self.state not in ("serving", "stopped")
        except SyftliteError:
            return True

    def pause(self) -> ServedModel:
        """Take no more queries; what is under way is answered. `serve` goes on."""
        self._leader.ask(m.ADMIT, self.name, 0)
        return self

    def stop(self) -> None:
        """End it: the workers forget the model, and its clients are told."""
        if self._published is not None:
            self._published = None
            for worker in self.group.members:
                with contextlib.suppress(SyftliteError):
                    worker.ask(m.RETIRE, self.name)

    close = stop

    # -- what it does

    @property
    def _leader(self) -> Any:
        if self._published is None:
            raise Misuse(f"model {self.name!r} is not shared: serve() it")
        return self.group.holders[0]

    def _progress(self, seen: int, within: float | None = None) -> Any:
        transport = self._leader.transport
        try:
            return transport.finish(transport.begin(m.WATCH, self.name, seen), within)
        except ConnectionLostError as error:
            raise gone(transport, error) from None

    @property
    def state(self) -> str:
        """serving, stopped, or why it ended."""
        if self._published is None:
            return "not shared"
        worst = [str(w.ask(m.WATCH, self.name, 0)[2]) for w in self.group.members[1:]]
        broken = next((state for state in worst if state != "serving"), None)
        return broken or str(self._now()[2])

    @property
    def served(self) -> int:
        """Requests answered since it was shared."""
        return int(self._now()[3])

    def _now(self) -> Any:
        leader = self._leader
        return leader.ask(m.WATCH, self.name, None)

    def wait(self, told: Callable[[str], None] = print) -> int:
        """Wait until it takes no more queries, telling each line; Ctrl-C ends the waiting, and not the serving. How many were served.

        Raises `SharingAbortedError` if it ends otherwise.
        """
        while True:
            _, _, state, served, lines = self._progress(self._seen)
            for line in lines[max(len(lines) - (served - self._seen), 0) :]:
                told(line)
            self._seen = max(self._seen, served)
            if state == "stopped":
                return self._seen
            if state != "serving":
                raise SharingAbortedError(state)

    def cost(self, rows: int = 1) -> Cost:
        """Rounds and bytes of a batch of so many rows (of the next size that there is a program for)."""
        if self._published is None:
            raise Misuse(f"model {self.name!r} is not shared: serve() it")
        costs = self._published.costs
        return costs[min(size for size in costs if size >= rows)]

    def __enter__(self) -> ServedModel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        places = ", ".join(worker.id for worker in self.group.holders)
        state = "not shared" if self._published is None else f"at {places}; provider {self.group.members[-1].id}"
        return f"<ServedModel {self.name!r} {state}; {len(self.graph.nodes)} layers, {self.output}, batches of up to {self.batch}>"


def serve(
    model: nn.Module | Graph | Any,
    *workers: Any,
    crypto_provider: Any = None,
    name: str = "model",
    num_requests: int | None = None,
    output: str = "scores",
    batch: int = 16,
    input_shape: tuple[int, ...] | None = None,
    example: Any = None,
    base: int = BASE,
    precision_fractional: int = PRECISION,
    clients: Sequence[str] | None = None,
    protocol: str = "snn",
) -> ServedModel:
    """Share ``model`` among ``workers`` and serve it: clients `connect_to_model`, nobody but they sees what they ask and get, and nobody
    but you has the weights. You may go away; the workers go on.

    ``model``: a `torch.nn.Module` in eval mode or what `torch.export` made of it, a scikit-learn estimator, or a `Graph`; for modules
    ``input_shape``, one row's, or ``example`` inputs. ``crypto_provider``: a worker of somebody who does not collude with the holders.
    ``output``: "scores", or "label" for the place of the greatest alone. ``batch``: rows that the holders run together at most.
    ``clients``: names of those who may ask, as the holders know them; None: whoever may connect to them. ``protocol``: "aby3" for three
    workers and nobody else, of whom no two may collude: the third deals for the two that hold.

    Raises `UnsupportedLayerError`, by name, for a layer or an argument that has no form on shares.
    """
    graph = graph_of(model, input_shape=input_shape, example=example)
    group = _group(workers, crypto_provider, is_replicated(protocol))
    served = ServedModel(graph, group, name, output, batch, {"base": base, "precision_fractional": precision_fractional}, clients)
    return served.share().serve(num_requests)


def _group(workers: Sequence[Any], provider: Any, replicated: bool) -> Group:
    """Who holds, and who deals for them. Of three who are to do without anybody else the third deals, as it does in whatever they compute
    (mpc/replicated.py). It has no shares here: they would spare masks of weights, and a served model's are masked once."""
    if not replicated:
        return Group.of(workers, provider)
    *holders, dealer = members_of(workers, provider, replicated)[0]
    return Group.of(holders, dealer)
