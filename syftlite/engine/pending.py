"""An answer that comes later: the message was taken, the session goes on, and whoever has the answer settles it, on any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from syftlite.wire.messages import Message


class Pending:
    """What a handler returns in place of an answer. It is settled once; later ones are ignored."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._answer: Message | None = None
        self._then: Callable[[Message], None] | None = None

    def settle(self, answer: Message) -> None:
        """Give the answer."""
        with self._changed:
            if self._answer is not None:
                return
            self._answer, then = answer, self._then
            self._changed.notify_all()
        if then is not None:
            then(answer)

    def then(self, action: Callable[[Message], None]) -> None:
        """Have ``action`` called with the answer: now, if it is there, or by whoever settles it."""
        with self._changed:
            self._then = action
            answer = self._answer
        if answer is not None:
            action(answer)

    def wait(self, seconds: float | None) -> Message | None:
        """The answer, or None if it does not come within ``seconds``."""
        with self._changed:
            self._changed.wait_for(lambda: self._answer is not None, seconds)
            return self._answer
