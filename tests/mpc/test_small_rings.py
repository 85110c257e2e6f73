"""Rings of 2 to 4 bits, all randomness enumerated: the result is right for every choice of it, and each holder's view has the same
distribution whatever the other holder's share is. Nothing is sampled.

One run does all choices at once: lane i of an elementwise protocol uses the i-th.
"""

import itertools
from collections.abc import Iterator

import pytest
import torch

from syftlite.mpc import truncation
from syftlite.mpc.bits import planes, raw, tensor, word_dtype
from syftlite.mpc.comparison import FOURS, PAIRS, equal_zero, negative, sign_bits, sign_plane, to_arithmetic
from syftlite.mpc.correlations import FREE, SENT, layout
from syftlite.mpc.products import product, square
from syftlite.mpc.ring import Ring
from syftlite.mpc.selection import relu, relu_and_mask

from .group import Group


class Script:
    """In place of a `Source`: bytes that the test wrote for each correlation's parts."""

    def __init__(self):
        self.parts = {}

    def array(self, nbytes, *purpose):
        return self.take(nbytes, *purpose).numpy()

    def take(self, nbytes, number, label, part):
        return self.parts[number, part][:nbytes].clone() if nbytes else torch.empty(0, dtype=torch.uint8)


TABLE = 4
"""Bits of a table for a digit of 2 bits."""


def pack(lanes: torch.Tensor, width: int) -> torch.Tensor:
    """(lanes,) of 0 or 1 -> the plane (lanes / width,): lane e is bit e mod width of word e // width."""
    return (lanes.view(-1, width).long() << torch.arange(width)).sum(1).to(word_dtype(width))


def unpacked(plane: torch.Tensor, width: int) -> torch.Tensor:
    return ((plane.long()[:, None] >> torch.arange(width)) & 1).reshape(-1)


def digits(field, bits: int, width: int) -> Iterator[int]:
    """How many values each lane's entries of a field take: one digit for additive fields and tables, one a plane for other XOR fields."""
    if field.name == "table":
        yield 1 << TABLE
    elif field.xor:
        yield from [2] * (field.shape[0] if len(field.shape) == 2 else 1)
    else:
        yield 1 << bits


def lane_values(field, x: torch.Tensor, bits: int, width: int) -> list[torch.Tensor]:
    """A field, or a message of it, as lanes of small numbers."""
    if field is not None and not field.xor:
        return [x.reshape(-1).long() & ((1 << bits) - 1)]
    if field is not None and field.name == "table":
        return [x.reshape(-1).long() & ((1 << TABLE) - 1)]
    return [unpacked(row, width) for row in x.reshape(-1, x.shape[-1])]


