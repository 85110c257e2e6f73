"""No holder, and no coalition of all but one, learns anything: every primitive, by equivocation. Then planted flaws, each of which must be caught."""

import pytest
import torch

from syftlite.mpc import comparison, correlations, dealer, party, rounds, selection
from syftlite.mpc import kernel as kernel_module
from syftlite.mpc.comparison import LEAVES, PAIRS, ROOT, sign_bits
from syftlite.mpc.correlations import FREE, SENT, Field
from syftlite.mpc.kernels import KERNELS, NUMBERS

from .equivocation import equivocate
from .group import Group, Tape


def kernel(name, **static):
    return lambda group, operands: group.kernel(name, *operands, **static)


def three_queries(group, operands):
    w, x, y = operands
    fixed = group.kernel("fix_weight", w)
    return [group.kernel("linear", q, fixed) for q in (x, y, x)]


def two_weights(group, operands):
    return [group.kernel("fix_weight", w) for w in operands]


def layers(group, operands):
    w, x = operands
    h = group.kernel("relu", group.kernel("linear", x, group.kernel("fix_weight", w)), f=16)
    return group.kernel("relu", [a + b[:, :3] for a, b in zip(h, x)], f=16)


def convolution(group, operands):
    w, x = operands
    return group.kernel("conv2d_fixed", x, group.kernel("fix_weight", w), padding=(1, 1), pool=(2, 2), groups=2)


def grown(run, tree):
    """The same with another tree, such as large tensors have."""

    def other(group, operands):
        with pytest.MonkeyPatch.context() as patch:
            for module in (comparison, selection):
                patch.setattr(module, "tree_of", lambda width, words, many=tree: tree)
            kernel_module._dry.cache_clear()
            try:
                return run(group, operands)
            finally:
                kernel_module._dry.cache_clear()

    return other


def abreast(group, operands):
    """A relu, a product, another relu and a comparison: as a program has them that need nothing of each other."""
    steps = [("relu", (0,), {"f": 16}), ("matmul", (1, 2), {}), ("relu", (0,), {}), ("less", (0, 0), {})]

    async def run(p, *xs):
        given = []
        for name, places, static in steps:
            values = [xs[i] for i in places]
            draws = len(kernel_module.plan(NUMBERS[name], [tuple(v.shape) for v in values], **static).requests)
            given.append((draws, lambda q, n=name, v=values, s=static: KERNELS[NUMBERS[n]].run(q, *v, **s)))
        return await rounds.abreast(p, given)

    return group.run(run, *operands)


def signs(group, operands):
    return group.run(sign_bits, *operands)


def twice(group, operands):
    return group.kernel("square", group.kernel("square", *operands))


POOL = {"kernel": (2, 2), "stride": (2, 2)}
CASES = {
    "truncate": (kernel("truncate", f=16), [(130,)]),
    "quotient": (kernel("quotient", divisor=1000), [(130,)]),
    "mul": (kernel("mul", f=16), [(130,), (130,)]),
    "mul broadcast": (kernel("mul"), [(5, 1, 3), (4, 1)]),
    "square": (kernel("square", f=8), [(130,)]),
    "square twice": (twice, [(130,)]),
    "matmul": (kernel("matmul", f=16), [(5, 7), (7, 3)]),
    "matmul batched": (kernel("matmul"), [(2, 5, 7), (7, 3)]),
    "one weight, three queries": (three_queries, [(7, 3), (5, 7), (5, 7)]),
    "two weights": (two_weights, [(7, 3), (7, 3)]),
    "conv2d_fixed": (convolution, [(4, 2, 3, 3), (2, 4, 6, 6)]),
    "conv2d": (kernel("conv2d", stride=(2, 1)), [(2, 4, 6, 6), (4, 4, 3, 3)]),
    "conv2d_input_grad": (kernel("conv2d_input_grad", size=(6, 6)), [(2, 4, 4, 4), (4, 3, 3, 3)]),
    "conv2d_weight_grad": (kernel("conv2d_weight_grad", size=(3, 3)), [(2, 3, 6, 6), (2, 4, 4, 4)]),
    "sign": (signs, [(130,)]),
    "sign, leaves of two": (grown(signs, PAIRS), [(130,)]),
    "negative": (kernel("negative"), [(130,)]),
    "negative, leaves of two": (grown(kernel("negative"), PAIRS), [(130,)]),
    "negative, leaves of four": (grown(kernel("negative"), LEAVES), [(130,)]),
    "negative, four at the root": (grown(kernel("negative"), ROOT), [(130,)]),
    "relu, leaves of two": (grown(kernel("relu", f=16), PAIRS), [(130,)]),
    "negative, 32 bits": (kernel("negative", low=16), [(130,)]),
    "relu": (kernel("relu"), [(130,)]),
    "relu, 18 bits": (kernel("relu", f=18), [(130,)]),
    "relu, 32 bits": (kernel("relu", f=16, low=16), [(130,)]),
    "relu_and_mask": (kernel("relu_and_mask", f=16), [(130,)]),
    "max_pool2d": (kernel("max_pool2d", f=16, relu=1, **POOL), [(1, 3, 8, 8)]),
    "max_pool2d, padded": (kernel("max_pool2d", kernel=(3, 2), stride=(2, 2), padding=(1, 1)), [(1, 3, 5, 5)]),
    "max_pool2d_and_mask": (kernel("max_pool2d_and_mask", kernel=(1, 3), stride=(1, 1)), [(1, 2, 3, 5)]),
    "max_pool2d_grad": (kernel("max_pool2d_grad", size=(4, 4), **POOL), [(1, 3, 2, 2), (1, 3, 2, 2, 4)]),
    "maximum": (kernel("maximum"), [(130,), (130,)]),
    "minimum": (kernel("minimum"), [(130,), (130,)]),
    "max": (kernel("max", dim=0), [(5, 30)]),
    "max_and_mask": (kernel("max_and_mask", dim=0), [(3, 30)]),
    "equal": (kernel("equal"), [(130,), (130,)]),
    "equal_zero": (kernel("equal_zero"), [(130,)]),
    "select": (kernel("select"), [(130,), (130,), (130,)]),
    "exp": (kernel("exp", f=16), [(130,)]),
    "curve": (kernel("curve", f=16, which=0, slope=1), [(130,)]),
    "curve, times x": (kernel("curve", f=16, which=3), [(130,)]),
    "roots": (kernel("roots", f=16, what=15), [(130,)]),
    "reciprocal": (kernel("roots", f=16, what=1, signed=1), [(70,)]),
    "divide": (kernel("divide", f=16), [(5, 7), (5, 1)]),
    "softmax": (kernel("softmax", f=16, dim=1, what=3), [(3, 6)]),
    "softmax of many": (kernel("softmax", f=16, dim=0, what=3), [(17, 1)]),
    "one_hot": (kernel("one_hot", count=6), [(40,)]),
    "sort": (kernel("sort", dim=1), [(4, 6)]),
    "abreast": (abreast, [(70,), (3, 5), (5, 2)]),
    "layers": (layers, [(7, 3), (5, 7)]),
}


