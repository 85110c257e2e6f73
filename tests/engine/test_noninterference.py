"""What a scientist is told does not depend on PRIVATE values, for every operator of the table.

Two engines differ in nothing but the values of one PRIVATE dataset of public shape. The same messages go to both: the operator on that
dataset, then everything that could tell whether it worked. All answers must be equal, bit by bit, and so must all accounts.
"""

import importlib.util
import random
from pathlib import Path

import pytest
import torch

from syftlite._torch import aten
from syftlite.engine.engine import Engine
from syftlite.ops.dtypes import FORMAT_OF, NUMBER_OF
from syftlite.ops.operator import Result
from syftlite.ops.table import TABLE
from syftlite.testing.peer import Peer, number_of
from syftlite.wire import messages as m

_spec = importlib.util.spec_from_file_location("operator_samples", Path(__file__).parent.parent / "ops" / "samples.py")
samples = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(samples)

CLONE, ADD, RAND = (number_of(f) for f in (aten.clone.default, aten.add.Tensor, aten.rand.default))
SECRET = "#secret"


class Nothing:
    """A journal that keeps nothing."""

    def append(self, event, record):
        """Forget it."""

    note = append


def others(tensor):
    """Values that could have stood in ``tensor``'s place."""
    if tensor.dtype is torch.bool:
        return [~tensor]
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex:
        return [torch.full_like(tensor, v) for v in (0.5, -6e4, float("nan"))]
    return [torch.full_like(tensor, v) for v in ((0, 250) if tensor.dtype is torch.uint8 else (-1, 1 << 30))]


def tensors_of(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif type(value) in (list, tuple):
        for item in value:
            yield from tensors_of(item)


class Script:
    """One operator on one sample with the tensor ``target`` PRIVATE: the same messages, whatever its values are."""

    def __init__(self, operator, sample, target, misuse):
        self.operator, self.sample, self.target, self.misuse = operator, sample, target, misuse
        self.outs = self._outs()

    def _outs(self):
        if self.operator.result in (Result.NOTHING, Result.VALUE):
            return 0
        copies = [samples.clone(samples.plain(a)) for a in self.sample.args]
        out = self.operator.func(*copies, **{k: samples.clone(samples.plain(v)) for k, v in self.sample.kwargs.items()})
        return 1 if isinstance(out, torch.Tensor) else len(out)

    def answers(self, values):
        """Everything that comes back, and the session's accounts, when the PRIVATE tensor holds ``values``."""
        torch.manual_seed(0)
        engine = Engine("hospital", journal=Nothing(), clock=lambda: 1.0, bits=random.Random(1).getrandbits, max_bytes=1 << 24)
        engine.load("secret", values, (SECRET,), private=True)
        told = []
        for outs in self._forms():
            peer = Peer(engine, "eve")
            told.append(peer.say((m.FIND, 1, (SECRET,), 0)))
            told += list(self._run(peer, engine.names["secret"], outs))
            session = peer.door.session
            told.append((peer.door.closing, session and (session.used, sorted(session.objects))))
        return repr(told)

    def _forms(self):
        """How the message may name its results: as it should, and in ways that no client does."""
        count = self.outs
        right = {Result.NOTHING: 0, Result.VALUE: 0, Result.ONE: "id"}.get(self.operator.result, count)
        return dict.fromkeys([right, 0, "id", 1, count, count + 1] if self.misuse else [right])

    def _run(self, peer, secret, form):
        counter = iter(range(1, 10_000))

        def put(tensor):
            number = peer.id(next(counter))
            peer.say((m.PUT, number, tensor, (), ""))
            return number

        def wire(value):
            if isinstance(value, samples.Local):
                return [NUMBER_OF[value.tensor.dtype], value.tensor.item()]
            if value is self.target:
                number = peer.id(next(counter))  # a copy, which may be written to
                peer.say((m.OP, CLONE, (secret,), None, number))
                return number
            if isinstance(value, torch.Tensor):
                return put(value)
            if type(value) in (list, tuple):
                return [wire(v) for v in value]
            if isinstance(value, torch.dtype):
                return NUMBER_OF[value]
            return FORMAT_OF[value] if isinstance(value, torch.memory_format) else value

        args = [wire(v) for v in self.sample.args]
        for position, value in enumerate(args):
            if type(self.sample.args[position]) in (int, bool) and self.operator.codes[position] in "Tt":
                args[position] = [value]
        kwargs = {k: wire(v) for k, v in self.sample.kwargs.items()} or None
        results = [peer.id(5000 + i) for i in range(1 if form == "id" else form)]
        outs = results[0] if form == "id" else results or None
        later = [peer.id(6000 + i) for i in range(2 * len(results))]
        yield peer.say((m.OP, self.operator.number, args, kwargs, outs))
        yield peer.say((m.ASK, 1, self.operator.number, args, kwargs, [peer.id(7000 + i) for i in range(self.outs)]))
        yield peer.say((m.LIST, 2, 0))
        for number, copy, sum_ in zip(results, later[::2], later[1::2], strict=True):
            yield peer.say((m.OP, CLONE, (number,), None, copy), (m.OP, ADD, (number, copy), None, sum_))
            yield peer.say(*[(m.GET, 3, (n,), False, None) for n in (number, copy, sum_)])
        yield peer.say((m.LIST, 4, 0))
        dice = peer.id(8000)  # operators share one stream of random numbers: none may take more of it for some values than for others
        yield peer.say((m.OP, RAND, ((4,),), None, dice), (m.GET, 6, (dice,), False, None))
        yield peer.say(*[(m.GET, 5, (n,), False, None) for n in args if type(n) is int and n > 1 << 32])


def scripts(operator):
    for number, sample in enumerate(samples.samples(operator)[:2]):
        for target in tensors_of([*sample.args, *sample.kwargs.values()]):
            if target.numel():
                yield Script(operator, sample, target, misuse=number == 0)


@pytest.mark.parametrize("operator", [o for o in TABLE if o is not None], ids=lambda o: f"{o.number}-{o.name.removeprefix('aten.')}")
def test_answers_do_not_depend_on_private_values(operator):
    for script in scripts(operator):
        reference = script.answers(script.target)
        for values in others(script.target):
            assert script.answers(values) == reference
