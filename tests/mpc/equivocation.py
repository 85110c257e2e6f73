"""Perfect privacy, checked exactly, on the real code at full width.

For the view of all holders but one, and ANY other secret of that one, `equivocate` constructs randomness of the honest holder that gives
the identical view: the same messages, and the same corrections from the provider. If besides as many bytes are opened as free mask bytes
were dealt, that construction is a bijection on the honest holder's randomness, so the view has the same distribution for every secret.

In step with the rounds: the honest holder's message differs by what its mask must be moved by (`MASKS`: which free fields cover which round),
and what it expands of sent fields is moved until the corrections agree. A message of several protocols' parts is matched part by part: a
part is the next of the first correlation, in the order in which they were asked for, that has one of its size to send. Should that be the
wrong one, messages differ, and the test fails.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite.mpc import correlations
from syftlite.mpc.bits import levels
from syftlite.mpc.comparison import FOURS, LEAVES, PAIRS
from syftlite.mpc.correlations import FREE, SENT, Field
from syftlite.randomness import random_like

from .group import Group, Tape, Trio, pairs

Mask = tuple[str, int]
"""A free field and its sign in the message; XOR fields have none."""


def _tree(width: int, tree: tuple[int, ...] = PAIRS) -> list[list[Mask]]:
    return [[("r", 1)], *[[(f"x{h}", 0)] for h, _ in levels(width, *tree)]]


MASKS: dict[str, Callable[..., list[list[Mask]]]] = {
    "trunc": lambda *args: [[("r", 1)]],
    "square": lambda *args: [[("a", -1)]],
    "product": lambda *args: [[("a", -1), ("b", -1)]],
    "weight": lambda *args: [[("b", -1)]],
    "fixed": lambda *args: [[("a", -1)]],
    "sign": lambda w, width, low, tree: _tree(width, tree),
    "bit": lambda w, width, low, tree: [*_tree(width, tree), [("rho_bits", 0)]],
    "relu": lambda w, f, width, low, tree: [*_tree(width, tree), [("rho_bits", 0)]],
    "wave": lambda *args: [[("r", 1)]],
    "growth": lambda *args: [[("r", 1)]],
    "place": lambda *args: [[("r", 1)]],
    "bins": lambda w, count, width: [*_tree(width, LEAVES), [("rho_bits", 0)]],
    "equal": lambda w, width: [*_tree(width, FOURS), [("rho_bits", 0)]],
    "cross": lambda *args: [],
    "fresh": lambda n: [[("y", -1)]],
}
"""Kind -> the masks of its rounds, in order."""


class Verdict(NamedTuple):
    """What became of one equivocation."""

    same_messages: bool
    same_corrections: bool
    opened: int
    masks: int

    def __bool__(self) -> bool:
        return self.same_messages and self.same_corrections and self.opened == self.masks


Inputs = Sequence[Tensor]
"""One holder's operands."""


def equivocate(run: Callable[[Group, list[list[Tensor]]], Any], inputs: list[Inputs], other: Inputs, honest: int, seed: int = 0) -> Verdict:
    """The holders but ``honest`` see the same of ``inputs`` and of those with ``other`` in its place. ``run``: (group, operands)."""
    holders = len(inputs)
    moved = [other if i == honest else inputs[i] for i in range(holders)]

    def redealt(tapes: list[Tape], seen: Group) -> Group:
        now = Group(holders, tapes=tapes)
        for number, request in enumerate(seen.asked):
            now.deal(number, *request)
        return now

    return explained(lambda which, tapes: _played(Group(holders, tapes=tapes), run, which), inputs, moved, holders, honest, seed, redealt)


def equivocate_replicated(run: Callable[[Trio, Any], Any], xs: Inputs, others: Inputs, honest: int, seed: int = 0) -> Verdict:
    """The same for one of holders 0 and 1 of replicated shares: it sees the same of ``xs`` and of ``others``, if it has the same shares of
    both; the component that it does not have is the only one that differs. What is dealt depends on the third holder's values, so it deals
    anew each time."""
    missing = (1 - honest + 2) % 3
    first = [[random_like(tuple(x.shape)) for _ in range(3)] for x in xs]
    for x, parts in zip(xs, first, strict=True):
        parts[missing] = x - sum(parts[:missing] + parts[missing + 1 :])
    second = [list(parts) for parts in first]
    for x, parts in zip(others, second, strict=True):
        parts[missing] = x - sum(parts[:missing] + parts[missing + 1 :])

    def play(components: Any, tapes: list[Tape]) -> Trio:
        return _played(Trio(tapes=tapes), run, [[pairs(parts)[i] for parts in components] for i in range(3)])

    return explained(play, first, second, 2, honest, seed, lambda tapes, seen: play(second, tapes))


