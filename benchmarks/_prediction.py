"""Private prediction; each function measures one section and returns its figures.

    latency       a query of 1 and of 128 images to the article's CNN
    sharing       serve() of it: the first, with nodes that have shared nothing, and again
    throughput    sixteen clients at once, against one that asks for sixteen images at a time
    accuracy      the trained CNN on 1,000 images of MNIST, beside the plain one
    networks      milliseconds, rounds and bytes of TF Encrypted's networks A to D, LeNet and the CNN

Ours: three nodes in processes of their own over loopback, one torch thread each, and a client, with a connection to each holder, in this
one; a query is timed from the client's call to the float tensor that it gets. Correlations are dealt ahead while nothing is asked, and the
time that this takes is in no figure but throughput's. CrypTen: its two processes over gloo, its first-party provider; its model and input
are encrypted before the clock, its output is not opened.
"""

from __future__ import annotations

import atexit
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
from _measure import Figure, Goal, compared, in_turns, judged, skipped
from _parties import Dense, LeNet, network_b, network_c, network_d
from _peers import Peer, PeerMissing, Settings
from torch import nn

import syftlite as sy

CRYPTEN = "CrypTen"
IMAGE = (1, 28, 28)
CLIENTS, BATCH, MOST = 16, 16, 128
QUIET_SECONDS = 2.0
"""What the provider has to deal ahead, as between the queries of people."""


class Digits(nn.Sequential):
    """The article's: three 3 x 3 convolutions without padding, each with an average pool and a relu, and one dense layer."""

    def __init__(self) -> None:
        pairs = ((1, 16), (16, 32), (32, 64))
        blocks = [m for i, o in pairs for m in (nn.Conv2d(i, o, 3), nn.AvgPool2d(2), nn.ReLU())]
        super().__init__(*blocks, nn.Flatten(), nn.Linear(64, 10))


NETWORKS: dict[str, tuple[str, Callable[[], nn.Module]]] = {
    "digits": ("CNN", Digits),
    "lenet": ("LeNet", LeNet),
    "mlp": ("A, MLP 784-128-128-10", Dense),
    "net b": ("B, two 5 x 5 convolutions of 16, 100-10", network_b),
    "net c": ("C, 5 x 5 convolutions of 20 and 50, 500-10", network_c),
    "net d": ("D, one strided 5 x 5 convolution of 5, 100-10", network_d),
}
"""By CrypTen's name for it. A to D are those of TF Encrypted's examples, which publish no times of predictions."""


class Served:
    """A network at the nodes, and a client of it."""

    def __init__(self, workers: Any, network: nn.Module, batch: int, name: str) -> None:
        self.plain = network.eval()
        *holders, provider = workers
        self.model = sy.serve(self.plain, *holders, crypto_provider=provider, name=name, batch=batch, input_shape=IMAGE)
        self.client = sy.connect_to_model(*holders, name=name)

    def query(self, images: torch.Tensor, runs: int = 1) -> float:
        """Median milliseconds of a query; the first answer is compared with the plain network's."""
        time.sleep(QUIET_SECONDS)
        taken = []
        for turn in range(runs):
            began = time.perf_counter()
            scores = self.client.query(images)
            taken.append((time.perf_counter() - began) * 1e3)
            if not turn:
                with torch.no_grad():
                    worst = float((scores - self.plain(images)).abs().max())
                assert worst < 0.01, f"off by {worst}"
        return statistics.median(taken)


