"""A pytest plugin, found by itself where syftlite is installed. Its fixtures:

    hook            a TorchHook
    workers         {"me", "alice", "bob", "charlie", "james"}: virtual workers that hold nothing yet, gone after the test
    local_cluster   (cluster-alice, cluster-bob): real nodes, started when the session first asks for them, and ended with it
    simulator       a `Simulator`, seeded by the test's name; @pytest.mark.simulator(seed=7, drop=0.01) says otherwise

A project's own fixture of one of these names takes precedence; `-p no:syftlite` turns all off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

if TYPE_CHECKING:
    from syftlite.hooks.torch import TorchHook
    from syftlite.remote.client import WebsocketClientWorker
    from syftlite.remote.virtual import VirtualWorker
    from syftlite.testing.simulator import Simulator

NAMES = ("alice", "bob", "charlie", "james")


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line("markers", "simulator(seed, drop, delay, cut, reorder, duplicate): settings of the `simulator` fixture")


@pytest.fixture
def hook() -> TorchHook:
    """A TorchHook: tensors and modules have `send`."""
    import torch

    import syftlite as sy

    return sy.TorchHook(torch)


@pytest.fixture
def workers(hook: TorchHook) -> Iterator[dict[str, VirtualWorker]]:
    """The local worker as "me", and virtual workers that hold nothing yet, by their names; they are gone after the test."""
    from syftlite.errors import IdNotUniqueError
    from syftlite.remote import registry
    from syftlite.remote.virtual import VirtualWorker

    taken = [name for name in NAMES if name in registry.known]
    if taken:
        raise IdNotUniqueError(f"{', '.join(taken)}: the fixture `workers` makes workers of these names; close() those that exist")
    made: dict[str, VirtualWorker] = {"me": hook.local_worker}
    made.update({name: VirtualWorker(hook, id=name) for name in NAMES})
    yield made
    for name in NAMES:
        made[name].close()


@pytest.fixture(scope="session")
def local_cluster() -> Iterator[tuple[WebsocketClientWorker, ...]]:
    """Connections to two nodes, each a process of its own. A test that leaves objects there leaves them to the next."""
    from syftlite.remote.cluster import LocalCluster

    with LocalCluster("cluster-alice", "cluster-bob", threads=1) as nodes:
        yield nodes


@pytest.fixture
def simulator(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A simulator of clients and nodes on links that fail as the marker says. The report of a failure has its seed."""
    from syftlite.testing.simulator import Simulator

    mark = request.node.get_closest_marker("simulator")
    settings = {"seed": crc32(request.node.nodeid.encode()), **(mark.kwargs if mark else {})}
    request.node.add_report_section("call", "simulator", f"Simulator({', '.join(f'{k}={v}' for k, v in settings.items())})")
    with Simulator(**settings) as made:
        yield made
