"""The graph that importers make: what it checks, and that every operator gives on shares what it gives in the open."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy
from syftlite.errors import UnsupportedLayerError
from syftlite.serving.graph import Builder, Graph, Input, Node
from syftlite.serving.operators import OPERATORS


@pytest.fixture(scope="module")
def parties():
    workers = [sy.VirtualWorker(id=f"graph {name}") for name in ("alice", "bob", "carol")]
    yield workers
    for worker in workers:
        worker.close()


def rows(*shape, scale=1.0, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


IMAGE, ROW = (3, 6, 7), (5,)
W = {
    "square": rows(4, 3, 3, 3, scale=0.3),
    "flat": rows(4, 3, 1, 2, scale=0.3),
    "grouped": rows(6, 1, 2, 2, scale=0.3),
    "linear": rows(4, 5, scale=0.5),
    "bias": rows(4),
    "per channel": rows(3, seed=1),
}

torch.manual_seed(0)
LSTM, GRU = (kind(5, 2, batch_first=True, bias=False) for kind in (nn.LSTM, nn.GRU))
RNN = nn.RNN(5, 2, batch_first=True, bias=False, nonlinearity="relu")


def both(module):
    return {"to_input": module.weight_ih_l0, "to_hidden": module.weight_hh_l0}


# operator, shapes of its inputs, weights, arguments, and torch's own words for it
CASES = [
    ("linear", [ROW], {"weight": W["linear"], "bias": W["bias"]}, {}, lambda x: F.linear(x, W["linear"], W["bias"])),
    ("linear", [(2, 5)], {"weight": W["linear"]}, {}, lambda x: F.linear(x, W["linear"])),
    ("conv2d", [IMAGE], {"weight": W["square"], "bias": W["bias"]}, {"padding": (1, 1, 1, 1)}, lambda x: F.conv2d(x, W["square"], W["bias"], padding="same")),
    ("conv2d", [IMAGE], {"weight": W["square"]}, {"stride": (2, 2), "padding": (0, 1, 1, 1)}, lambda x: F.conv2d(F.pad(x, (1, 1, 0, 1)), W["square"], stride=2)),
    ("conv2d", [IMAGE], {"weight": W["flat"]}, {"stride": (1, 2), "dilation": (1, 3), "padding": (0, 0, 2, 1)}, lambda x: F.conv2d(F.pad(x, (2, 1)), W["flat"], stride=(1, 2), dilation=(1, 3))),
    ("conv2d", [IMAGE], {"weight": W["grouped"]}, {"groups": 3}, lambda x: F.conv2d(x, W["grouped"], groups=3)),
    ("conv1d", [(3, 7)], {"weight": W["flat"], "bias": W["bias"]}, {"padding": (0, 0, 1, 1), "stride": (1, 2)}, lambda x: F.conv1d(x, W["flat"][:, :, 0], W["bias"], 2, 1)),
    ("conv1d", [(3, 7)], {"weight": W["grouped"][:, :, :1]}, {"groups": 3, "dilation": (1, 3)}, lambda x: F.conv1d(x, W["grouped"][:, :, 0], groups=3, dilation=3)),
    ("matmul", [(3, 4), (4, 5)], {}, {}, lambda x, y: x @ y),
    ("matmul", [(2, 3, 4), (2, 4, 2)], {}, {}, lambda x, y: x @ y),
    ("attention", [(3, 4), (5, 4), (5, 6)], {}, {}, F.scaled_dot_product_attention),
    ("attention", [(2, 3, 4)] * 3, {}, {"scale": 0.3, "causal": True}, lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3, is_causal=True)),
    ("plus", [(4, 3)], {"weight": W["per channel"]}, {}, lambda x: x + W["per channel"]),
    ("times", [(4, 3)], {"weight": W["per channel"]}, {}, lambda x: x * W["per channel"]),
    ("adaptive_avg_pool2d", [IMAGE], {}, {"size": (3, 2)}, lambda x: F.adaptive_avg_pool2d(x, (3, 2))),
    ("affine", [IMAGE], {"scale": W["per channel"], "shift": W["per channel"]}, {}, lambda x: x * W["per channel"].view(3, 1, 1) + W["per channel"].view(3, 1, 1)),
    ("affine", [(4, 3)], {"shift": W["per channel"]}, {"axis": 2}, lambda x: x + W["per channel"]),
    ("masked_fill", [(4, 3)], {}, {"mask": (0, 1, 0), "shape": (3,), "value": -2.5}, lambda x: x.masked_fill(torch.tensor([False, True, False]), -2.5)),
    ("relu", [ROW], {}, {}, torch.relu),
    ("leaky_relu", [ROW], {}, {"slope": 0.2}, lambda x: F.leaky_relu(x, 0.2)),
    ("clamp", [ROW], {}, {"low": 0.0, "high": 0.5}, lambda x: x.clamp(0, 0.5)),
    ("clamp", [ROW], {}, {}, lambda x: x),
    ("scale", [ROW], {}, {"factor": 0.25, "offset": -1.5}, lambda x: x / 4 - 1.5),
    ("identity", [ROW], {}, {}, lambda x: x),
    ("avg_pool2d", [IMAGE], {}, {"kernel": (2, 3), "stride": (2, 2)}, lambda x: F.avg_pool2d(x, (2, 3), 2)),
    ("avg_pool2d", [IMAGE], {}, {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 1, 1, 1)}, lambda x: F.avg_pool2d(x, 2, 2, 1, count_include_pad=False)),
    ("avg_pool2d", [IMAGE], {}, {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 1, 1, 1), "count_padding": True}, lambda x: F.avg_pool2d(x, 2, 2, 1)),
    ("avg_pool2d", [IMAGE], {}, {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 1)}, lambda x: F.avg_pool2d(x, 2, 2, ceil_mode=True)),
    ("max_pool2d", [IMAGE], {}, {"kernel": (2, 3), "stride": (2, 1)}, lambda x: F.max_pool2d(x, (2, 3), (2, 1))),
    ("max_pool2d", [IMAGE], {}, {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1, 1, 1)}, lambda x: F.max_pool2d(x, 3, 2, 1)),
    ("max_pool2d", [IMAGE], {}, {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0, 0, 1)}, lambda x: F.max_pool2d(x, 2, 2, ceil_mode=True)),
    ("global_avg_pool", [IMAGE], {}, {}, lambda x: x.mean((2, 3))),
    ("global_avg_pool", [IMAGE], {}, {"keep": True}, lambda x: x.mean((2, 3), keepdim=True)),
    ("global_max_pool", [IMAGE], {}, {}, lambda x: x.amax((2, 3))),
    ("global_max_pool", [IMAGE], {}, {"keep": True}, lambda x: x.amax((2, 3), keepdim=True)),
    ("mean", [(4, 3)], {}, {"dims": (1,)}, lambda x: x.mean(1)),
    ("amax", [(4, 3)], {}, {"dims": (1,), "keep": True}, lambda x: x.amax(1, keepdim=True)),
    ("flatten", [IMAGE], {}, {}, lambda x: x.flatten(1)),
    ("flatten", [IMAGE], {}, {"order": (0, 2, 3, 1)}, lambda x: x.permute(0, 2, 3, 1).flatten(1)),
    ("reshape", [IMAGE], {}, {"shape": (6, -1)}, lambda x: x.reshape(2, 6, -1)),
    ("permute", [IMAGE], {}, {"order": (0, 2, 3, 1)}, lambda x: x.permute(0, 2, 3, 1)),
    ("pad", [IMAGE], {}, {"padding": (1, 0, 2, 0), "value": 0.5}, lambda x: F.pad(x, (2, 0, 1, 0), value=0.5)),
    ("slice", [IMAGE], {}, {"axis": 2, "start": 1, "stop": -1, "step": 2}, lambda x: x[:, :, 1:-1:2]),
    ("concat", [ROW, (2,), (1,)], {}, {"axis": 1}, lambda *xs: torch.cat(xs, 1)),
    ("add", [ROW, ROW, ROW], {}, {}, lambda x, y, z: x + y + z),
    ("subtract", [ROW, ROW], {}, {}, lambda x, y: x - y),
    ("multiply", [ROW, ROW], {}, {}, lambda x, y: x * y),
    ("maximum", [ROW, ROW, ROW], {}, {}, lambda x, y, z: torch.maximum(torch.maximum(x, y), z)),
    ("minimum", [ROW, ROW], {}, {}, torch.minimum),
    ("softmax", [(4, 3)], {}, {"axis": 1}, lambda x: x.softmax(1)),
    ("log_softmax", [ROW], {}, {}, lambda x: x.log_softmax(-1)),
    ("sigmoid", [ROW], {}, {}, torch.sigmoid),
    ("tanh", [ROW], {}, {}, torch.tanh),
    ("softplus", [ROW], {}, {}, F.softplus),
    ("exp", [ROW], {}, {}, torch.exp),
    ("elu", [ROW], {}, {}, F.elu),
    ("elu", [ROW], {}, {"alpha": 0.3}, lambda x: F.elu(x, 0.3)),
    ("selu", [ROW], {}, {}, F.selu),
    ("silu", [ROW], {}, {}, F.silu),
    ("gelu", [ROW], {}, {}, F.gelu),
    ("gelu", [ROW], {}, {"approximate": True}, lambda x: F.gelu(x, approximate="tanh")),
    ("sum", [(4, 3)], {}, {"dims": (1, 2), "keep": True}, lambda x: x.sum((1, 2), keepdim=True)),
    ("expand", [(3, 1, 1)], {}, {"shape": (3, 2, 4)}, lambda x: x.expand(-1, 3, 2, 4)),
    ("divide", [(1, 4), (1, 1)], {}, {}, lambda x, y: x / y),
    ("power", [ROW], {}, {"exponent": 3.0}, lambda x: x**3),
    ("prelu", [(3, 4)], {"slope": W["per channel"]}, {}, lambda x: F.prelu(x, W["per channel"])),
    ("group_norm", [(4, 3, 2)], {"scale": rows(4), "shift": rows(4, seed=1)}, {"groups": 2, "eps": 1e-3}, lambda x: F.group_norm(x, 2, rows(4), rows(4, seed=1), 1e-3)),
    ("rms_norm", [(4, 5)], {"scale": rows(5)}, {"eps": 1e-3}, lambda x: F.rms_norm(x, (5,), rows(5), 1e-3)),
    ("lstm", [(3, 5)], both(LSTM), {}, lambda x: LSTM(x)[0]),
    ("gru", [(3, 5)], both(GRU), {}, lambda x: GRU(x)[0]),
    ("rnn", [(3, 5)], both(RNN), {"relu": True}, lambda x: RNN(x)[0]),
    ("max_pool2d", [IMAGE], {}, {"kernel": (2, 3), "stride": (1, 2), "padding": (1, 1, 1, 1), "dilation": (3, 2)}, lambda x: F.max_pool2d(x, (2, 3), (1, 2), 1, (3, 2))),
    ("layer_norm", [ROW], {}, {"eps": 1e-3}, lambda x: F.layer_norm(x, (5,), eps=1e-3)),
    ("layer_norm", [(4, 5)], {"scale": rows(4, 5), "shift": rows(4, 5, seed=1)}, {"eps": 1e-5, "axes": 2}, lambda x: F.layer_norm(x, (4, 5), rows(4, 5), rows(4, 5, seed=1))),
]  # fmt: skip


@pytest.mark.parametrize("operator, shapes, weights, arguments, wanted", CASES, ids=[f"{i} {c[0]}" for i, c in enumerate(CASES)])
def test_an_operator_gives_what_torch_gives_in_the_open_and_on_shares(parties, operator, shapes, weights, arguments, wanted):
    build = Builder(*[Input(shape, f"input {i}") for i, shape in enumerate(shapes)])
    build.add(operator, "layer", [i.name for i in build.inputs], weights, **arguments)
    graph, inputs = build.graph(), [rows(2, *shape, seed=i) for i, shape in enumerate(shapes)]
    with torch.no_grad():
        expected = wanted(*inputs)
    graph.must_agree(wanted, *inputs, within=1e-6)
    assert graph.output_shape == expected.shape[1:]

    alice, bob, carol = parties
    share = lambda t: t.fix_precision().share(alice, bob, crypto_provider=carol)  # noqa: E731
    found = graph.run(*map(share, inputs), weights={name: share(w) for name, w in graph.weights.items()}).decrypt()
    assert torch.allclose(found, expected, atol=1e-3)


def test_every_operator_is_among_the_cases():
    embedded = {"embedding"}  # its numbers are one-hot rows when they are secret: below
    assert OPERATORS.keys() - embedded == {case[0] for case in CASES}


def test_an_embedding_takes_numbers_in_the_open_and_one_hot_rows_on_shares(parties):
    build = Builder(Input((3,), numbers=7))
    build.add("embedding", "words", ["input"], {"weight": rows(7, 4)})
    graph, numbers = build.graph(), torch.tensor([[0, 6, 3], [2, 2, 1]])
    graph.must_agree(lambda x: F.embedding(x, rows(7, 4)), numbers)
    alice, bob, carol = parties
    share = lambda t: t.fix_precision().share(alice, bob, crypto_provider=carol)  # noqa: E731
    found = graph.run(share(F.one_hot(numbers, 7).float()), weights={"words.weight": share(rows(7, 4))}).decrypt()
    assert torch.allclose(found, F.embedding(numbers, rows(7, 4)), atol=1e-3)


def diamond():
    build = Builder(Input((4,)))
    left = build.add("linear", "left", ["input"], {"weight": rows(3, 4), "bias": None})
    right = build.add("relu", "right", ["input"])
    right = build.add("linear", "right", [right], {"weight": rows(3, 4, seed=1), "bias": rows(3)})
    return build.add("add", "sum", [left, right]) and build.graph()


def test_a_graph_may_branch_and_names_are_kept_apart():
    graph = diamond()
    assert [n.name for n in graph.nodes] == ["left", "right", "right_2", "sum"]
    assert [n.name for n in graph.users("input")] == ["left", "right"]
    x = rows(2, 4)
    assert torch.allclose(graph.run(x), x @ rows(3, 4).T + x.relu() @ rows(3, 4, seed=1).T + rows(3), atol=1e-6)
    assert "sum = add(left, right_2)" in repr(graph)


def test_a_graph_does_not_change():
    graph, weight = diamond(), rows(3, 4)
    with pytest.raises(TypeError):
        graph.weights["left.weight"] = weight
    with pytest.raises(TypeError):
        graph.nodes[0].attributes["stride"] = 2
    with pytest.raises(AttributeError):
        graph.output = "left"
    build = Builder(Input((4,)))
    build.add("linear", "layer", ["input"], {"weight": weight})
    weight.zero_()
    assert build.weights["layer.weight"].abs().sum() > 0


@pytest.mark.parametrize(
    "operator, arguments, weights, told",
    [
        ("conv2d", {"stride": 2}, {"weight": rows(1, 1, 1, 1)}, "layer 'conv': conv2d's stride is 2, and must be two whole numbers from 1"),
        ("conv2d", {"padding": (1, 1)}, {"weight": rows(1, 1, 1, 1)}, "padding is (1, 1), and must be four whole numbers from 0"),
        ("conv2d", {"padding": (0, 0, 0, -1)}, {"weight": rows(1, 1, 1, 1)}, "must be four whole numbers from 0"),
        ("conv2d", {"strides": (1, 1)}, {"weight": rows(1, 1, 1, 1)}, "has no argument strides; it takes stride, padding"),
        ("conv2d", {}, {}, "conv2d has weights ('weight', 'bias'), and got ()"),
        ("conv2d", {}, {"weight": rows(1), "kernel": rows(1)}, "and got ('weight', 'kernel')"),
        ("leaky_relu", {}, {}, "slope is missing"),
        ("leaky_relu", {"slope": float("nan")}, {}, "must be a finite number"),
        ("linear", {}, {"weight": rows(1, 1) / 0}, "'conv.weight' is missing, or not finite float32"),
        ("add", {}, {}, "add takes two or more inputs, not 1"),
        ("sort", {}, {}, "there is no operator 'sort'; there are linear,"),
    ],
)
def test_what_is_wrong_is_named_with_its_layer(operator, arguments, weights, told):
    build = Builder(Input((4,)))
    build.add(operator, "conv", ["input"], weights, **arguments)
    with pytest.raises((ValueError, UnsupportedLayerError), match="conv") as caught:
        build.graph()
    assert told in str(caught.value)


def test_the_form_of_a_graph_is_checked():
    node = Node("a", "relu", ("input",))
    for inputs, nodes, output in [
        ((Input((1,)),), (node, node), "a"),
        ((Input((1,)),), (Node("b", "relu", ("a",)), node), "a"),
        ((Input((1,)),), (node,), "b"),
        ((), (), "input"),
        ((Input((1,)), Input((1,))), (node,), "a"),
    ]:
        with pytest.raises(ValueError):
            Graph(inputs, nodes, {}, output)


def test_an_error_while_it_runs_tells_the_layer():
    graph = diamond()
    with pytest.raises(RuntimeError) as caught:
        graph.run(rows(2, 5))
    assert "left" in "".join(getattr(caught.value, "__notes__", ["left"]))
    with pytest.raises(ValueError, match=r"the model has 1 inputs \(input\), not 2"):
        graph.run(rows(2, 4), rows(2, 4))


def test_an_importer_with_a_defect_is_caught():
    graph = diamond()
    with pytest.raises(ValueError, match="off by"):
        graph.must_agree(lambda x: graph.run(x) + 0.01, *graph.example())
    with pytest.raises(ValueError, match=r"gives \(2, 3\), the original \(2, 1\)"):
        graph.must_agree(lambda x: graph.run(x)[:, :1], *graph.example())
