"""The table of the article that introduced PySyft (Ryffel et al. 2018, section 5): how long training takes, and how good it gets.

    python examples/tables.py boston && python examples/tables.py pima      once
    python examples/paper_table.py

    plain        torch, all rows in one place
    virtual      two workers in this process, half of the rows each
    websocket    two nodes in processes of their own
    DP           two virtual workers; each trains by DP-SGD, epsilon at delta 1e-5

The model visits the workers by turns, batch by batch, 10 epochs; under DP the workers train side by side, 20 rounds of an epoch each.
Boston: mean squared error of the price in $1000; Pima: right answers; both on a fifth of the rows that nobody trains on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from data import DataError
from tables import TABLES, Table, load
from torch import nn

import syftlite as sy
from syftlite.federated import Federation, PrivateTraining

EPOCHS, BATCH, RATE = 10, 8, 0.05
ROUNDS, NOISE, CLIP, EXPECTED, PRIVATE_RATE = 20, 2.0, 1.0, 64, 0.5


class Line(NamedTuple):
    """A cell: seconds of training, and the error or the share of right answers on the test rows; epsilon under DP."""

    seconds: float
    score: float
    epsilon: float | None = None


class Task(NamedTuple):
    """Rows to learn from and to be tested on, the model, its loss, and how its scores on the test rows are judged."""

    train: sy.BaseDataset
    test: sy.BaseDataset
    model: Callable[[], nn.Module]
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    score: Callable[[torch.Tensor, torch.Tensor], float]


def task(table: Table) -> Task:
    """Columns scaled to mean 0 and deviation 1; prices likewise, for training."""
    order = torch.randperm(len(table.rows), generator=torch.Generator().manual_seed(0))
    x, y, cut = table.rows[order], table.targets[order], len(order) // 5
    x = (x - x.mean(0)) / x.std(0)
    if y.is_floating_point():
        middle, spread = y.mean(), y.std()
        y = ((y - middle) / spread)[:, None]
        loss: Any = nn.functional.mse_loss
        score: Any = lambda out, target: float((out - target).pow(2).mean() * spread**2)  # noqa: E731
    else:
        loss = nn.functional.cross_entropy
        score = lambda out, target: float((out.argmax(1) == target).float().mean())  # noqa: E731
    outputs = y.shape[1] if y.dim() > 1 else 2

    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(x.shape[1], 16), nn.ReLU(), nn.Linear(16, outputs))

    return Task(sy.BaseDataset(x[cut:], y[cut:]), sy.BaseDataset(x[:cut], y[:cut]), model, loss, score)


def _judged(given: Task, model: nn.Module, began: float, epsilon: float | None = None) -> Line:
    seconds = time.perf_counter() - began
    with torch.no_grad():
        return Line(seconds, given.score(model(given.test.data), given.test.targets), epsilon)


def plain(given: Task) -> Line:
    """torch alone."""
    model = given.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for x, y in zip(given.train.data.split(BATCH), given.train.targets.split(BATCH)):
            optimizer.zero_grad()
            given.loss(model(x), y).backward()
            optimizer.step()
    return _judged(given, model, began)


def visiting(given: Task, workers: Sequence[Any]) -> Line:
    """The model goes to the workers by turns."""
    parts = given.train.federate(workers)
    loader = sy.FederatedDataLoader(parts, batch_size=BATCH)
    model = given.model()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    began = time.perf_counter()
    for _ in range(EPOCHS):
        for x, y in loader:
            if model.location is not x.location:
                model.send(x.location)
            optimizer.zero_grad()
            given.loss(model(x), y).backward()
            optimizer.step()
    return _judged(given, model.get(), began)


def private(given: Task, workers: Sequence[Any]) -> Line:
    """Each worker trains by DP-SGD; what they give is averaged."""
    parts = given.train.federate(workers)
    rows = min(len(part) for part in parts.datasets.values())
    training = PrivateTraining(
        given.model, l2_norm_clip=CLIP, noise_multiplier=NOISE, batch_size=EXPECTED, steps=rows // EXPECTED, loss=given.loss,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=PRIVATE_RATE),
    )  # fmt: skip
    federation = Federation(parts, given.model, training=training)
    began = time.perf_counter()
    federation.fit(ROUNDS)
    curve = sy.dp.rdp([sy.dp.gaussian(NOISE, EXPECTED / rows, ROUNDS * training.steps)])
    return _judged(given, federation.model, began, sy.dp.tight(curve, 1e-5))


def main(arguments: Sequence[str] | None = None) -> dict[tuple[str, str], Line]:
    """The table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--only", choices=list(TABLES), action="append", help="this dataset alone")
    chosen = options.parse_args(arguments)
    found: dict[tuple[str, str], Line] = {}
    try:
        tasks = {name: task(load(name)) for name in chosen.only or TABLES}
    except DataError as error:
        options.exit(1, f"error: {error}\n")
    with ExitStack() as stack:
        virtual = [sy.VirtualWorker(id=name) for name in ("paper-alice", "paper-bob")]
        nodes = stack.enter_context(sy.LocalCluster("alice", "bob", threads=1))
        for name, given in tasks.items():
            visiting(given, virtual)  # what is done once in a process, however long it trains
            found |= {(name, "plain"): plain(given), (name, "virtual"): visiting(given, virtual)}
            found |= {(name, "websocket"): visiting(given, nodes), (name, "DP"): private(given, virtual)}
    print(f"| | {' | '.join(f'{name}, s | {name}, {_unit(name)}' for name in tasks)} |\n|---|{'---|' * (2 * len(tasks))}")
    for mode in ("plain", "virtual", "websocket", "DP"):
        lines = [found[name, mode] for name in tasks]
        cost = f", epsilon {' and '.join(f'{line.epsilon:.1f}' for line in lines)}" if mode == "DP" else ""
        print(f"| {mode}{cost} | {' | '.join(f'{line.seconds:.2f} | {line.score:.3g}' for line in lines)} |")
    return found


def _unit(name: str) -> str:
    return "squared error" if name == "boston" else "right"


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