def check(case, holders, honest, seed=0):
    run, shapes = CASES[case]
    inputs = [[torch.randint(-(2**63), 2**63 - 1, s) for s in shapes] for _ in range(holders)]
    other = [torch.randint(-(2**63), 2**63 - 1, s) for s in shapes]
    if case.startswith("equal"):  # half of them equal, or a bit that never differs would hide nothing
        inputs[-1][0][::2] -= sum(i[0] for i in inputs)[::2] - (sum(i[1] for i in inputs)[::2] if len(shapes) > 1 else 0)
    return equivocate(run, inputs, other, honest, seed)


@pytest.mark.parametrize("holders,honest", [(2, 0), (2, 1), (3, 0), (3, 1), (3, 2)])
@pytest.mark.parametrize("case", CASES)
def test_any_other_secret_explains_the_same_view(case, holders, honest):
    verdict = check(case, holders, honest)
    assert verdict, verdict


# -- planted flaws: all of them compute the right result


def field_flaw(*names, change):
    """Every share of the fields ``names`` is changed, at holders and provider alike: correlations stay consistent."""

    def plant(monkeypatch):
        memory = Field.memory

        def changed(self, parts):
            x = memory(self, parts)
            if self.name in names and self.part == FREE:
                change(x)
            return x

        monkeypatch.setattr(Field, "memory", changed)

    return plant


def same_place(name, *as_names):
    """Field ``name`` lies where the first of ``as_names`` that is there begins."""

    def plant(monkeypatch):
        real = correlations.layout

        def changed(kind, args):
            found = real(kind, args)
            start = next((f.start for f in found.fields if f.name in as_names), None)
            if start is None:
                return found
            fields = [f._replace(start=start, stop=start + f.stop - f.start) if f.name == name else f for f in found.fields]
            return found._replace(fields=tuple(fields))

        for module in (correlations, dealer, party):
            monkeypatch.setattr(module, "layout", changed)

    return plant


def key_flaw(key):
    """Streams are told apart by less than their whole purpose (number, label, part)."""
    return lambda monkeypatch: monkeypatch.setattr(Tape, "key", lambda self, purpose: key(*purpose))


def unmasked(monkeypatch):
    """Holders' shares of sent fields are nothing: the corrections are the secrets."""
    take = Tape.take

    def changed(self, nbytes, *purpose):
        out = take(self, nbytes, *purpose)
        return out.zero_() if purpose[-1] == SENT else out

    monkeypatch.setattr(Tape, "take", changed)


def _short(x):
    x &= (1 << 40) - 1


def _even(x):
    x &= ~1


def _shorter(x):
    x &= (1 << 20) - 1


def _zero(x):
    x[...] = 0


