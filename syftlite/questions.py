"""Private questions about what is at a worker: the messages behind `sy.dp` on pointers (engine/measuring.py answers)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from syftlite._torch import tree_flatten, tree_unflatten
from syftlite.dp import queries, training
from syftlite.dp.ledger import Account, Standing
from syftlite.dp.mechanisms import KINDS, Query
from syftlite.dp.refusals import must_be_number, must_keep_apart
from syftlite.errors import ConfigurationError, PlanError, TensorsNotCollocatedError
from syftlite.ops.dtypes import DTYPES
from syftlite.ops.spec import Spec
from syftlite.plans import Plan
from syftlite.plans.naming import named
from syftlite.remote.handle import Handle
from syftlite.remote.pointer import PointerTensor
from syftlite.remote.routes import Route, operand_id
from syftlite.remote.worker import BaseWorker
from syftlite.wire.messages import BUDGET, MAP, MEASURE, must_be_sendable


def _results(worker: BaseWorker, outs: Sequence[int], answer: Any) -> list[PointerTensor]:
    specs = [Spec.make(shape, tuple(stride), offset, DTYPES[dtype]) for dtype, shape, stride, offset in answer[2]]
    return [PointerTensor(Handle(worker, out, spec)) for out, spec in zip(outs, specs, strict=True)]


@queries.measure.register
def _measure(values: PointerTensor, query: Query, request: str | None) -> PointerTensor:
    worker, out = values.location, values.location.next_id()
    asked = (KINDS.index(query.kind), query.epsilon, query.delta, query.bounds, query.grid)
    fields = (operand_id(values), asked, request or secrets.token_hex(16), out)
    must_be_sendable(MEASURE, 1, *fields)
    return _results(worker, [out], worker.ask(MEASURE, *fields))[0]


@queries.budget.register
def _budget(values: PointerTensor) -> list[Standing]:
    answer = values.location.ask(BUDGET, operand_id(values))
    return [Standing(Account(dataset, user, epsilon, delta), spent) for dataset, user, epsilon, delta, spent in answer[3]]


@queries.mapped.register
def _mapped(
    rows: PointerTensor, plan: Callable[..., Any], others: Sequence[torch.Tensor], terms: tuple[float, float], request: str | None
) -> Any:
    plan = plan if isinstance(plan, Plan) else Plan(plan)
    route, operands = plan.over_rows([rows, *others], 1)
    operands += [constant._handle.id for constant in route.constants]
    pointers = _map(route, operands, 1, (), (*terms, 1.0), request, len(route.program.results))
    structure = route.program.structure
    return pointers[0] if structure.is_leaf() else tree_unflatten(pointers, structure)


def _map(
    route: Route, operands: list[int], over: int, wrt: Sequence[int], terms: tuple[float, float, float], request: str | None, count: int
) -> list[PointerTensor]:
    worker = route.worker
    outs = [worker.next_id() for _ in range(count)]
    fields = (route.stored.id, operands, over, tuple(wrt), terms, request or secrets.token_hex(16), outs)
    must_be_sendable(MAP, 1, *fields)
    return _results(worker, outs, worker.ask(MAP, *fields))


class _Watched(TorchFunctionMode):
    """While a loss is written down for a node to differentiate. Raises `PlanError` for what is made of parameters under `torch.no_grad()`,
    or in a function with a backward of its own: the node is told of operators alone, and would differentiate these."""

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        stops = not torch.is_grad_enabled() and isinstance(result, PointerTensor)
        if stops and any(isinstance(value, torch.Tensor) and value.requires_grad for value in tree_flatten((args, kwargs))[0]):
            raise PlanError(
                "a loss that is differentiated where its rows are computes with its parameters under torch.no_grad(), or in an "
                "autograd.Function: there gradients would flow through it. Do without, or train on rows that are here"
            )
        return result


@torch.enable_grad()
def _of_one(loss: training.Loss, row: Sequence[torch.Tensor]) -> torch.Tensor:
    """The ``loss`` of one ``row``. Raises `ConfigurationError` unless it is a number that has gradients."""
    if row and isinstance(row[0], PointerTensor):
        row[0].location.cut = set()
    with _Watched():
        value = loss(*[r.unsqueeze(0) for r in row])
    must_be_number(value)
    if not value.requires_grad:
        raise ConfigurationError("the loss does not depend on the parameters")
    return value


def _others(loss: training.Loss, parameters: Sequence[torch.Tensor]) -> list[PointerTensor]:
    """What ``loss`` reads at the worker that is not trained: frozen layers, buffers."""
    found: dict[int, PointerTensor] = {}
    for value in named(loss).values():
        tensors = [*value.parameters(), *value.buffers()] if isinstance(value, nn.Module) else [value]
        found.update({id(t): t for t in tensors if isinstance(t, PointerTensor)})
    for parameter in parameters:
        found.pop(id(parameter), None)
    return list(found.values())


@training.gradients.register
def _gradients(
    first: PointerTensor, optimizer: training.DPOptimizer, loss: training.Loss, data: Sequence[torch.Tensor]
) -> list[torch.Tensor]:
    """The owner samples, differentiates, clips, sums, adds noise and charges: one message. The sums are then divided there."""
    parameters = optimizer.parameters
    if any(not isinstance(p, PointerTensor) or p.location is not first.location for p in (*parameters, *data)):
        raise TensorsNotCollocatedError("the model and all data of a private step are at one worker: send() the model there")
    must_keep_apart(value for value in named(loss).values() if isinstance(value, nn.Module))
    key = getattr(loss, "__code__", loss)  # a lambda written in a loop is a new one each time, of the same code
    state = [*parameters, *_others(loss, parameters)]
    plan = optimizer.recorded.get(key)
    if plan is None or list(map(id, plan.state)) != list(map(id, state)):
        plan = optimizer.recorded[key] = Plan(state=state)
    plan._function = lambda *row: _of_one(loss, row)  # what that reads now tells whether to record anew
    route, operands = plan.over_rows(data, len(data))
    operands += [constant._handle.id for constant in route.constants]
    terms = (optimizer.l2_norm_clip, optimizer.noise_multiplier, optimizer.rate(len(first)))
    wrt = tuple(range(len(data), len(data) + len(parameters)))
    sums = _map(route, operands, len(data), wrt, terms, None, len(parameters))
    return [noised.div_(terms[2] * len(first)) for noised in sums]
