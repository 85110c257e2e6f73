"""`out=` of what fixed precision computes in its own way."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close

X = torch.tensor([1.0, 2.25])

FUNCTIONS = {
    "exp": torch.exp, "sigmoid": torch.sigmoid, "sqrt": torch.sqrt, "abs": torch.abs, "log2": torch.log2, "log1p": torch.log1p,
    "div": lambda x, out: torch.div(x, x, out=out), "pow": lambda x, out: torch.pow(x, 2, out=out),
    "softmax": lambda x, out: torch.softmax(x, 0, out=out), "norm": lambda x, out: torch.norm(x[:, None], dim=1, out=out),
    "vector_norm": lambda x, out: torch.linalg.vector_norm(x[:, None], dim=1, out=out),
    "linalg.norm": lambda x, out: torch.linalg.norm(x[:, None], dim=1, out=out),
}  # fmt: skip


@pytest.fixture(scope="module")
def parties():
    parties = Parties("out")
    yield parties
    parties.close()


@pytest.mark.parametrize("child", ["plain", "two"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_what_is_named_is_written_to(parties, name, child):
    fix, function = parties.fix(child), FUNCTIONS[name]
    out = fix(torch.tensor([9.0, 9.0]))
    assert function(fix(X), out=out) is out
    assert_close(out, function(X, out=torch.empty(2)), 60, 1 << 16)


def test_what_cannot_be_written_to_says_so(parties):
    fix = parties.fix("two")
    with pytest.raises(RuntimeError, match=r"norm: what is written to has shape \(2,\), and the result \(\)"):
        torch.norm(fix(X), out=fix(X))
    with pytest.raises(RuntimeError, match=r"exp: out= takes no gradients, .* torch.no_grad\(\)"):
        torch.exp(fix(X).requires_grad_(), out=fix(X))


def test_what_a_function_does_not_take_is_an_error(parties):
    with pytest.raises(TypeError, match="roughly"):
        torch.exp(parties.fix("two")(X), roughly=True)
