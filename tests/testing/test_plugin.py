"""The pytest plugin, in a pytest of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path):
    """Runs the tests of a user's project: a file's text in, (code, output) out."""

    def run(text, *options, config="[pytest]\naddopts = --strict-markers\nfilterwarnings = error\n"):
        (tmp_path / "pytest.ini").write_text(config)
        (tmp_path / "test_mine.py").write_text(text)
        environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "pytest", "-p", "syftlite.testing.plugin", "-v", "-p", "no:cacheprovider", *options]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=110)
        return done.returncode, done.stdout + done.stderr

    return run


def test_the_fixtures_of_a_users_project(project):
    code, output = project("""
import pytest
import torch
import syftlite as sy

def test_hook(hook):
    assert isinstance(hook, sy.TorchHook) and hasattr(torch.Tensor, "send")

@pytest.mark.parametrize("again", [1, 2])
def test_workers_are_fresh(workers, again):
    assert list(workers) == ["me", "alice", "bob", "charlie", "james"] and workers["me"] is sy.local_worker
    alice, bob = workers["alice"], workers["bob"]
    assert alice.objects_count() == 0
    x = torch.ones(2).send(alice)
    alice.load_data([torch.ones(1).tag("#left")])
    assert (x + 1).move(bob).get().tolist() == [2, 2] and len(alice.search("#left")) == 1

def test_cluster(local_cluster):
    alice, bob = local_cluster
    assert alice.id == "cluster-alice" and (torch.ones(2).send(alice) * 3).get().tolist() == [3, 3]

def test_cluster_is_one(local_cluster, workers):
    x = torch.ones(2).send(local_cluster[1], workers["bob"])
    assert x.get(sum_results=True).tolist() == [2, 2]

def test_simulator(simulator):
    assert simulator.faults.drop == 0 and (torch.ones(2).send(simulator.worker("alice")) + 1).get().tolist() == [2, 2]

@pytest.mark.simulator(seed=7, drop=1.0)
def test_settings(simulator):
    with pytest.raises(sy.errors.ConnectionLostError, match="seed=7"):
        simulator.worker("alice", timeout=5.0)
""")
    assert code == 0, output
    assert "7 passed" in output


def test_a_failure_tells_the_seed_and_a_taken_name_is_named(project):
    code, output = project("""
import syftlite as sy

def test_fails(simulator):
    assert simulator.seed == 0

kept = sy.VirtualWorker(id="bob")

def test_taken(workers):
    pass
""")
    assert code == 1 and "1 failed, 1 error" in output, output
    assert "Simulator(seed=" in output and "IdNotUniqueError: bob: the fixture" in output


def test_a_projects_own_fixture_takes_precedence_and_the_plugin_is_listed(project):
    code, output = project("""
import pytest

@pytest.fixture
def workers():
    return "mine"

def test_mine(workers):
    assert workers == "mine"
""")
    assert code == 0, output
    assert 'syftlite = "syftlite.testing.plugin"' in (ROOT / "pyproject.toml").read_text()
