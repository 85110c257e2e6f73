"""Requests for what layers are around: asked of the child, answered with the layer."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any

from syftlite.errors import ApprovalRequiredError

Layer = Callable[[Any], Any]


class LayeredRequest:
    """A request to the owners of what is inside a layer. `get` gives it with the layer around it; all else is the request's own."""

    def __init__(self, request: Any, layer: Layer) -> None:
        self._request, self._layer = request, layer

    def get(self) -> Any:
        """What was approved, once. Raises `GetNotPermittedError`."""
        return self._layer(self._request.get())

    def __await__(self) -> Generator[Any, None, str]:
        """The state once the owner has decided."""
        found: Generator[Any, None, str] = self._request.__await__()
        return found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._request, name)

    def __repr__(self) -> str:
        return repr(self._request)


@contextmanager
def asked_for(layer: Layer) -> Iterator[None]:
    """Have the request of an `ApprovalRequiredError` give what it asks for with ``layer`` around it."""
    try:
        yield
    except ApprovalRequiredError as refused:
        refused.request = LayeredRequest(refused.request, layer)
        raise
