"""KerasHook: what it adds to Keras, what it says without Keras, and models shared and queried under its names."""

import subprocess
import sys

import pytest
import torch

import syftlite as sy
from syftlite.errors import ConfigurationError, Misuse, UnsupportedLayerError

keras = pytest.importorskip("keras", reason='pip install "syftlite[keras]"')
L = keras.layers


@pytest.fixture
def parties():
    workers = [sy.VirtualWorker(id=f"keras {name}") for name in ("alice", "bob", "carol")]
    yield workers
    for worker in workers:
        worker.close()


@pytest.fixture
def model():
    sy.KerasHook(keras)
    model = keras.Sequential([L.Conv2D(2, 3, batch_input_shape=(1, 6, 6, 1)), L.AveragePooling2D(2), L.ReLU(), L.Flatten(), L.Dense(3)])
    yield model
    model.shutdown_workers()


def test_without_keras_it_is_there_and_says_what_to_install():
    program = 'import sys; sys.modules["keras"] = None\nimport syftlite as sy\ntry:\n  sy.KerasHook()\nexcept sy.errors.DependencyError as e:\n  print(e)'
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert 'pip install "syftlite[keras]"' in done.stdout, done.stderr
    with pytest.raises(ConfigurationError, match=r"takes the package keras, or tf.keras, not <module 'torch'"):
        sy.KerasHook(torch)


def test_importing_syftlite_imports_no_keras():
    done = subprocess.run([sys.executable, "-c", "import sys, syftlite; assert 'keras' not in sys.modules"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_it_may_be_made_again_and_adds_only_names():
    sy.KerasHook(keras)
    before = dict(vars(keras.Model)), keras.layers.Layer.__init__
    hook = sy.KerasHook()
    assert (dict(vars(keras.Model)), keras.layers.Layer.__init__) == before
    assert hook.local_worker is sy.local_worker
    assert {"share", "serve", "stop", "shutdown_workers"} <= set(vars(keras.Model))


def test_layers_take_a_shape_with_its_batch(model):
    assert model.built and model.input_shape == (None, 6, 6, 1)
    with pytest.raises(ValueError, match="Unrecognized keyword arguments passed to Dense: {'nonsense': 1}"):
        L.Dense(2, nonsense=1)
    assert L.Dense.from_config(L.Dense(2, batch_input_shape=(1, 3)).get_config()).units == 2


def test_a_model_is_shared_and_queried(model, parties):
    alice, bob, carol = parties
    assert model.share(alice, bob, carol) is model
    told = []
    served = model.serve(num_requests=2, wait=False)
    x = torch.randn(2, 6, 6, 1)
    with sy.connect_to_model(alice, bob) as client:
        for part in x.split(1):
            found = client.query(part)
            assert torch.allclose(found, model(part).detach(), atol=1e-3)
    assert served.wait(told.append) == 2 and [line.split(":")[0] for line in told] == ["request 1", "request 2"]
    model.serve(num_requests=1, wait=False)
    with sy.connect_to_model(alice, bob) as client:
        client.query(x[:1])
    assert model.serve(num_requests=1, wait=False).pause().state == "stopped"
    model.stop()


def test_what_cannot_be_served_is_said_before_anything_is_shared(model, parties):
    bad = keras.Sequential([keras.Input((4, 2)), L.LSTM(2, name="memory"), L.Dense(2)])
    with pytest.raises(UnsupportedLayerError, match="layer 'memory': there is no form here for LSTM"):
        bad.share(*parties)
    with pytest.raises(ConfigurationError, match="name three or more, not 2"):
        model.share(*parties[:2])
    for method in (model.serve, model.stop):
        with pytest.raises(Misuse, match=r"is not shared: model.share\(cluster\) first"):
            method()
    model.shutdown_workers()


def test_an_import_that_is_off_is_refused(model, parties, monkeypatch):
    """What is shared was compared with Keras' own answers."""
    from syftlite.hooks import keras as hook

    graph = hook.from_keras(model)
    name = next(iter(graph.weights))
    wrong = type(graph)(graph.inputs, graph.nodes, {**graph.weights, name: graph.weights[name] + 0.1}, graph.output)
    monkeypatch.setattr(hook, "from_keras", lambda model: wrong)
    with pytest.raises(ValueError, match="the imported model is off by"):
        model.share(*parties)
