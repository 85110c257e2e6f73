"""A group of holders and its provider in one thread, with every message, and optionally all randomness, in the test's hands."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from syftlite.mpc.bits import tensor
from syftlite.mpc.correlations import FREE, SENT, layout
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernel import plan
from syftlite.mpc.kernels import KERNELS, NUMBERS
from syftlite.mpc.party import Keys, Party, group_keys
from syftlite.mpc.replicated import THIRD, Pair, Replica, Third, dealer_of
from syftlite.mpc.ring import Z64, Ring, reveal, share
from syftlite.mpc.rounds import Round, run_local


class Tape:
    """In place of a `Source`: what was taken for each purpose, drawn once, kept, and changeable."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.taken: dict[tuple[Any, ...], Tensor] = {}

    def array(self, nbytes: int, *purpose: Any) -> Any:
        """As `Source` has it."""
        return self.take(nbytes, *purpose).numpy()

    def take(self, nbytes: int, *purpose: Any) -> Tensor:
        return self.place(nbytes, *purpose).clone()

    def place(self, nbytes: int, *purpose: Any) -> Tensor:
        """Where the bytes of a purpose are kept."""
        purpose = self.key(purpose)
        kept = self.taken.get(purpose, torch.empty(0, dtype=torch.uint8))
        if kept.numel() < nbytes:
            more = torch.randint(0, 256, (nbytes - kept.numel(),), dtype=torch.uint8, generator=self.generator)
            kept = self.taken[purpose] = torch.cat([kept, more])
        return kept[:nbytes]

    def key(self, purpose: tuple[Any, ...]) -> tuple[Any, ...]:
        """What of a purpose tells it from others: all, unless a test plants a flaw."""
        return purpose


class First(Party):
    """Holder 0: it is stepped first, so what it asks for is dealt at that moment."""

    group: Group

    def correlated(self, kind: str, *args: Any) -> dict[str, Tensor]:
        self.group.deal(self.number, kind, args)
        return super().correlated(kind, *args)


class Group:
    """``holders`` parties and a `Dealer`; ``tapes`` replace the streams that each holder shares with the provider."""

    def __init__(self, holders: int = 2, ring: Ring = Z64, secret: bytes | None = None, tapes: Sequence[Any] | None = None) -> None:
        keys: list[Keys] = group_keys(secret or os.urandom(32), holders)
        self.holders, self.ring = holders, ring
        self.dealer = Dealer([key.provider for key in keys], ring)
        self.asked: list[tuple[str, tuple[Any, ...]]] = []
        self.corrections: dict[int, Tensor] = {}
        self.messages: list[list[Tensor]] = [[] for _ in keys]
        self.parts: list[list[list[Tensor]]] = [[] for _ in keys]
        make = [First, *[Party] * (holders - 1)]
        self.parties = [make[i](i, holders, keys[i], self.correction if i == holders - 1 else None, ring) for i in range(holders)]
        self.parties[0].group = self  # type: ignore[attr-defined]
        if tapes is not None:
            for party, tape in zip(self.parties, tapes):
                party.source = self.dealer.sources[party.index] = tape

    def deal(self, number: int, kind: str, args: tuple[Any, ...]) -> None:
        self.asked += [("", ())] * (number + 1 - len(self.asked))  # protocols that run abreast ask in an order of their own
        assert not self.asked[number][0], "a correlation is dealt once"
        self.asked[number] = (kind, args)
        self.corrections[number] = self.dealer.deal(number, kind, *args)

    def correction(self, number: int, nbytes: int) -> Tensor:
        return self.corrections[number].clone()

    def run(self, protocol: Callable[..., Any], *operands: Sequence[Any], **static: Any) -> list[Any]:
        """The holders' results; operands are lists with one entry a holder."""
        started = [protocol(p, *[o[p.index] for o in operands], **static) for p in self.parties]
        try:
            return run_local([tap(*each) for each in zip(started, self.messages, self.parts)])
        finally:
            for coroutine in started:
                coroutine.close()

    def kernel(self, name: str, *operands: Sequence[Any], **static: Any) -> Any:
        """A kernel's results: one list with an entry a holder, or a tuple of such lists."""
        out = self.run(KERNELS[NUMBERS[name]].run, *operands, **static)
        return tuple(list(column) for column in zip(*out)) if isinstance(out[0], tuple) else out

    def plain(self, name: str, *operands: Tensor, **static: Any) -> Any:
        """A kernel of plain operands, revealed."""
        out = self.kernel(name, *[share(x, self.holders) for x in operands], **static)
        return tuple(reveal(column, self.ring) for column in out) if isinstance(out, tuple) else reveal(out, self.ring)

    def cost(self, name: str, *operands: Any, **static: Any) -> tuple[int, int]:
        """(rounds, bytes that one holder sends to another) of a kernel of shares."""
        first = self.parties[0]
        rounds, sent = first.rounds, first.sent
        self.kernel(name, *operands, **static)
        return first.rounds - rounds, (first.sent - sent) // (self.holders - 1)

    def fields(self, number: int, holder: int) -> dict[str, Tensor]:
        """One holder's fields of a correlation that was dealt: what the provider can compute."""
        kind, args = self.asked[number]
        found, source = layout(kind, args), self.dealer.sources[holder]
        parts = {FREE: source.array(found.free, number, found.label, FREE)}
        last = holder == self.holders - 1
        parts[SENT] = self.corrections[number].clone().numpy() if last else source.array(found.sent, number, found.label, SENT)
        return {field.name: tensor(field.view(parts)) for field in found.fields}


