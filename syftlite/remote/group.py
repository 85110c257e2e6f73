"""Group: the holders of shared tensors and their provider, as their client conducts them.

    additive      holder i of n has component i; a provider deals
    replicated    holder i of three has components i and i + 1 mod 3; none but they take part (mpc/replicated.py)

One message to each member starts a kernel; nothing is awaited. A group that broke is joined anew, with new keys, by the next computation
(joining.py).
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import torch

from syftlite.errors import GetNotPermittedError, Misuse, SharingAbortedError
from syftlite.mpc.counting import counted
from syftlite.mpc.kernel import NUMBERS, Plan, WeightSpec, plan
from syftlite.mpc.replicated import THIRD
from syftlite.mpc.replicated_kernels import PREFIX as REPLICATED_NAME
from syftlite.ops.spec import Spec
from syftlite.remote.custody import OWN, Custody
from syftlite.remote.handle import Handle, consumed, site
from syftlite.remote.in_step import InStep
from syftlite.remote.joining import LocalProvider, asked, enrol, members_of
from syftlite.remote.multi import MultiPointerTensor
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import given_up, must_be_promised, tickets
from syftlite.transports.base import Site
from syftlite.wire import messages as m

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

T = TypeVar("T")
Shares = tuple[PointerTensor, ...]
"""A pointer to each component at each holder, in the order of `Group.places`."""

MAX_UNDERWAY = 128 << 20
UNDERWAY_A_KERNEL = 1 << 18
"""What a kernel counts besides its bytes."""

_lock = threading.Lock()
_groups: dict[tuple[BaseWorker | None, ...], Group] = {}


class FixedShares(NamedTuple):
    """A weight that was masked and opened once: its handle at each holder, and at the provider."""

    epoch: int
    shape: tuple[int, ...]
    handles: tuple[Handle, ...]
    at_provider: Handle | None
    number: int
    custody: Custody = OWN


class Group:
    """Workers that hold the shares of tensors, in this order, and their provider; without one, shares are replicated among three."""

    records = False
    """Whether what it is told is written down, to be done later."""

    def __init__(self, holders: tuple[BaseWorker, ...], provider: BaseWorker | None) -> None:
        self.holders, self.provider = holders, provider
        self.width = 2 if provider is None else 1
        """How many components a holder has of each tensor."""
        self.places = [(h, (h + j) % len(holders)) for h in range(len(holders)) for j in range(self.width)]
        """(holder, component) of each share."""
        self.keys = [holder.id + " (next)" * j for holder in holders for j in range(self.width)]
        """What each place is called in a multi-pointer."""
        self.order = range(len(holders)) if provider is not None else [THIRD, *range(THIRD)]
        """In which the holders are told of a kernel: whoever deals for the others first."""
        self.in_process = holders[0].transport.uri is None
        self.number = 0
        self.epoch = 0
        self.dealt = 0  # correlations of this epoch: every member counts them, and so does the client
        self._underway = 0  # bytes that started kernels exchange, since the holders were last waited for
        self.ahead: deque[Any] = deque()
        """Programs for whose next calls the provider has dealt."""
        self._dealer: LocalProvider | None = None
        self._joined = False
        self._lock = threading.RLock() if self.in_process else InStep(self.members)  # where all are here nobody waits for another

    @staticmethod
    def of(holders: Sequence[Any], provider: Any = None, replicated: bool = False) -> Group:
        """The group of these workers (or their ids). Without a provider the local worker provides, which is said once, unless shares are
        ``replicated``."""
        found, dealer = members_of(holders, provider, replicated)
        with _lock:
            key = (*found, dealer)
            group = _groups.get(key)
            if group is None:
                group = _groups[key] = Group(found, dealer)
                for worker in group.members:
                    weakref.finalize(worker, _groups.pop, key, None)
            return group

    @property
    def members(self) -> tuple[BaseWorker, ...]:
        """The holders, and the provider if there is one."""
        return self.holders if self.provider is None else (*self.holders, self.provider)

    @property
    def parties(self) -> int:
        """How many talk to each other in a round."""
        return len(self.holders) if self.provider is not None else THIRD

    def mine(self, index: int, shares: Sequence[T]) -> Sequence[T]:
        """Those of ``shares``, one a place, that are at holder ``index``."""
        return shares[index * self.width : (index + 1) * self.width]

    def multi(self, at: Sequence[PointerTensor]) -> MultiPointerTensor:
        """One multi-pointer of a pointer for each place."""
        return MultiPointerTensor(dict(zip(self.keys, at, strict=True)))

    # -- joining

    def join(self) -> int:
        """Make sure that the members are linked; the first time, and after the group broke, anew. Returns the epoch that this began."""
        with self._lock:
            if self._joined:
                return self.epoch
            self.epoch, self.dealt = self.epoch + 1, 0
            self.number, self._dealer = enrol(self.holders, self.provider)
            self._joined = True
            return self.epoch

    def handed_over(self) -> None:
        """The members' links have become a served model's: the next computation joins anew."""
        with self._lock:
            self._joined = False
            self.ahead.clear()

    def leave(self) -> None:
        """End it: the members forget it. The next computation joins anew."""
        with self._lock:
            if self._joined:
                self._joined, self._dealer = False, None
                self.ahead.clear()
                for member in self.members:
                    with contextlib.suppress(RuntimeError):
                        member.cast((m.LEAVE, self.number))

    @contextlib.contextmanager
    def in_step(self) -> Iterator[None]:
        """All members are told of the same, by one thread at a time. If that is cut off, by Ctrl-C too, the next computation joins anew."""
        with self._lock:
            try:
                yield
            except BaseException:
                self.leave()
                raise

    # -- computing

    def compute(self, name: str, /, operands: Sequence[Shares | FixedShares], **static: Any) -> list[Any]:
        """The results of kernel ``name`` (mpc/kernels.py): `Shares`, or `FixedShares`. Raises ValueError for operands that do not fit."""
        for operand in operands:
            for share in () if isinstance(operand, FixedShares) else operand:
                if share._handle.spec is None:
                    raise consumed(share._handle)
        if not self._joined:
            self.join()
        number = NUMBERS[name if self.width == 1 else REPLICATED_NAME + name]
        planned = plan(number, [spec for o in operands for spec in self._specs(o)], **static)
        with self._lock:
            self.nothing_ahead()
            if not self._joined:
                self.join()
            for operand in operands:
                if isinstance(operand, FixedShares) and operand.epoch != self.epoch:
                    raise SharingAbortedError("the group was joined anew since this weight was fixed: fix it again")
            with self.in_step():
                outs = self._deal(number, planned, operands, static)
                first, self.dealt = self.dealt, self.dealt + len(planned.requests)
                where, specs = site(), [*map(_described, planned.results, planned.strides)]
                made: dict[int, list[Handle]] = {}
                for index in self.order:
                    made[index] = self._started(index, number, specs, operands, static, where)
                self.flush()
            self.noted(planned)
        results: list[Any] = []
        for i in range(0, len(planned.results), self.width):
            given = tuple(handle for index in range(len(self.holders)) for handle in made[index][i : i + self.width])
            result = planned.results[i]
            if isinstance(result, WeightSpec):
                results.append(FixedShares(self.epoch, tuple(result.shape), given, outs[i], first + result.number))
            else:
                results.append(tuple(map(PointerTensor, given)))
        return results

    def _started(
        self, index: int, number: int, specs: Sequence[Spec], operands: Sequence[Any], static: dict[str, Any], where: Site
    ) -> list[Handle]:
        """Tell holder ``index`` of a kernel, written at ``where``; handles of its results there, which have ``specs``."""
        holder = self.holders[index]
        ids: list[int] = []
        for operand in operands:
            fixed = isinstance(operand, FixedShares)
            for mine in self.mine(index, operand.handles if fixed else operand):
                ids.append(mine.id if fixed else mine._handle.id)
        made = [holder.next_id() for _ in specs]
        holder.hold((m.COMPUTE, self.number, number, tuple(ids), static or None, tuple(made)), where)
        return [Handle(holder, out, spec) for out, spec in zip(made, specs, strict=True)]

    def _specs(self, operand: Any) -> list[Any]:
        spec = WeightSpec(operand.shape, operand.number) if isinstance(operand, FixedShares) else tuple(operand[0].shape)
        return [spec] * self.width

    def nothing_ahead(self) -> None:
        """Raise `Misuse` if something else was dealt ahead: correlations are used in the order in which they are dealt."""
        if self.ahead:
            raise Misuse(f"{len(self.ahead)} calls of a plan were prefetched: make them first, or have the group leave() and join anew")

    def flush(self) -> None:
        """Send the holders what has been cast: the others wait for the last to hear of it."""
        for holder in self.holders:
            holder.transport.flush()

    def noted(self, planned: Plan) -> None:
        """A kernel has been started: whoever counts costs is told. A program that starts more than the holders can do waits for them now
        and then: what it could not take back would otherwise be minutes of work."""
        counted(planned, self.parties)
        self._underway += planned.sent + planned.dealt + UNDERWAY_A_KERNEL
        if self._underway > MAX_UNDERWAY:
            self._underway = 0
            self.settle()

    def settle(self) -> None:
        """Wait until the holders have done what they were asked."""
        asked(self.holders, [(m.SYNC,)] * len(self.holders))

    def _deal(self, number: int, planned: Plan, operands: Sequence[Any], static: dict[str, Any]) -> list[Handle | None]:
        """Tell the provider, or deal here; handles of the weights that it keeps."""
        if self._dealer is not None:
            self._dealer.deal(planned)
        if self._dealer is not None or self.provider is None:
            return [None] * len(planned.results)
        provider = self.provider
        given = [o.at_provider.id if isinstance(o, FixedShares) and o.at_provider else tuple(o[0].shape) for o in operands]
        made = [(provider.next_id(), result) for result in planned.results]
        outs = [Handle(provider, out, _described(result, ())) if isinstance(result, WeightSpec) else None for out, result in made]
        provider.hold((m.DEAL, self.number, number, tuple(given), static or None, tuple([out for out, _ in made])))
        provider.transport.flush()
        return outs  # it keeps nothing of other results

    def split(self, pointer: PointerTensor) -> Shares:
        """The value of ``pointer``, shared where it is: each share goes from there to its holder, none through this process."""
        source = pointer.location
        shares = [
            PointerTensor(Handle(self.holders[index], self.holders[index].next_id(), Spec.contiguous(pointer.shape, pointer.dtype)))
            for index, _ in self.places
        ]
        with given_up([share._handle for share in shares]):
            abroad = [share for share in shares if share.location is not source]
            given = iter(tickets(source, [(share.location, [(share._handle.id, pointer.numel() * 8)]) for share in abroad]))
            places = [
                ("", "", share._handle.id)
                if share.location is source
                else (str(share.location.transport.uri), next(given), share._handle.id)
                for share in shares
            ]
            source.ask(m.SPLIT if self.width == 1 else m.SPREAD, pointer._handle.id, tuple(places))
        for share in abroad:
            share.location.cast((m.ARRIVED, share._handle.id))
        return tuple(shares)

    def masked(self, shares: Shares) -> list[PointerTensor]:
        """Each component, re-randomised, at one of its holders: what may leave, where no policy holds it. Their sum is the value."""
        masked = []
        with self.in_step():  # holders count what they reveal, so all are told in one order
            self.join()
            for share in shares[:: self.width]:
                holder, handle = share.location, share._handle
                out = holder.next_id()
                holder.hold((m.REVEAL, self.number, handle.id, out), site())
                masked.append(PointerTensor(Handle(holder, out, Spec.contiguous(share.shape, share.dtype))))
        return masked

    def reveal(self, shares: Shares) -> torch.Tensor:
        """The value: each holder's share, re-randomised, summed here. One round trip to each. Raises `GetNotPermittedError` where a share
        is of PRIVATE data whose owner has not let it go."""
        masked = self.masked(shares)
        try:
            questions = [(m.GET, [share._handle.id], True, None) for share in masked]
            answers = [told[2] for told in asked([share.location for share in masked], questions)]
            for share, values in zip(masked, answers, strict=True):
                must_be_promised(share.location, values, [Spec.contiguous(share.shape, share.dtype)])
                share._handle.consume()
        except GetNotPermittedError:
            raise
        except BaseException:  # whatever it was at one holder, the run has ended for all
            self.leave()
            raise
        total: torch.Tensor = answers[0][0].clone()
        for (value,) in answers[1:]:
            total += value
        return total

    def __repr__(self) -> str:
        provider = "no provider" if self.provider is None else f"provider {self.provider.id}"
        return f"<Group of {', '.join(w.id for w in self.holders)}; {provider}>"


def _described(result: Any, stride: tuple[int, ...]) -> Spec:
    if isinstance(result, WeightSpec) or not stride:
        return Spec.contiguous(getattr(result, "shape", result), torch.int64)
    return Spec.make(result, stride, 0, torch.int64)
