"""Whatever a model comes as, its graph."""

from __future__ import annotations

from typing import Any

from syftlite.errors import Misuse
from syftlite.serving.graph import Graph


def graph_of(model: Any, *, input_shape: tuple[int, ...] | None = None, example: Any = None) -> Graph:
    """The graph of ``model``."""
    if isinstance(model, Graph):
        return model
    raise Misuse(f"a {type(model).__name__} is no model")
