"""Split learning: one network, cut in two; the half that sees the pictures stays with them, and never leaves.

    python examples/split_learning.py              virtual workers; a few seconds
    python examples/split_learning.py --real       nodes in processes of their own

          alice: pictures                                     bob: labels
          ---------------                                     -----------
          lower half  ->  activations of the cut layer  ->    upper half  ->  loss
                      <-  their gradients               <-

Alice has pictures and no labels; bob has the labels and no pictures. What crosses, straight from worker to worker, is the cut layer:
16 numbers for a picture of 64. This program sees neither; it counts what crossed. Activations say something of the pictures that they are
made of, and gradients something of the labels: split learning hides the rows, it proves nothing about them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, NamedTuple

import data
import torch
from arguments import at_least
from mnist_cnn import workers
from torch import nn

CUT = 16


class Outcome(NamedTuple):
    """Losses by epoch, the share of right answers on test pictures, and how many numbers crossed each way."""

    losses: list[float]
    accuracy: float
    forward: int
    backward: int


def halves(pixels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """The network below the cut, and above it."""
    lower = nn.Sequential(nn.Flatten(), nn.Linear(pixels, 64), nn.ReLU(), nn.Linear(64, CUT), nn.Tanh())
    upper = nn.Sequential(nn.Linear(CUT, 32), nn.ReLU(), nn.Linear(32, 10))
    return lower, upper


class Split:
    """One model in two places. Each half has an optimizer, which lives where the half does."""

    def __init__(self, pixels: int, alice: Any, bob: Any) -> None:
        self.bob = bob
        lower, upper = halves(pixels)
        self.lower, self.upper = lower.send(alice), upper.send(bob)
        self.optimizers = [torch.optim.Adam(half.parameters(), lr=0.01) for half in (self.lower, self.upper)]
        self.forward = self.backward = 0

    def step(self, pictures: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Learn from ``pictures`` at alice and ``labels`` at bob. Returns the loss, at bob."""
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        activations = self.lower(pictures)  # at alice
        activations.register_hook(self._came_back)
        crossed = activations.move(self.bob)  # the cut: autograd goes on knowing where it came from
        self.forward += crossed.numel()
        loss = nn.functional.cross_entropy(self.upper(crossed), labels)  # at bob
        loss.backward()  # from bob back through the cut to alice
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def _came_back(self, gradient: torch.Tensor) -> None:
        self.backward += gradient.numel()


def learn(images: data.Images, alice: Any, bob: Any, epochs: int, batch: int) -> Outcome:
    """Learn, then bring both halves here and test them together."""
    torch.manual_seed(0)
    pictures, labels = images.train.send(alice), images.train_labels.send(bob)
    model = Split(images.train[0].numel(), alice, bob)
    losses = []
    for epoch in range(1, epochs + 1):
        order = torch.randperm(len(pictures))
        at_alice, at_bob = order.send(alice), order.send(bob)  # the same order at both, and nothing about what it orders
        parts = [slice(start, start + batch) for start in range(0, len(order), batch)]
        steps = [model.step(pictures[at_alice[part]], labels[at_bob[part]]) for part in parts]
        losses.append(torch.stack(steps).mean().item())
        print(f"epoch {epoch}: loss {losses[-1]:.4f}")
    whole = nn.Sequential(model.lower.get(), model.upper.get())
    with torch.no_grad():
        accuracy = (whole(images.test).argmax(1) == images.test_labels).float().mean().item()
    print(f"{accuracy:.1%} of {len(images.test)} right; {model.forward:,} numbers crossed to bob, {model.backward:,} gradients back")
    return Outcome(losses, accuracy, model.forward, model.backward)


def main(arguments: Sequence[str] | None = None) -> Outcome:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--epochs", type=at_least(0), default=8)
    options.add_argument("--batch", type=at_least(1), default=64)
    options.add_argument("--real", action="store_true", help="nodes in processes of their own")
    chosen = options.parse_args(arguments)
    with workers(chosen.real) as (bob, alice):
        print(f"pictures at {alice}, labels at {bob}")
        return learn(data.digits(), alice, bob, chosen.epochs, chosen.batch)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a network this small is slower on several
    main()