class Bench:
    """The nodes, and CrypTen beside them if it is there."""

    def __init__(self, settings: Settings) -> None:
        self.settings, self.stack = settings, ExitStack()
        atexit.register(self.stack.close)
        self.workers = self.stack.enter_context(sy.LocalCluster("holder one", "holder two", "dealer", threads=1))
        self.peer: Peer | None = None
        self.why = ""
        try:
            self.peer = self.stack.enter_context(settings.peer("crypten_sharing.py"))
        except PeerMissing as missing:
            self.why = str(missing)

    def theirs(self, case: str, size: int, runs: int) -> Callable[[], float]:
        """CrypTen's median milliseconds."""
        peer = self.peer
        assert peer is not None
        return lambda: peer.run("time", case=case, size=size, repeats=runs, provider="TFP") * 1e3

    def beside(self, label: str, served: Served, case: str, size: int, goal: Goal, runs: int, turns: int) -> Figure:
        """A query of ``size`` images in turns with CrypTen."""
        images = torch.rand(size, *IMAGE)
        if self.peer is None:
            return skipped(label, "ms", goal, CRYPTEN, self.why, in_turns(turns, lambda: served.query(images, runs))[0])
        try:
            mine, peer = in_turns(turns, lambda: served.query(images, runs), self.theirs(case, size, max(1, runs // 3)))
        except PeerMissing as broken:
            return skipped(label, "ms", goal, CRYPTEN, str(broken), [served.query(images, runs)])
        return compared(label, "ms", goal, mine, f"{CRYPTEN} ({self.peer.version})", peer, gain=False)


_benches: dict[int, Bench] = {}


def bench(settings: Settings) -> Bench:
    """The one of this run."""
    if id(settings) not in _benches:
        _benches[id(settings)] = Bench(settings)
    return _benches[id(settings)]


def _cnn(settings: Settings) -> Served:
    torch.manual_seed(0)
    return Served(bench(settings).workers, Digits(), MOST, "cnn")


def latency(settings: Settings) -> list[Figure]:
    """One image, and 128."""
    here, served = bench(settings), _cnn(settings)
    runs, turns = settings.count(15, 2), min(settings.repeats, 5)
    one = here.beside("CNN, batch 1", served, "digits", 1, Goal("<=", 0.2, "x"), runs, turns)
    many = here.beside("CNN, batch 128", served, "digits", MOST, Goal("<=", 0.15, "x"), settings.count(3), min(turns, 3))
    return [judged("CNN, batch 1, milliseconds", "ms", Goal("<=", 12), one.ours), one, many]


def sharing(settings: Settings) -> list[Figure]:
    """The first serve() with nodes that have shared nothing yet; then again, and again."""
    model = Digits().eval()
    fresh, again = [], []
    for _ in range(settings.count(3)):
        with sy.LocalCluster("alice", "bob", "carol", threads=1) as (alice, bob, carol):
            for taken in (fresh, again, again):
                began = time.perf_counter()
                served = sy.serve(model, alice, bob, crypto_provider=carol, batch=BATCH, input_shape=IMAGE)
                taken.append(time.perf_counter() - began)
            served.stop()
    note = f"for batches of up to {BATCH}: programs for 8 numbers of rows"
    first = judged("CNN, first serve() with fresh nodes", "s", Goal("<=", 1), fresh, note=note)
    return [first, judged("CNN, serve() again", "s", Goal("<=", 0.4), again)]


def throughput(settings: Settings) -> list[Figure]:
    """Images a second: sixteen clients of one image each, and one client of sixteen."""
    here = bench(settings)
    torch.manual_seed(0)
    served = Served(here.workers, Digits(), BATCH, "many clients")
    clients = [sy.connect_to_model(*here.workers[:2], name="many clients") for _ in range(CLIENTS)]
    rounds = settings.count(20, 2)

    def together() -> float:
        began = time.perf_counter()
        threads = [threading.Thread(target=lambda c=c: [c.query(torch.rand(1, *IMAGE)) for _ in range(rounds)]) for c in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return CLIENTS * rounds / (time.perf_counter() - began)

    def alone() -> float:
        began = time.perf_counter()
        for _ in range(rounds):
            served.client.query(torch.rand(BATCH, *IMAGE))
        return BATCH * rounds / (time.perf_counter() - began)

    mine, offline = in_turns(min(settings.repeats, 3), together, alone)
    served.model.stop()
    goal = Goal(">=", 0.6, "x")
    return [compared("CNN, images a second of 16 clients", "1/s", goal, mine, "one client, 16 at a time", offline, gain=False)]


def _mnist() -> tuple[nn.Module, torch.Tensor] | None:
    """A CNN that has learned digits, and 1,000 test images; None where they were not fetched (examples/data.py)."""
    sys.path.append(str(Path(__file__).parents[1] / "examples"))
    import data

    with suppress(data.DataError):
        images = data.load("mnist").first(12_000, 1_000)
        torch.manual_seed(0)
        network = Digits()
        optimizer = torch.optim.Adam(network.parameters(), 2e-3)
        for _ in range(2):
            for at in range(0, len(images.train), 64):
                optimizer.zero_grad()
                loss = nn.functional.cross_entropy(network(images.train[at : at + 64]), images.train_labels[at : at + 64])
                loss.backward()
                optimizer.step()
        return network.eval(), images.test
    return None


def accuracy(settings: Settings) -> list[Figure]:
    """Scores and choices of the served network beside the plain one's."""
    found = _mnist()
    near, same = Goal("<=", 0.01), Goal(">=", 1)
    if found is None:
        why = "fetch it: python examples/data.py mnist"
        return [skipped("scores of 1,000 images: worst error", "", near, "MNIST", why, [])]
    network, images = found
    images = images[: settings.count(1000, 10)]
    served = Served(bench(settings).workers, network, MOST, "digits")
    with torch.no_grad():
        plain = network(images)
    scores = served.client.query(images)
    served.model.stop()
    worst = float((scores - plain).abs().max())
    alike = float((scores.argmax(1) == plain.argmax(1)).float().mean())
    return [
        judged(f"scores of {len(images):,} images: worst error", "", near, [worst]),
        judged(f"the same digit of {len(images):,} images", "part", same, [alike]),
    ]


def networks(settings: Settings) -> list[Figure]:
    """Every network, one image: time beside CrypTen's, rounds and bytes."""
    here, figures = bench(settings), []
    for case, (label, make) in NETWORKS.items():
        torch.manual_seed(0)
        served = Served(here.workers, make(), 1, case + " alone")
        cost = served.model.cost(1)
        figure = here.beside(f"{label}: batch 1", served, case, 1, Goal("<=", 1, "x"), settings.count(9, 2), min(settings.repeats, 3))
        figure.note = f"{cost.rounds} rounds, {cost.sent:,} bytes each way, {cost.dealt:,} dealt ahead"
        if here.peer is not None:
            with suppress(PeerMissing):
                theirs = [here.peer.run("count", case=case, size=1, what=what) for what in ("rounds", "bytes")]
                figure.note += f"; {CRYPTEN}: {theirs[0]:,.0f} rounds, {theirs[1]:,.0f} bytes sent and received"
        figures.append(figure)
        served.model.stop()
    return figures
