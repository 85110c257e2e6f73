"""Random programs that try to carry one row out of a node.

    attack        a few messages: operators of the table with operands by their schema, and what people try: one-hot products, soft masks,
                  weights, duplicates, differences, rounding, views, writes in place, plans, comparisons, shapes, errors
    campaign      many of them against one dataset, each result asked for; everything that came back
    twin          the same messages, sent to a node with other rows

Private questions are asked, too; their noise is taken for granted (tests/dp looks at that), and nothing else may tell of a row.
What leaves under R1 is made of sums of degree 2 over atoms of rows, so it must be the same, to rounding, at a twin whose rows differ and
whose atoms have the same such sums. Any value that tells a row from its neighbours differs there.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy
import torch

from syftlite._torch import aten
from syftlite.dp.mechanisms import Query
from syftlite.engine import marks, measuring
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConfigurationError, ProtocolError
from syftlite.ops.operator import Operator, Result
from syftlite.ops.table import BY_FUNC, TABLE
from syftlite.policy.labels import Class
from syftlite.policy.lineage import axis_of
from syftlite.wire import messages as m

ROWS, COLUMNS, CANARY = 48, 3, 17
LEAST = 5
"""Rows that every release keeps together."""
OPERATORS = [operator for operator in TABLE if operator is not None]
SHAPES = ((), (1,), (COLUMNS,), (ROWS,), (ROWS, 1), (1, ROWS), (2, ROWS), (COLUMNS, COLUMNS), (COLUMNS, 2), (ROWS, COLUMNS), (1, COLUMNS))
NUMBERS = (0, 1, 2, -1, 0.5, 1e-9, 1e9, 2.0**53, 1e16, 1e300, -3.0, 100.0)


class Nothing:
    """A journal that keeps nothing."""

    def append(self, event: str, record: dict[str, Any]) -> None:
        """Forget it."""

    note = append


def dataset(seed: int) -> torch.Tensor:
    """(ROWS, COLUMNS) float64, the canary's row no different in kind."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, COLUMNS, generator=generator, dtype=torch.float64) * 3 + torch.tensor([50.0, 0.0, 2.0], dtype=torch.float64)


def twin_of(rows: torch.Tensor, atoms: numpy.ndarray, seed: int, *, turn: bool) -> torch.Tensor:
    """Other rows with the same sums and sums of products over each atom: turned by a rotation that keeps (1, ..., 1), or exchanged."""
    twin, generator = rows.clone(), torch.Generator().manual_seed(seed)
    names, sizes = numpy.unique(atoms, return_counts=True)
    atoms = numpy.where(numpy.isin(atoms, names[sizes < LEAST]), names[sizes.argmax()], atoms)  # which nothing may tell apart
    for atom in numpy.unique(atoms):
        of = torch.from_numpy(numpy.flatnonzero(atoms == atom))
        n = len(of)
        if not turn:
            twin[of] = rows[of.roll(1)]
        elif n > 2:
            noise = torch.randn(n, n, generator=generator, dtype=torch.float64)
            noise[:, 0] = 1.0
            basis = torch.linalg.qr(noise).Q  # its first column is (1, ..., 1) / sqrt(n), to sign
            inner = torch.linalg.qr(torch.randn(n - 1, n - 1, generator=generator, dtype=torch.float64)).Q
            turned = basis[:, 1:] @ inner @ basis[:, 1:].T + basis[:, :1] @ basis[:, :1].T
            twin[of] = turned @ rows[of]
    return twin


