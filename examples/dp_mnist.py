"""DP-SGD on MNIST: row by row of the table that the field knows, epsilon by both conversions and accuracy.

    python examples/data.py mnist            once
    python examples/dp_mnist.py              the middle row: learning rate 0.15, noise 1.1, clip 1.0, 60 epochs: ten to thirty minutes

The table (delta 1e-5, batch 256, Poisson samples): noise 1.3, 15 epochs: 1.19, 95.0%; 1.1, 60 epochs: 3.01, 96.6%; 0.7, 45: 7.10, 97.0%.
Today's conversion proves a smaller epsilon of the same run: 0.95, 2.60, 6.32.
"""

from __future__ import annotations

import argparse

import torch
from arguments import at_least
from data import digits, load
from torch import nn
from torch.nn import functional as F

import syftlite as sy

DELTA = 1e-5
ROWS = {"low": (0.25, 1.3, 1.5, 15), "middle": (0.15, 1.1, 1.0, 60), "high": (0.25, 0.7, 1.5, 45)}
"""Learning rate, noise multiplier, clip, epochs."""


def network(size: int) -> nn.Module:
    """The network of the table, for pictures of ``size`` x ``size``."""
    stride, kernel = (2, 8) if size > 8 else (1, 4)
    layers = [nn.Conv2d(1, 16, kernel, stride, padding=kernel // 2 - 1), nn.ReLU(), nn.MaxPool2d(2, 1)]
    layers += [nn.Conv2d(16, 32, 4, 2), nn.ReLU(), nn.MaxPool2d(2, 1) if size > 8 else nn.Identity(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.LazyLinear(32), nn.ReLU(), nn.Linear(32, 10))
    model(torch.zeros(1, 1, size, size))
    return model


def main(row: str = "middle", epochs: int | None = None, dataset: str = "mnist", batch: int = 256) -> float:
    """Train, print epsilon and accuracy after each epoch, return the accuracy on the test pictures."""
    learning_rate, noise, clip, planned = ROWS[row]
    images = digits() if dataset == "digits" else load(dataset)
    model = network(images.train.shape[-1])
    optimizer = sy.dp.DPOptimizer(
        torch.optim.SGD(model.parameters(), lr=learning_rate), l2_norm_clip=clip, noise_multiplier=noise, batch_size=batch
    )
    accuracy = 0.0
    for epoch in range(1, (epochs or planned) + 1):
        for _ in range(len(images.train) // batch):
            optimizer.step(lambda x, y: F.cross_entropy(model(x), y), images.train, images.train_labels)
        with torch.no_grad():
            accuracy = float((model(images.test).argmax(1) == images.test_labels).double().mean())
        older, today = (optimizer.epsilon(DELTA, conversion=c) for c in ("mironov", "tight"))
        costs = f"epsilon {older:.2f} as Mironov converts, {today:.2f} by the tighter conversion"
        print(f"epoch {epoch}: {costs}; accuracy {accuracy:.1%}", flush=True)
    return accuracy


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--row", choices=ROWS, default="middle")
    parser.add_argument("--epochs", type=at_least(1))
    parser.add_argument("--data", choices=("mnist", "fashion-mnist", "digits"), default="mnist")
    arguments = parser.parse_args()
    main(arguments.row, arguments.epochs, arguments.data)
