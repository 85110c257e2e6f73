"""Making a model of a graph: its weights are shared, masked and opened once, its programs recorded, and all of it handed to its holders.

    share    each weight, fixed precision, to the holders; those of linear and convolutional layers are fixed (mpc/products.py)
    record   the graph on stand-ins, once for each number of rows that a batch may have: programs of kernels
    SERVE    the holders keep the links of their group, shares and programs, beyond this session: from here on they run by themselves
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite._torch import tree_flatten
from syftlite.errors import Misuse
from syftlite.mpc.correlations import layout
from syftlite.mpc.counting import Cost
from syftlite.ops.spec import Spec
from syftlite.remote.group import Group
from syftlite.remote.handle import Handle
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.recording import Program
from syftlite.remote.routes import store
from syftlite.remote.shared_recording import SharedProgram, record, recorded
from syftlite.remote.sharing import AdditiveSharingTensor
from syftlite.remote.transfer import upload
from syftlite.serving.lower import CONVOLUTIONS, Lowered
from syftlite.tensors.fixed import FixedPrecisionTensor, fix_precision
from syftlite.tensors.fixed_nn import fixed_weight
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_ROWS

LINEAR = {"linear": ("weight",), **dict.fromkeys(("lstm", "gru", "rnn"), ("to_input", "to_hidden"))}
"""By operator, the roles of weights that `F.linear` takes."""


class Published(NamedTuple):
    """A model at its holders. ``costs``: of one batch, by its rows."""

    group: Group
    name: str
    costs: dict[int, Cost]


def batches(most: int) -> list[int]:
    """The numbers of rows that programs are recorded for: 1, 2, 3, 4, 6, 8, 12, ... and ``most``, so that a third at most is padding."""
    sizes, size = {1, most}, 2
    while size < most:
        sizes |= {size, size * 3 // 2} if size * 3 // 2 < most else {size}
        size *= 2
    return sorted(sizes)


def publish(
    lowered: Lowered, name: str, group: Group, most: int, scheme: dict[str, Any], clients: Sequence[str] | None = None
) -> Published:
    """Make ``lowered`` the model ``name`` of the group's workers, for batches of up to ``most`` rows, for ``clients``. It takes no queries
    yet."""
    if group.members[-1].transport.uri is None and not group.in_process:
        raise Misuse(
            "a served model goes on without this process, which therefore cannot be its provider: name a worker, crypto_provider=carol"
        )
    if not 1 <= most <= MAX_ROWS:
        raise Misuse(f"a batch has 1 to {MAX_ROWS} rows, not {most}")
    group.join()
    weights: dict[str, Any] = {}
    for key, value in lowered.graph.weights.items():
        weights[key] = fix_precision(value, **scheme).share(*group.holders, crypto_provider=group.provider)
    _fix(lowered, weights)
    programs = _recorded(lowered, weights, group, most, scheme)
    _hand_over(programs, name, group, _form(lowered, group, programs[most], most, scheme), clients)
    return Published(group, name, {rows: program.cost for rows, program in programs.items()})


def _fix(lowered: Lowered, weights: dict[str, Any]) -> None:
    """Mask and open the weights of layers that have a kernel for it."""
    for node in lowered.graph.nodes:
        for role, name in node.weights.items():
            if role in LINEAR.get(node.operator, ()):
                fixed_weight(weights[name], "linear", lambda w: w.t())
            elif role == "weight" and node.operator in CONVOLUTIONS:
                fixed_weight(weights[name], "conv", lambda w: w)


def _recorded(lowered: Lowered, weights: dict[str, Any], group: Group, most: int, scheme: dict[str, Any]) -> dict[int, SharedProgram]:
    def run(batch: Tensor) -> Any:
        out = lowered.graph.run(batch, weights=weights)
        return _label(out) if lowered.output == "label" else out

    programs: dict[int, SharedProgram] = {}
    (given,) = lowered.graph.inputs
    for rows in batches(most):
        leaves, structure = tree_flatten((_stand_in((rows, *given.row), group, scheme),))
        make = recorded if programs else record  # the first is recorded twice, and compared
        programs[rows] = make(run, f"a batch of {rows}", leaves, structure, list(weights.values()))
    return programs


def _label(scores: Any) -> Any:
    """The place of the greatest score; of a single one, whether it is positive."""
    return (scores if scores.shape[1] > 1 else torch.cat([scores * 0, scores], 1)).argmax(1)


def _stand_in(shape: tuple[int, ...], group: Group, scheme: dict[str, Any]) -> FixedPrecisionTensor:
    """A shared tensor of that shape that is nowhere: to record with."""
    spec = Spec.contiguous(torch.Size(shape), torch.int64)
    shares = tuple(PointerTensor(Handle(holder, holder.next_id(), spec, borrowed=True)) for holder in group.holders)
    return FixedPrecisionTensor.of(AdditiveSharingTensor.of(shares, group), scheme)


def _form(lowered: Lowered, group: Group, program: SharedProgram, most: int, scheme: dict[str, Any]) -> tuple[Any, ...]:
    (given,) = lowered.graph.inputs
    (made,) = program.holders[0].result_specs
    members = tuple(worker.id for worker in group.members)
    inputs = tuple((i.shape, i.numbers or 0) for i in lowered.source.inputs)
    whole, last = program.schemes[0] is None, lowered.last
    return members, given.row, inputs, tuple(made.shape[1:]), scheme["base"], scheme["precision_fractional"], whole, most, last


def _hand_over(
    programs: dict[int, SharedProgram], name: str, group: Group, form: tuple[Any, ...], clients: Sequence[str] | None
) -> None:
    """SERVE to every member: the provider first, holder 0 last, which is when all can work."""
    some = next(iter(programs.values()))
    peers = _invited(group)
    used = [_used(programs, index) for index in range(len(group.holders))]
    with group._lock:
        provider = group.members[-1]
        at_provider = [fixed.at_provider.id for fixed in some.weights if fixed.at_provider is not None]
        streams: list[Any] = [(rows, store(p.members[-1], provider), (), _need(p)) for rows, p in programs.items()]
        _serve(provider, group, name, streams, at_provider, form, (), clients)
        for index in reversed(range(len(group.holders))):
            holder = group.holders[index]
            streams = []
            for rows, p in programs.items():
                constants = [PointerTensor(upload(c, holder)._handle) for c in p.holders[index].constants]
                streams.append((rows, store(p.holders[index], holder), constants, _need(p)))
            state = [handles[index].id if at in used[index] else 0 for at, handles in enumerate(some.state)]
            _serve(holder, group, name, streams, state, form, peers[index], clients)
        group.handed_over()
    for member in reversed(group.members):
        member.ask(m.WATCH, name, 0)


def _serve(
    worker: Any, group: Group, name: str, streams: Sequence[Any], state: Sequence[int], form: Any, peers: Any, clients: Any
) -> None:
    told = tuple((rows, stored.id, tuple(c._handle.id for c in constants), need) for rows, stored, constants, need in streams)
    worker.cast((m.SERVE, group.number, name, told, tuple(state), form, tuple(peers), clients), None)
    worker.transport.flush()


def _need(program: SharedProgram) -> tuple[int, int, int]:
    """(correlations of one run, bytes of their corrections, the number of the last one that has any)."""
    sizes = [layout(kind, args).sent for planned in program.planned for kind, args in planned.requests]
    return len(sizes), sum(sizes), max((i for i, size in enumerate(sizes) if size), default=0)


def _used(programs: dict[int, SharedProgram], index: int) -> set[int]:
    """Which of the state's operands the programs of a holder name at all: of a fixed weight its share is not needed."""
    return {o - 1 - p.inputs for p in programs.values() for o in _named(p.holders[index]) if p.inputs < o <= p.inputs + len(p.state)}


def _named(program: Program) -> set[int]:
    """Every whole number among a program's operands: its relative ids are among them."""
    found: set[int] = set(program.results)
    left: list[Any] = [part for _, args, kwargs, _ in program.code for part in (args, list((kwargs or {}).values()))]
    while left:
        value = left.pop()
        if type(value) is int:
            found.add(value)
        elif isinstance(value, (list, tuple)):
            left += value
    return found


def _invited(group: Group) -> list[list[tuple[int, str, int, str]]]:
    """For each holder, the links for errands that it makes: every other holder dials holder 0."""
    peers: list[list[tuple[int, str, int, str]]] = [[] for _ in group.holders]
    if group.in_process:
        return peers
    first = group.holders[0]
    for index in range(1, len(group.holders)):
        _, _, ticket, port = first.ask(m.INVITE, group.number)
        peers[0].append((index, "", 0, ticket))
        peers[index].append((0, str(first.transport.uri), port, ticket))
    return peers
