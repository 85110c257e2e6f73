"""Ctrl-C between the pieces of what goes out or comes in, not within one: half a piece would end the connection.

    with Held() as held:
        for piece in pieces:
            held.between()      raises here what came meanwhile
            send(piece)
            held.waiting = True     while nothing is half done, it need not wait
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from typing import Any

PATIENCE = 1.0
"""Seconds that a piece may take before Ctrl-C, or at any time another one, breaks into it."""


class Held:
    """While it is on, SIGINT's handler of the main thread waits for `between`, or the end."""

    def __init__(self) -> None:
        self._handler: Callable[..., Any] | None = None
        self._came: tuple[Any, ...] = ()
        self.waiting = False
        self._began = time.monotonic()

    def between(self) -> None:
        """Run the handler if it was called for: mostly it raises KeyboardInterrupt."""
        self._began = time.monotonic()
        if self._came and self._handler is not None:
            came, self._came = self._came, ()
            self._handler(*came)

    def _note(self, *told: Any) -> None:
        if self._handler is not None and (self.waiting or self._came or time.monotonic() - self._began > PATIENCE):
            self._came = ()
            self._handler(*told)
        else:
            self._came = told

    def __enter__(self) -> Held:
        handler = signal.getsignal(signal.SIGINT)
        if callable(handler) and threading.current_thread() is threading.main_thread():
            self._handler = handler
            signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if self._handler is None:
            return
        signal.signal(signal.SIGINT, self._handler)
        if error is None:
            self.between()
