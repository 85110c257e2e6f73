"""Secret sharing; each function measures one section and returns its figures.

    elementwise   mul, compare, relu, against CrypTen; relu also against MP-SPDZ's replicated ring
    matmul        products of two shared matrices
    lenet, cnn    encrypted images through an encrypted network: max pools; average pools
    mlp           rounds of a dense network
    functions     exp, reciprocal, sigmoid, softmax
    training      a training step of a dense network; networks A to D beside the figures that TF Encrypted publishes
    holders       processor time of one holder, and its part of the provider's, among three and five of them, against that among two
    virtual       processor time with all parties in one thread, against that of the three processes
    counts        rounds and bytes of an element, from a dry count
    xor           the example that learns XOR, on workers of one process

Ours: three nodes in processes of their own over loopback, one torch thread each, driven by this one; the provider's work is in the time,
for it is told when the operation is. CrypTen: its two processes over gloo, one torch thread each, its first-party provider, which does
no cryptography.
"""

from __future__ import annotations

import atexit
import re
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from _measure import Figure, Goal, compared, in_turns, judged, skipped
from _parties import Parties
from _peers import Peer, PeerMissing, Settings

CRYPTEN, MP_SPDZ = "CrypTen", "MP-SPDZ replicated ring"
THIRD_PARTY = "TTP"
TICK_MS = 10
"""Of the kernel's clock of other processes."""
EACH_WAY = 20
"""Bytes of an element that a comparison may send."""
XOR = Path(__file__).parents[1] / "examples" / "xor_reservoir.py"


