"""Replicated shares of three holders beside the same kind of protocol of others, in one run.

    replicated    relu of 10^5 and a product of matrices, against SPU's ABY3 and MP-SPDZ's replicated ring; two others beside SPU

Three processes over loopback for each: ours with one torch thread a process and a client in a fourth, SPU's with as many threads as it
likes, MP-SPDZ's as its program says.
"""

from __future__ import annotations

import atexit
import statistics
from collections.abc import Callable
from contextlib import ExitStack

from _measure import Figure, Goal, compared, in_turns, skipped
from _parties import Parties
from _peers import PeerMissing, Settings

PEERS = {"SPU ABY3": "spu_aby3.py", "MP-SPDZ replicated ring": "mp_spdz_ring.py"}
_started = ExitStack()
atexit.register(_started.close)


def _ours(parties: Parties, name: str, size: int) -> Callable[[], float]:
    case = parties.case(name, size)
    return lambda: statistics.median(parties.run(case) for _ in range(5)) * 1e3


def _beside(settings: Settings, parties: Parties, name: str, title: str, size: int, peers: tuple[str, ...]) -> list[Figure]:
    """The case in turns with each peer."""
    ours, figures, goal = _ours(parties, name, size), [], Goal(">=", 1, "x")
    for label in peers:
        try:
            with settings.peer(PEERS[label]) as peer:
                theirs = lambda: peer.run("time", case=name, size=size, repeats=5) * 1e3  # noqa: E731
                mine, other = in_turns(min(settings.repeats, 3), ours, theirs)
                figures.append(compared(f"{title} {size:,}, replicated", "ms", goal, mine, f"{label} ({peer.version})", other, gain=True))
        except PeerMissing as missing:
            figures.append(skipped(f"{title} {size:,}, replicated", "ms", goal, label, str(missing), [ours()]))
    return figures


def replicated(settings: Settings) -> list[Figure]:
    """Relu, comparison and products among three holders of replicated shares."""
    parties = _started.enter_context(Parties(holders=3, replicated=True))
    both, spu = tuple(PEERS), tuple(PEERS)[:1]
    return [
        *_beside(settings, parties, "relu", "relu", settings.count(100_000), both),
        *_beside(settings, parties, "matmul", "matmul", settings.count(512, 8), both),
        *_beside(settings, parties, "lt", "compare", settings.count(100_000), spu),
        *_beside(settings, parties, "mul", "mul", settings.count(1_000_000), spu),
    ]
