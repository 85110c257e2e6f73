"""A convolutional network learns handwritten digits that two workers hold, batch by batch where they lie.

    python examples/mnist_cnn.py                    scikit-learn's 8 x 8 digits: nothing to download
    python examples/mnist_cnn.py --data mnist       MNIST itself, after: python examples/data.py mnist
    python examples/mnist_cnn.py --real             two nodes in processes of their own, in place of virtual workers
    python examples/mnist_cnn.py --help

Bob and alice hold half of the pictures each. The model visits them in turn: at each worker it learns from all of that worker's batches,
then it moves to the other, straight from worker to worker. No picture moves. It comes here at the end of an epoch, for the test
on pictures of our own. The loss is read once an epoch: everything else is sent without waiting.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import data
import torch
from arguments import at_least
from torch import nn

import syftlite as sy


class Result(NamedTuple):
    """What an epoch showed: the mean loss while learning, and the share of right answers on the test pictures."""

    loss: float
    accuracy: float
    seconds: float


def network(side: int) -> nn.Sequential:
    """A network for pictures (n, 1, side, side); the logits of ten classes come out."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * (side // 4) ** 2, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@contextmanager
def workers(real: bool, threads: int = 1) -> Iterator[Sequence[Any]]:
    """Bob and alice: nodes in processes of their own, or virtual workers, which are closed at the end."""
    if real:
        with sy.LocalCluster("bob", "alice", threads=threads) as nodes:
            yield nodes
        return
    both = [sy.VirtualWorker(id=name) for name in ("bob", "alice")]
    try:
        yield both
    finally:
        for worker in both:
            worker.close()


@contextmanager
def progress(total: int, shown: bool) -> Iterator[Any]:
    """A function to call after each batch; on a terminal, and with rich installed, it moves a bar."""
    if not shown or not sys.stdout.isatty() or importlib.util.find_spec("rich") is None:
        yield lambda: None
        return
    from rich.progress import Progress

    with Progress(transient=True) as bar:
        task = bar.add_task("learning", total=total)
        yield lambda: bar.advance(task)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, loader: sy.FederatedDataLoader, advance: Any) -> float:
    """One epoch. Returns the mean loss of its batches, which is all that is read."""
    losses = []
    model.train()
    for pictures, labels in loader:
        if model.location is not pictures.location:
            model.send(pictures.location)
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(pictures), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
        advance()
    places = {loss.location for loss in losses}
    values = [torch.stack([loss for loss in losses if loss.location is place]).get() for place in places]
    return torch.cat(values).mean().item()


def accuracy(model: nn.Module, pictures: torch.Tensor, labels: torch.Tensor) -> float:
    """The share of right answers."""
    model.eval()
    with torch.no_grad():
        answers = torch.cat([model(part).argmax(1) for part in pictures.split(1000)])
    return (answers == labels).float().mean().item()


def learn(images: data.Images, places: Sequence[Any], epochs: int, batch: int, shown: bool = False) -> list[Result]:
    """Split the pictures over ``places`` and learn from them. Returns a `Result` for each epoch."""
    dataset = sy.BaseDataset(images.train, images.train_labels).federate(places)
    loader = sy.FederatedDataLoader(dataset, batch_size=batch, shuffle=True)
    model = network(images.train.shape[-1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.003)
    results = []
    for epoch in range(1, epochs + 1):
        began = time.perf_counter()
        with progress(len(loader), shown) as advance:
            loss = train(model, optimizer, loader, advance)
        model.get()
        results.append(Result(loss, accuracy(model, images.test, images.test_labels), time.perf_counter() - began))
        shown_loss, right, seconds = results[-1]
        print(f"epoch {epoch}: loss {shown_loss:.4f}, {right:.2%} of {len(images.test):,} right, {seconds:.1f} s")
    return results


def main(arguments: Sequence[str] | None = None) -> list[Result]:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--data", choices=["digits", *data.MD5], default="digits")
    options.add_argument("--epochs", type=at_least(0), default=5)
    options.add_argument("--batch", type=at_least(1), default=64)
    options.add_argument("--first", type=at_least(1), metavar="N", help="learn from the first N pictures only")
    options.add_argument("--real", action="store_true", help="nodes in processes of their own")
    threads = "of torch, here and at each node (1: on a busy machine more are slower)"
    options.add_argument("--threads", type=at_least(1), default=1, help=threads)
    options.add_argument("--no-progress", action="store_true")
    chosen = options.parse_args(arguments)
    try:
        images = data.digits() if chosen.data == "digits" else data.load(chosen.data)
    except data.DataError as error:
        options.exit(1, f"error: {error}\n")
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    with workers(chosen.real, chosen.threads) as places:
        print(f"{chosen.data}: {', '.join(map(str, places))}")
        return learn(images.first(chosen.first), places, chosen.epochs, chosen.batch, not chosen.no_progress)


if __name__ == "__main__":
    main()
