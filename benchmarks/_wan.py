"""Training steps over a wide area: nodes in processes of their own, between all of which, and to the client, lies a relay (_relay.py).

    predicted = rounds 20 ms + max(sent, dealt) / 350 Mbit/s + 40 ms        the client's message and the holders' answer

In a round both holders send at once, so it takes one way. The provider deals ahead of the holders, down a connection of its own. What
the parties compute is left out of the prediction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from _measure import Figure, Goal, compared, in_turns
from _parties import Parties
from _peers import Settings
from _relay import ONE_WAY, RATE, far

import syftlite as sy
from syftlite.mpc.counting import Cost
from syftlite.wire.messages import INVITE

TF_ENCRYPTED_WAN = {"A": 4.5, "B": 18.7, "C": 27.1, "D": 5.5}
"""Seconds of a training step of 128 images on its WAN, from its README."""


NODES = ("far holder0", "far holder1", "far provider")
"""Other sections' nodes may still be running."""


class FarApart(sy.LocalCluster):
    """A cluster whose nodes are reached, by the client and by each other, at ports of the relay."""

    def __init__(self, *names: str, beyond: Callable[[int], int]) -> None:
        super().__init__(*names, threads=1)
        self._beyond = beyond

    def connect(self, name: str, role: str = "scientist") -> sy.WebsocketClientWorker:
        """As `LocalCluster`'s; the port that the node accepts links at is the relay's, too."""
        port = self._beyond(self._processes[name].port)
        worker = sy.WebsocketClientWorker(host="127.0.0.1", port=port, token=self._tokens[role], timeout=self.timeout, id=name)
        ask = worker.ask

        def relayed(kind: int, *fields: Any) -> Any:
            answer = ask(kind, *fields)
            return (*answer[:3], self._beyond(answer[3])) if kind == INVITE else answer

        worker.ask = relayed  # type: ignore[method-assign]
        return worker


def predicted(cost: Cost) -> float:
    """Seconds of a step, were computing to take none."""
    return cost.rounds * ONE_WAY + max(cost.sent, cost.dealt) / RATE + 2 * ONE_WAY


def wan(settings: Settings) -> list[Figure]:
    """Steps of 128 images of networks A to D, by SGD, as one plan a party, beside the figures that TF Encrypted publishes."""
    figures = []
    with far() as beyond, Parties(cluster=FarApart(*NODES, beyond=beyond)) as parties:
        for network, seconds in TF_ENCRYPTED_WAN.items():
            batch = settings.count(128)
            case = parties.case(f"train {network}", batch)
            cost = parties.cost(case)
            (taken,) = in_turns(min(settings.repeats, 3), lambda case=case: parties.run(case) * 1e3)  # type: ignore[misc]
            counted = f"{cost.rounds} rounds, {cost.sent / 1e6:.3g} MB each way, {cost.dealt / 1e6:.3g} MB from the provider"
            note = f"predicted {predicted(cost) * 1e3:,.0f} ms and the computation: {counted}"
            label, peer = f"network {network} over a WAN, a training step of {batch}", [seconds * 1e3]
            figures.append(compared(label, "ms", Goal(">=", 2, "x"), taken, "TF Encrypted, published", peer, gain=True, note=note))
    return figures