def _first_zero(x):
    x[: len(x) // 12] = 0


def _one_mask_for_all(x):
    half = x.shape[1] // 2
    x[:, half:] = x[:, :half]


def _one_mask(x):
    h = (len(x) + 1) // 3
    x[2 * h :] = x[h + 1 : 2 * h]


def _one_mask_of_four(x):
    h = (len(x) + 1) // 7
    x[6 * h :] = x[5 * h + 1 : 6 * h]


def _same_rows(x):
    x[4:8] = x[:4]


def _two_eqs_in_one(x):
    h = (len(x) + 1) // 7
    x[:h] = x[h : 2 * h]


FLAWS = {
    "r has 40 bits": (field_flaw("r", change=_short), "truncate"),
    "r is even": (field_flaw("r", change=_even), "truncate"),
    "r has 40 bits in a comparison": (field_flaw("r", change=_short), "negative"),
    "b is a": (same_place("b", "a"), "mul"),
    "a mask is nothing": (field_flaw("a", change=_zero), "square"),
    "a weight is opened bare": (field_flaw("b", change=_zero), "two weights"),
    "the sign is opened bare": (field_flaw("rho_bits", change=_zero), "relu"),
    "the equality is opened bare": (field_flaw("rho_bits", change=_zero), "equal_zero"),
    "levels share their masks": (same_place("x4", "x8"), "negative, leaves of four"),
    "levels of fours share their masks": (same_place("x1", "x4"), "negative"),
    "levels of pairs share their masks": (same_place("x8", "x16"), "negative, leaves of two"),
    "lt and eq share a mask": (field_flaw("x8", "x4", "x2", change=_one_mask), "negative, leaves of four"),
    "lt and eq of fours share a mask": (field_flaw("x4", change=_one_mask_of_four), "negative"),
    "two eqs of fours share a mask": (field_flaw("x4", "x1", change=_two_eqs_in_one), "negative"),
    "lt and eq of pairs share a mask": (field_flaw("x16", "x8", "x4", "x2", change=_one_mask), "negative, leaves of two"),
    "an equality's level is bare": (field_flaw("x4", change=_zero), "equal_zero"),
    "an equality's digits share a mask": (field_flaw("x4", change=_same_rows), "equal_zero"),
    "levels of an equality share their masks": (same_place("x1", "x4"), "equal_zero"),
    "tables of an equality are not masked": (unmasked, "equal_zero"),
    "tables of a comparison are not masked": (unmasked, "negative"),
    "sent shares are not masked": (unmasked, "relu"),
    "sent shares of a product are not masked": (unmasked, "mul"),
    "correlations of one kind and shape are one": (key_flaw(lambda number, label, part: (label, part)), "square twice"),
    "comparisons of one shape are one": (key_flaw(lambda number, label, part: (label, part)), "max"),
    "two weights of one shape have one mask": (key_flaw(lambda number, label, part: (label, part)), "two weights"),
    "queries of a weight have one mask": (key_flaw(lambda number, label, part: (label, part)), "one weight, three queries"),
    "free and sent are one stream": (key_flaw(lambda number, label, part: (number, label)), "relu"),
    "an exponent's mask has 20 bits": (field_flaw("r", change=_shorter), "exp"),
    "an exponent is opened bare": (field_flaw("r", change=_zero), "exp"),
    "a sine's mask is even": (field_flaw("r", change=_even), "curve"),
    "a place is opened bare": (field_flaw("r", change=_zero), "one_hot"),
    "one threshold's sign is opened bare": (field_flaw("rho_bits", change=_first_zero), "roots"),
    "thresholds share their masks": (field_flaw("x4", "x2", "x1", change=_one_mask_for_all), "roots"),
    "what is dealt of an exponent is not masked": (unmasked, "exp"),
    "ranks of one shape have one mask": (key_flaw(lambda number, label, part: (label, part)), "softmax of many"),
}


def _caught(case):
    """Whether some holder's view fails to be explained."""
    return not all(check(case, 2, honest) for honest in (0, 1))


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_planted_flaw_is_caught(flaw, monkeypatch):
    """Without the flaw nothing is: that is the test above."""
    plant, case = FLAWS[flaw]
    plant(monkeypatch)
    assert _caught(case)


def test_a_mask_that_only_holder_0_knows_protects_nobody_else(monkeypatch):
    """r drawn by holder 0 alone: the last holder's message is its bare share."""
    assert check("truncate", 2, 1)
    real = Tape.take

    def take(self, nbytes, *purpose):
        out = real(self, nbytes, *purpose)
        return out if self.generator.initial_seed() % 100 == 0 else torch.zeros_like(out)

    monkeypatch.setattr(Tape, "take", take)
    assert not check("truncate", 2, 1)


@pytest.mark.parametrize(
    "flaw,case",
    [("r has 40 bits", "relu"), ("the sign is opened bare", "relu"), ("r is even", "mul"), ("lt and eq of fours share a mask", "relu"), ("sent shares are not masked", "relu")],
)
def test_no_functional_test_sees_them(flaw, case, monkeypatch):
    """Why the tests above exist."""
    FLAWS[flaw][0](monkeypatch)
    x, y = torch.randint(-(2**30), 2**30, (2, 500))
    group = Group(tapes=[Tape(0), Tape(1)])
    if case == "relu":
        assert torch.equal(group.plain("relu", x), x.clamp(min=0))
    else:
        assert ((group.plain("mul", x, y, f=16) - (x * y >> 16)).abs() <= 1).all()
