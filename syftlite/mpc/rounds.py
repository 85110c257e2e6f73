"""Rounds: what a protocol waits for, and what steps protocols from one to the next. No event loop, and no transport.

    Round       what a coroutine yields: its parts go to every other holder, and for each part come theirs, in the order of their indices
    together    independent protocols in step: what they send in the same round goes in one message
    abreast     the same of protocols whose correlations are numbered as if each began when the one before had ended
    run_local   steps all holders of one process, in one thread, passing what they send by reference
    run_dry     steps a `Recorder`, which sends nothing

Never write to what was passed to a round: in memory the others hold the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from syftlite.errors import ProtocolError

if TYPE_CHECKING:
    from syftlite.mpc.party import Recorder, Shareholder

T = TypeVar("T")
Protocol = Coroutine[Any, Any, T]


class Round:
    """One message to every other holder, of ``parts``, tensors or arrays. What it gives are, for each part, those of the others like it."""

    __slots__ = ("parts", "party")

    def __init__(self, party: Shareholder, parts: Sequence[Any]) -> None:
        self.party, self.parts = party, parts

    def __await__(self) -> Generator[Round, list[list[Any]], list[list[Any]]]:
        return (yield self)

    def count(self) -> Sequence[Any]:
        """What to send, counted by whoever carries it: rounds that travel together are one."""
        self.party.rounds += 1
        self.party.sent += message_bytes(self.parts) * (self.party.holders - 1)
        return self.parts


def message_bytes(parts: Sequence[Any]) -> int:
    """Of one message: if it has several parts, each begins at a multiple of 8."""
    return parts[0].nbytes if len(parts) == 1 else sum(-(-part.nbytes // 8) * 8 for part in parts)


async def together(party: Shareholder, *protocols: Protocol[Any]) -> list[Any]:
    """The results of independent protocols that run in step: one message a round for all of them."""
    results: list[Any] = [None] * len(protocols)
    live: dict[int, Protocol[Any]] = dict(enumerate(protocols))
    waiting: dict[int, list[list[Any]] | None] = dict.fromkeys(live)
    try:
        while outs := _stepped(live, waiting, results):
            theirs = iter(await Round(party, [part for parts in outs.values() for part in parts]))
            waiting = {i: list(itertools.islice(theirs, len(parts))) for i, parts in outs.items()}
        return results
    finally:
        for protocol in protocols:
            protocol.close()


async def abreast(party: Shareholder, protocols: Sequence[tuple[int, Callable[[Any], Protocol[Any]]]]) -> list[Any]:
    """The results of independent protocols, each given as (how many correlations it draws, what starts it with a party). All of them run
    in step; the provider deals for one after the other. Raises `ProtocolError` if one drew another number of them."""
    if len(protocols) == 1:
        return [await protocols[0][1](party)]
    ends = list(itertools.accumulate((draws for draws, _ in protocols), initial=party.number))
    holders = [party.beside(number) for number in ends[:-1]]
    party.number = ends[-1]
    results = await together(party, *[start(holder) for (_, start), holder in zip(protocols, holders, strict=True)])
    if [holder.number for holder in holders] != ends[1:]:
        raise ProtocolError("a protocol drew another number of correlations than its dry run")
    party.corrected += sum(holder.corrected for holder in holders)
    return results


def _stepped(
    live: dict[int, Protocol[Any]], waiting: Mapping[int, list[list[Any]] | None], results: list[Any]
) -> dict[int, Sequence[Any]]:
    """What each protocol sends next; those that end leave ``live`` for ``results``."""
    outs: dict[int, Sequence[Any]] = {}
    for i, protocol in list(live.items()):
        try:
            outs[i] = protocol.send(waiting[i]).parts
        except StopIteration as done:
            results[i] = done.value
            del live[i]
    return outs


def run_local(coroutines: Sequence[Protocol[T]]) -> list[T]:
    """Step the holders of one process, in one thread, to completion; their results in the same order."""
    waiting: list[Any] = [None] * len(coroutines)
    results: list[Any] = []
    try:
        while True:
            rounds: list[Round] = []
            for coroutine, got in zip(coroutines, waiting):
                try:
                    rounds.append(coroutine.send(got))
                except StopIteration as done:
                    results.append(done.value)
            if not rounds:
                return results
            if results or not _in_step(rounds):
                raise ProtocolError("the holders are out of step: they run different protocols, or their operands differ in shape")
            messages = [r.count() for r in rounds]
            waiting = [[list(parts[:i] + parts[i + 1 :]) for parts in zip(*messages)] for i in range(len(messages))]
    finally:
        for coroutine in coroutines:
            coroutine.close()


def _in_step(rounds: list[Round]) -> bool:
    """Whether all holders send the same kind of message."""
    shapes = [[(part.shape, part.dtype) for part in r.parts] for r in rounds]
    return all(s == shapes[0] for s in shapes[1:])


def run_dry(coroutine: Protocol[T], recorder: Recorder, pause: Callable[[], None] = lambda: None) -> T:
    """Run a protocol of a `Recorder` to its end; ``pause`` is called before each round."""
    got: list[list[Any]] | None = None
    while True:
        pause()
        try:
            got = [[part] * (recorder.holders - 1) for part in coroutine.send(got).count()]
        except StopIteration as done:
            result: T = done.value
            return result
