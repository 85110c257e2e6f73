"""Ctrl-C between the pieces of what goes out or comes in, not within one: half a piece would end the connection, half an operator be lost.

    with Held() as held:
        for piece in pieces:
            held.between()      raises here what came meanwhile
            send(piece)
            held.waiting = True     while nothing is half done, it need not wait
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # without the enumerations that `signal` makes: 1 us, not 20
import threading
import time
from collections.abc import Callable
from typing import Any

_SIGINT = int(_signal.SIGINT)
PATIENCE = 1.0
"""Seconds that a piece may take before Ctrl-C, or at any time another one, breaks into it, if it may at all."""


class Held:
    """While it is on, SIGINT's handler of the main thread waits for `between`, or the end; with ``whole`` however long a piece takes."""

    def __init__(self, *, whole: bool = False) -> None:
        self._whole = whole
        self._handler: Callable[..., Any] | None = None
        self._came: tuple[Any, ...] = ()
        self.waiting = False
        self._began = time.monotonic()

    def between(self) -> None:
        """Run the handler if it was called for: mostly it raises KeyboardInterrupt."""
        if not self._whole:
            self._began = time.monotonic()
        if self._came and self._handler is not None:
            came, self._came = self._came, ()
            self._handler(*came)

    def _late(self) -> bool:
        return not self._whole and time.monotonic() - self._began > PATIENCE

    def _note(self, *told: Any) -> None:
        if self._handler is not None and (self.waiting or self._came or self._late()):
            self._came = ()
            self._handler(*told)
        else:
            self._came = told

    def __enter__(self) -> Held:
        if threading.current_thread() is not threading.main_thread():
            return self
        handler = _signal.getsignal(_SIGINT)
        if callable(handler):
            self._handler = handler
            _signal.signal(_SIGINT, self._note)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._handler is None:
            return
        _signal.signal(_SIGINT, self._handler)
        if error is None and self._came:
            self.between()