def explained(
    play: Callable[[Any, list[Tape]], Any],
    inputs: Any,
    moved: Any,
    holders: int,
    honest: int,
    seed: int,
    dealt: Callable[[list[Tape], Group], Group],
) -> Verdict:
    """Whether randomness of ``honest`` is found with which the others see the same when ``moved`` takes the place of ``inputs``. ``dealt``:
    what would be dealt then."""
    tapes = [Tape(seed * 100 + i) for i in range(holders)]
    seen = play(inputs, tapes)
    rounds = _rounds(seen)
    for number, parts in enumerate(rounds):
        _match_corrections(tapes, seen, honest, dealt)
        now = play(moved, tapes)
        if number < len(now.messages[honest]) and now.asked == seen.asked:
            for part, (correlation, masks) in enumerate(parts):
                want, got = seen.parts[honest][number][part], now.parts[honest][number][part]
                _match_message(want.view(-1), got.view(-1), now, tapes[honest], correlation, masks)
    _match_corrections(tapes, seen, honest, dealt)
    now = play(moved, tapes)
    same = len(now.messages[honest]) == len(seen.messages[honest]) == len(rounds) and all(
        torch.equal(a, b) for a, b in zip(now.messages[honest], seen.messages[honest])
    )
    corrections = honest == holders - 1 or all(torch.equal(now.corrections[k], c) for k, c in seen.corrections.items())
    opened = sum(part.numel() * part.itemsize for parts in seen.parts[honest] for part in parts)
    return Verdict(same, corrections, opened, _free_bytes(seen))


def _played(group: Any, run: Callable[..., Any], inputs: Any) -> Any:
    run(group, [list(operand) for operand in zip(*inputs)])
    return group


def _rounds(group: Group) -> list[list[tuple[int, list[Mask]]]]:
    """(correlation's number, masks) of each part of each round."""
    left = [MASKS[kind](*args) for kind, args in group.asked]
    fields = [{f.name: f for f in correlations.layout(*request).fields} for request in group.asked]
    rounds = []
    for parts in group.parts[0]:
        taken: list[tuple[int, list[Mask]]] = []
        for part in parts:
            for number, masks in enumerate(left):
                size = sum(fields[number][name].stop - fields[number][name].start for name, _ in masks[0]) if masks else 0
                if size == part.numel() * part.itemsize and number not in [n for n, _ in taken]:
                    taken.append((number, masks.pop(0)))
                    break
        rounds.append(taken)
    return rounds


def _part(tape: Tape, group: Group, number: int, name: str) -> tuple[Field, Tensor]:
    """A field's place on a holder's tape, to be written to."""
    found = correlations.layout(*group.asked[number])
    field = next(f for f in found.fields if f.name == name)
    size = found.free if field.part == FREE else found.sent
    return field, tape.place(size, number, found.label, field.part)[field.start : field.stop].view(field.dtype)


def _match_message(want: Tensor, got: Tensor, now: Group, tape: Tape, correlation: int, masks: list[Mask]) -> None:
    at = 0
    for name, sign in masks:
        field, share = _part(tape, now, correlation, name)
        size = share.numel()
        target, current = want[at : at + size], got[at : at + size]
        if field.xor:
            share ^= current ^ target
        else:
            share += (target - current) * sign
        at += size


def _match_corrections(tapes: list[Tape], seen: Group, honest: int, dealt: Callable[[list[Tape], Group], Group]) -> None:
    """Move the honest holder's shares of sent fields by what the corrections differ in; the last holder has none to move. What is asked for
    does not depend on secrets, and what a provider deals depends on the tapes alone."""
    if honest == len(tapes) - 1:
        return
    now = dealt(tapes, seen)
    for number, request in enumerate(seen.asked):
        for field in correlations.layout(*request).fields:
            if field.part == SENT:
                current, target = (g.corrections[number][field.start : field.stop].view(field.dtype) for g in (now, seen))
                _, share = _part(tapes[honest], now, number, field.name)
                if field.xor:
                    share ^= current ^ target
                else:
                    share += current - target


def _free_bytes(group: Group) -> int:
    """Bytes of masks dealt, each place counted once."""
    total = 0
    for request in group.asked:
        places = {(f.start, f.stop) for f in correlations.layout(*request).fields if f.part == FREE}
        total += sum(stop - start for start, stop in places)
    return total
