"""Rows of a table and attention in fixed precision, with all that they may be told."""

from __future__ import annotations

import pytest
import torch
from _sharing import Parties, assert_close
from torch import nn
from torch.nn import functional as F

TABLE = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
INDEX = torch.tensor([0, 1, 1, 2])


@pytest.fixture(scope="module")
def parties():
    parties = Parties("softmax")
    yield parties
    parties.close()


@pytest.mark.parametrize("padding", [None, 1, -1])
def test_a_padding_row_gets_no_gradient_of_a_secret_index(parties, padding):
    mine, theirs = parties.fix("two")(TABLE).requires_grad_(), TABLE.clone().requires_grad_()
    for table, index in ((mine, INDEX.share(parties.alice, parties.bob, crypto_provider=parties.dealer)), (theirs, INDEX)):
        (F.embedding(index, table, padding) * torch.arange(8.0).view(4, 2)).sum().backward()
    assert_close(mine.grad, theirs.grad, 10, 1 << 16)


def test_a_module_knows_its_padding_row(parties):
    plain = nn.Embedding(3, 2, padding_idx=0)
    plain.load_state_dict({"weight": TABLE})
    plain(INDEX).sum().backward()
    want = plain.weight.grad.clone()
    plain.zero_grad()
    secret = plain.fix_precision().share(parties.alice, parties.bob, crypto_provider=parties.dealer, requires_grad=True)
    secret(INDEX).sum().backward()
    assert_close(secret.weight.grad, want, 10, 1 << 16)


@pytest.mark.parametrize("how", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}])
def test_settings_of_a_table_that_are_refused(parties, how):
    with pytest.raises(NotImplementedError, match="without max_norm and scale_grad_by_freq: leave them out"):
        F.embedding(INDEX, parties.fix("two")(TABLE), **how)


MASKS = {
    "one row": torch.tensor([[False, False], [True, False]]),
    "all rows": torch.full((2, 2), -torch.inf),
    "large": torch.tensor([[0.0, -1e9], [-3e38, -2.0]]),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=list(MASKS))
def test_masks_that_leave_nothing_or_are_far_below(parties, mask):
    x = torch.arange(8.0).view(2, 2, 2) / 4
    got, want = (F.scaled_dot_product_attention(v, v, v, mask) for v in (parties.fix("two")(x), x))
    assert_close(got, want, 60, 1 << 16)


def test_attention_of_a_module_whose_row_is_masked(parties):
    attention = nn.MultiheadAttention(2, 1).fix_precision()
    x = parties.fix("two")(torch.ones(2, 1, 2))
    with torch.no_grad():
        out, weights = attention(x, x, x, attn_mask=torch.tensor([[True, True], [False, True]]))
    assert_close(weights, torch.tensor([[[0.0, 0.0], [1.0, 0.0]]]), 60, 1 << 16)
    assert_close(out[0, 0], attention.out_proj.bias.detach().float_precision(), 10, 1 << 16)


def test_grouped_queries_are_refused(parties):
    q, k = (parties.fix("two")(torch.ones(1, heads, 2, 2)) for heads in (4, 2))
    with pytest.raises(NotImplementedError, match="without enable_gqa: repeat_interleave"):
        F.scaled_dot_product_attention(q, k, k, enable_gqa=True)


def test_a_mask_far_below_is_forgotten_once_it_is_written_over(parties):
    x = torch.tensor([[1.0, 2.0, 3.0]])
    for fix in (parties.fix("two"), torch.clone):
        scores = fix(x).masked_fill(torch.tensor([[True, False, False]]), -1e9)
        scores[0, 0] = 2.5
        assert_close(scores.softmax(1), torch.tensor([[2.5, 2.0, 3.0]]).softmax(1), 60, 1 << 16)


@pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
@pytest.mark.parametrize("function", [torch.masked_fill, torch.Tensor.masked_fill_])
def test_what_has_no_fixed_precision_fills_nothing(parties, function, low):
    with pytest.raises(ValueError, match=f"{function.__name__}: .* fill with a number such as -1e9"):
        function(parties.fix("two")(TABLE), TABLE > 2, low)


def test_attention_of_scores_far_below_zero(parties):
    q, k = torch.tensor([[[10.0, 0.0], [0.0, -10.0]]]), torch.tensor([[[-15.0, 0.0], [0.0, 15.0]]])
    fix = parties.fix("two")
    got, want = (F.scaled_dot_product_attention(make(q), make(k), make(k), is_causal=True) for make in (fix, torch.clone))
    assert_close(got, want, 60, 1 << 16)
