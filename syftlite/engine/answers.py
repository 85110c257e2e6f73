"""Answers: what fits one, how a tensor is described in one, and the one that tells of an error."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from syftlite.engine.executor import Poisoned
from syftlite.engine.session import Session, Stored
from syftlite.errors import FrameTooLargeError, QuotaExceededError, RemoteError, code_of
from syftlite.ops.dtypes import number_of
from syftlite.wire import codec
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_ID, MAX_TEXT
from syftlite.wire.messages import Message

log = logging.getLogger("syftlite.engine")
PAGE = 32 * 1024
"""Bytes of a FOUND or RELEASES answer; more than fit are asked for again."""


def room_of(texts: Sequence[str]) -> int:
    """Bytes that ``texts`` take in a head, at most."""
    return sum(4 * len(text) + 5 for text in texts)


def must_fit(answer: Message) -> None:
    """Raise `QuotaExceededError` for an answer whose head would be too large."""
    try:
        codec.pack(codec.Head(MAX_ID, MAX_ID, MAX_ID, 0), [answer])
    except FrameTooLargeError:
        raise QuotaExceededError(f"what describes {len(answer[2]):,} values does not fit one answer: ask for fewer at once") from None


def afford(session: Session, stored: Sequence[Stored]) -> None:
    """Raise `QuotaExceededError` unless each value fits once more: reading one that is not contiguous (an `expand`), or that another
    session may write to, makes a copy."""
    for tensor, cell in stored:
        if tensor is not None and (cell.fickle or not tensor.is_contiguous()):
            session.reserve(tensor.numel() * tensor.element_size())


def spec_of(tensor: torch.Tensor) -> tuple[int, tuple[int, ...], tuple[int, ...], int]:
    """The wire form of a tensor's spec."""
    return number_of(tensor.dtype), tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset())


def failure(message: Message, error: Exception) -> Message | None:
    """The answer that tells of ``error``; None for a message that has no answer, whose failure goes to the log."""
    if message[0] not in m.ANSWERED:
        log.info("%s failed: %s", m.FROM_CLIENT[message[0]].name, error)
        return None
    request = message[1]
    if isinstance(error, Poisoned):
        poison = error.poison
        return (m.ERROR, request, poison.code, poison.text[: MAX_TEXT], poison.operator, poison.origin)
    if code_of(error) == 1 and not isinstance(error, RemoteError):
        log.exception("internal error", exc_info=error)
        error = RemoteError("an internal error of the node; its log has the details")
    return (m.ERROR, request, code_of(error), str(error)[: MAX_TEXT], 0, 0)
