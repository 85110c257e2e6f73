"""Fixtures: fresh virtual workers, with and without the codec between, and a real node."""

from __future__ import annotations

import gc
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cli.machine import Machine
from hypothesis import settings

import syftlite as sy

os.environ.setdefault("KERAS_BACKEND", "torch")  # Keras reads it when it is imported
settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")  # no test depends on speed
torch.set_num_threads(1)  # small tensors are faster so, and much faster where the other core has tests of its own

_number = itertools.count()


def pytest_collection_finish() -> None:
    """Have collections look at nothing that was there before the first test: torch's modules and 19,000 tests are most of it."""
    gc.freeze()


@pytest.fixture(params=[False, True], ids=["memory", "serialize"])
def bob(request: pytest.FixtureRequest) -> Iterator[sy.VirtualWorker]:
    """A virtual worker, once called directly and once through the codec."""
    yield sy.VirtualWorker(id=f"bob{next(_number)}", serialize=request.param)


@pytest.fixture
def alice() -> Iterator[sy.VirtualWorker]:
    """Another virtual worker."""
    yield sy.VirtualWorker(id=f"alice{next(_number)}")


@pytest.fixture
def node(tmp_path, monkeypatch) -> Iterator[sy.WebsocketServerWorker]:
    """A node of this process on a free loopback port, its tokens where only this test finds them."""
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    node = sy.WebsocketServerWorker(id=f"node{next(_number)}", port=0).start(wait=False)
    yield node
    node.close()


@pytest.fixture(scope="session")
def three_nodes() -> Iterator[tuple[sy.WebsocketClientWorker, ...]]:
    """Nodes in processes of their own, for every test that leaves them as they are: to start some takes seconds."""
    with sy.LocalCluster("first node", "second node", "third node", threads=1) as workers:
        yield workers


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which nothing runs."""
    machine = Machine(tmp_path)
    yield machine
    machine.kill()


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