class Campaign:
    """Attacks on one node, and what they were told. ``messages`` (None: made up) can be sent again to another node."""

    def __init__(self, policy: Any, rows: torch.Tensor, seed: int, messages: list[Any] | None = None) -> None:
        self.engine = Engine("node", journal=Nothing(), clock=lambda: 1.0, bits=random.Random(seed).getrandbits, max_bytes=1 << 26)
        self.number = self.engine.load("icu", rows, ("#icu",), policy=policy)
        self.engine.load("open", rows.flip(0) * 0 + 1.0, ("#open",))
        self.session = self.engine.open_session(Principal("eve", Role.SCIENTIST))
        self.policy, self.random = policy, random.Random(seed)
        self.count = 0
        self.replies: list[Any] = []
        self.values: dict[int, torch.Tensor] = {}
        self.measured: list[Any] = []
        self.sent: list[Any] = []
        self.objects: list[int] = []
        self.answered = 0
        self.say((m.FIND, 1, ("#icu",), 0))
        if messages is not None:
            for message in messages[1:]:
                self.say(message)

    def say(self, message: Any) -> Any:
        """One message, its answer kept."""
        self.sent.append((*message[:2], message[2].clone(), *message[3:]) if message[0] == m.PUT else message)
        torch.default_generator.manual_seed(len(self.sent))  # so that a twin's dice fall alike
        try:
            answer = self.engine.handle(self.session, message)
        except ProtocolError as error:
            answer = ("protocol", str(error))
        if answer is not None:
            self.replies.append(answer)
            if answer[0] == m.VALUES and message[0] == m.GET:
                self.answered += 1
                self.values[len(self.sent)] = answer[2][0].clone()
            if message[0] in (m.MEASURE, m.MAP, m.BUDGET):
                self.measured.append(answer)
        return answer

    def fresh(self) -> int:
        """An id."""
        self.count += 1
        return (self.session.prefix << 32) + self.count

    # -- building blocks

    def op(self, overload: Any, *args: Any, **kwargs: Any) -> int:
        """One operator with one result."""
        operator, out = BY_FUNC[overload], self.fresh()
        self.say((m.OP, operator.number, args, kwargs or None, None if operator.result is Result.NOTHING else out))
        return args[0] if operator.result is Result.NOTHING else out

    def put(self, tensor: torch.Tensor) -> int:
        """An upload."""
        number = self.fresh()
        self.say((m.PUT, number, tensor, (), ""))
        return number

    def get(self, *numbers: int) -> None:
        """Ask for values."""
        self.say((m.GET, 3, numbers, False, None))

    # -- attacks

    def run(self, programs: int) -> Campaign:
        """Send ``programs`` attacks."""
        for _ in range(programs):
            self.attempt()
            self._drop()
        return self

    def attempt(self) -> None:
        """Send one attack."""
        attacks = [getattr(self, name) for name in dir(self) if name.startswith("attack_")]
        attacks += 3 * [attack for attack in attacks if "private" in attack.__name__] * (self.policy.dp is not None)
        if self.random.random() < 0.5:
            self._random_program()
            return
        for result in self.random.choice(attacks)():
            self.get(result)
            if self.random.random() < 0.3:
                self.get(self.op(aten.sum.dim_IntList, result, (0,)))

    def _drop(self) -> None:
        keep = self.objects[-6:]
        self.objects = keep
        if len(self.session.objects) > 60:
            gone = [n for n in self.session.objects if n != self.number and n not in keep]
            self.say((m.DROP, gone))

    def _pick(self) -> int:
        r = self.random.random()
        if r < 0.35 or not self.objects:
            return self.number if r < 0.25 else self._upload()
        return self.random.choice(self.objects)

    def _upload(self) -> int:
        shape, kind = self.random.choice(SHAPES), self.random.random()
        torch.default_generator.manual_seed(self.random.getrandbits(30))
        if kind < 0.3:
            value = torch.randn(shape, dtype=torch.float64)
        elif kind < 0.6:
            value = torch.randint(0, 2, shape).to(torch.float64)
        elif kind < 0.8:
            value = torch.randint(0, ROWS if len(shape) == 1 else COLUMNS, shape)
        else:
            value = torch.zeros(shape, dtype=torch.float64)
            if value.numel():
                value.view(-1)[CANARY % value.numel()] = 1.0
        return self.put(value)

    def _argument(self, code: str) -> Any:
        choose = self.random.choice
        if code in "Tt":
            return self._pick() if self.random.random() < 0.85 else choose([float(v) for v in NUMBERS])
        if code in "Ll":
            return [self._pick() for _ in range(self.random.randint(1, 2))]
        plain: dict[str, Any] = {
            "i": lambda: choose((0, 1, -1, 2, CANARY)), "f": lambda: float(choose(NUMBERS)), "b": lambda: choose((True, False)),
            "I": lambda: choose(([0], [1], [0, 1], [-1], list(choose(SHAPES)))), "F": lambda: [1.0, 2.0], "B": lambda: [True, False],
            "s": lambda: choose(NUMBERS), "S": lambda: [1.0, 2.0], "d": lambda: choose((0, 1, 4, 6)), "m": lambda: 0, "w": lambda: "sum",
        }  # fmt: skip
        return plain[code]() if code in plain else None

    def _random_program(self) -> None:
        made = []
        for _ in range(self.random.randint(1, 4)):
            operator: Operator = self.random.choice(OPERATORS)
            args = [self._argument(code) for code in operator.codes]
            kwargs = {
                name: self._argument(p.code)
                for name, p in operator.keywords.items()
                if p not in operator.parameters[: len(operator.codes)] and p.code != "-" and not p.optional
            }
            if operator.dynamic:
                outs = () if operator.result is Result.VALUE else [self.fresh()]
                self.say((m.ASK, 2, operator.number, args, kwargs or None, outs))
                continue
            if operator.result is Result.NOTHING:
                outs = None
                made += [a for a in args[:1] if type(a) is int and a > 1 << 32]
            elif operator.result is Result.ONE:
                outs = self.fresh()
                made.append(outs)
            else:
                outs = [self.fresh() for _ in range(self.random.randint(1, 3))]
                made += outs
            self.say((m.OP, operator.number, args, kwargs or None, outs))
        self.objects += made
        for number in made[-2:]:
            self.get(number)
            if self.random.random() < 0.5:
                self.get(self.op(aten.sum.default, number))

    def _column(self) -> int:
        return self.op(aten.select.int, self.number, 1, self.random.randrange(COLUMNS))

    def _some(self, low: int = 1) -> list[int]:
        chosen = self.random.sample(range(ROWS), self.random.randint(low, ROWS))
        return chosen if self.random.random() < 0.5 else list({*chosen, CANARY})

    def _mask(self) -> int:
        if self.random.random() < 0.5:
            bits = torch.zeros(ROWS, dtype=torch.float64)
            bits[self._some()] = 1.0
            return self.put(bits)
        compare = self.random.choice((aten.gt.Scalar, aten.lt.Scalar, aten.eq.Scalar, aten.ge.Scalar))
        return self.op(compare, self._column(), self.random.choice((50.0, 0.0, 2.0, 47.0, 55.0)) + self.random.random())

    def attack_direct(self) -> list[int]:
        return [self.number, self.op(aten.clone.default, self.number), self.op(aten.select.int, self.number, 0, CANARY)]

    def attack_slice(self) -> list[int]:
        start = self.random.randint(0, ROWS - 1)
        part = self.op(aten.slice.Tensor, self.number, 0, start, self.random.randint(start + 1, ROWS))
        return [self.op(aten.sum.dim_IntList, part, (0,)), self.op(aten.mean.dim, part, (0,))]

    def attack_difference(self) -> list[int]:
        rows = self._some(2)
        less = [r for r in rows if r != CANARY] or [0]
        sums = []
        for chosen in (rows, less):
            index = self.put(torch.tensor(chosen))
            sums.append(self.op(aten.sum.dim_IntList, self.op(aten.index_select.default, self.number, 0, index), (0,)))
        return [*sums, self.op(aten.sub.Tensor, *sums)]

    def attack_tracker(self) -> list[int]:
        order = [r for r in range(ROWS) if r != CANARY]
        self.random.shuffle(order)
        a, b = order[: ROWS // 3], order[ROWS // 3 : 2 * ROWS // 3]
        sums = []
        for chosen in (a, [*b, CANARY], [*a, *b], [*a, CANARY]):
            index = self.put(torch.tensor(sorted(chosen)))
            sums.append(self.op(aten.sum.dim_IntList, self.op(aten.index_select.default, self.number, 0, index), (0,)))
        return sums

    def attack_duplicates(self) -> list[int]:
        index = self.put(torch.tensor([*range(ROWS), *[CANARY] * self.random.randint(1, 9)]))
        return [self.op(aten.mean.dim, self.op(aten.index_select.default, self.number, 0, index), (0,))]

    def attack_onehot(self) -> list[int]:
        weights = torch.zeros(2, ROWS, dtype=torch.float64)
        weights[0, CANARY] = self.random.choice((1.0, 1e6))
        weights[1, self._some()] = 1.0
        if self.random.random() < 0.5:
            weights += self.random.choice((0.0, 1e-6, 1.0))
        return [self.op(aten.mm.default, self.put(weights), self.number)]

    def attack_weights(self) -> list[int]:
        weights = torch.rand(ROWS, 1, dtype=torch.float64) * self.random.choice((1e-9, 1.0))
        weights[CANARY] = 1.0
        return [self.op(aten.sum.dim_IntList, self.op(aten.mul.Tensor, self.number, self.put(weights)), (0,))]

    def attack_mask(self) -> list[int]:
        mask, column = self._mask(), self._column()
        chosen = self.op(aten.mul.Tensor, column, mask)
        return [self.op(aten.sum.default, mask), self.op(aten.sum.default, chosen)]

    def attack_two_masks(self) -> list[int]:
        both = self.op(aten.logical_and.default, self._mask(), self._mask())
        other = self.op(aten.logical_or.default, both, self._mask())
        return [self.op(aten.sum.default, both), self.op(aten.sum.default, self.op(aten.where.self, other, self._column(), 0.0))]

    def attack_soft_mask(self) -> list[int]:
        scaled = self.op(aten.mul.Scalar, self.number, self.random.choice((1.0, 100.0, 1000.0)))
        soft = self.random.choice((aten.exp.default, aten.sigmoid.default, aten.relu.default, aten.tanh.default))
        return [self.op(aten.sum.dim_IntList, self.op(soft, scaled), (0,)), self.op(aten.logsumexp.default, scaled, (0,))]

    def attack_rounding(self) -> list[int]:
        big = self.random.choice((2.0**53, 1e16, 2.0**52 * 3, 1e300, 1e-300))
        moved = self.op(aten.add.Scalar, self._column(), big) if big > 1 else self.op(aten.mul.Scalar, self._column(), big)
        back = self.op(aten.sub.Scalar, moved, big) if big > 1 else self.op(aten.div.Scalar, moved, big)
        return [self.op(aten.sum.default, back)]

    def attack_products(self) -> list[int]:
        x = self.number
        squared = self.op(aten.mul.Tensor, x, x)
        power = self.op(aten.mul.Tensor, squared, self.random.choice((x, squared)))
        gram = self.op(aten.mm.default, self.op(aten.t.default, x), x)
        return [self.op(aten.sum.dim_IntList, squared, (0,)), self.op(aten.sum.dim_IntList, power, (0,)), gram]

    def attack_in_place(self) -> list[int]:
        own = self.put(torch.zeros(ROWS, COLUMNS, dtype=torch.float64))
        view = self.op(aten.select.int, own, 0, self.random.randrange(ROWS))
        self.op(aten.copy_.default, view, self.op(aten.select.int, self.number, 0, CANARY))
        kept = self.put(torch.zeros(ROWS, dtype=torch.float64))
        part = self.op(aten.slice.Tensor, kept, 0, CANARY, CANARY + 1)
        self.op(aten.add_.Tensor, part, self.op(aten.slice.Tensor, self._column(), 0, CANARY, CANARY + 1))
        return [own, kept, self.op(aten.sum.dim_IntList, own, (0,)), self.op(aten.sum.default, kept)]

    def attack_order(self) -> list[int]:
        x = self.number
        return [self.op(aten.amax.default, x, (0,)), self.op(aten.cumsum.default, x, 0), self.op(aten.prod.dim_int, x, 0)]

    def attack_gradient(self) -> list[int]:
        x, weights = self.number, self.put(torch.zeros(COLUMNS, 1, dtype=torch.float64))
        residual = self.op(aten.sub.Tensor, self.op(aten.mm.default, x, weights), self.op(aten.unsqueeze.default, self._column(), 1))
        if self.random.random() < 0.5:
            residual = self.op(aten.relu.default, residual)
        gradient = self.op(aten.mm.default, self.op(aten.t.default, x), residual)
        self.op(aten.sub_.Tensor, weights, self.op(aten.mul.Scalar, gradient, 1e-4))
        return [gradient, weights]

    def attack_plan(self) -> list[int]:
        plan, base = self.fresh(), self.count
        chosen = self.random.choice((aten.amax.default, aten.sum.dim_IntList))
        code = [(BY_FUNC[aten.mul.Tensor].number, (1, 2), None, 3), (BY_FUNC[chosen].number, (3, (0,)), None, 4)]
        self.say((m.PLAN, plan, 2, tuple(code), (4,)))
        weights = torch.zeros(ROWS, 1, dtype=torch.float64)
        weights[self._some()] = 1.0
        operand, self.count = self.put(weights), self.count + 10
        out = self.fresh()
        self.say((m.RUN, plan, (self.number, operand), (self.session.prefix << 32) + base + 3, (out,)))
        return [out]

    def attack_shape(self) -> list[int]:
        for overload, args in (
            (aten.nonzero.default, (self._mask(),)), (aten.masked_select.default, (self._column(), self._mask())),
            (aten._local_scalar_dense.default, (self.op(aten.select.int, self._column(), 0, CANARY),)),
            (aten._unique2.default, (self.number,)), (aten.equal.default, (self._column(), self._column())),
        ):  # fmt: skip
            operator = BY_FUNC[overload]
            outs = () if operator.result is Result.VALUE else [self.fresh() for _ in range(3 if "unique" in operator.name else 1)]
            self.say((m.ASK, 2, operator.number, args, None, outs))
        return []

    def attack_error(self) -> list[int]:
        whole = self.op(aten._to_copy.default, self._column(), dtype=4)
        table = self.put(torch.arange(40.0))
        return [self.op(aten.index_select.default, table, 0, whole), self.op(aten.floor_divide.default, whole, whole)]

    def attack_cat(self) -> list[int]:
        row = self.op(aten.slice.Tensor, self.number, 0, CANARY, CANARY + 1)
        many = self.op(aten.cat.default, [row] * 12, 0)
        mixed = self.op(aten.cat.default, [row, self.put(torch.zeros(20, COLUMNS, dtype=torch.float64))], 0)
        return [self.op(aten.sum.dim_IntList, many, (0,)), self.op(aten.mean.dim, mixed, (0,))]

    def attack_aggregates(self) -> list[int]:
        total = self.op(aten.sum.dim_IntList, self.number, (0,))
        row = self.op(aten.sum.dim_IntList, self.op(aten.slice.Tensor, self.number, 0, CANARY, CANARY + 1), (0,))
        mixed = self.op(aten.add.Tensor, total, row)
        hidden = self.op(aten.mul.Tensor, self.number, row)
        return [mixed, self.op(aten.sum.dim_IntList, hidden, (0,)), self.op(aten.gt.Scalar, row, 50.0)]

    def _rows(self) -> int:
        """Something that a private question may be asked about, or not."""
        about = self.random.random()
        if about < 0.5:
            return self._column()
        if about < 0.7:
            start = self.random.randrange(ROWS - 1)
            return self.op(aten.slice.Tensor, self._column(), 0, start, self.random.randint(start + 1, ROWS))
        if about < 0.85:
            return self.op(self.random.choice((aten.exp.default, aten.neg.default, aten.cumsum.default)), self._column(), *[])
        return self._pick()

    def attack_private_question(self) -> list[int]:
        choose, out, kind = self.random.choice, self.fresh(), self.random.randint(0, 6)
        bounds = choose((None, (0.0, 1.0), (40.0, 60.0), (-1e9, 1e9), (1.0, 1.0)))
        grid = {4: (40.0, 50.0, 60.0), 5: (0.5, 64.0)}.get(kind, ())
        if self.random.random() < 0.2:
            bounds, grid = choose(((2.0, 1.0), (0.0, 1e300))), choose(((), (3.0, 1.0), (0.0, 1e6)))
        asked = (kind, choose((0.1, 0.5, 1.0, 10.0, 1e-9, 1e9)), choose((None, 1e-6, 0.5)), bounds, grid)
        self.say((m.MEASURE, 11, self._rows(), asked, choose(("", "same")) + str(self.random.randint(0, 3)), out))
        self.say((m.BUDGET, 12, self.number))
        return [out, self.op(aten.mul.Tensor, out, self.number), self.op(aten.add.Tensor, out, self._column())]

    def attack_private_map(self) -> list[int]:
        plan, base = self.fresh(), self.count
        functions = (aten.exp.default, aten.neg.default, aten.amax.default, aten.sum.default)
        code = [(BY_FUNC[self.random.choice(functions)].number, (1,), None, 2)]
        self.say((m.PLAN, plan, 1, tuple(code), (2,)))
        self.count = base + 10
        choose, out = self.random.choice, self.fresh()
        terms = choose((0.0, 1.0, 1.0, 1e9)), choose((0.0, 1.0, 5.0)), choose((1.0, 0.5))
        self.say((m.MAP, 13, plan, (self.number if self.random.random() < 0.7 else self._pick(),), 1, (), terms, "", (out,)))
        return [out]

    def attack_other_messages(self) -> list[int]:
        self.say((m.FILE, 4, (self.number,), "please"))
        self.say((m.DECIDE, 5, "0", True, ""))
        self.say((m.STORE, 6, self.number, "mine", (), "", False))
        self.say((m.LIST, 7, 0))
        self.say((m.SHIP, 8, ((self.number, 1),), "ws://127.0.0.1:1", "x" * 43))
        self.say((m.SPLIT, 9, self.number, (("", "", self.fresh()),)))
        self.say((m.GET, 10, (self.number,), False, "me"))
        return []


def leaks(policy: Any, seed: int, programs: int) -> tuple[list[str], int]:
    """What a campaign of ``programs`` attacks tells of single rows, or that ended in no handled error; and how many values left."""
    rows = dataset(seed)
    broken: list[str] = []
    with _watched(broken), _noise_alone():
        return _leaks(policy, seed, programs, rows, broken)


def _leaks(policy: Any, seed: int, programs: int, rows: torch.Tensor, broken: list[str]) -> tuple[list[str], int]:
    campaign = Campaign(policy, rows, seed).run(programs)
    found = broken + [f"unhandled: {reply}" for reply in campaign.replies if reply[0] == m.ERROR and "internal error" in reply[3]]
    digits = {repr(float(v))[:7] for v in rows[CANARY]}
    texts = [str(r) for r in campaign.replies if r[0] in (m.ERROR, m.FOUND, m.STATE, m.SPECS, "protocol")]
    found += [f"told: {text}" for text in texts if any(d in text for d in digits)]
    partition = campaign.engine.policies.sums._partitions.get("icu")
    if partition is None:
        atoms, derived = numpy.zeros(ROWS, dtype=int), False
    else:
        atoms, derived = partition.atoms, partition.derived
    twin = Campaign(policy, twin_of(rows, atoms, seed, turn=not derived), seed, campaign.sent)
    for place, value in campaign.values.items():
        other = twin.values.get(place)
        if other is not None and other.shape == value.shape and not _alike(value, other):
            found.append(f"{story(campaign, place)} gave {value.tolist()}, or {other.tolist()}")
    asked = zip(campaign.measured, twin.measured, strict=True)
    found += [f"a private question was answered with {one}, or {other}" for one, other in asked if one != other]
    return found, campaign.answered


def uncovered(policy: Any, seed: int, programs: int, row: int) -> tuple[list[str], int]:
    """Where the value of ``row`` had an effect that no label tells of, in a node's objects after random programs; and how many of them
    depended on it at all."""
    rows = dataset(seed)
    changed = rows.clone()
    changed[row] += torch.tensor([3.0, -2.0, 1.5], dtype=torch.float64)
    with _noise_alone():
        campaign = Campaign(policy, rows, seed)
        for _ in range(programs):
            campaign.attempt()
        twin = Campaign(policy, changed, seed, campaign.sent)
    found, moved = [], 0
    for number, (tensor, cell) in campaign.session.objects.items():
        other = twin.session.objects.get(number, (None, None))[0]
        if tensor is None or other is None or tensor.shape != other.shape or cell.poisoned:
            continue
        same = (tensor == other) | (tensor.isnan() & other.isnan())
        moved += not bool(same.all())
        label = cell.label
        if bool(same.all()) or any(bool(s.bits[row]) for s in label.selections):
            continue
        axis = axis_of(label.rows, tensor)
        if axis is None:
            if label.level is not Class.PRIVATE:
                found.append(f"{label} of {number} tells nothing of row {row}")
        elif bool((~same).movedim(axis.axis, 0).reshape(len(axis.along), -1).any(1)[torch.from_numpy(axis.along.rows != row)].any()):
            found.append(f"{number}: other rows than {row} changed, along {axis}")
    return found, moved


@contextmanager
def _noise_alone() -> Iterator[None]:
    """Private answers tell nothing: what tells of a row then went by another way. Their noise has tests of its own (tests/dp)."""
    query, mapped = Query.run, measuring.run

    def run(self: Query, values: torch.Tensor, units: int = 1) -> torch.Tensor:
        try:
            return torch.zeros_like(query(self, values, units))
        except ConfigurationError:  # noise decided that no bounds stand out
            return torch.zeros((), dtype=torch.float64)

    Query.run, measuring.run = run, lambda *given: [torch.zeros_like(one) for one in mapped(*given)]  # type: ignore[method-assign]
    try:
        yield
    finally:
        Query.run, measuring.run = query, mapped  # type: ignore[method-assign]


@contextmanager
def _watched(broken: list[str]) -> Iterator[None]:
    """Note every operator that `propagate` fails on: its result would be held to be exposed."""
    real = marks.propagate

    def propagate(operator: Any, args: Any, *rest: Any) -> Any:
        try:
            return real(operator, args, *rest)
        except Exception as error:
            broken.append(f"propagate: {operator}, {[getattr(a, 'shape', a) for a in args]}: {error!r}")
            raise

    marks.propagate = propagate
    try:
        yield
    finally:
        marks.propagate = real


def story(campaign: Campaign, place: int) -> str:
    """How the value was made that the message number ``place`` fetched."""
    wanted, told = list(campaign.sent[place - 1][2]), []
    for message in reversed(campaign.sent[: place - 1]):
        if message[0] in (m.OP, m.PUT, m.RUN, m.PLAN):
            outs = message[4] if message[0] in (m.OP, m.RUN) else message[1]
            inplace = message[0] == m.OP and outs is None and message[2] and message[2][0] in wanted
            made = outs if type(outs) in (list, tuple) else [outs]
            if inplace or any(o in wanted for o in made):
                name = f" {TABLE[message[1]].name}" if message[0] == m.OP and TABLE[message[1]] else ""
                told.append(f"{message[0]}{name} {str(message[1:])[:300]}")
                wanted += [a for a in numpy.ravel(numpy.array(message[2], dtype=object)) if type(a) is int] if message[0] == m.OP else []
                wanted += list(message[2]) if message[0] == m.RUN else []
    return "\n".join(reversed(told))


def _alike(one: torch.Tensor, other: torch.Tensor) -> bool:
    if not one.dtype.is_floating_point and not one.dtype.is_complex:
        return torch.equal(one, other)
    return torch.allclose(
        one, other, rtol=1e-5, atol=1e-5 * float(one.abs().nan_to_num(0, 0, 0).max()) if one.numel() else 0, equal_nan=True
    )
