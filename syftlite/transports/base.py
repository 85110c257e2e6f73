"""The seam: what a client of a worker needs of whatever carries its messages.

    cast(message, site)     no answer is expected; `site` is where the user wrote the operation
    ask(kind, *fields)      waits for the answer, raises the error that it carries: begin, then finish
    drops                   ids to forget, appended by anyone at any time (also by `__del__`), sent with what comes next
    release(number)         the same for what takes much memory: forgotten before what comes next is carried out
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from types import CodeType
from typing import Any

import torch

from syftlite.errors import rebuild
from syftlite.ops.table import TABLE, VERSION
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_ITEMS
from syftlite.wire.messages import Message

Site = tuple[CodeType, int] | None
"""A place in a program: code object and instruction offset."""

Progress = Callable[[int], None]
"""Told how many bytes of an upload have been sent."""

MAX_SITES = 1 << 16


class Transport(ABC):
    """Carries one session's messages to worker ``worker``. ``prefix`` is the session's; ``principal`` and ``role`` who we are there."""

    worker: str
    prefix: int
    principal: str
    role: str
    drops: deque[int]
    uri: str | None = None  # where other workers reach this one; None for one that they cannot
    here = False  # whether the worker computes in this process

    def __init__(self) -> None:
        self.drops = deque()
        self.sites: list[Site] = []
        """Where messages were written, by their number modulo `MAX_SITES`: it grows to that length as a session goes on."""

    @property
    def open(self) -> bool:
        """Whether the session still stands, as far as is known."""
        return True

    @abstractmethod
    def cast(self, message: Message, site: Site = None) -> None:
        """Send ``message`` some time soon, after all that this thread has cast before."""

    def release(self, number: int) -> None:
        """Have ``number`` forgotten before what is cast next is carried out: its memory is wanted. Called by anyone at any time."""
        self.drops.append(number)

    def ends(self, count: int) -> list[Message]:
        """The first ``count`` of `drops`, which they leave, in as many messages as it takes."""
        sizes = [min(MAX_ITEMS, count - at) for at in range(0, count, MAX_ITEMS)]
        return [(m.DROP, [self.drops.popleft() for _ in range(size)]) for size in sizes]

    def hold(self, message: Message, site: Site = None) -> None:
        """As `cast`, for whoever is about to `flush` or to ask something: until then it stays here."""
        self.cast(message, site)

    def ask(self, kind: int, *fields: Any) -> Message:
        """Send (kind, request, *fields) after all that this thread has cast, and return the answer. Raises what it tells of."""
        return self.finish(self.begin(kind, *fields))

    @abstractmethod
    def begin(self, kind: int, *fields: Any) -> int:
        """Send (kind, request, *fields) after all that this thread has cast, and return the request's number for `finish`."""

    @abstractmethod
    def finish(self, request: int, within: float | None = None) -> Message:
        """The answer to ``request``, once. Raises what it tells of, and TimeoutError if it does not come ``within`` so many seconds."""

    def forget(self, request: int) -> None:  # noqa: B027  in memory an answer that nobody takes is nowhere
        """The answer to ``request`` is not wanted any more."""

    def flush(self) -> None:  # noqa: B027  where messages are carried out at once nothing waits
        """Send what has been cast, now."""

    @abstractmethod
    def put(
        self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str, progress: Progress | None = None
    ) -> None:
        """Store ``tensor`` at the worker under id ``number``. ``progress`` is called with the bytes sent so far, while a large one goes."""

    def give(self, number: int, tensor: torch.Tensor, tags: tuple[str, ...], description: str) -> None:
        """As `put`, of a tensor whose memory is nobody else's: a worker in this process need not copy it."""
        self.put(number, tensor, tags, description)

    @abstractmethod
    def close(self) -> None:
        """End the session; its objects go."""

    def place(self, number: int, site: Site) -> None:
        """Note where message ``number`` was written."""
        at = number % MAX_SITES
        try:
            self.sites[at] = site
        except IndexError:
            self.sites.extend([None] * min(MAX_SITES - len(self.sites), max(256, len(self.sites), at + 1 - len(self.sites))))
            self.sites[at] = site

    def unwrap(self, answer: Message) -> Message:
        """``answer``, or the error that it tells of, raised as its own class with the operator and the line that caused it."""
        if answer[0] != m.ERROR:
            return answer
        _, _, code, text, operator, origin = answer
        if 0 < operator < VERSION:
            text += f"\n  in {TABLE[operator].name} on {self.worker}, written at {where(self._site(origin % MAX_SITES))}"  # type: ignore[union-attr]
        raise rebuild(code, text)

    def _site(self, at: int) -> Site:
        return self.sites[at] if at < len(self.sites) else None


def where(site: Site) -> str:
    """``site`` as file:line, in function."""
    if site is None:
        return "a place no longer known"
    code, offset = site
    line = next((line for start, end, line in code.co_lines() if start <= offset < end), None)
    return f"{code.co_filename}:{line or code.co_firstlineno}, in {code.co_name}"
