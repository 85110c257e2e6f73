"""Roster: owners' nodes by address, who come and go while a model is trained.

    rounds(make, count)     whoever is up -> make(owners) -> a round -> ...

An owner that is down is left out, and connected again when it is up: killed and started at its address, it takes part in a later round.
With too few it waits, for so long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from syftlite.errors import AggregationError, ConnectionLostError
from syftlite.federated.federation import Federation
from syftlite.federated.history import RoundResult
from syftlite.remote.client import WebsocketClientWorker, connect


class Roster:
    """The owners at ``uris``, who offer a tensor for each of ``tags``. ``options``: of `connect`. ``tell``: is told of who is away."""

    def __init__(self, uris: Sequence[str], tags: Sequence[str], tell: Callable[[str], Any] = print, **options: Any) -> None:
        self.uris, self.tags, self.tell, self.options = list(uris), list(tags), tell, options
        self.federation: Federation | None = None
        """Of those that are up, once there has been a round."""
        self._workers: dict[str, WebsocketClientWorker] = {}
        self._away: dict[str, str] = {}

    def present(self) -> list[WebsocketClientWorker]:
        """Whoever is up and has its rows. Tells of those who are not, once each time."""
        away = {}
        for uri in self.uris:
            try:
                self._connect(uri)
            except ConnectionLostError as error:
                away[uri] = str(error)
        for uri in away.keys() - self._away.keys():
            self.tell(f"without {uri}: {away[uri]}")
        for uri in self._away.keys() - away.keys():
            self.tell(f"with {uri} again")
        self._away = away
        return [self._workers[uri] for uri in self.uris if uri in self._workers]

    def _connect(self, uri: str) -> None:
        worker = self._workers.get(uri)
        if worker is not None and worker.transport.open:
            return
        if worker is not None:
            self._workers.pop(uri).close()
        worker = connect(uri, **self.options)
        if missing := [tag for tag in self.tags if not worker.search(tag)]:
            worker.close()
            raise ConnectionLostError(f"it is up and has no {', '.join(missing)} yet")
        self._workers[uri] = worker

    def rounds(
        self, make: Callable[[Sequence[Any]], Federation], count: int, *, least: int = 1, patience: float = 600.0, pause: float = 5.0
    ) -> Iterator[RoundResult]:
        """Rounds until there are ``count``, by what ``make`` makes of the owners that are up: anew, so from its checkpoint, when these are
        others. While fewer than ``least`` are up, or come through, it tries again every ``pause`` (s), and raises `AggregationError` after
        ``patience`` (s). Where nobody has ever been up it is `make` that says so, at once."""
        taken: list[WebsocketClientWorker] = []
        reached = time.monotonic()
        while True:
            present = self.present()
            try:
                if len(present) < least and (present or taken):
                    told = "; ".join(f"{uri}: {why}" for uri, why in self._away.items())
                    raise AggregationError(f"{len(present)} owners are up, and {least} are needed. {told}")
                if self.federation is None or [*map(id, present)] != [*map(id, taken)]:
                    self.federation, taken = make(present), present
                if len(self.federation.history) >= count:
                    return
                result = self.federation.fit(1, progress=False)[-1]
            except AggregationError as error:
                if time.monotonic() - reached + pause > patience:
                    raise
                self.tell(f"waiting, {patience - (time.monotonic() - reached):.0f} s at most: {error}")
                time.sleep(pause)
                continue
            reached = time.monotonic()
            yield result
