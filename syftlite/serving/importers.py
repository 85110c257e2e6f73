"""Whatever a model comes as, its graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from syftlite.errors import Misuse
from syftlite.serving.graph import Graph
from syftlite.serving.keras.importer import from_keras, is_keras


def graph_of(model: Any, *, input_shape: tuple[int, ...] | None = None, example: Any = None) -> Graph:
    """The graph of ``model``."""
    if isinstance(model, Graph):
        return model
    if isinstance(model, (str, Path)) or is_keras(model):
        return from_keras(model, input_shape=input_shape)
    raise Misuse(f"a {type(model).__name__} is no model")