class Trio(Group):
    """Holders of replicated shares. ``parties`` are 0 and 1; the third runs first, for it waits for nobody."""

    def __init__(self, ring: Ring = Z64, tapes: Sequence[Any] | None = None) -> None:
        super().__init__(2, ring, tapes=tapes)
        keys = group_keys(os.urandom(32), 3)
        dealer = dealer_of(keys[THIRD].peers, ring)
        self.parties = [Replica(i, keys[i].peers, self.correction, ring) for i in (0, 1)]
        for party, mine, theirs in zip(self.parties, self.dealer.sources, dealer.sources, strict=True):
            party.source = mine if tapes is not None else theirs
        if tapes is None:
            self.dealer = dealer
        self.third = Third(keys[THIRD].peers, self.dealer, self.sink, ring)

    def sink(self, number: int, kind: str, *args: Any, known: Any = None) -> None:
        self.corrections[number] = self.dealer.deal(number, kind, *args, known=known)

    def kernel(self, name: str, *operands: Sequence[Pair], **static: Any) -> Any:
        """A kernel's results, each a list of the three holders' pairs. Operands are such lists."""
        entry = KERNELS[NUMBERS[f"replicated_{name}"]]
        flat = [[part for operand in operands for part in operand[i]] for i in range(3)]
        self.asked += plan(entry.number, [tuple(x.shape) for x in flat[0]], self.ring, **static).requests
        third = entry.run(self.third, *flat[2], **static)
        try:
            third.send(None)
            raise AssertionError("the third holder waits for a message")
        except StopIteration as done:
            last = done.value
        outs = [*self.run(entry.run, *zip(*flat[:2]), **static), last]
        results = [[Pair(*out[i : i + 2]) for out in outs] for i in range(0, len(last), 2)]
        return tuple(results) if len(results) > 1 else results[0]

    def plain(self, name: str, *operands: Tensor, **static: Any) -> Any:
        """A kernel of plain operands, revealed; both copies of each component agree."""
        out = self.kernel(name, *[pairs(share(x, 3)) for x in operands], **static)
        return tuple(map(self.value, out)) if isinstance(out, tuple) else self.value(out)

    def value(self, shares: Sequence[Pair]) -> Tensor:
        for i in range(3):
            assert torch.equal(shares[i].next, shares[(i + 1) % 3].own)
        return reveal([pair.own for pair in shares], self.ring)


def pairs(components: Sequence[Tensor]) -> list[Pair]:
    """What each of three holders has of the components."""
    return [Pair(components[i], components[(i + 1) % 3]) for i in range(3)]


def _message(parts: list[Tensor]) -> Tensor:
    """One part as it is; the bytes of several, each from a multiple of 8 on."""
    if len(parts) == 1:
        return parts[0]
    return torch.cat([torch.nn.functional.pad(part.reshape(-1).view(torch.uint8), (0, -part.nbytes % 8)) for part in parts])


def tap(coroutine: Any, said: list[Tensor], parts: list[list[Tensor]]) -> Generator[Round, Any, Any]:
    """The same coroutine, its messages copied to ``said``, and to ``parts`` what independent protocols sent in each."""
    got = None
    while True:
        try:
            step = coroutine.send(got)
        except StopIteration as done:
            return done.value
        parts.append([tensor(part).clone() for part in step.parts])
        said.append(_message(parts[-1]))
        got = yield step
