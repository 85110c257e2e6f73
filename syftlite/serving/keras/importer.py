"""`from_keras`: a Keras model, or a file of one, as a `Graph`.

from_keras("model.keras")                                   files are read without Keras
from_keras("model.json", weights="model.weights.h5")        weights alone need an architecture
from_keras(model)                                           a model of Keras 3 or tf.keras, asked for its JSON and its arrays
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import syftlite.serving.keras.layers  # noqa: F401  (fills the table)
from syftlite.errors import ConfigurationError
from syftlite.serving.graph import Builder, Graph, Input
from syftlite.serving.keras.architecture import Architecture, Layer, Place, parse
from syftlite.serving.keras.call import MAX_ELEMENTS, Call, Value
from syftlite.serving.keras.files import Saved, read
from syftlite.serving.keras.hdf5 import Array


def from_keras(
    model: Any,
    weights: str | Path | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    backend: str | None = None,
) -> Graph:
    """The graph of ``model``: a Keras model, or the path of a file.

    ``weights``: a file of weights, in place of the model's own. ``input_shape``: without the batch, where a Sequential does not tell it.
    ``backend``: whose arithmetic the original had ("torch", "tensorflow", "jax"), where a file does not tell; it matters for
    AveragePooling2D with padding "same" alone. Raises `UnsupportedLayerError` that names layer and argument, `ConfigurationError`.
    """
    saved = read(model) if isinstance(model, (str, Path)) else live(model)
    if saved.architecture is None:
        raise ConfigurationError(f"{saved.name} has weights alone: pass the model, or a file with its architecture, and this as weights=")
    architecture = parse(saved.architecture, saved.name, input_shape)
    if weights is not None:
        arrays = read(weights).weights_of(architecture)
    elif isinstance(model, (str, Path)):
        arrays = saved.weights_of(architecture)
    else:
        arrays = {layer.name: [_weight(weight) for weight in layer.weights] for layer in model.layers}
    return build(architecture, arrays, backend or saved.backend)


def is_keras(model: Any) -> bool:
    """Whether ``model`` looks like a model of Keras, of whichever package."""
    return callable(getattr(model, "to_json", None)) and hasattr(model, "layers")


def live(model: Any) -> Saved:
    """What a file of ``model``, a Keras model, would say. Raises TypeError if it is none."""
    if not is_keras(model):
        raise TypeError(f"a Keras model or the path of one is wanted, not {type(model).__name__}")
    if not getattr(model, "built", True):
        raise ConfigurationError(f"the model {model.name!r} has no weights yet: give it an Input, or call it once")
    library = sys.modules.get(type(model).__module__.split(".")[0])  # keras, or TensorFlow's
    backend = getattr(getattr(library, "backend", None), "backend", None)
    return Saved(str(model.name), model.to_json(), None, backend() if callable(backend) else None)


def _weight(variable: Any) -> Array:
    """The value of a variable: of Keras 3 a tensor of its backend, of Keras 2 a method's result."""
    value = variable.value
    return as_array(value() if callable(value) else value)


def as_array(value: Any) -> Array:
    """A tensor of whichever backend, as NumPy's float32."""
    return np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value, np.float32)


def build(model: Architecture, arrays: Mapping[str, Sequence[Array]], backend: str | None = None) -> Graph:
    """The graph of an architecture and its arrays."""
    by_name = {layer.name: layer for layer in model.layers}
    builder = Builder(*(_input(model, by_name, name) for name in model.inputs))
    values: dict[Place, Value] = {(i.name, 0): Value(i.name, (1, *i.shape)) for i in builder.inputs}
    for layer, number in order(model, by_name):
        given = [values[place] for place in layer.calls[number]]
        values[layer.name, number] = Call(layer, arrays.get(layer.name, ()), builder, backend).import_(given)
    end = by_name[model.output[0]]
    out = Call(end, (), builder, backend).plain(values[model.output])
    return builder.graph(out.name)


def _input(model: Architecture, by_name: Mapping[str, Layer], name: str) -> Input:
    """An input of the graph. One that an Embedding takes holds whole numbers."""
    layer = by_name.get(name)
    if layer is None or layer.kind != "InputLayer":
        raise ConfigurationError(f"the model's input {name!r} is no InputLayer")
    shape = layer.arguments.get("batch_shape") or layer.arguments.get("batch_input_shape")
    if not isinstance(shape, (list, tuple)) or len(shape) < 2 or not all(type(n) is int and 0 < n <= MAX_ELEMENTS for n in shape[1:]):
        raise ConfigurationError(f"the model's input {name!r} has the shape {shape}: all of it but the batch has to be known, so fix it")
    users = (user for user in model.layers if user.kind == "Embedding" and ((name, 0),) in user.calls)
    numbers = [user.arguments.get("input_dim") for user in users]
    return Input(tuple(shape[1:]), name, numbers[0] if numbers and type(numbers[0]) is int else None)


def order(model: Architecture, by_name: Mapping[str, Layer]) -> list[tuple[Layer, int]]:
    """The calls that the output needs, each after what it takes. Raises `ConfigurationError` where they go in circles or nowhere."""
    found: list[tuple[Layer, int]] = []
    done: set[Place] = {(name, 0) for name in model.inputs}
    open_: set[Place] = set()
    ahead = [model.output]
    while ahead:
        place = ahead[-1]
        layer = by_name.get(place[0])
        if layer is None or place[1] >= len(layer.calls) or (layer.kind == "InputLayer" and place not in done):
            raise ConfigurationError(f"the model takes the output {place[1]} of a layer {place[0]!r}, and there is none")
        missing = [taken for taken in layer.calls[place[1]] if taken not in done]
        if place in done or not missing:
            ahead.pop()
            if place not in done:
                done.add(place)
                found.append((layer, place[1]))
            continue
        if place in open_:
            raise ConfigurationError(f"the model's layers take each other's outputs in a circle, at {place[0]!r}")
        open_.add(place)
        ahead += missing
    return found
