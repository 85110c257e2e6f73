"""Group: the holders of shared tensors and their provider, as their client conducts them.

    holders in this process      members meet (engine/rounds.py); the provider is in this process too
    holders that are nodes       each is linked to each other, and to the provider if it is a node
                                 a provider in this process deals here and sends its corrections with the client's own messages

One message to each member starts a kernel; nothing is awaited. A group that broke is joined anew, with new keys, by the next computation.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from syftlite.errors import GetNotPermittedError, Misuse, SharingAbortedError
from syftlite.mpc.counting import counted
from syftlite.mpc.dealer import Dealer
from syftlite.mpc.kernel import NUMBERS, Plan, WeightSpec, plan
from syftlite.ops.spec import Spec
from syftlite.randomness import SECRET_BYTES
from syftlite.remote import registry
from syftlite.remote.handle import Handle, consumed, site
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.transfer import upload
from syftlite.wire import messages as m

if TYPE_CHECKING:
    from syftlite.remote.worker import BaseWorker

Shares = tuple[PointerTensor, ...]
"""A pointer to each holder's share, in the holders' order."""

MAX_UNDERWAY = 128 << 20
UNDERWAY_A_KERNEL = 1 << 18
"""What a kernel counts besides its bytes."""

_numbers = count(1)
_lock = threading.Lock()
_groups: dict[tuple[BaseWorker, ...], Group] = {}
_warned: set[str] = set()


class FixedShares(NamedTuple):
    """A weight that was masked and opened once: its handle at each holder, and at the provider."""

    epoch: int
    shape: tuple[int, ...]
    handles: tuple[Handle, ...]
    at_provider: Handle | None
    number: int


class Group:
    """Workers that hold the shares of tensors, in this order, and their provider."""

    def __init__(self, holders: tuple[BaseWorker, ...], provider: BaseWorker) -> None:
        self.holders, self.provider = holders, provider
        self.in_process = holders[0].transport.uri is None
        self.number = 0
        self.epoch = 0
        self.dealt = 0  # correlations of this epoch: every member counts them, and so does the client
        self._underway = 0  # bytes that started kernels exchange, since the holders were last waited for
        self.ahead: deque[Any] = deque()
        """Programs for whose next calls the provider has dealt."""
        self._dealer: LocalProvider | None = None
        self._joined = False
        self._lock = threading.RLock()

    @staticmethod
    def of(holders: Sequence[Any], provider: Any = None) -> Group:
        """The group of these workers (or their ids). Without a provider the local worker provides, which is said once."""
        named = [w for holder in holders for w in (holder if isinstance(holder, (list, tuple)) else (holder,))]
        found = tuple(registry.find(holder) for holder in named)
        if len(found) < 2:
            raise Misuse(f"a value is shared among at least two holders, not {len(found)}: share(alice, bob)")
        if len(set(found)) < len(found):
            raise Misuse(f"a holder holds one share, and {', '.join(w.id for w in found)} names one twice")
        named = [*found, *([] if provider is None else [registry.find(provider)])]
        away = [w.id for w in named if w.transport.uri is None and not w.transport.here]
        if away:
            raise Misuse(f"{', '.join(away)} cannot be reached by other workers, so it holds no shares: use virtual workers, or nodes")
        if len({w.transport.uri is None for w in found}) > 1:
            raise Misuse(f"holders are all in this process or all nodes, and {', '.join(w.id for w in found)} are of both kinds")
        if provider is None:
            provider = _local_provider(found)
        dealer = registry.find(provider)
        if dealer in found:
            raise Misuse(f"{dealer.id} cannot hold shares and provide: whoever does both can read the values. Name another crypto_provider")
        if found[0].transport.uri is None and dealer.transport.uri is not None:
            raise Misuse(f"{dealer.id} is a node and the holders are in this process: name a provider in this process")
        with _lock:
            key = (*found, dealer)
            group = _groups.get(key)
            if group is None:
                group = _groups[key] = Group(found, dealer)
                for worker in key:
                    weakref.finalize(worker, _groups.pop, key, None)
            return group

    # -- joining

    def join(self) -> int:
        """Make sure that the members are linked; the first time, and after the group broke, anew. Returns the epoch that this began."""
        with self._lock:
            if self._joined:
                return self.epoch
            self.number, self.epoch, self.dealt = next(_numbers), self.epoch + 1, 0
            members = [*self.holders, self.provider]
            if self.in_process:
                place = secrets.token_hex(16)
                for index, member in enumerate(members):
                    member.cast((m.JOIN, self.number, index, len(self.holders), place, None, ()))
            else:
                self._link(members)
            for member in members if self._dealer is None else self.holders:
                member.ask(m.JOINED, self.number)
            self._joined = True
            return self.epoch

    def _link(self, members: list[BaseWorker]) -> None:
        for member in members:
            if member.transport.uri is not None:
                member.ask(m.SYNC)  # one that is gone is told of at once, and not when the others have waited for it
        holders = len(self.holders)
        keys: list[str | None] = [None] * len(members)
        if self.provider.transport.uri is None:
            seeds = [os.urandom(SECRET_BYTES) for _ in self.holders]
            self._dealer = LocalProvider(Dealer(seeds), self.holders[-1], self.number)
            keys[:holders] = [seed.hex() for seed in seeds]
            members = members[:-1]
        peers: list[list[tuple[int, str, int, str]]] = [[] for _ in members]
        for low, host in enumerate(members):
            for high in range(low + 1, len(members)):
                _, _, ticket, port = host.ask(m.INVITE, self.number)
                peers[low].append((high, "", 0, ticket))
                peers[high].append((low, str(host.transport.uri), port, ticket))
        for index, member in enumerate(members):
            member.cast((m.JOIN, self.number, index, holders, None, keys[index], tuple(peers[index])))

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
                for member in [*self.holders, self.provider]:
                    with contextlib.suppress(RuntimeError):
                        member.cast((m.LEAVE, self.number))

    # -- computing

    def compute(self, name: str, /, operands: Sequence[Shares | FixedShares], **static: Any) -> list[Any]:
        """The results of kernel ``name`` (mpc/kernels.py): `Shares`, or `FixedShares`. Raises ValueError for operands that do not fit."""
        for operand in operands:
            for share in () if isinstance(operand, FixedShares) else operand:
                if share._handle.spec is None:
                    raise consumed(share._handle)
        self.join()
        number = NUMBERS[name]
        planned = plan(number, [_spec(o) for o in operands], **static)
        with self._lock:
            self.nothing_ahead()
            self.join()
            for operand in operands:
                if isinstance(operand, FixedShares) and operand.epoch != self.epoch:
                    raise SharingAbortedError("the group was joined anew since this weight was fixed: fix it again")
            outs = self._deal(number, planned, operands, static)
            first, self.dealt = self.dealt, self.dealt + len(planned.requests)
            results: list[list[Any]] = [[] for _ in planned.results]
            for index, holder in enumerate(self.holders):
                ids = [o.handles[index].id if isinstance(o, FixedShares) else o[index]._handle.id for o in operands]
                made = [holder.next_id() for _ in planned.results]
                holder.cast((m.COMPUTE, self.number, number, tuple(ids), static or None, tuple(made)), site())
                for out, result, stride, given in zip(made, planned.results, planned.strides, results, strict=True):
                    handle = Handle(holder, out, _described(result, stride))
                    given.append(handle if isinstance(result, WeightSpec) else PointerTensor(handle))
            self.flush()
            self.noted(planned)
        return [
            FixedShares(self.epoch, tuple(result.shape), tuple(given), outs[i], first + result.number)
            if isinstance(result, WeightSpec)
            else tuple(given)
            for i, (result, given) in enumerate(zip(planned.results, results, strict=True))
        ]

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
        counted(planned, len(self.holders))
        self._underway += planned.sent + planned.dealt + UNDERWAY_A_KERNEL
        if self._underway > MAX_UNDERWAY:
            self._underway = 0
            self.settle()

    def settle(self) -> None:
        """Wait until the holders have done what they were asked."""
        _asked(self.holders, [(m.SYNC,)] * len(self.holders))

    def _deal(self, number: int, planned: Plan, operands: Sequence[Any], static: dict[str, Any]) -> list[Handle | None]:
        """Tell the provider, or deal here; handles of the weights that it keeps."""
        if self._dealer is not None:
            self._dealer.deal(planned)
            return [None] * len(planned.results)
        provider = self.provider
        given = tuple(o.at_provider.id if isinstance(o, FixedShares) and o.at_provider else tuple(o[0].shape) for o in operands)
        outs = [Handle(provider, provider.next_id(), _described(r, ())) for r in planned.results]
        provider.cast((m.DEAL, self.number, number, given, static or None, tuple(h.id for h in outs)))
        provider.transport.flush()
        for handle, result in zip(outs, planned.results, strict=True):
            if not isinstance(result, WeightSpec):
                handle.consume()  # the provider keeps nothing of it
        return [*outs]

    def split(self, pointer: PointerTensor) -> Shares:
        """The value of ``pointer``, shared where it is: each share goes from there to its holder, none through this process."""
        source, shares, places = pointer.location, [], []
        for holder in self.holders:
            number = holder.next_id()
            handle = Handle(holder, number, Spec.contiguous(pointer.shape, pointer.dtype))
            shares.append(PointerTensor(handle))
            if holder is source:
                places.append(("", "", number))
            else:
                ticket = holder.ask(m.EXPECT, number, pointer.numel() * 8)[2]
                places.append((str(holder.transport.uri), ticket, number))
        source.ask(m.SPLIT, pointer._handle.id, tuple(places))
        for share in shares:
            if share.location is not source:
                share.location.cast((m.ARRIVED, share._handle.id))
        return tuple(shares)

    def masked(self, shares: Shares) -> list[PointerTensor]:
        """Each holder's share, re-randomised, there: what may leave, where no policy holds it. Their sum is the value."""
        self.join()
        masked = []
        for share in shares:
            holder, handle = share.location, share._handle
            out = holder.next_id()
            holder.cast((m.REVEAL, self.number, handle.id, out), site())
            masked.append(PointerTensor(Handle(holder, out, Spec.contiguous(share.shape, share.dtype))))
        return masked

    def reveal(self, shares: Shares) -> torch.Tensor:
        """The value: each holder's share, re-randomised, summed here. One round trip to each. Raises `GetNotPermittedError` where a share
        is of PRIVATE data whose owner has not let it go."""
        masked = self.masked(shares)
        try:
            questions = [(m.GET, [share._handle.id], True, None) for share in masked]
            values = [answer[2][0] for answer in _asked([share.location for share in masked], questions)]
            for share in masked:
                share._handle.consume()
        except GetNotPermittedError:
            raise
        except Exception:  # whatever it was at one holder, the run has ended for all
            self.leave()
            raise
        total: torch.Tensor = values[0].clone()
        for value in values[1:]:
            total += value
        return total

    def __repr__(self) -> str:
        return f"<Group of {', '.join(w.id for w in self.holders)}; provider {self.provider.id}>"