class Enumeration:
    """All randomness of one correlation kind, for two holders of a ring of ``bits`` bits."""

    def __init__(self, bits: int, kind: str, args_of, narrow: dict[str, int] | None = None):
        self.bits, self.kind, self.ring = bits, kind, Ring(bits)
        self.width = bits
        self.narrow = narrow or {}
        probe = layout(kind, args_of(self.width))
        plan = [(holder, f.name, d) for holder in (0, 1) for f in probe.fields if f.part == FREE or holder == 0 for d in digits(f, self.bits_of(f), bits)]
        sizes = [d for _, _, d in plan]
        self.lanes = torch.tensor(sizes).prod().item()
        if self.lanes % bits:  # whole words: every choice the same number of times
            sizes, plan = [*sizes, bits], [*plan, (None, None, bits)]
            self.lanes *= bits
        self.args = args_of(self.lanes)
        self.sources = [Script(), Script()]
        found = layout(kind, self.args)
        for source in self.sources:
            source.parts = {(0, FREE): torch.zeros(found.free, dtype=torch.uint8), (0, SENT): torch.zeros(found.sent, dtype=torch.uint8)}
        index, chosen = torch.arange(self.lanes), {}
        for (holder, name, _), size in zip(plan, sizes):
            chosen.setdefault((holder, name), []).append(index % size)
            index = index // size
        for field in found.fields:
            for holder in (0, 1):
                if (holder, field.name) in chosen:
                    self.write(field, holder, chosen[holder, field.name])

    def bits_of(self, field) -> int:
        return self.narrow.get(field.name, self.bits)

    def write(self, field, holder, columns):
        view = field.view({part: self.sources[holder].parts[0, part].numpy() for part in (FREE, SENT)})
        if field.name == "table":
            view[0] = columns[0].numpy()
        elif field.xor:
            view.reshape(len(columns), -1)[:] = torch.stack([pack(c, self.width) for c in columns]).numpy()
        else:
            tensor(view).copy_(columns[0].view(field.shape))

    def views(self, protocol, shares):
        """(result shares, each holder's view as one number a lane)."""
        group = Group(2, self.ring, tapes=self.sources)
        operands = [[torch.full((self.lanes,), s, dtype=torch.int64) for s in operand] for operand in shares]
        out = group.run(protocol, *operands)
        assert group.asked == [(self.kind, self.args)]
        return out, [self.view(group, holder) for holder in (0, 1)]

    def view(self, group, holder):
        columns = []
        for field in layout(self.kind, self.args).fields:
            if holder == 0 or field.part == FREE:
                parts = {part: self.sources[holder].parts[0, part].numpy() for part in (FREE, SENT)}
            else:
                parts = {SENT: group.corrections[0].numpy()}
            size = self.bits_of(field)
            span = TABLE if field.name == "table" else 1 if field.xor else size
            columns += [(c, span) for c in lane_values(field, tensor(field.view(parts)), size, self.width)]
        for message in group.messages[1 - holder]:
            if message.dtype == torch.int64:  # additive; a product's holds both factors
                columns += [(row & ((1 << self.bits) - 1), self.bits) for row in message.reshape(-1, self.lanes)]
            else:
                columns += [(unpacked(row, self.width), 1) for row in message.reshape(-1, self.lanes // self.width)]
        assert sum(size for _, size in columns) < 63
        total = torch.zeros(self.lanes, dtype=torch.int64)
        for column, size in columns:
            total = (total << size) | column
        return total


def signed(v, bits):
    return ((v + (1 << (bits - 1))) % (1 << bits)) - (1 << (bits - 1))


def _scaled(p, x):
    return truncation.truncate(p, x, 1)


async def _negative_by_table(p, x):
    k = p.correlated("bit", len(x) // 2, 2, 0, FOURS)
    return await to_arithmetic(p, await sign_plane(p, k, await p.open(raw(x) + k["r"]), 2, 0, FOURS), k)


def _mul(p, x, y):
    return product(p, "mul", x, y)


CASES = {
    "mul in 2 bits": (Enumeration(2, "product", lambda n: ("mul", (n,), (n,), ())), _mul, 2, lambda x, y: {x * y}),
    "square in 3 bits": (Enumeration(3, "square", lambda n: (n,)), square, 1, lambda x: {x * x}),
    "truncate in 4 bits": (
        Enumeration(4, "trunc", lambda n: (n, 1), narrow={"m": 1}),
        _scaled,
        1,
        lambda x: {x // 2, (x + 1) // 2} if -4 <= x < 4 else None,
    ),
    "negative in 2 bits": (Enumeration(2, "bit", lambda n: (n // 2, 2, 0, PAIRS)), negative, 1, lambda x: {int(x < 0)}),
    "negative in 2 bits, by table": (Enumeration(2, "bit", lambda n: (n // 2, 2, 0, FOURS)), _negative_by_table, 1, lambda x: {int(x < 0)}),
    "relu in 2 bits": (Enumeration(2, "relu", lambda n: (n // 2, 0, 2, 0, PAIRS)), relu, 1, lambda x: {max(x, 0)}),
    "relu_and_mask in 2 bits": (Enumeration(2, "relu", lambda n: (n // 2, 0, 2, 0, PAIRS)), relu_and_mask, 1, lambda x: {max(x, 0)}),
    "equal_zero in 2 bits": (Enumeration(2, "equal", lambda n: (n // 2, 2)), equal_zero, 1, lambda x: {int(x == 0)}),
    "sign in 4 bits": (Enumeration(4, "sign", lambda n: (n // 4, 4, 0, PAIRS)), sign_bits, 1, None),
}


LARGE = "sign in 4 bits"
"""Half a million choices of randomness: two secrets are enough for every day."""


def same_distribution(enumeration, protocol, operands, holder, values=None):
    """Whether ``holder``'s view is distributed alike for all ``values`` of the other one's share; its own share is fixed."""
    values = range(1 << enumeration.bits) if values is None else values
    first = None
    for theirs in itertools.product(values, repeat=operands):
        shares = [(t, 1) if holder == 1 else (1, t) for t in theirs]
        seen = enumeration.views(protocol, shares)[1][holder].sort().values
        if first is not None and not torch.equal(seen, first):
            return False
        first = seen
    return True


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("holder", [0, 1])
def test_a_view_has_one_distribution_for_all_secrets(case, holder):
    enumeration, protocol, operands, _ = CASES[case]
    assert same_distribution(enumeration, protocol, operands, holder, (0, 6) if case == LARGE else None)


@pytest.mark.slow
@pytest.mark.parametrize("holder", [0, 1])
@pytest.mark.timeout(600)
def test_a_comparisons_view_has_one_distribution_for_all_secrets_of_4_bits(holder):
    enumeration, protocol, operands, _ = CASES[LARGE]
    assert same_distribution(enumeration, protocol, operands, holder)


@pytest.mark.parametrize("case", CASES)
def test_the_result_is_right_for_all_randomness(case):
    enumeration, protocol, operands, want = CASES[case]
    bits = enumeration.bits
    for shares in [(5, 2), (5, 4), (0, 9)] if case == LARGE else itertools.product(range(1 << bits), repeat=2 * operands):
        pairs = [shares[2 * k : 2 * k + 2] for k in range(operands)]
        secrets = [signed(sum(pair), bits) for pair in pairs]
        if (bits > 2 and pairs[0][0] not in (0, 5)) or (operands == 2 and pairs[0][0] not in (0, 3)):
            continue  # two splittings of each secret are enough
        out, _ = enumeration.views(protocol, pairs)
        if want is None:
            got = unpacked(out[0] ^ out[1], bits)
            assert (got == int(secrets[0] < 0)).all()
        else:
            out = [o[0] if isinstance(o, tuple) else o for o in out]
            allowed = want(*secrets)
            got = enumeration.ring.signed(out[0] + out[1])
            assert allowed is None or set(got.unique().tolist()) == {signed(v, bits) for v in allowed}, (secrets, allowed)


@pytest.mark.parametrize("case,field,holder", [("mul in 2 bits", "a", 1), ("truncate in 4 bits", "r", 1), ("sign in 4 bits", "x1", 1), ("equal_zero in 2 bits", "rho_bits", 0)])
def test_a_missing_mask_is_caught(case, field, holder):
    """The other holder's mask is always zero: its message shows its share."""
    enumeration, protocol, operands, _ = CASES[case]
    found = next(f for f in layout(enumeration.kind, enumeration.args).fields if f.name == field)
    source = enumeration.sources[1 - holder]
    kept = source.parts[0, FREE].clone()
    try:
        found.view({FREE: source.parts[0, FREE].numpy()})[...] = 0
        assert not same_distribution(enumeration, protocol, operands, holder, (0, 6) if case == LARGE else None)
    finally:
        source.parts[0, FREE] = kept


def test_pack_undoes_unpack():
    lanes = torch.randint(0, 2, (4 * 6,))
    assert torch.equal(unpacked(pack(lanes, 4), 4), lanes)
    values = torch.randint(0, 16, (24,), dtype=torch.int8)
    rows = planes(values.numpy(), 4)
    for j, row in enumerate((0, 2, 1, 3)):
        assert torch.equal(unpacked(torch.from_numpy(rows[row]), 4), (values >> j) & 1)
