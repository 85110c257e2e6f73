"""DP-SGD, measured: a private step beside plain torch and beside each mode of Opacus, in one run.

    python benchmarks/dp.py [--only SECTION] [--quick] [--repeats N] [--json FILE] [--markdown FILE] [--no-peers] [--strict]

A step: a batch of 256, forward, backward, clip, noise (ours from AES-CTR on a grid, Opacus' from torch's generator), SGD. One thread.
What is measured, and how to read it, is in docs/benchmarks-dp.md.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable

import torch
from _main import Section, main
from _measure import Figure, Goal, compared, in_turns, judged, skipped
from _peers import Settings
from torch import nn
from torch.nn import functional as F

import syftlite as sy

BATCH, NOISE, CLIP = 256, 1.1, 1.0
MODES = ("hooks", "ew", "functorch", "ghost")
WARM, TIMED = 0.03, 0.1
Step = Callable[[], None]


def _mlp() -> tuple[nn.Module, torch.Tensor]:
    return nn.Sequential(nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 10)), torch.randn(BATCH, 784)


def _cnn() -> tuple[nn.Module, torch.Tensor]:
    layers = [nn.Conv2d(1, 16, 8, 2, padding=3), nn.ReLU(), nn.MaxPool2d(2, 1), nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 32), nn.ReLU(), nn.Linear(32, 10)), torch.randn(BATCH, 1, 28, 28)


def _plain(network: Callable[[], tuple[nn.Module, torch.Tensor]]) -> Step:
    (model, x), y = network(), torch.randint(0, 10, (BATCH,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()

    return step


def _ours(network: Callable[[], tuple[nn.Module, torch.Tensor]]) -> Step:
    (model, x), y = network(), torch.randint(0, 10, (BATCH,))
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.01), l2_norm_clip=CLIP, noise_multiplier=NOISE)
    return lambda: optimizer.step(lambda x, y: F.cross_entropy(model(x), y), x, y)


def _opacus(network: Callable[[], tuple[nn.Module, torch.Tensor]], mode: str) -> Step:
    from opacus import PrivacyEngine

    (model, x), y = network(), torch.randint(0, 10, (BATCH,))
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=BATCH)
    made = PrivacyEngine().make_private(
        module=model, optimizer=torch.optim.SGD(model.parameters(), lr=0.01), data_loader=rows, criterion=nn.CrossEntropyLoss(),
        noise_multiplier=NOISE, max_grad_norm=CLIP, poisson_sampling=False, grad_sample_mode=mode,
    )  # fmt: skip
    private, optimizer = made[0], made[1]
    criterion = made[2] if mode == "ghost" else nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        criterion(private(x), y).backward()
        optimizer.step()

    return step


def _milliseconds(step: Step, count: int) -> Callable[[], float]:
    """A turn: steps as in training, one behind the other. What ran before, of some modes 200 MB a step, has emptied the caches, so the
    first steps of a turn, `WARM` of a second, are not timed; then ``count`` of them are at least, and as many as fill `TIMED`."""

    def run() -> float:
        _for(WARM, step, 1)
        return _for(TIMED, step, count)

    return run


def _for(seconds: float, step: Step, least: int) -> float:
    """Milliseconds a step, of ``least`` steps and as many as take ``seconds``."""
    done, began = 0, time.perf_counter()
    while (taken := time.perf_counter() - began) < seconds or done < least:
        step()
        done += 1
    return taken / done * 1e3


def _steps(settings: Settings, name: str, network: Callable[[], tuple[nn.Module, torch.Tensor]], bound: float, count: int) -> list[Figure]:
    warnings.filterwarnings("ignore")
    steps = {"plain": _plain(network), "ours": _ours(network)}
    missing: dict[str, str] = {}
    for mode in MODES:
        try:
            if settings.python is None:
                raise ImportError("left out")
            steps[mode] = _opacus(network, mode)
            steps[mode]()
        except Exception as error:
            steps.pop(mode, None)
            missing[mode] = f"{type(error).__name__}: {str(error)[:80]}"
    taken = dict(zip(steps, in_turns(settings.repeats, *[_milliseconds(s, settings.count(count)) for s in steps.values()]), strict=True))
    figures = [compared(f"{name}, a step", "ms", Goal("<=", bound, "x"), taken["ours"], "plain torch", taken["plain"], gain=False)]
    for mode in MODES:
        peer, goal = f"Opacus, {mode}", Goal("<=", 1, "x")
        if mode in taken:
            figures.append(compared(f"{name}, a step", "ms", goal, taken["ours"], peer, taken[mode], gain=False))
        else:
            figures.append(skipped(f"{name}, a step", "ms", goal, peer, missing[mode], taken["ours"]))
    return figures


def mlp(settings: Settings) -> list[Figure]:
    """784-256-10, 203,530 parameters."""
    return _steps(settings, "MLP 784-256-10", _mlp, 2.2, 5)


def cnn(settings: Settings) -> list[Figure]:
    """Two convolutions and two linear layers, 26,010 parameters."""
    return _steps(settings, "CNN, 28 x 28", _cnn, 2.5, 2)


def costs(settings: Settings) -> list[Figure]:
    """Epsilon of the table's middle row, by both conversions."""
    curve = sy.dp.rdp([sy.dp.gaussian(1.1, 256 / 60_000, 60 * 234)])
    older, today = sy.dp.mironov(curve, 1e-5), sy.dp.tight(curve, 1e-5)
    goal, name = Goal("<=", 1), "noise 1.1, 60 epochs"
    return [
        judged(f"{name}: off 3.01 (Mironov)", "%", goal, [abs(older / 3.01 - 1) * 100], note=f"{older:.3f}"),
        judged(f"{name}: off 2.60 (tighter)", "%", goal, [abs(today / 2.60 - 1) * 100], note=f"{today:.3f}"),
    ]


SECTIONS: dict[str, Section] = {section.__name__: section for section in (mlp, cnn, costs)}

if __name__ == "__main__":
    sys.exit(main(__doc__.split("\n", 1)[0], SECTIONS, long="nothing"))
