"""Layers and functions that torch runs by one kernel, or with tensors of its own: remote as local, forward and backward."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence, pad_sequence, unpad_sequence

import syftlite as sy
from syftlite._torch import aten
from syftlite.errors import LocalTensorMixedError, OperatorNotReviewedError, PointerMisuseError
from syftlite.remote.rules import RULES

R = torch.randn
CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
PADDED = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


def leaves(value: Any) -> list[torch.Tensor]:
    """The tensors in nested results, fetched."""
    if isinstance(value, PackedSequence):
        value = value.data
    if isinstance(value, torch.Tensor):
        return [value.detach().get_copy() if isinstance(value, sy.PointerTensor) else value.detach()]  # type: ignore[attr-defined]
    return [leaf for item in value or () for leaf in leaves(item)]


def close(here: Any, there: Any, **tolerance: float) -> None:
    ours, theirs = leaves(here), leaves(there)
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(other, one, **({"rtol": 1e-4, "atol": 1e-5} | tolerance))


def outcome(module: nn.Module, x: torch.Tensor, run: Callable[[nn.Module, torch.Tensor], Any]) -> list[Any]:
    """What ``run`` gives, and the gradients of its first result."""
    x = x.detach().requires_grad_()
    out = run(module, x)
    first = out
    while isinstance(first, (tuple, list)) and not isinstance(first, PackedSequence):
        first = first[0]
    first = first.data if isinstance(first, PackedSequence) else first
    return [out, torch.autograd.grad(first.sin().sum(), [x, *module.parameters()])]


# -- recurrent layers

RECURRENT: list[tuple[type[nn.RNNBase], dict[str, Any]]] = [
    (nn.LSTM, {}), (nn.LSTM, {"num_layers": 2, "bidirectional": True}), (nn.LSTM, {"batch_first": True, "bias": False}),
    (nn.LSTM, {"proj_size": 2, "num_layers": 2}), (nn.LSTM, {"proj_size": 2, "bias": False, "bidirectional": True}),
    (nn.GRU, {}), (nn.GRU, {"num_layers": 2, "bidirectional": True, "batch_first": True}),
    (nn.RNN, {}), (nn.RNN, {"nonlinearity": "relu", "num_layers": 2, "bidirectional": True}),
]  # fmt: skip
recurrent = pytest.mark.parametrize("kind, options", RECURRENT, ids=lambda v: v.__name__ if isinstance(v, type) else "-".join(v) or "plain")


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")  # torch's, of the layer that is here
@recurrent
def test_recurrent_layers(bob: sy.VirtualWorker, kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    here, x = kind(3, 4, **options), R(5, 2, 3)
    there = copy.deepcopy(here).send(bob)
    ours = outcome(here, x, lambda m, x: m(x))
    with bob:  # the first state is the layer's own
        theirs = outcome(there, x.send(bob), lambda m, x: m(x))
    close(ours, theirs)


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_with_a_state_need_no_context(alice: sy.VirtualWorker, kind: type[nn.RNNBase]) -> None:
    here, x, state = kind(3, 4), R(5, 2, 3), torch.ones(1, 2, 4)
    there = copy.deepcopy(here).send(alice)
    given = [(s, s) if kind is nn.LSTM else s for s in (state, state.send(alice))]
    close(outcome(here, x, lambda m, x: m(x, given[0])), outcome(there, x.send(alice), lambda m, x: m(x, given[1])))
    close(here(x[:, 0], torch.utils._pytree.tree_map(lambda s: s[:, 0], given[0])),
        there(x[:, 0].send(alice), torch.utils._pytree.tree_map(lambda s: s[:, 0], given[1])))  # fmt: skip
    with pytest.raises(LocalTensorMixedError, match="send"):
        there(x.send(alice), given[0])


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_the_first_state_is_made_where_the_input_is(alice: sy.VirtualWorker, kind: type[nn.RNNBase]) -> None:
    """The zeros that torch makes here for a layer without a state: sequences, packed ones, one step by a cell."""
    here, x = kind(3, 4, batch_first=True), R(2, 5, 3)
    there = copy.deepcopy(here).send(alice)
    close(outcome(here, x, lambda m, x: m(x)), outcome(there, x.send(alice), lambda m, x: m(x)))
    close(*[m(pack_padded_sequence(given, torch.tensor([5, 3]), batch_first=True))[0].data
            for m, given in ((here, x), (there, x.send(alice)))])  # fmt: skip
    cell = getattr(nn, f"{kind.__name__}Cell")(3, 4)
    sent = copy.deepcopy(cell).send(alice)
    close(outcome(cell, x[:, 0], lambda m, x: m(x)), outcome(sent, x[:, 0].send(alice), lambda m, x: m(x)))


@recurrent
def test_packed_sequences(alice: sy.VirtualWorker, kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    here, x = kind(3, 4, **options | {"batch_first": True}), R(3, 6, 3)
    there = copy.deepcopy(here).send(alice)

    def run(module: nn.Module, x: torch.Tensor) -> Any:
        out, state = module(pack_padded_sequence(x, torch.tensor([6, 4, 1]), batch_first=True))
        padded, lengths = pad_packed_sequence(out, batch_first=True, padding_value=0.5, total_length=7)
        return padded, out, state, lengths

    ours = outcome(here, x, run)
    with alice:
        theirs = outcome(there, x.send(alice), run)
    close(ours, theirs)


@pytest.mark.parametrize("recorded", [False, True])
def test_sequences_in_any_order_of_lengths(bob: sy.VirtualWorker, recorded: bool) -> None:
    here = nn.GRU(3, 4, bidirectional=True)
    there, rows, state = copy.deepcopy(here).send(bob), [R(n, 3) for n in (2, 5, 3)], R(2, 3, 4)

    def run(module: nn.Module, state: torch.Tensor, *rows: torch.Tensor) -> Any:
        out, last = module(pack_padded_sequence(pad_sequence(rows), [2, 5, 3], enforce_sorted=False), state)
        padded, lengths = pad_packed_sequence(out, batch_first=True)
        return [padded, last, *unpad_sequence(padded, lengths, batch_first=True)]

    def step(module: nn.Module, *given: torch.Tensor) -> Any:
        outputs = run(module, *given)
        return [*outputs, *torch.autograd.grad(sum(out.square().sum() for out in outputs), list(module.parameters()))]

    far = [x.send(bob) for x in (state, *rows)]
    theirs = sy.func2plan(state=(there,))(lambda *given: step(there, *given))(*far) if recorded else step(there, *far)
    assert all(isinstance(x, sy.PointerTensor) for x in theirs)
    close(step(here, state, *rows), theirs)


def test_lengths_of_packed_sequences_are_local(alice: sy.VirtualWorker) -> None:
    with pytest.raises(PointerMisuseError, match="sort"):
        aten._pack_padded_sequence(R(3, 2, 3).send(alice), torch.tensor([1, 3]), False)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_dropout_between_recurrent_layers(alice: sy.VirtualWorker, kind: type[nn.RNNBase], packed: bool) -> None:
    here = kind(3, 4, num_layers=3, dropout=0.5, bidirectional=True, batch_first=not packed)
    there, x = copy.deepcopy(here).send(alice), R(3, 2, 3)

    def run(module: nn.Module, x: torch.Tensor) -> Any:
        torch.manual_seed(3)  # a virtual worker draws from this process's generator
        out, state = module(pack_padded_sequence(x, torch.tensor([3, 1])) if packed else x)
        return out, state

    close(outcome(here, x, run), outcome(there, x.send(alice), run))
    assert not torch.equal(leaves(run(here, x))[0], leaves(run(here.eval(), x))[0])
    close(run(here, x), run(there.eval(), x.send(alice)))


def test_a_recurrent_layer_trains_and_comes_back(bob: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    here, x = nn.LSTM(3, 4), R(5, 2, 3)
    there = copy.deepcopy(here)
    ours, theirs = (torch.optim.Adam(m.parameters(), lr=0.05) for m in (here, there))
    for worker in (bob, alice):
        (there.send if there.location is None else there.move)(worker)
        for _ in range(2):
            ours.zero_grad(), theirs.zero_grad()
            here(x)[0].square().mean().backward()
            with worker:
                there(x.send(worker))[0].square().mean().backward()
            ours.step(), theirs.step()
    there.get()
    close(list(here.parameters()), list(there.parameters()))
    close(here(x), there(x))
    replaced = {name: p * 0 for name, p in there.named_parameters()}
    assert not torch.func.functional_call(there, replaced, (x,))[0].any(), "it still finds weights that were replaced"


def test_a_recurrent_layers_step_as_a_plan(alice: sy.VirtualWorker) -> None:
    here, x = nn.LSTM(3, 4), R(5, 2, 3)
    there = here.copy().send(alice)
    ours, theirs = (torch.optim.SGD(m.parameters(), lr=0.5) for m in (here, there))

    @sy.func2plan(state=(there, theirs))
    def step(x: torch.Tensor) -> torch.Tensor:
        theirs.zero_grad()
        state = x.new_zeros(1, 2, 4)
        loss = there(x, (state, state))[0].square().mean()
        loss.backward()
        theirs.step()
        return loss

    for _ in range(3):
        ours.zero_grad()
        here(x)[0].square().mean().backward()
        ours.step()
        step(x.send(alice))
    close(list(here.parameters()), list(there.parameters()))


# -- attention


def encoder(**options: Any) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **{"dropout": 0.0} | options)


ENCODERS: list[dict[str, Any]] = [{}, {"norm_first": True}, {"activation": "gelu"}, {"norm_first": True, "activation": "gelu"}]


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("options", ENCODERS, ids=lambda o: "-".join(o) or "plain")
def test_encoder_layers(bob: sy.VirtualWorker, options: dict[str, Any], training: bool) -> None:
    here, x = encoder(**options).train(training), R(2, 5, 8)
    there = copy.deepcopy(here).send(bob)
    for mask in (None, CAUSAL):
        sent = None if mask is None else mask.send(bob)
        close(outcome(here, x, lambda m, x: m(x, src_mask=mask)), outcome(there, x.send(bob), lambda m, x: m(x, src_mask=sent)))  # noqa: B023


@pytest.mark.parametrize("options", ENCODERS, ids=lambda o: "-".join(o) or "plain")
@pytest.mark.parametrize("masks", [{}, {"src_mask": CAUSAL}, {"src_key_padding_mask": PADDED}, {"src_mask": CAUSAL, "src_key_padding_mask": PADDED}],
    ids=lambda m: "-".join(m) or "unmasked")  # fmt: skip
def test_encoder_layers_fast_path(alice: sy.VirtualWorker, options: dict[str, Any], masks: dict[str, torch.Tensor]) -> None:
    here, x = encoder(**options).eval(), R(2, 5, 8)
    there = copy.deepcopy(here).send(alice)
    with torch.no_grad():
        close(here(x, **masks), there(x.send(alice), **{k: v.send(alice) for k, v in masks.items()}))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_an_encoder_of_uneven_sequences(alice: sy.VirtualWorker) -> None:
    here, x = nn.TransformerEncoder(encoder(), 2).eval(), R(2, 5, 8)
    there = copy.deepcopy(here).send(alice)
    with torch.no_grad():
        close(here(x, src_key_padding_mask=PADDED)[~PADDED], there(x.send(alice), src_key_padding_mask=PADDED.send(alice)).get()[~PADDED])


@pytest.mark.parametrize("options", [{}, {"need_weights": False}, {"average_attn_weights": False}, {"attn_mask": CAUSAL},
    {"key_padding_mask": PADDED}, {"attn_mask": CAUSAL, "key_padding_mask": PADDED}], ids=lambda o: "-".join(o) or "plain")  # fmt: skip
@pytest.mark.parametrize("grads", [True, False], ids=["slow", "fast"])
def test_multi_head_attention(alice: sy.VirtualWorker, options: dict[str, Any], grads: bool) -> None:
    here, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), R(2, 5, 8)
    there = copy.deepcopy(here).send(alice)
    sent = {k: v.send(alice) if isinstance(v, torch.Tensor) else v for k, v in options.items()}
    with torch.set_grad_enabled(grads):
        there_x = x.send(alice)
        close(here(x, x, x, **options), there(there_x, there_x, there_x, **sent))


def test_transformer(alice: sy.VirtualWorker) -> None:
    here, source, target = nn.Transformer(8, 2, 1, 1, 16, dropout=0.0, batch_first=True), R(2, 5, 8), R(2, 4, 8)
    there, sent = copy.deepcopy(here).send(alice), target.send(alice)
    close(outcome(here, source, lambda m, x: m(x, target)), outcome(there, source.send(alice), lambda m, x: m(x, sent)))


ATTENTION: dict[str, dict[str, Any]] = {
    "plain": {}, "causal": {"is_causal": True}, "scaled": {"scale": 0.3}, "masked": {"attn_mask": ~CAUSAL}, "biased": {"attn_mask": R(5, 5)},
    "a row that sees nothing": {"attn_mask": torch.eye(5, dtype=torch.bool).roll(1, 0).tril()}, "shared heads": {"enable_gqa": True},
}  # fmt: skip


@pytest.mark.parametrize("name", ATTENTION)
def test_attention(bob: sy.VirtualWorker, name: str) -> None:
    options = ATTENTION[name]
    q, k, v = R(2, 4, 5, 8), *(R(2, 2 if "gqa" in str(options) else 4, 5, 8) for _ in range(2))
    results = []
    for place in (None, bob):
        operands = [x.detach().clone() if place is None else x.send(place) for x in (q, k, v)]
        given = {n: o.send(place) if place is not None and isinstance(o, torch.Tensor) else o for n, o in options.items()}
        for operand in operands:
            operand.requires_grad_()
        out = F.scaled_dot_product_attention(*operands, **given)
        results.append([out, torch.autograd.grad(out.sin().sum(), operands)])
        with torch.no_grad():
            results[-1].append(F.scaled_dot_product_attention(*operands, **given))
    close(*results)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 2)], ids=str)
@pytest.mark.parametrize("keys", [3, 5, 7])
def test_attention_of_other_dimensions(bob: sy.VirtualWorker, shape: tuple[int, ...], keys: int) -> None:
    operands = [R(*shape, n, 4) for n in (5, keys, keys)]
    for options in ({"is_causal": True}, {}):
        results = []
        for place in (None, bob):
            q, k, v = (x.detach().clone().requires_grad_() if place is None else x.send(place).requires_grad_() for x in operands)
            out = F.scaled_dot_product_attention(q, k, v, **options)  # type: ignore[arg-type]
            results.append([out, torch.autograd.grad(out.sin().sum(), [q, k, v])])
        close(*results)


def test_attention_in_half_precision(alice: sy.VirtualWorker) -> None:
    q = R(2, 2, 5, 4).bfloat16()
    close(F.scaled_dot_product_attention(q, q, q), F.scaled_dot_product_attention(*[q.send(alice)] * 3), rtol=0.02, atol=0.02)


def test_inference_mode(alice: sy.VirtualWorker) -> None:
    """Composite operators arrive whole: torch takes nothing apart there."""
    here = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 4), nn.LayerNorm(4)).eval()
    there, x, y = copy.deepcopy(here).send(alice), R(3, 1, 6, 6), torch.tensor([0, 2, 1])
    rnn, layer, seen, square = nn.LSTM(3, 4), encoder().eval(), R(2, 5, 8), torch.eye(2) * 2
    remote_rnn, remote_layer = rnn.copy().send(alice), layer.copy().send(alice)
    with torch.inference_mode():
        ours = [F.cross_entropy(here(x), y), rnn(x[:, 0, :, :3])[0], layer(seen), torch.linalg.inv(square), F.one_hot(y)]
        with alice:
            theirs = [F.cross_entropy(there(x.send(alice)), y.send(alice)), remote_rnn(x[:, 0, :, :3].send(alice))[0],
                remote_layer(seen.send(alice)), torch.linalg.inv(square.send(alice)), F.one_hot(y.send(alice))]  # fmt: skip
    close(ours, theirs)


# -- tensors of their own


def test_one_hot_outside_the_context(bob: sy.VirtualWorker) -> None:
    classes = torch.randint(0, 4, (3, 5))
    for given in ((), (4,), (7,)):
        assert torch.equal(F.one_hot(classes.send(bob), *given).get(), F.one_hot(classes, *given))
    with pytest.raises(RuntimeError, match="index tensor"):
        F.one_hot(torch.ones(2).send(bob))
    with pytest.raises(RuntimeError, match="out of bounds"):
        F.one_hot(classes.send(bob), 1).get()


def test_places_to_split_at_are_read(bob: sy.VirtualWorker) -> None:
    x = R(6, 2)
    for places in (torch.tensor([1, 4]), torch.tensor(3)):
        for there in (places, places.send(bob)):  # type: ignore[attr-defined]
            close(torch.tensor_split(x, places), torch.tensor_split(x.send(bob), there))  # type: ignore[attr-defined]


def test_contexts_nest(bob: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    x = R(4, 6)
    with alice, bob:
        inner, there = torch.full((2,), 3.0), x.send(bob).quantile(0.25, dim=0)
    assert inner.location is bob and torch.equal(inner.get(), torch.full((2,), 3.0)) and torch.equal(there.get(), x.quantile(0.25, dim=0))


@pytest.mark.parametrize("func", [torch.quantile, torch.nanquantile])
def test_quantiles_outside_the_context(bob: sy.VirtualWorker, func: Any) -> None:
    x = R(4, 6)
    x[1, 2] = float("nan")
    for q in (0.25, torch.tensor([0.1, 0.5])):
        for options in ({}, {"dim": 1}, {"dim": 0, "keepdim": True, "interpolation": "lower"}):
            there = func(x.send(bob), q.send(bob) if isinstance(q, torch.Tensor) else q, **options)
            torch.testing.assert_close(there.get(), func(x, q, **options), equal_nan=True)
    leaf, remote = R(6, requires_grad=True), None
    remote = leaf.detach().send(bob).requires_grad_()
    close(torch.autograd.grad(leaf.quantile(0.3), [leaf]), torch.autograd.grad(remote.quantile(0.3), [remote]))


def test_local_operands_take_torchs_own_parts() -> None:
    """Registered above autograd: derivatives, transforms and errors of local calls are torch's."""
    x = R(3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(torch.linalg.inv, x) and torch.autograd.gradgradcheck(lambda x: x.quantile(0.3), x)
    assert torch.func.vmap(torch.linalg.inv)(x.detach()[None].expand(2, 3, 3)).shape == (2, 3, 3)
    assert torch.equal(F.one_hot(torch.tensor([1, 0])), torch.eye(2, dtype=torch.int64)[[1, 0]])
    with pytest.raises(torch.linalg.LinAlgError, match="linalg.inv: "):
        torch.linalg.inv(torch.zeros(2, 2))
    assert all(torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd") for func in RULES)


# -- written to out=, and into data


def test_out_of_the_same_size(bob: sy.VirtualWorker) -> None:
    x, out = R(3).send(bob), torch.zeros(3).send(bob)
    assert torch.add(x, x, out=out) is out and torch.equal(out.get_copy(), (x + x).get())
    local = torch.zeros(3)
    assert torch.equal(torch.mul(x, 2.0, out=local), (x * 2.0).get())
    with pytest.raises(PointerMisuseError, match=r"\[2, 3\], not \[3\]"):
        torch.add(x, x, out=torch.zeros(2, 3).send(bob))
    with pytest.raises(OperatorNotReviewedError):
        torch.special.airy_ai(x, out=out)


def test_parametrizations(alice: sy.VirtualWorker) -> None:
    for parametrize in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        here, x = parametrize(nn.Linear(3, 4)), R(2, 3)
        there = here.copy().send(alice)
        close(outcome(here.eval(), x, lambda m, x: m(x)), outcome(there.eval(), x.send(alice), lambda m, x: m(x)))


@pytest.mark.parametrize("options", [{}, {"add_bias_kv": True}, {"kdim": 3, "vdim": 5}])
def test_attention_to_an_added_zero(bob: sy.VirtualWorker, options: dict[str, Any]) -> None:
    here = nn.MultiheadAttention(4, 2, add_zero_attn=True, **options)
    there, given = copy.deepcopy(here).send(bob), [R(3, 2, 4), R(3, 2, options.get("kdim", 4)), R(3, 2, options.get("vdim", 4))]
    sent = [x.send(bob) for x in given]
    close(outcome(here, given[0], lambda m, x: m(x, *given[1:])[0]), outcome(there, sent[0], lambda m, x: m(x, *sent[1:])[0]))
    plan = sy.func2plan(state=(there,))(lambda q, k, v: there(q, k, v)[0])
    assert torch.allclose(plan(*sent).get(), here(*given)[0], atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_a_trace_has_gradients(bob: sy.VirtualWorker, shape: tuple[int, int], dtype: torch.dtype) -> None:
    found = []
    for x in ((whole := torch.randn(shape, dtype=dtype)).clone().requires_grad_(), whole.send(bob).requires_grad_()):
        (first,) = torch.autograd.grad((x.trace() ** 2).abs(), x, create_graph=True)
        (second,) = torch.autograd.grad((first.abs() ** 2).sum(), x)
        found.append([g.detach().get_copy() if isinstance(g, sy.PointerTensor) else g.detach() for g in (first, second)])
    torch.testing.assert_close(found[1], found[0])
