"""A toy dataset split over two workers, trained where it lies; then two models averaged by an aggregator whom both trust.

    python examples/federated_toy.py

The two halves are the lessons with which most people met federated learning, as they were written for PySyft 0.2: only the import is new.
"""

from __future__ import annotations

import torch
from torch import nn, optim

import syftlite as sy

hook = sy.TorchHook(torch)


def toy() -> tuple[torch.Tensor, torch.Tensor]:
    """Four points, and whether the first coordinate is 1."""
    data = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]], requires_grad=True)
    target = torch.tensor([[0], [0], [1], [1.0]], requires_grad=True)
    return data, target


def federated_dataset(bob: sy.VirtualWorker, alice: sy.VirtualWorker, epochs: int = 20) -> list[float]:
    """Train one model on batches of both workers, by turns. Returns the loss of each epoch."""
    data, target = toy()
    dataset = sy.BaseDataset(data, target).federate((bob, alice))
    loader = sy.FederatedDataLoader(dataset, batch_size=1, shuffle=True)
    model = nn.Linear(2, 1)
    opt = optim.SGD(params=model.parameters(), lr=0.1)
    history = []
    for epoch in range(1, epochs + 1):
        total = 0.0
        for data, target in loader:
            model.send(data.location)
            opt.zero_grad()
            pred = model(data)
            loss = ((pred - target) ** 2).sum()
            loss.backward()
            opt.step()
            model.get()
            total += loss.get().item()
        history.append(total)
        if epoch % 5 == 0:
            print(f"epoch {epoch:2}: loss {total:.4f} on {len(loader)} batches at {', '.join(loader.workers)}")
    return history


def trusted_aggregator(bob: sy.VirtualWorker, alice: sy.VirtualWorker, secure_worker: sy.VirtualWorker, rounds: int = 10) -> list[float]:
    """Each worker trains a copy; a third adds them up, so that nobody sees another's update. Returns the loss after each round."""
    data, target = toy()
    bobs_data, bobs_target = data[0:2].send(bob), target[0:2].send(bob)
    alices_data, alices_target = data[2:].send(alice), target[2:].send(alice)
    model = nn.Linear(2, 1)
    history = []
    for round in range(1, rounds + 1):
        bobs_model = model.copy().send(bob)
        alices_model = model.copy().send(alice)
        bobs_opt = optim.SGD(params=bobs_model.parameters(), lr=0.1)
        alices_opt = optim.SGD(params=alices_model.parameters(), lr=0.1)
        for _ in range(5):
            for opt, part, x, y in (
                (bobs_opt, bobs_model, bobs_data, bobs_target),
                (alices_opt, alices_model, alices_data, alices_target),
            ):
                opt.zero_grad()
                loss = ((part(x) - y) ** 2).sum()
                loss.backward()
                opt.step()
        bobs_model.move(secure_worker)
        alices_model.move(secure_worker)
        with torch.no_grad():
            model.weight.set_(((alices_model.weight.data + bobs_model.weight.data) / 2).get())
            model.bias.set_(((alices_model.bias.data + bobs_model.bias.data) / 2).get())
            history.append(((model(data) - target) ** 2).sum().item())
        if round % 5 == 0:
            print(f"round {round:2}: loss {history[-1]:.4f} of the average")
    return history


def main() -> tuple[list[float], list[float]]:
    """Both lessons."""
    torch.manual_seed(0)
    bob, alice, secure_worker = (sy.VirtualWorker(hook, id=name) for name in ("bob", "alice", "secure_worker"))
    first = federated_dataset(bob, alice)
    second = trusted_aggregator(bob, alice, secure_worker)
    print(f"left at the workers: {[worker.objects_count() for worker in (bob, alice, secure_worker)]}")
    for worker in (bob, alice, secure_worker):
        worker.close()
    return first, second


if __name__ == "__main__":
    main()
