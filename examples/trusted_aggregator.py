"""Federated averaging with an aggregator whom everybody trusts: several owners learn, a secure worker averages.

    python examples/trusted_aggregator.py                 3 owners, 5 rounds, on virtual workers
    python examples/trusted_aggregator.py --owners 5
    python examples/trusted_aggregator.py --real          nodes in processes of their own

    each round      a copy of the model goes to each owner -> learns there -> moves to the secure worker, straight from node to node
                    the secure worker averages them, weighted by rows -> only the average comes here

This program, which scripts it all, gets no single owner's model. The secure worker could read them: it is trusted not to. Averaging what
nobody can read one by one needs secret sharing.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import data
import torch
from arguments import at_least
from torch import nn

import syftlite as sy

SECURE = "secure-worker"


@contextmanager
def parties(owners: int, real: bool) -> Iterator[tuple[list[Any], Any]]:
    """(the owners' workers, the secure worker), closed at the end."""
    names = [f"owner{number}" for number in range(1, owners + 1)]
    if real:
        with sy.LocalCluster(*names, SECURE, threads=1) as nodes:
            yield list(nodes[:-1]), nodes[-1]
        return
    both = [sy.VirtualWorker(id=name) for name in (*names, SECURE)]
    try:
        yield both[:-1], both[-1]
    finally:
        for worker in both:
            worker.close()


def network() -> nn.Sequential:
    """64 pixels in; the logits of ten classes out."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def learn_there(model: nn.Module, rows: sy.BaseDataset, steps: int) -> nn.Module:
    """Fit a copy of ``model`` at the owner of ``rows``: nothing is read."""
    local = model.copy().send(rows.location)
    optimizer = torch.optim.SGD(local.parameters(), lr=0.5)
    for _ in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(local(rows.data), rows.targets).backward()
        optimizer.step()
    local.zero_grad()  # gradients stay
    return local


def accuracy(model: nn.Module, images: data.Images) -> float:
    """The share of right answers on the test pictures."""
    with torch.no_grad():
        return (model(images.test).argmax(1) == images.test_labels).float().mean().item()


def learn(images: data.Images, owners: Sequence[Any], secure: Any, rounds: int, steps: int) -> list[float]:
    """Returns the accuracy of the average after each round."""
    dataset = sy.BaseDataset(images.train, images.train_labels).federate(owners)
    model = network()
    history = []
    for number in range(1, rounds + 1):
        locals_ = {name: learn_there(model, dataset[name], steps) for name in dataset.workers}
        for local in locals_.values():
            local.move(secure)
        sizes = {name: len(dataset[name]) for name in dataset.workers}
        model = sy.federated.federated_avg(locals_, sizes).get()  # the only thing that comes here
        history.append(accuracy(model, images))
        print(f"round {number}: the average of {len(locals_)} is right on {history[-1]:.1%} of {len(images.test)}")
    return history


def main(arguments: Sequence[str] | None = None) -> list[float]:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--owners", type=at_least(1), default=3)
    options.add_argument("--rounds", type=at_least(0), default=5)
    options.add_argument("--steps", type=at_least(0), default=20, help="of gradient descent at each owner in each round")
    options.add_argument("--real", action="store_true", help="nodes in processes of their own")
    chosen = options.parse_args(arguments)
    torch.manual_seed(0)
    with parties(chosen.owners, chosen.real) as (owners, secure):
        return learn(data.digits(), owners, secure, chosen.rounds, chosen.steps)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a network this small is slower on several
    main()
