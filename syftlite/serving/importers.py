"""Whatever a model comes as, its graph, compared with the original before anybody uses it.

    Graph                              itself
    torch.nn.Module                    run once, its ATen operators written down: torch_program.py
    torch.export.ExportedProgram       likewise
    Keras models                       keras/
    scikit-learn estimators            scikit_learn.py
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from syftlite.errors import Misuse
from syftlite.serving.graph import Graph
from syftlite.serving.keras.importer import from_keras, is_keras
from syftlite.serving.scikit_learn import from_sklearn
from syftlite.serving.torch_program import from_exported, from_module


def graph_of(model: Any, *, input_shape: Sequence[int] | None = None, example: Any = None) -> Graph:
    """The graph of ``model``. A module needs ``input_shape``, that of one row, or ``example``: a batch, or a tuple of them.

    Raises `UnsupportedLayerError`, by name of the layer, and `Misuse` for what is no model.
    """
    if isinstance(model, Graph):
        return model
    if isinstance(model, (str, Path)) or is_keras(model):  # before torch: a Keras model may be one of its modules
        return from_keras(model, input_shape=input_shape)
    if isinstance(model, nn.Module):
        if example is None and input_shape is None:
            raise Misuse("what does one input of this module look like? Give input_shape=(1, 28, 28), or example=images")
        given = (torch.zeros(3, *(input_shape or ())),) if example is None else example if isinstance(example, tuple) else (example,)
        return from_module(model, tuple(torch.as_tensor(x) for x in given))
    if isinstance(model, torch.export.ExportedProgram):
        return from_exported(model)
    if type(model).__module__.startswith("sklearn."):
        return from_sklearn(model)
    known = "a torch module, an exported program, a Keras model, a scikit-learn estimator or a Graph"
    raise Misuse(f"a {type(model).__name__} is no model: give {known}")
