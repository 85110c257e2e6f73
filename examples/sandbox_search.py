"""The sandbox: six workers with scikit-learn's datasets spread over them; find one by its tags, and train on it where it lies.

    python examples/sandbox_search.py

It is the lesson that PySyft 0.2 opened with, on the diabetes data (the Boston houses are gone from scikit-learn): only the import is new.
"""

from __future__ import annotations

import torch

import syftlite as sy

sandbox: dict[str, object] = {"torch": torch}


def search() -> tuple[dict[str, list[sy.PointerTensor]], dict[str, list[sy.PointerTensor]]]:
    """Tag, describe, send and find a tensor; then find the data of a study at all workers."""
    bob, grid = sandbox["bob"], sandbox["grid"]
    x = torch.tensor([1, 2, 3, 4, 5]).tag("#fun", "#five").describe("five numbers")
    x = x.send(bob)
    (found,) = bob.search(["#fun", "#five"])
    print(f"{found.description}: {found.get()}, still there: {bob.search('#fun')[0].get()}")

    data, target = grid.search("#diabetes", "#data"), grid.search("#diabetes", "#target")
    for worker, pointers in data.items():
        print(f"{worker:>6}: {tuple(pointers[0].shape)} patients and measurements")
    return data, target


def train(data: dict[str, list[sy.PointerTensor]], target: dict[str, list[sy.PointerTensor]], epochs: int = 30) -> list[float]:
    """Linear regression that visits the workers. Returns the mean squared error of each epoch."""
    fds = sy.FederatedDataset([sy.BaseDataset(data[worker][0], target[worker][0].view(-1, 1) / 100) for worker in data])
    loader = sy.FederatedDataLoader(fds, batch_size=32)
    model = torch.nn.Linear(10, 1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    errors = []
    for epoch in range(1, epochs + 1):
        losses = []
        for x, y in loader:
            model.send(x.location)
            optimizer.zero_grad()
            loss = ((model(x) - y) ** 2).mean()
            loss.backward()
            optimizer.step()
            model.get()
            losses.append(loss)
        errors.append(sum(loss.get().item() for loss in losses) / len(losses))
        if epoch % 10 == 0:
            print(f"epoch {epoch}: mean squared error {errors[-1]:.2f}")
    return errors


def main() -> list[float]:
    """The lesson."""
    torch.manual_seed(0)
    sy.create_sandbox(sandbox, verbose=False)
    errors = train(*search())
    for worker in sandbox["workers"]:
        worker.close()
    return errors


if __name__ == "__main__":
    main()
