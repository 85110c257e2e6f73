"""Sharing groups: this worker's part in secret-shared computation, as a holder of shares or as their provider.

    INVITE, JOIN     links to the other members; keys that each pair agrees on, which no client sees       -> Holder | Provider
    COMPUTE          a kernel of mpc/kernels.py on this holder's shares, with the other holders            -> Driver
    DEAL             the same kernel at the provider: shapes in, corrections for the last holder out
    REVEAL           a share re-randomised for release: the only form in which one leaves

The client conducts: it says which kernel, on which objects, in which order. Runs and correlations are counted here, and the first message
of every run carries a digest of all that the conductor said, so that it cannot give two holders different programs. Whatever goes wrong
in a run breaks the group: what was dealt for it is never used again, and its members join anew, with new keys.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from syftlite.engine.marks import Mark
from syftlite.errors import SharingAbortedError
from syftlite.mpc.kernel import Plan, Spec, WeightSpec, plan
from syftlite.mpc.party import Keys
from syftlite.mpc.products import Weight
from syftlite.policy.labels import PUBLIC

if TYPE_CHECKING:
    from syftlite.engine.holder import Holder
    from syftlite.engine.session import Session

Static = dict[str, Any]
SHARED = PUBLIC._replace(shared=True)


class Run:
    """One kernel at one holder: the coroutine to drive, what all holders must agree on, and what to do at its end."""

    def __init__(self, holder: Holder, coroutine: Coroutine[Any, Any, Any], digest: bytes) -> None:
        self.holder, self.coroutine, self.digest = holder, coroutine, digest
        self.number = holder.runs
        self.finish: Callable[[Any], None]
        self.fail: Callable[[Exception], None]


class Driver(Protocol):
    """Carries rounds between holders: over links, or in one process."""

    def drive(self, run: Run) -> None:
        """Bring ``run`` to its end, now or when the other holders have come to it; call its ``finish`` or ``fail``."""

    def close(self, why: str) -> None:
        """Tell the other members, and let whoever waits go."""


class FixedWeight:
    """A weight that was masked and opened once, as long as the client keeps it. ``mark``: if it derives from PRIVATE data."""

    def __init__(
        self, weight: Weight | WeightSpec, nbytes: int, forget: Callable[[], None] = lambda: None, mark: Mark | None = None
    ) -> None:
        self.weight, self.nbytes, self.forget, self.mark = weight, nbytes, forget, mark

    def grown(self, nbytes: int) -> int:
        """It takes ``nbytes`` by now; how many more than were on the account."""
        more, self.nbytes = nbytes - self.nbytes, nbytes
        return more


class Member:
    """What a session is in one group."""

    def __init__(self, close: Callable[[str], None]) -> None:
        self._close = close
        self.broken: str | None = None
        self._lock = threading.Lock()

    def check(self) -> None:
        """Raise `SharingAbortedError` if the group is broken."""
        if self.broken is not None:
            raise SharingAbortedError(self.broken)

    def leave(self, why: str) -> None:
        """End it, once; the other members learn ``why``."""
        with self._lock:
            if self.broken is not None:
                return
            self.broken = why
        self._close(why)


def keys_of(holders: int, index: int, secrets: dict[int, bytes]) -> Keys:
    """A holder's keys from the secrets that it shares with the other members; the provider's number is ``holders``."""
    return Keys(secrets[holders], {peer: secret for peer, secret in secrets.items() if peer not in (index, holders)})


def placing(operands: Sequence[int], shift: int) -> Callable[[int], int]:
    """From a program's relative ids to a session's: those of its ``operands``, the others moved by ``shift``."""

    def place(relative: int) -> int:
        return operands[relative - 1] if 0 < relative <= len(operands) else relative + shift

    return place


def priced(session: Session, number: int, specs: Sequence[Spec], static: Static, times: int = 1) -> Plan:
    """What the kernel will do; raises `QuotaExceededError` before anything is made: ``times`` what one holder makes."""
    planned = plan(number, specs, **static)
    session.reserve(planned.memory * times)
    return planned