@dataclass
class Bench:
    """The parties, CrypTen beside them if it is there, and how often to run what."""

    settings: Settings
    parties: Parties
    crypten: Peer | None
    why: str

    def ours(self, name: str, size: int, runs: int, in_a_row: int = 1) -> Callable[[], float]:
        """Median milliseconds of ``runs`` runs, or of as many rows of runs."""
        case = self.parties.case(name, size)
        return lambda: statistics.median(self.parties.run(case, in_a_row) for _ in range(max(1, runs // in_a_row))) * 1e3

    def theirs(self, name: str, size: int, runs: int, provider: str = "TFP") -> Callable[[], float]:
        """The same of CrypTen."""
        assert self.crypten is not None
        peer = self.crypten
        return lambda: peer.run("time", case=name, size=size, repeats=runs, provider=provider) * 1e3

    def beside(
        self, label: str, name: str, size: int, bound: float, *, runs: int = 3, most: int = 99, in_a_row: int = 1
    ) -> list[Figure]:
        """The case in turns with CrypTen; ``most`` turns. With --long once more, with CrypTen's provider a third process."""
        goal, turns, ours = Goal(">=", bound, "x"), min(self.settings.repeats, most), self.ours(name, size, runs, in_a_row)
        if self.crypten is None:
            return [skipped(label, "ms", goal, CRYPTEN, self.why, in_turns(turns, ours)[0])]
        figures = []
        for provider in ("TFP", THIRD_PARTY) if self.settings.long else ("TFP",):
            title = f"{CRYPTEN} ({self.crypten.version}{', third process' if provider == THIRD_PARTY else ''})"
            try:
                mine, peer = in_turns(turns, ours, self.theirs(name, size, runs, provider))
                figures.append(compared(label, "ms", goal, mine, title, peer, gain=True))
            except PeerMissing as broken:
                figures.append(skipped(label, "ms", goal, title, str(broken), [ours()]))
        return figures

    def counted(self, label: str, unit: str, bound: float, ours: float, name: str, size: int, share: float = 1.0, note: str = "") -> Figure:
        """A count of ours; CrypTen's own, times ``share``, is shown."""
        figure = judged(label, unit, Goal("<=", bound), [ours], note=note)
        if self.crypten is not None:
            with suppress(PeerMissing):
                figure.peer = [self.crypten.run("count", case=name, size=size, what=unit) * share]
                figure.peer_name = CRYPTEN
        return figure

    def rounds(self, label: str, name: str, bound: int) -> Figure:
        """Rounds of one image's inference."""
        return self.counted(label, "rounds", bound, self.parties.cost(self.parties.case(name, 1)).rounds, name, 1)


_started = ExitStack()
atexit.register(_started.close)


@cache
def _parties(virtual: bool, holders: int = 2) -> Parties:
    """Started once: all sections use them."""
    return _started.enter_context(Parties(virtual=virtual, holders=holders))


@cache
def _crypten(python: str | None) -> tuple[Peer | None, str]:
    """Likewise; or why not."""
    try:
        return _started.enter_context(Settings(python=python).peer("crypten_sharing.py")), ""
    except PeerMissing as missing:
        return None, str(missing)


def _bench(settings: Settings, *, virtual: bool = False) -> Bench:
    return Bench(settings, _parties(virtual), *_crypten(settings.python))


# -- timed


def elementwise(settings: Settings) -> list[Figure]:
    """Products, comparisons and relus of vectors."""
    sizes = [settings.count(n) for n in (10_000, 100_000, 1_000_000)]
    bench = _bench(settings)
    figures = bench.beside(f"mul {sizes[-1]:,}", "mul", sizes[-1], 1.2)
    for name, title in (("lt", "compare"), ("relu", "relu")):
        for size in sizes:
            figures += bench.beside(f"{title} {size:,}", name, size, 10, runs=15 if size <= 10_000 else 3)
            if size < sizes[-1]:  # beside it, not in its place: what a program pays that does not wait for each
                figures += bench.beside(f"{title} {size:,}, each of ten in a row", name, size, 10, runs=20, in_a_row=10)
    return [*figures, _against_mp_spdz(bench, sizes[1])]


def _against_mp_spdz(bench: Bench, size: int) -> Figure:
    label, goal, ours = f"relu {size:,}", Goal(">=", 1, "x"), bench.ours("relu", size, 3)
    try:
        with bench.settings.peer("mp_spdz_ring.py") as peer:
            run = lambda: peer.run("time", case="relu", size=size, repeats=5) * 1e3  # noqa: E731
            mine, theirs = in_turns(bench.settings.repeats, ours, run)
            return compared(label, "ms", goal, mine, f"{MP_SPDZ} ({peer.version})", theirs, gain=True)
    except PeerMissing as missing:
        return skipped(label, "ms", goal, MP_SPDZ, str(missing), [ours()])


def matmul(settings: Settings) -> list[Figure]:
    """Products of square matrices."""
    bench, sides = _bench(settings), [settings.count(side, 8) for side in (512, 1024)]
    return [figure for side in sides for figure in bench.beside(f"matmul {side}", "matmul", side, 1.4)]


def _network(settings: Settings, name: str, label: str, bounds: dict[int, float], rounds: int) -> list[Figure]:
    bench, figures = _bench(settings), []
    for images, bound in bounds.items():
        batch, runs, most = settings.count(images), 15 if images == 1 else 1, 99 if images == 1 else 3
        figures += bench.beside(f"{label}, batch {batch}", name, batch, bound, runs=runs, most=most)
    return [*figures, bench.rounds(f"{label}: rounds", name, rounds)]


def lenet(settings: Settings) -> list[Figure]:
    """Encrypted inference with max pools."""
    return _network(settings, "lenet", "LeNet", {1: 10, 128: 30}, 54)


def cnn(settings: Settings) -> list[Figure]:
    """Encrypted inference with average pools."""
    return _network(settings, "cnn", "average-pooling CNN", {1: 8, 128: 8}, 26)


def functions(settings: Settings) -> list[Figure]:
    """Functions of 10^4 elements; softmax of 1,000 rows of 10."""
    bench, size = _bench(settings), settings.count(10_000)
    figures = []
    for name, bound in (("exp", 4), ("reciprocal", 4), ("sigmoid", 4), ("softmax", 6)):
        label = f"softmax {size // 10:,} x 10" if name == "softmax" else f"{name} {size:,}"
        figures += bench.beside(label, name, size, bound)
    return figures


TF_ENCRYPTED = {"A": 0.167, "B": 5.33, "C": 8.20, "D": 0.439}
"""Seconds of a training step of 128 images on its LAN, from its README; three machines of 32 cores, a semi-honest three-party protocol."""


def training(settings: Settings) -> list[Figure]:
    """Steps of 128 images by SGD, forwards, backwards and the update, as one plan a party."""
    bench, batch = _bench(settings), settings.count(128)
    figures = []
    for name, label, bound, rounds in (("train mse", "mean squared error", 8, 60), ("train ce", "cross entropy", 6, 120)):
        title = f"MLP 784-128-128-10, a step by {label}, batch {batch}"
        figures += bench.beside(title, name, batch, bound, runs=1, most=3)
        cost = bench.parties.cost(bench.parties.case(name, batch))
        figures.append(bench.counted(f"{title}: rounds", "rounds", rounds, cost.rounds, name, batch))
    for network, seconds in TF_ENCRYPTED.items():
        (taken,) = in_turns(min(settings.repeats, 3), bench.ours(f"train {network}", batch, 1))
        title = f"network {network}, a training step of {batch}"
        figures.append(compared(title, "ms", Goal(">=", 2, "x"), taken, "TF Encrypted, published", [seconds * 1e3], gain=True))
    return figures


def _cpu(parties: Parties, name: str, size: int, runs: int) -> Callable[[], float]:
    case = parties.case(name, size)
    return lambda: parties.cpu(case, runs) * 1e3


def virtual(settings: Settings) -> list[Figure]:
    """What one thread spends on all parties, beside what their three processes spend."""
    cases = [("mul", 1_000_000, 10), ("relu", 1_000_000, 10), ("matmul", 512, 20), ("lenet", 128, 4), ("cnn", 128, 4)]
    figures = []
    for name, full, runs in cases:
        size, times = settings.count(full), settings.count(runs)
        cost = [_cpu(parties, name, size, times) for parties in (_parties(False), _parties(True))]
        apart, here = in_turns(min(settings.repeats, 3), *cost)
        apart = [max(ms, TICK_MS / times) for ms in apart]
        label, peer = f"{name} {size:,}, one thread", "three processes, all CPU"
        figures.append(compared(label, "ms CPU", Goal("<=", 1.6, "x"), here, peer, apart, gain=False))
    return figures


def holders(settings: Settings) -> list[Figure]:
    """What one of three and of five holders spends, with its part of the provider's time, beside one of two: no more than in proportion."""
    figures = []
    for name, full, runs in (("mul", 100_000, 20), ("relu", 100_000, 10), ("matmul", 256, 20)):
        size, times, counts = settings.count(full, 8), settings.count(runs), (2, 3, 5)
        samples = in_turns(min(settings.repeats, 3), *[_a_holder(_parties(True, n), name, size, times) for n in counts])
        for n, taken in zip(counts[1:], samples[1:], strict=True):
            label, goal = f"{name} {size:,}, one of {n} holders", Goal("<=", n / 2, "x")
            figures.append(compared(label, "ms CPU", goal, taken, "one of two holders", samples[0], gain=False))
    return figures


def _a_holder(parties: Parties, name: str, size: int, runs: int) -> Callable[[], float]:
    whole = _cpu(parties, name, size, runs)
    return lambda: whole() / parties.holders


# -- counted


def mlp(settings: Settings) -> list[Figure]:
    """Rounds of a dense network."""
    return [_bench(settings, virtual=True).rounds("MLP 784-128-128-10: rounds", "mlp", 18)]


def counts(settings: Settings) -> list[Figure]:
    """What one element of a large vector costs: known without asking anyone, since neither rounds nor bytes depend on values."""
    size, figures, bench = 100_000, [], _bench(settings, virtual=True)
    for name, title, rounds in (("lt", "compare", 6), ("relu", "relu", 7)):
        cost = bench.parties.cost(bench.parties.case(name, size))
        note = f"and {cost.dealt / size:.4g} bytes from the provider"
        figures.append(bench.counted(f"{title}: rounds", "rounds", rounds, cost.rounds, name, size))
        label, half = f"{title}: an element, each way", 0.5 / size  # CrypTen counts what is sent and received
        figures.append(bench.counted(label, "bytes", EACH_WAY, cost.sent / size, name, size, half, note))
    return figures


# -- an example


def xor(settings: Settings) -> list[Figure]:
    """XOR learnt on encrypted data: the seconds that the example tells, each time in a process of its own."""
    steps, figures = settings.count(250), []
    for title, scheme in (("base 2", ()), ("base 10, three digits", ("--decimal",))):
        (taken,) = in_turns(settings.repeats, lambda scheme=scheme: _learnt(steps, scheme))
        figures.append(judged(f"XOR, {steps} steps, {title}", "s", Goal("<=", 1), taken, note="PySyft 0.2.9 takes 25.5 s"))
    return figures


def _learnt(steps: int, scheme: Sequence[str]) -> float:
    done = subprocess.run([sys.executable, str(XOR), "--steps", str(steps), *scheme], capture_output=True, text=True, check=True)
    told = re.search(r" in (\S+) s$", done.stdout.strip())
    assert told is not None, done.stdout
    return float(told[1])
