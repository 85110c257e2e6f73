"""A client of a served model: one channel to each holder, to each its own share of an input, and of all their answers the output.

    model = sy.connect_to_model(alice, bob, name="digits")        workers, or addresses of nodes
    model.query(image)                                            a tensor, what the plain model gives to within 2^-10 or so
    waiting = model.query_async(image); ...; waiting.get()        many at a time
"""

from __future__ import annotations

import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite.engine.queries import ModelForm
from syftlite.errors import ConnectionLostError, Misuse, ProtocolError, SharingAbortedError, SyftliteError
from syftlite.randomness import random_like
from syftlite.remote import registry
from syftlite.remote.client import open_transport
from syftlite.serving.graph import Input
from syftlite.serving.lower import rows_of
from syftlite.serving.operators import OPERATORS
from syftlite.tensors.fixed import fix_precision
from syftlite.transports.base import Transport
from syftlite.wire import messages as m

TIMEOUT = 60.0
SIGN = 2.0
"""Seconds in which a holder that is asked for a sign of life gives one."""
MAX_UNDERWAY = 32
"""Batches of one client that are asked for before the first is answered; holders take 64."""


def gone(transport: Transport, why: object) -> SharingAbortedError:
    """The error for a worker that does not answer."""
    name, where = transport.worker, f" ({transport.uri})" if transport.uri else ""
    return SharingAbortedError(
        f"{name}{where} is gone: {why}. Start it again (`syftlite worker start --id {name}`), have the model's owner serve it again, and "
        "connect again"
    )


class Holder:
    """One channel's end at one holder. ``own``: the connection is this client's, to close."""

    def __init__(self, transport: Transport, next_id: Callable[[], int], own: bool) -> None:
        self.transport, self.next_id, self.own = transport, next_id, own
        self.name = transport.worker
        self.index = -1

    @classmethod
    def of(cls, place: Any, token: str | None, ca: str | None) -> Holder:
        """At a worker (through its connection), or at an address (through a new one)."""
        if isinstance(place, str) and "://" in place:
            transport = open_transport(place, token, ca=ca)
            return cls(transport, count((transport.prefix << 32) + 1).__next__, own=True)
        worker = registry.find(place)
        return cls(worker.transport, worker.next_id, own=False)

    def gone(self, why: object) -> SharingAbortedError:
        """The error for a holder that does not answer."""
        return gone(self.transport, why)

    def lives(self) -> bool:
        """Whether it gives a sign of life."""
        try:
            self.transport.finish(self.transport.begin(m.SYNC), SIGN)
            return True
        except (TimeoutError, SyftliteError):
            return False


class Asked(NamedTuple):
    """A batch that is under way: of how many rows, and its request at each holder."""

    rows: int
    requests: list[int]


class Answer:
    """What `query_async` returns."""

    def __init__(self, client: ModelClient) -> None:
        self._client = client
        self.parts: list[Asked] = []
        """Batches that are not read yet."""
        self.read: list[Tensor] = []
        """What the batches before gave."""
        self._value: Tensor | None = None
        self._failed: SyftliteError | None = None
        self._lock = threading.Lock()

    def __del__(self) -> None:
        self._client.unread.append(self.parts)

    def get(self, timeout: float | None = None) -> Tensor:
        """The output; waits for it up to ``timeout`` s (the client's own if left out). Raises `SharingAbortedError`: it says what to do."""
        with self._lock:
            if self._failed is not None:
                raise self._failed.with_traceback(None)
            if self._value is None:
                try:
                    self._value = self._client._collected(self, timeout)
                    self.read.clear()
                except BaseException as error:
                    given_up = SharingAbortedError("its answer is not waited for any more: query again")
                    self._failed = error if isinstance(error, SyftliteError) else given_up
                    raise
            return self._value

    join = get

    def __repr__(self) -> str:
        return f"<Answer of {self._client.name}: {'here' if self._value is not None else 'not read yet'}>"


