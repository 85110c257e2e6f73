"""One session at an engine without a client: samples stored there, operators run there by message, and what became of them."""

from __future__ import annotations

from itertools import count
from typing import Any

import torch
from placing import strided
from samples import Local, Sample

from syftlite._torch import aten
from syftlite.engine import executor
from syftlite.engine.engine import Engine
from syftlite.engine.session import Cell, Principal, Role
from syftlite.ops.dtypes import FORMAT_OF, NUMBER_OF
from syftlite.ops.operator import Operator, Result
from syftlite.ops.table import BY_FUNC
from syftlite.wire import messages as m
from syftlite.wire.messages import Message

CLONE, PERMUTE, EXPAND = (BY_FUNC[f].number for f in (aten.clone.default, aten.permute.default, aten.expand.default))


class Bench:
    """A scientist's session at a hospital's engine."""

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.engine = Engine("hospital", max_bytes=max_bytes)
        self.session = self.engine.open_session(Principal("eve", Role.SCIENTIST))
        self.requests, self.names, self._ids = count(1), count(1), count(1)

    def id(self) -> int:
        """A fresh id."""
        return (self.session.prefix << 32) + next(self._ids)

    def say(self, *message: Any) -> Message | None:
        """Send a message and return its answer."""
        return self.engine.handle(self.session, message)

    def put(self, tensor: torch.Tensor) -> int:
        """Store a copy of ``tensor`` with its strides, as eve's own and public."""
        number = self.id()
        self.session.put(number, strided(tensor, torch.clone))
        return number

    def put_private(self, tensor: torch.Tensor) -> int:
        """As `put`, but a copy that eve made of the owner's PRIVATE dataset."""
        name = f"rows{next(self.names)}"
        dataset = self.engine.load(name, tensor, (name,), private=True)
        self.say(m.FIND, next(self.requests), (name,), 0)
        copy = self.id()
        executor.run(self.session, CLONE, (dataset,), None, copy)
        tensor_there, cell = self.session.objects[copy]
        assert tensor_there is not None and cell.label.private
        if tensor_there.stride() != tensor.stride():
            self.session.objects[copy] = (strided(tensor, torch.clone), cell)
        return copy

    def wire(self, operator: Operator, sample: Sample, put: Any = None) -> tuple[list[Any], dict[str, Any] | None]:
        """``sample`` as an OP message has it; its tensors are stored by ``put``."""

        def form(value: Any, code: str) -> Any:
            if isinstance(value, torch.Tensor):
                return (put or self.put)(value)
            if isinstance(value, Local):
                return [NUMBER_OF[value.tensor.dtype], form(value.tensor.item(), "")]
            if type(value) is complex:
                parts = [value.real, value.imag]
                return [parts] if code in ("T", "t") else parts
            if type(value) in (list, tuple):
                return [form(v, "") for v in value]
            if isinstance(value, torch.dtype):
                return NUMBER_OF[value]
            if isinstance(value, torch.memory_format):
                return FORMAT_OF[value]
            return [value] if code in ("T", "t") and type(value) in (int, bool) else value

        args = [form(a, operator.codes[i]) for i, a in enumerate(sample.args)]
        return args, {name: form(v, operator.keywords[name].code) for name, v in sample.kwargs.items()} or None

    def outs(self, operator: Operator, args: list[Any]) -> Any:
        """Fresh ids for the results of a call on ``args``."""
        if operator.result is Result.ONE:
            return self.id()
        if operator.result is Result.NOTHING:
            return None
        if operator.result is Result.LIST:
            lists = isinstance(args[0], list)
            return tuple(self.id() for _ in (args[0] if lists else operator.func(self.tensor(args[0]), *args[1:])))
        return tuple(self.id() for _ in operator.func._schema.returns)

    def run(self, operator: Operator, args: list[Any], kwargs: dict[str, Any] | None) -> list[int]:
        """Run one OP message. The ids of the results that came."""
        outs = self.outs(operator, args)
        executor.run(self.session, operator.number, args, kwargs, outs)
        named = [outs] if isinstance(outs, int) else list(outs or ())
        return [o for o in named if o in self.session.objects]

    def tensor(self, number: int) -> torch.Tensor:
        """What is stored under ``number``."""
        found = self.session.objects[number][0]
        assert found is not None, self.cell(number).mark
        return found

    def stored(self, value: Any) -> Any:
        """A message's operand with the tensors that it names."""
        if isinstance(value, list):
            return [self.stored(v) for v in value]
        return self.tensor(value) if type(value) is int and value in self.session.objects else value

    def cell(self, number: int) -> Cell:
        """The storage's account of ``number``."""
        return self.session.objects[number][1]

    def ids(self, value: Any) -> list[int]:
        """The object ids in a message's operands."""
        if type(value) is int:
            return [value] if value in self.session.objects else []
        if isinstance(value, dict):
            value = list(value.values())
        return [i for v in value for i in self.ids(v)] if isinstance(value, (list, tuple)) else []

    def written(self, operator: Operator, args: list[Any], kwargs: dict[str, Any] | None) -> list[int]:
        """The ids that ``operator`` says it writes to."""
        given = operator.named(args, kwargs or {})
        return self.ids([given[name] for name in operator.writes if name in given]) if operator.wrote(args) else []

    def ask_value(self, number: int) -> Message:
        """The answer to reading ``number``."""
        answer = self.say(m.GET, next(self.requests), (number,), False, None)
        assert answer is not None
        return answer

    def forget(self) -> None:
        """Drop all that eve has, and the owner's datasets."""
        for number in list(self.session.objects):
            self.session.drop(number)
        for number in list(self.engine.vault.objects):
            self.engine.vault.drop(number)
