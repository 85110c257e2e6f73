"""How the members of a group of shares come together: who may be one, how they are linked, and a provider that is in this process.

    holders in this process      members meet (engine/rounds.py); the provider is in this process too
    holders that are nodes       each is linked to each other, and to the provider if it is a node
                                 a provider in this process deals here and sends its corrections with the client's own messages
"""

from __future__ import annotations

import os
import secrets
import sys
import warnings
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from syftlite.errors import Misuse
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernel import Plan
from syftlite.mpc.replicated import HOLDERS
from syftlite.randomness import SECRET_BYTES
from syftlite.remote import registry
from syftlite.remote.transfer import upload
from syftlite.wire import messages as m

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

Peers = tuple[tuple[int, str, int, str], ...]
"""(its number, where to dial or "", the port, the ticket) of each other member."""

_numbers = count(1)
_warned: set[str] = set()


def members_of(holders: Sequence[Any], provider: Any, replicated: bool) -> tuple[tuple[BaseWorker, ...], BaseWorker | None]:
    """(the holders, the provider) that these are, or their ids; the local worker provides if nobody is named and somebody has to. Raises
    `Misuse` for workers that cannot be the members of one group."""
    named = [w for holder in holders for w in (holder if isinstance(holder, (list, tuple)) else (holder,))]
    found = tuple(registry.find(holder) for holder in named)
    names = ", ".join(w.id for w in found)
    if replicated and len(found) != HOLDERS:
        raise Misuse(f"replicated shares are held by three workers, not {len(found)}: share(alice, bob, carol, protocol='aby3')")
    if replicated and provider is not None:
        raise Misuse("three holders of replicated shares need no crypto_provider: leave it out")
    if len(found) < 2:
        raise Misuse(f"a value is shared among at least two holders, not {len(found)}: share(alice, bob)")
    if len(set(found)) < len(found):
        raise Misuse(f"a holder holds one share, and {names} names one twice")
    everyone = [*found, *([] if provider is None else [registry.find(provider)])]
    away = [w.id for w in everyone if w.transport.uri is None and not w.transport.here]
    if away:
        raise Misuse(f"{', '.join(away)} cannot be reached by other workers, so it holds no shares: use virtual workers, or nodes")
    if len({w.transport.uri is None for w in found}) > 1:
        raise Misuse(f"holders are all in this process or all nodes, and {names} are of both kinds")
    if replicated:
        return found, None
    dealer = registry.find(_local_provider(found) if provider is None else provider)
    if dealer in found:
        raise Misuse(f"{dealer.id} cannot hold shares and provide: whoever does both can read the values. Name another crypto_provider")
    if found[0].transport.uri is None and dealer.transport.uri is not None:
        raise Misuse(f"{dealer.id} is a node and the holders are in this process: name a provider in this process")
    return found, dealer


def _local_provider(holders: tuple[BaseWorker, ...]) -> BaseWorker:
    local = registry.local_worker()
    if "provider" not in _warned:
        _warned.add("provider")
        warnings.warn(
            f"no crypto_provider was named, so this process provides the correlated randomness of {', '.join(w.id for w in holders)}: "
            "it must not see what a holder sees. Name a worker of somebody else's: share(..., crypto_provider=carol)",
            stacklevel=_of_the_program(),
        )
    return local


def _of_the_program() -> int:
    """The `stacklevel`, for whoever calls this, of the nearest frame outside torch and syftlite."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".", 1)[0] in ("torch", "syftlite"):
        frame, level = frame.f_back, level + 1
    return level


def enrol(holders: tuple[BaseWorker, ...], provider: BaseWorker | None) -> tuple[int, LocalProvider | None]:
    """Link the members of a group anew: its number, and the provider if it deals in this process for holders elsewhere. Returns when all
    are there; raises what keeps one from it."""
    number = next(_numbers)
    members = list(holders) if provider is None else [*holders, provider]
    dealer: LocalProvider | None = None
    keys: list[str | None] = [None] * len(members)
    place: str | None = None
    peers: list[Peers] = [()] * len(members)
    if holders[0].transport.uri is None:
        place = secrets.token_hex(16)
    else:
        for member in members:
            if member.transport.uri is not None:
                member.ask(m.SYNC)  # one that is gone is told of at once, and not when the others have waited for it
        if provider is not None and provider.transport.uri is None:
            seeds = [os.urandom(SECRET_BYTES) for _ in holders]
            dealer = LocalProvider(Dealer(seeds), holders[-1], number)
            keys = [seed.hex() for seed in seeds]
            members = members[:-1]
        peers = _introduced(members, number)
    for index, member in enumerate(members):
        if provider is None:
            member.cast((m.REPLICATE, number, index, place, peers[index]))
        else:
            member.cast((m.JOIN, number, index, len(holders), place, keys[index], peers[index]))
    asked(members, [(m.JOINED, number)] * len(members))
    return number, dealer


def _introduced(members: Sequence[BaseWorker], number: int) -> list[Peers]:
    """For each of ``members`` how it gets to the others: where to dial with which ticket, or which ticket to wait for."""
    peers: list[list[tuple[int, str, int, str]]] = [[] for _ in members]
    for low, host in enumerate(members):
        for high in range(low + 1, len(members)):
            _, _, ticket, port = host.ask(m.INVITE, number)
            peers[low].append((high, "", 0, ticket))
            peers[high].append((low, str(host.transport.uri), port, ticket))
    return [tuple(each) for each in peers]


class LocalProvider:
    """A provider in this process for holders elsewhere: corrections go down the client's own connections."""

    def __init__(self, dealer: Dealer, last: BaseWorker, group: int) -> None:
        self.dealer, self.last, self.group = dealer, last, group
        self.number = 0

    def deal(self, planned: Plan) -> None:
        """Deal what ``planned`` asks for."""
        for kind, args in planned.requests:
            correction = self.dealer.deal(self.number, kind, *args)
            if len(correction):
                handle = upload(correction, self.last)._handle
                self.last.cast((m.CORRECT, self.group, self.number, handle.id))
                handle.consume()  # the holder has taken it
            self.number += 1


def asked(workers: Sequence[BaseWorker], questions: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Each worker's answer to its question. All questions go out first, and all answers are waited for; then the first error is raised."""
    begun, got, failed = [], [], None
    try:
        for worker, question in zip(workers, questions, strict=True):
            begun.append((worker.transport, worker.transport.begin(*question)))
        for transport, request in begun:
            try:
                got.append(transport.finish(request))
            except Exception as error:
                failed = failed or error
    finally:  # also after Ctrl-C, or where one could not be asked
        for transport, request in begun:
            transport.forget(request)
    if failed is not None:
        raise failed
    return got