class ModelClient:
    """See `connect_to_model`, which makes one. Any number of threads may query."""

    def __init__(self, holders: Sequence[Holder], name: str, timeout: float) -> None:
        self.name, self.timeout = name, timeout
        self._channel = secrets.token_hex(16)
        self._numbers = count(1)
        self._lock = threading.Lock()
        self._underway = threading.BoundedSemaphore(MAX_UNDERWAY)
        self.unread: deque[list[Asked]] = deque()
        """Batches of answers that are gone: they make room for others."""
        self.form: ModelForm
        self.holders = list(holders)
        self._attach()

    def _attach(self) -> None:
        forms = []
        for holder in self.holders:
            _, _, holder.index, form = holder.transport.finish(holder.transport.begin(m.ATTACH, self.name, self._channel), self.timeout)
            forms.append(ModelForm(*form))
        self.form = form = forms[0]
        names = [holder.name for holder in self.holders]
        if sorted(holder.index for holder in self.holders) != list(range(len(form.members) - 1)):
            raise Misuse(f"model {self.name!r} is held by {', '.join(form.members[:-1])}, and this is {', '.join(names)}: name each once")
        if any(other != form for other in forms):
            raise ProtocolError(f"{', '.join(names)} tell different things of model {self.name!r}: have its owner serve it again")
        self.holders.sort(key=lambda holder: holder.index)
        for operator, arguments in form.last:
            entry = OPERATORS.get(operator)
            if entry is None or not entry.client:
                raise ProtocolError(f"model {self.name!r} ends in {operator!r}, which this version does not know: upgrade it")
            entry.checked(self.name, dict(arguments))
        self._inputs = [Input(tuple(shape), f"input {i}", numbers or None) for i, (shape, numbers) in enumerate(form.inputs, 1)]

    # -- queries

    def query(self, *inputs: Any, timeout: float | None = None) -> Tensor:
        """The model's output for a batch (rows first): float32 scores, or int64 labels if that is what is served.

        Raises ValueError for inputs of another shape or too large for fixed precision, and `SharingAbortedError` with what to do.
        """
        return self.query_async(*inputs).get(timeout)

    def query_async(self, *inputs: Any) -> Answer:
        """The same, not waited for: `Answer.get` does."""
        rows = rows_of(self._inputs, inputs)
        if not len(rows):
            raise ValueError("a query has at least one row")
        fixed = fix_precision(rows, base=self.form.base, precision_fractional=self.form.precision).child
        answer = Answer(self)
        for part in fixed.split(self.form.rows):
            self._make_room(answer)
            answer.parts.append(self._asked(part))
        return answer

    def _make_room(self, answer: Answer) -> None:
        """Wait until another batch may be asked for: of ``answer``, whose batches so far are read now, or of others."""
        while self.unread:
            self._give_up(self.unread.popleft())
        while not self._underway.acquire(blocking=False):
            if answer.parts:
                answer.read.append(self._opened(answer.parts.pop(0), time.monotonic() + self.timeout, self.timeout))
            elif self._underway.acquire(timeout=self.timeout):
                return
            else:
                raise Misuse(f"{MAX_UNDERWAY} batches wait to be read: get() the answers of some first")

    def _asked(self, value: Tensor) -> Asked:
        """Send each holder its share."""
        requests: list[int] = []
        try:
            shares = [random_like(tuple(value.shape)) for _ in self.holders[1:]]
            last = value.clone(memory_format=torch.contiguous_format)
            for share in shares:
                last -= share
            with self._lock:  # numbers count up at every holder
                number = next(self._numbers)
                for holder, share in zip(self.holders, [*shares, last], strict=True):
                    place = holder.next_id()
                    try:
                        holder.transport.put(place, share, (), "")
                        requests.append(holder.transport.begin(m.QUERY, self._channel, number, place))
                    except ConnectionLostError as error:
                        raise holder.gone(error) from None
        except BaseException:
            self._forget(requests)
            raise
        return Asked(len(value), requests)

    def _collected(self, answer: Answer, timeout: float | None) -> Tensor:
        seconds = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        try:
            while answer.parts:
                answer.read.append(self._opened(answer.parts.pop(0), deadline, seconds))
        finally:
            self._give_up(answer.parts)
        return self._decoded(torch.cat(answer.read))

    def _opened(self, asked: Asked, deadline: float, seconds: float) -> Tensor:
        total = torch.zeros(asked.rows, *self.form.output, dtype=torch.int64)
        try:
            for holder, request in zip(self.holders, asked.requests, strict=True):
                try:
                    shares = holder.transport.finish(request, max(deadline - time.monotonic(), 0.0))[2]
                except ConnectionLostError as error:
                    raise holder.gone(error) from None
                except TimeoutError:
                    raise self._late(seconds) from None
                total += self._share(holder, shares, total.shape)
        finally:
            self._forget(asked.requests)
        return total

    def _share(self, holder: Holder, shares: Sequence[Tensor], shape: torch.Size) -> Tensor:
        """What ``holder`` answered: of another form it would still add up to something."""
        if len(shares) != 1 or shares[0].dtype != torch.int64 or shares[0].shape != shape:
            told = ", ".join(f"{share.dtype} of shape {tuple(share.shape)}" for share in shares) or "nothing"
            raise ProtocolError(
                f"{holder.name} answered {told}, and its share of {self.name!r}'s output is int64 of shape {tuple(shape)}: its node is "
                "wrong, not the model. See its owner, or serve the model elsewhere"
            )
        return shares[0]

    def _late(self, seconds: float) -> SharingAbortedError:
        silent = [holder for holder in self.holders if not holder.lives()]
        if silent:
            return silent[0].gone(f"no answer within {seconds:g} s, and no sign of life")
        names = " and ".join(self.form.members)
        return SharingAbortedError(
            f"no answer within {seconds:g} s, though the holders live: {self.form.members[-1]} may not deal, or many clients wait. "
            f"See that {names} run, or give query() a longer timeout"
        )

    def _give_up(self, parts: list[Asked]) -> None:
        while parts:
            self._forget(parts.pop().requests)

    def _forget(self, requests: list[int]) -> None:
        for holder, request in zip(self.holders, requests, strict=False):
            holder.transport.forget(request)
        self._underway.release()

    def _decoded(self, value: Tensor) -> Tensor:
        if self.form.whole:
            return value
        out: Tensor = (value.double() / self.form.base**self.form.precision).float()
        for operator, arguments in self.form.last:
            out = OPERATORS[operator].function(out, **dict(arguments))
        return out

    # -- the end

    def close(self) -> None:
        """Close the connections that are this client's own."""
        for holder in self.holders:
            if holder.own:
                holder.transport.close()

    def __enter__(self) -> ModelClient:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        form = self.form
        takes = ", ".join(f"(rows, {', '.join(map(str, i.shape))})" for i in self._inputs)
        return f"<ModelClient of {self.name!r} at {', '.join(form.members[:-1])}: {takes} -> (rows, {', '.join(map(str, form.output))})>"


def connect_to_model(
    *holders: Any, name: str = "model", token: str | None = None, ca: str | None = None, timeout: float = TIMEOUT
) -> ModelClient:
    """A client of the model ``name`` that ``holders`` hold: all of them, workers or addresses of nodes ("wss://alice.example:8777").

    ``token``: for the addresses; on loopback it is found. ``ca``: a certificate file to trust instead of the system's. ``timeout`` (s): how
    long an answer may take. Each holder gets its own share of what is asked, and sends its own share of the answer.
    """
    places = [place for holder in holders for place in (holder if isinstance(holder, (list, tuple)) else (holder,))]
    if len(places) < 2:
        raise Misuse("a model is held by at least two workers: connect_to_model(alice, bob, name=...)")
    opened: list[Holder] = []
    try:
        for place in places:
            opened.append(Holder.of(place, token, ca))
            if opened[-1].name in [holder.name for holder in opened[:-1]]:
                raise Misuse(f"{opened[-1].name} is named twice: each holder once")
        return ModelClient(opened, name, timeout)
    except BaseException:
        for holder in opened:
            if holder.own:
                holder.transport.close()
        raise
