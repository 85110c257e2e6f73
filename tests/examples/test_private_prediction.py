"""The three programs of private prediction as their users start them: on MNIST, each in a process of its own, and workers in three more."""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hooks.test_tfe import free_ports

pytest.importorskip("keras", reason='pip install "syftlite[keras]"')
pytestmark = pytest.mark.timeout(900)  # eight processes import torch, which takes a busy machine a minute
FOLDER = Path(__file__).parents[2] / "examples" / "private_prediction"


def program(name, *options):
    return [sys.executable, str(FOLDER / f"{name}.py"), *map(str, options)]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The user's own pictures, and a place for tokens. MNIST is fetched as a package, once; without a network this is skipped."""
    spec = importlib.util.spec_from_file_location("examples_data", FOLDER.parent / "data.py")
    data = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = data
    spec.loader.exec_module(data)
    try:
        data.fetch("mnist", say=lambda line: None)
    except data.DataError as error:
        pytest.skip(f"MNIST cannot be had: {error}")
    paths = os.pathsep.join([str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": paths, "SYFTLITE_HOME": str(tmp_path_factory.mktemp("home")), "PYTHONUNBUFFERED": "1"}


@pytest.fixture(scope="module")
def weights(environment, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "short-conv-mnist.weights.h5"
    done = subprocess.run(program("create_model", "--weights", path, "--first", 6400), env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "of 10,000 pictures right; the weights are in" in done.stdout
    return path


def ask(command, environment, serving):
    """What a client prints."""
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr + (serving.stderr.read() if serving.poll() is not None else "")
    return done.stdout


def test_the_first_three_pictures_are_a_7_a_2_and_a_1(environment, weights):
    ports = free_ports(3)
    rscript = shutil.which("Rscript") if _has_reticulate() else None
    requests = 6 if rscript else 3
    command = program("serve", "--weights", weights, "--requests", requests, "--ports", *ports)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as serving:
        try:
            first = serving.stdout.readline()
            assert first.startswith("shared: <TFECluster"), serving.stderr.read()
            printed = ask(program("client", "--ports", *ports), environment, serving)
            assert printed == "it sees a 7; it is a 7\nit sees a 2; it is a 2\nit sees a 1; it is a 1\n"
            if rscript:
                told = {**environment, "RETICULATE_PYTHON": sys.executable}
                command = [rscript, str(FOLDER / "client.R"), *map(str, ports)]
                assert ask(command, told, serving).split() == ["it", "sees", "a", "7", "it", "sees", "a", "2", "it", "sees", "a", "1"]
            rest, errors = serving.communicate(timeout=600)
            assert serving.returncode == 0, errors
            assert [line.split(":")[0] for line in rest.splitlines()] == [f"request {i}" for i in range(1, requests + 1)]
        finally:
            serving.kill()


@pytest.mark.slow
def test_a_thousand_pictures(environment, weights, monkeypatch):
    """Scores are Keras' to 0.01, and the greatest is the same, for each of the first 1,000 test pictures."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.setenv("SYFTLITE_HOME", environment["SYFTLITE_HOME"])
    serve = importlib.import_module("serve")
    pictures = sys.modules["examples_data"].load("mnist").test[:1000].movedim(1, -1).contiguous().numpy()
    serve.sy.KerasHook(serve.keras)
    model = serve.network()
    model.load_weights(weights)
    wanted = serve.keras.ops.convert_to_numpy(model(pictures))
    with serve.sy.TFECluster(*(serve.sy.TFEWorker(host=f"localhost:{port}") for port in free_ports(3))) as cluster:
        model.share(cluster)
        served = model.serve(num_requests=100, wait=False)
        client = serve.sy.TFEWorker()
        client.connect_to_model((1, 28, 28, 1), (1, 10), cluster)
        found = np.concatenate([client.query_model(part) for part in np.split(pictures, 100)])
        assert served.wait(lambda line: None) == 100
        client.stop()
        model.shutdown_workers()
    assert np.abs(found - wanted).max() < 0.01
    assert (found.argmax(1) == wanted.argmax(1)).all()


def _has_reticulate():
    if shutil.which("Rscript") is None:
        return False
    return subprocess.run(["Rscript", "-e", "library(reticulate)"], capture_output=True).returncode == 0
