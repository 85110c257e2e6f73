"""Machines to run nodes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.machine import Machine, Node


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine on which nothing runs."""
    machine = Machine(tmp_path)
    yield machine
    machine.kill()


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
