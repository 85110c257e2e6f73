"""Keras models for tests: random weights, inputs that suit them, and files of each kind."""

from pathlib import Path

import keras
import numpy as np
import torch

from syftlite.serving.keras import from_keras


def sequential(layers, shape, numbers=None):
    """A Sequential of copies of ``layers``, with weights that are not zeros or ones."""
    made = [keras.layers.deserialize(keras.layers.serialize(layer)) for layer in layers]
    return shaken(keras.Sequential([keras.Input(shape, dtype="int32" if numbers else "float32"), *made]))


def functional(inputs, output):
    """A functional model with weights that are not zeros or ones."""
    return shaken(keras.Model(inputs if len(inputs) > 1 else inputs[0], output))


def shaken(model):
    """``model``, every array moved at random; variances stay positive."""
    rng = np.random.default_rng(0)
    model.set_weights(
        [np.abs(w + rng.normal(0, 0.1, w.shape)) + 0.01 if w.min() >= 1 else w + rng.normal(0, 0.1, w.shape) for w in model.get_weights()]
    )
    return model


def images(model, batch=2):
    """An input for each of ``model``'s: standard normal, or whole numbers below 11."""
    rng = np.random.default_rng(1)
    shapes = [(batch, *i.shape[1:]) for i in model.inputs]
    return [
        rng.integers(0, 11, shape).astype("int64") if i.dtype == "int32" else rng.normal(0, 1, shape).astype("float32")
        for i, shape in zip(model.inputs, shapes)
    ]


class Checked:
    """A model, and what becomes of it by each way."""

    def __init__(self, model, folder: Path):
        self.model, self.folder = model, folder

    def graph(self, kind):
        """By way of the model itself, or of a file of it."""
        if kind == "model":
            return from_keras(self.model)
        if kind == "weights":
            path, architecture = self.folder / "m.weights.h5", self.folder / "m.json"
            self.model.save_weights(path)
            architecture.write_text(self.model.to_json())
            return from_keras(architecture, weights=path)
        path = self.folder / f"m.{kind}"
        self.model.save(path)
        return from_keras(path)

    def agrees(self, kind):
        """Assert that the graph gives what Keras gives."""
        inputs = images(self.model)
        wanted = keras.ops.convert_to_numpy(self.model(inputs if len(inputs) > 1 else inputs[0]))
        found = self.graph(kind).run(*map(torch.tensor, inputs)).numpy()
        assert found.shape == wanted.shape
        assert np.abs(found - wanted).max() < 1e-3 / 4
