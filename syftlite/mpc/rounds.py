"""Rounds: what a protocol waits for, and what steps protocols from one to the next. No event loop, and no transport.

    Round       what a coroutine yields: `out` goes to every other holder, and their tensors come back, in the order of their indices
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

import torch
from torch import Tensor

from syftlite.errors import ProtocolError
from syftlite.mpc.bits import tensor

if TYPE_CHECKING:
    from syftlite.mpc.party import Recorder, Shareholder

T = TypeVar("T")
Protocol = Coroutine[Any, Any, T]


class Round:
    """Send ``out``, a tensor or an array, to every other holder; receive one like it from each."""

    __slots__ = ("out", "party")

    def __init__(self, party: Shareholder, out: Any) -> None:
        self.party, self.out = party, out

    def __await__(self) -> Generator[Round, list[Any], list[Any]]:
        return (yield self)

    def count(self) -> Any:
        """What to send, counted by whoever carries it: rounds that travel together are one."""
        out = self.out
        self.counted(out.nbytes)
        return out

    def counted(self, nbytes: int) -> None:
        """Count one round of ``nbytes`` to each other holder."""
        self.party.rounds += 1
        self.party.sent += nbytes * (self.party.holders - 1)


class Joint(Round):
    """A round of several tensors: one message of `out`, their bytes one after the other. In memory they pass as they are."""

    __slots__ = ("parts",)

    def __init__(self, party: Shareholder, parts: list[Any]) -> None:
        self.party, self.parts = party, parts

    @property
    def out(self) -> Tensor:
        """All parts as one tensor of bytes."""
        return torch.cat([_bytes(tensor(part)) for part in self.parts])

    def split(self, theirs: list[Tensor]) -> list[list[Tensor]]:
        """What came in one message of each other holder, for each part the holders' tensors."""
        split, at = [], 0
        for part in map(tensor, self.parts):
            nbytes = part.nbytes
            split.append([message[at : at + nbytes].view(part.dtype).view(part.shape) for message in theirs])
            at += -(-nbytes // 8) * 8
        return split


async def together(party: Shareholder, *protocols: Protocol[Any]) -> list[Any]:
    """The results of independent protocols that run in step: one message a round for all of them."""
    results: list[Any] = [None] * len(protocols)
    live: dict[int, Protocol[Any]] = dict(enumerate(protocols))
    waiting: dict[int, list[Any] | None] = dict.fromkeys(live)
    try:
        while outs := _stepped(live, waiting, results):
            if len(outs) == 1:
                ((only, out),) = outs.items()
                waiting[only] = await Round(party, out)
            else:
                joint = Joint(party, list(outs.values()))
                theirs: Any = await joint
                waiting = dict(zip(outs, theirs if isinstance(theirs[0], list) else joint.split(theirs)))
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


def _stepped(live: dict[int, Protocol[Any]], waiting: Mapping[int, list[Any] | None], results: list[Any]) -> dict[int, Any]:
    """What each protocol sends next; those that end leave ``live`` for ``results``."""
    outs: dict[int, Any] = {}
    for i, protocol in list(live.items()):
        try:
            outs[i] = protocol.send(waiting[i]).out
        except StopIteration as done:
            results[i] = done.value
            del live[i]
    return outs


def _bytes(x: Tensor) -> Tensor:
    """``x`` as bytes, a multiple of 8 of them: every part stays aligned for its type."""
    x = x.view(-1).view(torch.uint8)
    return x if len(x) % 8 == 0 else torch.nn.functional.pad(x, (0, -len(x) % 8))


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
            waiting = _passed(rounds)
    finally:
        for coroutine in coroutines:
            coroutine.close()


def _in_step(rounds: list[Round]) -> bool:
    """Whether all holders send the same kind of message."""
    shapes = [[(x.shape, x.dtype) for x in (r.parts if isinstance(r, Joint) else [r.out])] for r in rounds]
    return all(s == shapes[0] for s in shapes[1:])


def _passed(rounds: list[Round]) -> list[Any]:
    """What each holder gets: the others' tensors, of a joint round for each part."""
    messages = [r.parts if isinstance(r, Joint) else [r.out] for r in rounds]
    for r, parts in zip(rounds, messages):
        r.counted(sum(-(-x.nbytes // 8) * 8 for x in parts) if isinstance(r, Joint) else parts[0].nbytes)
    passed = [[[m[k] for j, m in enumerate(messages) if j != i] for k in range(len(messages[0]))] for i in range(len(rounds))]
    return passed if isinstance(rounds[0], Joint) else [parts[0] for parts in passed]


def run_dry(coroutine: Protocol[T], recorder: Recorder, pause: Callable[[], None] = lambda: None) -> T:
    """Run a protocol of a `Recorder` to its end; ``pause`` is called before each round."""
    got: list[Any] | None = None
    while True:
        pause()
        try:
            got = [coroutine.send(got).count()] * (recorder.holders - 1)
        except StopIteration as done:
            result: T = done.value
            return result
