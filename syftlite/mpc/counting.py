"""What secret-shared computation costs: rounds and bytes of a block, known without asking anyone, since neither depends on values.

    with sy.mpc.count() as cost:
        y = model(x)
    cost.rounds, cost.sent, cost.dealt
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from syftlite.mpc.kernel import Plan


@dataclass
class Cost:
    """``rounds``: messages that a holder waits for, one after the other. ``sent``: bytes that one holder sends, to all others.
    ``dealt``: bytes that the provider sends to the last holder; to the others it sends none."""

    rounds: int = 0
    sent: int = 0
    dealt: int = 0
    kernels: int = 0

    def add(self, planned: Plan, holders: int) -> None:
        """Add one run of a kernel."""
        self.rounds += planned.rounds
        self.sent += planned.sent * (holders - 1)
        self.dealt += planned.dealt
        self.kernels += 1

    def __str__(self) -> str:
        kernels = f"{self.kernels} kernel{'' if self.kernels == 1 else 's'}"
        rounds = f"{self.rounds} round{'' if self.rounds == 1 else 's'}"
        return f"{rounds}, {self.sent:,} bytes each way, {self.dealt:,} bytes from the provider, in {kernels}"


_open: ContextVar[tuple[Cost, ...]] = ContextVar("open", default=())


before_end: list[Callable[[], None]] = []
"""Called at a block's end: what computes what waits there (tensors/fixed.py)."""


@contextmanager
def count() -> Iterator[Cost]:
    """The cost of the block: it grows while the block computes. What it made and nobody has asked for is computed at its end."""
    cost = Cost()
    token = _open.set((*_open.get(), cost))
    try:
        yield cost
    finally:
        for finish in before_end:
            finish()
        _open.reset(token)


def counted(planned: Plan, holders: int) -> None:
    """Note a kernel that has been sent out."""
    for cost in _open.get():
        cost.add(planned, holders)
