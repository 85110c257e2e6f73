"""Encrypted inference: a trained network and pictures, both shared; only the answers are reconstructed.

    python examples/encrypted_inference.py                       MNIST, after: python examples/data.py mnist
    python examples/encrypted_inference.py --digits              scikit-learn's 8 x 8 digits: nothing to download
    python examples/encrypted_inference.py --network cnn         an MLP if left out
    python examples/encrypted_inference.py --real                alice, bob and carol as nodes in processes of their own

The network learns here, in the open. Its owner shares its weights with alice and bob, the owner of the pictures shares those; carol
provides. Neither alice nor bob sees a weight, a picture or an answer, and carol sees shapes alone.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import data
import torch
from arguments import at_least
from parties import options, parties, progress
from torch import nn

import syftlite as sy


class Outcome(NamedTuple):
    """Right answers, on shares and in the open, how often both agree, and what a batch cost."""

    accuracy: float
    plain_accuracy: float
    agreement: float
    seconds_per_image: float
    rounds: int
    bytes_per_image: float


def network(kind: str, side: int) -> nn.Sequential:
    """An MLP, or three convolutions with average pools, for pictures (n, 1, side, side); the logits of ten classes come out."""
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(side * side, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10))
    layers: list[nn.Module] = []
    for before, after in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.AvgPool2d(2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(64 * (side // 8) ** 2, 10))


def train(model: nn.Module, images: data.Images, epochs: int) -> None:
    """In the open."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    with progress(epochs, "learning, in the open") as advance:
        for _ in range(epochs):
            for batch in torch.randperm(len(images.train)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images.train[batch]), images.train_labels[batch]).backward()
                optimizer.step()
            advance()


@torch.no_grad()
def infer(model: nn.Module, images: data.Images, batch: int, alice: Any, bob: Any, carol: Any) -> Outcome:
    """Answers for the test pictures, on shares."""
    plain = torch.cat([model(part).argmax(1) for part in images.test.split(500)])
    secret = copy.deepcopy(model).fix_precision().share(alice, bob, crypto_provider=carol)
    answers, parts = [], images.test.split(batch)
    began = time.perf_counter()
    with sy.mpc.count() as cost, progress(len(parts), "answering, on shares") as advance:
        for part in parts:
            shared = part.fix_precision().share(alice, bob, crypto_provider=carol)
            answers.append(secret(shared).get().decode().argmax(1))
            advance()
    seconds = time.perf_counter() - began
    got, labels, count = torch.cat(answers), images.test_labels, len(images.test)
    return Outcome(
        (got == labels).float().mean().item(),
        (plain == labels).float().mean().item(),
        (got == plain).float().mean().item(),
        seconds / count,
        round(cost.rounds / len(parts)),
        cost.sent / count,
    )


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    parser = options(__doc__)
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits, in place of MNIST")
    parser.add_argument("--network", choices=["mlp", "cnn"], default="mlp")
    parser.add_argument("--epochs", type=at_least(1), help="of learning in the open: 2 of MNIST, or 20 of the digits")
    parser.add_argument("--batch", type=at_least(1), default=64, help="pictures in one run")
    parser.add_argument("--first", type=at_least(1), default=1000, metavar="N", help="answer for the first N test pictures")
    chosen = parser.parse_args(arguments)
    try:
        images = data.digits() if chosen.digits else data.load("mnist")
    except data.DataError as error:
        parser.exit(1, f"error: {error}\nor use --digits, which needs no download\n")
    torch.manual_seed(0)
    model = network(chosen.network, images.train.shape[-1])
    train(model, images, chosen.epochs or (20 if chosen.digits else 2))
    images = images.first(None, chosen.first)
    with parties(chosen.real) as (alice, bob, carol):
        outcome = infer(model, images, chosen.batch, alice, bob, carol)
    right, plain, agree = f"{outcome.accuracy:.2%}", f"{outcome.plain_accuracy:.2%}", f"{outcome.agreement:.2%}"
    print(f"{right} of {len(images.test)} right on shares, {plain} in the open; {agree} agree")
    took, sent = f"{outcome.seconds_per_image:.5f} s", f"{outcome.bytes_per_image:,.0f}"
    print(f"{took} and {sent} bytes each way an image; {outcome.rounds} rounds a batch")
    return outcome


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