class LocalProvider:
    """A provider in this process for holders elsewhere: corrections go down the client's own connections."""

    def __init__(self, dealer: Dealer, last: BaseWorker, group: int) -> None:
        self.dealer, self.last, self.group = dealer, last, group
        self.number = 0

    def deal(self, planned: Plan) -> None:
        """Deal what ``planned`` asks for."""
        for kind, args in planned.requests:
            correction = self.dealer.deal(self.number, kind, *args)
            if len(correction):
                handle = upload(correction, self.last)._handle
                self.last.cast((m.CORRECT, self.group, self.number, handle.id))
                handle.consume()  # the holder has taken it
            self.number += 1


def _asked(workers: Sequence[BaseWorker], questions: Sequence[tuple[Any, ...]]) -> list[Any]:
    """Each worker's answer to its question. All questions go out first, and all answers are waited for; then the first error is raised."""
    begun = [(w.transport, w.transport.begin(*question)) for w, question in zip(workers, questions, strict=True)]
    got, failed = [], None
    for transport, request in begun:
        try:
            got.append(transport.finish(request))
        except Exception as error:
            failed = failed or error
    if failed is not None:
        raise failed
    return got


def _spec(operand: Any) -> Any:
    return WeightSpec(operand.shape, operand.number) if isinstance(operand, FixedShares) else tuple(operand[0].shape)


def _described(result: Any, stride: tuple[int, ...]) -> Spec:
    if isinstance(result, WeightSpec) or not stride:
        return Spec.contiguous(getattr(result, "shape", result), torch.int64)
    return Spec.make(result, stride, 0, torch.int64)


def _local_provider(holders: tuple[BaseWorker, ...]) -> BaseWorker:
    local = registry.local_worker()
    if "provider" not in _warned:
        _warned.add("provider")
        warnings.warn(
            f"no crypto_provider was named, so this process provides the correlated randomness of {', '.join(w.id for w in holders)}: "
            "it must not see what a holder sees. Name a worker of somebody else's: share(..., crypto_provider=carol)",
            stacklevel=5,
        )
    return local
