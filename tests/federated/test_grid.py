"""A search over several workers."""

import pytest
import torch

import syftlite as sy
from syftlite.errors import WorkerNotFoundError


def test_what_is_found_is_listed_by_worker(bob, alice):
    bob.load_data([torch.ones(2).tag("#x", "#data"), torch.ones(3).tag("#x", "#target")])
    alice.load_data([torch.ones(4).tag("#y", "#data")])
    grid = sy.PrivateGridNetwork(bob, alice.id)
    found = grid.search("#data")
    assert {worker: [len(p) for p in pointers] for worker, pointers in found.items()} == {bob.id: [2], alice.id: [4]}
    assert list(grid.search("#target", "#x")) == [bob.id] and grid.search(["#x", "#y"]) == {}
    assert bob.id in repr(grid)
    with pytest.raises(WorkerNotFoundError):
        sy.PrivateGridNetwork("nobody")
