"""A node that runs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cli.machine import Machine, Node


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    machine = Machine(tmp_path_factory.mktemp("hospital"))
    yield machine.start("--id", "hospital")
    machine.kill()


@pytest.fixture
def hospital(shared: Node) -> Node:
    """A running node that the tests of a session share: names and tags must be of a test's own."""
    assert shared.process.poll() is None
    return shared
