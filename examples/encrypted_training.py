"""A network learns from images that nobody sees, to weights that nobody sees: trained on shares, beside the same training in the open.

    python examples/encrypted_training.py                          scikit-learn's digits, a dense network
    python examples/encrypted_training.py --network cnn --epochs 4
    python examples/encrypted_training.py --data mnist --epochs 1 --batch 128 --optimizer adam
                                                                   python examples/data.py mnist fetches it
    python examples/encrypted_training.py --steps 20               no more than 20 steps
    python examples/encrypted_training.py --plot loss.png          needs matplotlib: pip install "syftlite[demo]"
    python examples/encrypted_training.py --real                   alice, bob and carol as nodes in processes of their own

Images, labels and weights are shared with alice and bob. A step is a plan: forwards, backwards and the update in one message to each. The
loss of each step is revealed, to be drawn; the network at the end, to count what it gets right. Both trainings begin with the same weights
and take the same batches in the same order.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from arguments import at_least, finite, picture
from data import Images, digits, load
from parties import options, parties, progress
from torch import nn
from torch.nn import functional as F

import syftlite as sy

Batches = list[torch.Tensor]
"""Indices of each batch's images."""


class Outcome(NamedTuple):
    """Losses of each step and the part of test images told right, on shares and in the open; seconds on shares; rounds of a step."""

    encrypted: list[float]
    plain: list[float]
    accuracy: float
    plain_accuracy: float
    seconds: float
    rounds: int


def network(name: str, images: torch.Tensor) -> nn.Module:
    """784-128-128-10, or as many inputs as there are pixels; or two convolutions and two dense layers."""
    side = images.shape[-1]
    if name == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    left = side // 4
    convolutions = (nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2))
    return nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(16 * left * left, 64), nn.ReLU(), nn.Linear(64, 10))


def batches(images: int, size: int, epochs: int) -> Batches:
    """All images in another order each epoch, whole batches alone; one batch of all where there are fewer."""
    size = min(size, images)
    orders = [torch.randperm(images) for _ in range(epochs)]
    return [part for order in orders for part in order.split(size) if len(part) == size]


OPTIMIZERS: dict[str, Callable[[Any, float | None], torch.optim.Optimizer]] = {
    "sgd": lambda parameters, rate: torch.optim.SGD(parameters, lr=rate or 0.05, momentum=0.9),
    "adam": lambda parameters, rate: torch.optim.Adam(parameters, lr=rate or 0.001),
}
Maker = Callable[[Any], torch.optim.Optimizer]


def stepper(model: nn.Module, make: Maker) -> tuple[Callable[[Any, Any], Any], torch.optim.Optimizer]:
    """A training step, the same lines for shares and in the open, and its optimizer."""
    optimizer = make(model.parameters())

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, optimizer


def train_plain(model: nn.Module, images: Images, order: Batches, make: Maker) -> list[float]:
    """In the open."""
    step, _ = stepper(model, make)
    return [step(images.train[part], images.train_labels[part]).item() for part in order]


def train_encrypted(
    model: nn.Module, images: Images, order: Batches, make: Maker, workers: Sequence[Any], shown: int = 1
) -> tuple[list[float], float, int]:
    """(losses of every ``shown``-th step, seconds, rounds of a step) on shares; the model is shared when it returns."""
    alice, bob, carol = workers

    def secret(tensor: torch.Tensor) -> Any:
        return tensor.fix_precision().share(alice, bob, crypto_provider=carol)

    began = time.perf_counter()
    model.fix_precision().share(alice, bob, crypto_provider=carol, requires_grad=True)
    step, optimizer = stepper(model, make)
    plan = sy.func2plan(state=(model, optimizer))(step)
    losses, rounds = [], 0
    with progress(len(order), "training on shares") as advance:
        for number, part in enumerate(order):
            x, y = images.train[part], F.one_hot(images.train_labels[part], 10).float()
            with sy.mpc.count() as cost:
                loss = plan(secret(x), secret(y))
            rounds = cost.rounds
            if number % shown == 0:
                losses.append(loss.decrypt().item())
            advance()
    return losses, time.perf_counter() - began, rounds


def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """The part that is told right."""
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def run(name: str, images: Images, epochs: int, size: int, steps: int | None, make: Maker, workers: Sequence[Any]) -> Outcome:
    """Both trainings."""
    torch.manual_seed(1)
    model = network(name, images.train)
    order = batches(len(images.train), size, epochs)[:steps]
    shared = copy.deepcopy(model)
    plain = train_plain(model, images, order, make)
    encrypted, seconds, rounds = train_encrypted(shared, images, order, make, workers)
    shared.get().float_precision()
    scores = [accuracy(m, images.test, images.test_labels) for m in (shared, model)]
    return Outcome(encrypted, plain, scores[0], scores[1], seconds, rounds)


def smoothed(losses: Sequence[float], over: int = 20) -> Iterator[float]:
    """Means of the last ``over`` losses."""
    for i in range(len(losses)):
        part = losses[max(0, i + 1 - over) : i + 1]
        yield sum(part) / len(part)


def plot(outcome: Outcome, path: Path) -> None:
    """Both losses by step, as a picture."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit('a plot needs matplotlib: pip install "syftlite[demo]"') from None
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    dot = "o" if len(outcome.plain) == 1 else ""
    plain, shared = f"in the open: {outcome.plain_accuracy:.1%} right", f"on shares: {outcome.accuracy:.1%} right"
    axes.plot(list(smoothed(outcome.plain)), label=plain, linewidth=3, alpha=0.4, marker=dot, markersize=10)
    axes.plot(list(smoothed(outcome.encrypted)), label=shared, linewidth=1, marker=dot)
    axes.set_xlabel("step")
    axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    axes.set_ylabel("cross entropy, mean of the last 20 steps")
    axes.legend()
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--data", choices=("digits", "mnist", "fashion-mnist"), default="digits")
    parser.add_argument("--network", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--epochs", type=at_least(1), default=3)
    parser.add_argument("--batch", type=at_least(1), default=64)
    parser.add_argument("--steps", type=at_least(1), help="stop after so many steps")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="sgd", help="sgd has momentum")
    parser.add_argument("--rate", type=finite, help="0.05 for sgd, 0.001 for adam")
    parser.add_argument("--images", type=at_least(1), help="train on the first so many only")
    parser.add_argument("--plot", type=picture, help="write a picture of both losses to this file")
    chosen = parser.parse_args(arguments)
    images = (digits() if chosen.data == "digits" else load(chosen.data)).first(chosen.images)
    with parties(chosen.real) as workers:
        make: Maker = lambda parameters: OPTIMIZERS[chosen.optimizer](parameters, chosen.rate)  # noqa: E731
        outcome = run(chosen.network, images, chosen.epochs, chosen.batch, chosen.steps, make, workers)
    steps = len(outcome.encrypted)
    print(f"{steps} steps on shares in {outcome.seconds:.1f} s, {outcome.seconds / steps * 1e3:.0f} ms and {outcome.rounds} rounds each")
    print(f"loss of the last step: {outcome.encrypted[-1]:.4f} on shares, {outcome.plain[-1]:.4f} in the open")
    print(f"of {len(images.test)} test images right: {outcome.accuracy:.2%} trained on shares, {outcome.plain_accuracy:.2%} in the open")
    if chosen.plot:
        plot(outcome, chosen.plot)
        print(f"wrote {chosen.plot}")
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
