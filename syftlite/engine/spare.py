"""Spare time: what a served model does ahead of use while nothing runs, job by job on a thread of its own.

    begin, end     of a run: while there is one, and for a moment after, no job begins
    _job           what is to be done next, of the class that has the work; it is asked with the lock held, and does nothing yet
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from syftlite._threads import Daemon

QUIET = 0.004
"""Seconds without a run after which a job may begin: the holders' processors may be the provider's too."""

Job = Callable[[], None]


class SpareTime:
    """Of one model. ``name``: its thread's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._busy = 0
        self._quiet_since = 0.0
        self._ended = False
        self._changed = threading.Condition()

    def _job(self) -> Job | None:
        """What to do next; None while nothing is wanted."""
        raise NotImplementedError

    def start(self) -> None:
        """Use it from now on."""
        Daemon(self._work, self._name, self.stop)

    def begin(self) -> None:
        """A run begins."""
        with self._changed:
            self._busy += 1

    def end(self) -> None:
        """A run has ended."""
        with self._changed:
            self._busy -= 1
            self._quiet_since = time.monotonic()
            self._changed.notify_all()

    def stop(self) -> None:
        """Nothing more is needed: the job that is being done is the last."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def pause(self) -> None:
        """For a long job to call: let a run that has begun have the processor, and the interpreter."""
        with self._changed:
            self._changed.wait_for(lambda: not self._busy or self._ended)

    def _work(self) -> None:
        while (job := self._next()) is not None:
            job()

    def _next(self) -> Job | None:
        """The next job, when nothing has run for a moment; None at the end."""
        with self._changed:
            while not self._ended:
                left = self._quiet_since + QUIET - time.monotonic()
                if not self._busy and left > 0:
                    self._changed.wait(left)
                elif not self._busy and (job := self._job()) is not None:
                    return job
                else:
                    self._changed.wait()
            return None
