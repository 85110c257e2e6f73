"""Federated learning, measured: rounds beside Flower's simulation, training beside plain torch, in one run.

    python benchmarks/federated.py [--only SECTION] [--quick] [--long] [--repeats N] [--json FILE] [--markdown FILE]
                                   [--peers-python PATH] [--no-peers] [--strict]

What is measured, and how to read it, is in docs/benchmarks-federated.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch
from _main import Section, main
from _measure import Figure, Goal, compared, in_turns, judged, skipped
from _peers import Peer, PeerMissing, Settings
from _wide import Net, cnn, plain_steps, train_step
from torch.nn import functional as F

import syftlite as sy
from syftlite.federated import Federation

OURS, FLOWER = "../_federation.py", "flower_simulation.py"
MOST_MB = 200
"""What 1,000 clients may take more than 10 do: half of what their weights would take all at once."""


def _seconds(peer: Peer, what: str, **given: object) -> Callable[[], float]:
    return lambda: peer.run(what, **given)


@contextmanager
def _begun(peer: Peer, **given: object) -> Iterator[Peer]:
    peer.run("begin", **given)
    yield peer
    peer.run("end")


def _rounds(
    settings: Settings, name: str, goal: Goal, clients: int, parameters: int, *, gain: bool, secure: bool = False, turns: int | None = None
) -> list[Figure]:
    """Rounds of ours and of Flower's, in turns."""
    count = settings.count(parameters, 1000)
    what = f"{name}, {clients} clients x {parameters:,} parameters"
    with ExitStack() as stack:
        ours = stack.enter_context(Peer(sys.executable, OURS))
        stack.enter_context(_begun(ours, clients=clients, parameters=count, secure=secure))
        mine = _seconds(ours, "round", parameters=count)
        try:
            theirs = stack.enter_context(settings.peer(FLOWER))
            stack.enter_context(_begun(theirs, clients=clients, parameters=count, secure=secure))
        except PeerMissing as missing:
            (alone,) = in_turns(settings.repeats, mine)
            return [skipped(what, "s", goal, "Flower", str(missing), alone)]
        taken, peer = in_turns(turns or settings.repeats, mine, _seconds(theirs, "round", parameters=count))
        return [compared(what, "s", goal, taken, f"Flower ({theirs.version})", peer, gain=gain)]


def startup(settings: Settings) -> list[Figure]:
    """From the call until the first round of 10 clients is done, each in a process that has imported what it needs and nothing more."""
    goal, what = Goal(">=", 5, "x"), "start-up and first round, 10 clients x 10,000 parameters"

    def begin(program: Callable[[], Peer]) -> Callable[[], float]:
        def run() -> float:
            with program() as peer:
                seconds = peer.run("begin", clients=10, parameters=10_000)
                peer.run("end")
                return seconds

        return run

    ours = begin(lambda: Peer(sys.executable, OURS))
    turns = min(2, settings.repeats)
    try:
        with settings.peer(FLOWER) as peer:
            version = peer.version
        taken, theirs = in_turns(turns, ours, begin(lambda: settings.peer(FLOWER)))
    except PeerMissing as missing:
        (taken,) = in_turns(turns, ours)
        return [skipped(what, "s", goal, "Flower", str(missing), taken)]
    return [compared(what, "s", goal, taken, f"Flower ({version})", theirs, gain=True)]


def simulated(settings: Settings) -> list[Figure]:
    """A round in which clients give back what they got: all that a framework adds to training."""
    return _rounds(settings, "a round", Goal(">=", 10, "x"), 100, 1_000_000, gain=True)


def thousand(settings: Settings) -> list[Figure]:
    """1,000 clients: how much more memory than ten take, and how long a round takes."""
    clients, parameters = settings.count(1000, 20), 100_000
    with Peer(sys.executable, OURS) as ours:
        with _begun(ours, clients=10, parameters=parameters):
            ours.run("round", parameters=parameters)
        few = ours.run("memory")
        with _begun(ours, clients=clients, parameters=parameters):
            taken = [ours.run("round", parameters=parameters) for _ in range(min(3, settings.repeats))]
        more = ours.run("memory") - few
    named = f"{clients:,} clients x 100,000 parameters"
    note = f"all their weights together: {clients * parameters * 4 / 1e6:,.0f} MB"
    return [
        judged(f"{named}: memory beyond 10 clients'", "MB", Goal("<=", MOST_MB), [more], note=note),
        judged(f"{named}: a round", "s", Goal("<=", 10), taken),
    ]


def secure(settings: Settings) -> list[Figure]:
    """A round under secure aggregation, keys, shares and masks of all clients included; nobody drops out."""
    return _rounds(settings, "secure aggregation", Goal("<=", 0.25, "x"), 10, 1_000_000, gain=False, secure=True)


def nodes(settings: Settings) -> list[Figure]:
    """PySyft's lesson network on images that two nodes hold. Plain torch does all batches in one process: the sum of their compute."""
    batches = max(4, settings.count(40))
    data, targets = torch.rand(64 * batches, 1, 28, 28), torch.randint(0, 10, (64 * batches,))
    with sy.LocalCluster("cnn-north", "cnn-south", threads=1) as workers:
        parts = sy.BaseDataset(data, targets).federate(workers)
        loader = sy.FederatedDataLoader(parts, batch_size=64)
        federation = Federation(
            parts, Net, loss=F.nll_loss, optimizer=lambda p: torch.optim.SGD(p, lr=0.01), batch_size=64
        )  # fmt: skip

        def by_batches() -> float:
            torch.manual_seed(1)
            model = Net()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
            began = time.perf_counter()
            for x, y in loader:
                train_step(model.send(x.location), optimizer, x, y)
            model.get()
            return (time.perf_counter() - began) / batches * 1e3

        def by_rounds() -> float:
            began = time.perf_counter()
            federation.fit(1)
            return (time.perf_counter() - began) / batches * 1e3

        plain, looped, rounds = in_turns(settings.repeats, plain_steps(data, targets, batches), by_batches, by_rounds)
    goal = Goal("<=", 1.15, "x")
    return [
        compared("MNIST CNN, two nodes, batch by batch", "ms/batch", goal, looped, "plain torch", plain, gain=False),
        compared("MNIST CNN, two nodes, a federation's round", "ms/batch", goal, rounds, "plain torch", plain, gain=False),
    ]


SECTIONS: dict[str, Section] = {section.__name__: section for section in (startup, simulated, thousand, secure, cnn, nodes)}

if __name__ == "__main__":
    sys.exit(main(__doc__.split("\n", 1)[0], SECTIONS, long="nothing"))
