"""Rules for meta tensors give what torch's CPU kernels give."""

import itertools
import subprocess
import sys

import pytest
import torch

from syftlite._torch import aten
from syftlite.ops.shapes import RULES, ByRule, Unsure


def forms(*shape: int, dtype: torch.dtype = torch.int64) -> list[torch.Tensor]:
    """A tensor of ``shape`` in several layouts."""
    plain = torch.arange(torch.Size(shape).numel(), dtype=dtype).view(shape)
    found = [plain]
    if len(shape) > 1:
        found += [plain.t().contiguous().t() if len(shape) == 2 else plain.transpose(0, 1).contiguous().transpose(0, 1)]
        found += [torch.cat([plain, plain], -1)[..., ::2], torch.cat([plain, plain], 0)[: shape[0]]]
    if len(shape) == 4:
        found += [plain.contiguous(memory_format=torch.channels_last), plain.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)]
    return found


PAIRS = [
    *itertools.product(forms(3, 4), forms(3, 4)),
    *itertools.product(forms(2, 3, 4), forms(4) + forms(3, 1) + forms(2, 1, 4)),
    *itertools.product(forms(2, 3, 2, 2), forms(2, 3, 2, 2) + forms(3, 1, 1)),
    (forms(3, 1)[0], forms(1, 4)[0]),
    (forms(4)[0], forms(3, 4)[1]),
    (forms(0, 4)[0], forms(4)[0]),
    (torch.tensor(3), forms(3, 4)[1]),
    (forms(3, 4)[2], torch.tensor(3, dtype=torch.int32)),
    (forms(3, 4, dtype=torch.uint8)[0], forms(3, 4)[1]),
    (forms(3, 4, dtype=torch.float32)[1], forms(3, 4)[0]),
    (forms(2, 3)[0].expand(5, 2, 3), forms(2, 3)[1]),
]


def meta(value):
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
    return [meta(v) for v in value] if isinstance(value, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in value) else value


def described(x: torch.Tensor) -> tuple:
    return tuple(x.shape), x.stride(), x.dtype


def agree(func, *args, **kwargs) -> None:
    """The rule of ``func``, where it is sure, gives the layout that the CPU kernel gives, or an error where that gives one."""
    if func._schema.is_mutable and not kwargs:
        args = (args[0].clone(), *args[1:])
    try:
        ours = described(RULES[func](*map(meta, args), **{k: meta(v) for k, v in kwargs.items()}))
    except Unsure:
        return
    except RuntimeError as error:
        ours = str(error)
    try:
        real = described(func(*args, **kwargs))
    except RuntimeError as error:
        real = str(error)
    assert ours == real, (func, [described(a) for a in args if isinstance(a, torch.Tensor)])


def is_binary(func) -> bool:
    """Whether it takes two tensors elementwise, and perhaps a number."""
    kinds = [str(a.type) for a in func._schema.arguments if not a.kwarg_only]
    return kinds == ["Tensor", "Tensor"] and "mat2" not in str(func._schema) and not func._overloadname.endswith("out")


BINARY = [func for func in RULES if is_binary(func)]


@pytest.mark.parametrize("func", BINARY, ids=str)
def test_elementwise(func) -> None:
    for x, y in PAIRS:
        agree(func, x, y)


@pytest.mark.parametrize("func", [f for f in RULES if f._overloadname == "Scalar"], ids=str)
def test_with_a_number(func) -> None:
    for x, _ in PAIRS:
        agree(func, x, 3)


def test_the_rest() -> None:
    for x in forms(3, 4) + forms(2, 3, 2, 2):
        agree(aten.neg.default, x)
        agree(aten.bitwise_not.default, x)
        agree(aten.clone.default, x)
        agree(aten.clone.default, x, memory_format=torch.contiguous_format)
        agree(aten.empty_like.default, x)
        agree(aten._to_copy.default, x, dtype=torch.uint8)
        agree(aten.cat.default, [x, x], 1)
        agree(aten.cat.default, [x, x], 7)
        agree(aten.stack.default, [x, x], 0)
        agree(aten.stack.default, [x, x], -1)
        agree(aten.flip.default, x, [0])
        for indices in ([None, torch.tensor([0, 1, 1])], [torch.tensor([1, 0])], [torch.tensor([1]), torch.tensor([0])]):
            agree(aten.index.Tensor, x, indices)
        agree(aten.roll.default, x, [1], [1])
        agree(aten.repeat.default, x, [2, *[1] * x.dim()])
        agree(aten.gather.default, x, 0, torch.zeros_like(x)[:1])
        for dims in ([0], [1], [-1], [0, 1], [0, 0], [9]):
            agree(aten.sum.dim_IntList, x, dims)
            agree(aten.sum.dim_IntList, x, dims, True)
            for dtype in (torch.complex64, torch.bool, torch.uint8, torch.float16):
                agree(aten.sum.dim_IntList, x.to(dtype), dims)
    for x, y in itertools.product(forms(3, 4), forms(4, 2) + forms(3, 2)):
        agree(aten.mm.default, x, y)
        agree(aten.addmm_.default, torch.zeros(3, 2, dtype=torch.int64), x, y)
    for x, y in itertools.product(forms(2, 3, 4), forms(2, 4, 5)):
        agree(aten.bmm.default, x, y)
    for x, y in PAIRS[:9]:
        agree(aten.where.self, x > 3, x, y)
        agree(aten.addcmul_.default, x, y, y)
        agree(aten.sub.out, x, y, out=torch.empty_like(x))
        agree(aten.bitwise_and.Tensor_out, x, y, out=torch.empty_like(y))
        agree(aten.add.Tensor, x, y, alpha=2)


def test_rules_are_sure_of_what_protocols_do() -> None:
    for x, y in itertools.product(forms(3, 4), forms(3, 4)):
        for name in ("add", "sub", "mul", "bitwise_xor", "bitwise_and"):
            RULES[getattr(aten, name).Tensor](meta(x), meta(y))
            RULES[getattr(aten, name + "_").Tensor](meta(x), meta(y))


def test_whoever_has_no_rule_is_torchs() -> None:
    x = torch.empty(2, 3, device="meta")
    with ByRule():
        assert x.exp().shape == (2, 3)
        with pytest.raises(RuntimeError, match="broadcast|must match"):
            x + torch.empty(2, 4, device="meta")


def test_the_compiler_is_not_imported() -> None:
    """By what a node does in a sharing group: its first dry run would take seconds."""
    told = "import sys, syftlite.mpc.kernels; from syftlite.mpc.kernel import plan, NUMBERS; plan(NUMBERS['relu'], [(2, 3)], f=10)"
    told += "; plan(NUMBERS['matmul'], [(2, 3), (3, 2)], f=10); print('sympy' in sys.modules or 'torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True).stdout.strip() == "False"
