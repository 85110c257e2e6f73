"""Models of torch and scikit-learn as graphs: what they compute is what their framework computes, and what they cannot is named."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from serving.models import ATTENTIONS, SEQUENCES, Attention, Of, cnn, rows
from syftlite.errors import Misuse, UnsupportedLayerError
from syftlite.serving.importers import graph_of
from syftlite.serving.lower import lower, must_fit

sklearn = pytest.importorskip("sklearn")


class Residual(nn.Module):
    """What one writes by hand: functions, methods, operators, a branch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.deep = nn.Conv2d(8, 8, 3, padding="same", groups=2)
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x / 2 - 0.25)))
        y = self.drop(F.leaky_relu(self.deep(x), 0.1))
        x = torch.cat([x + y, x * 0.5], 1)[:, :8]
        x = F.avg_pool2d(x, 2).mean((2, 3))
        return F.log_softmax(self.head(x.view(x.shape[0], -1)), dim=1)


def trained(module):
    """Batch norms with statistics of some batch."""
    torch.manual_seed(0)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return module.eval()


MODULES = {
    "mlp": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 3), nn.Softmax(-1)), (6,)),
    "cnn": (lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU6(), nn.MaxPool2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)), (1, 9, 9)),
    "residual": (Residual, (3, 8, 8)),
    "norms": (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 2), nn.ReLU(), nn.BatchNorm2d(4), nn.AvgPool2d(2, padding=1), nn.ZeroPad2d(1), nn.Flatten(), nn.LazyLinear(2)), (3, 6, 6)),
    "adaptive": (lambda: nn.Sequential(nn.AdaptiveAvgPool2d((2, 3)), nn.Unflatten(1, (3, 1)), nn.Flatten(), nn.Hardtanh(-0.1, 0.3)), (3, 4, 6)),
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_a_module_and_its_graph_give_the_same_and_lowering_changes_nothing(name):
    make, shape = MODULES[name]
    torch.manual_seed(1)
    module = make()
    module(torch.zeros(2, *shape))  # lazy layers
    module = trained(module)
    graph, x = graph_of(module, input_shape=shape), rows(5, *shape)
    assert torch.allclose(graph.run(x), module(x), atol=1e-5)
    lowered = lower(graph)
    out = lowered.graph.run(x)
    for operator, arguments in lowered.last:
        out = getattr(torch, operator)(out, dict(arguments)["axis"])
    assert torch.allclose(out, module(x), atol=1e-4)
    assert not [n for n in lowered.graph.nodes if n.operator in ("identity", "softmax") or (n.operator == "affine" and name != "mlp")]


def test_transposed_convolutions_and_windows_that_reach_beyond():
    """Of kernels larger and smaller than their padding, and with what follows them folded in."""
    torch.manual_seed(1)
    module = trained(
        nn.Sequential(
            nn.ConvTranspose2d(2, 4, (3, 2), (2, 3), (1, 0), (1, 2), 2, dilation=(2, 1)), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            nn.ConvTranspose2d(4, 2, 2, 3, 2, bias=False), nn.AvgPool2d(2, 3, ceil_mode=True), nn.AvgPool2d(3, 2, 1, True, False), nn.Flatten(2),
            nn.ConvTranspose1d(2, 2, 3, 2, 1, 1),
        )
    )  # fmt: skip
    x = rows(4, 2, 3, 4)
    program = torch.export.export(module[:3], (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=64)},))
    assert torch.allclose(graph_of(program).run(x), module[:3](x), atol=1e-5)
    graph = graph_of(module, input_shape=(2, 3, 4))
    for tried in (graph, lower(graph).graph):
        assert torch.allclose(tried.run(x), module(x), atol=1e-5)
    assert not [n for n in lower(graph).graph.nodes if n.operator == "affine"]


@pytest.mark.parametrize("name", SEQUENCES)
def test_modules_of_sequences(name):
    make, shape = SEQUENCES[name]
    torch.manual_seed(1)
    module, x = trained(make()), rows(5, *shape)
    graph = graph_of(module, input_shape=shape)
    for tried in (graph, lower(graph).graph):
        assert torch.allclose(tried.run(x), module(x), atol=1e-5)
    assert not [n for n in lower(graph).graph.nodes if n.operator == "affine"]


@pytest.mark.parametrize("make", [Attention, lambda: Attention(by_hand=True), lambda: SEQUENCES["samples"][0]()])
def test_exported_programs_of_sequences(make):
    module, shape = make().eval(), (5, 8) if make is not None and isinstance(make(), Attention) else (3, 16)
    x = rows(3, *shape)
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim("rows", min=2, max=64)},))
    assert torch.allclose(graph_of(program).run(x), module(x), atol=1e-5)


PARTS = nn.ModuleDict({"prelu": nn.PReLU(3, 0.1), "groups": nn.GroupNorm(3, 3), "each": nn.InstanceNorm1d(3), "rms": nn.RMSNorm(4), "start": nn.ParameterList([torch.randn(1, 1, 4)])})


def test_parts_powers_norms_and_what_broadcasts():
    """As modules write them: heads cut apart, a token put first, channels weighed by what is seen of them all."""
    for program in (
        lambda x: torch.cat(x.chunk(2, -1)[::-1], -1) * x.split([1, 2], 1)[1].sum(1, keepdim=True), lambda x: torch.stack([t.abs() for t in x.unbind(1)], 1),
        lambda x: torch.stack((x, x * 2, torch.ones_like(x)), 0).sum(0).narrow(-1, -3, 2), lambda x: (torch.stack((x.transpose(0, 1), x.transpose(0, 1)), 1)[:, 1] - 1).mean(0),
        lambda x: x.view(x.shape[0], 3, 2, 2).permute(1, 0, 2, 3).unbind(0)[2] * x[..., :1].unbind(1)[0].unsqueeze(-1).expand(-1, 2, 2),
        lambda x: torch.cat([PARTS["start"][0].expand(x.shape[0], -1, -1), x], 1), lambda x: x**2 + x.pow(3) + x.square().sqrt() + (x.abs() + 1).rsqrt() + 1 / (x * x + 1),
        lambda x: x / x.abs().sum(2, keepdim=True) - F.normalize(x, dim=-1) + x.norm(1, -1, True), lambda x: PARTS["prelu"](x) + PARTS["groups"](x) + PARTS["each"](x) + PARTS["rms"](x),
        lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) + (x.sum((1, 2)) * 2)[:, None, None], lambda x: x.repeat(1, 2, 1).clamp_min(0) + torch.ones_like(x)[:, :1, :1], lambda x: x[..., :1] - torch.ones(1, 3, 1),
    ):  # fmt: skip
        with torch.no_grad():
            graph, x = graph_of(Forward(program), example=rows(2, 3, 4)), rows(5, 3, 4)
            assert torch.allclose(graph.run(x), program(x), atol=1e-5)
            assert torch.allclose(lower(graph).graph.run(x), program(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore:The tensor attributes")
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers(kind):
    """Several layers, both ways, a state to begin with; outputs, and last states."""
    torch.manual_seed(0)
    deep, wide = kind(4, 6, 2, batch_first=True, bidirectional=True), kind(4, 6, bias=False)
    start = nn.Parameter(torch.randn(4, 1, 6))

    def program(x):
        h = start.expand(-1, x.shape[0], -1).contiguous()
        out, last = deep(x, (h, h * 0.5) if kind is nn.LSTM else h)
        last = last[0] if kind is nn.LSTM else last
        return torch.cat([out.mean(1), last[-1], last.transpose(0, 1).flatten(1), wide(x.transpose(0, 1))[0][-1]], -1)

    module = Of(lambda s, x: program(x), deep=deep, wide=wide, start=start).eval()
    graph, x = graph_of(module, input_shape=(5, 4)), rows(3, 5, 4)
    assert torch.allclose(graph.run(x), module(x), atol=1e-5)
    exported = graph_of(torch.export.export(Of(lambda s, x: s.wide(x.transpose(0, 1))[0][-1], wide=wide), (x,)))
    assert torch.allclose(exported.run(x), wide(x.transpose(0, 1))[0][-1], atol=1e-5)


@pytest.mark.parametrize(
    "program, told",
    [
        (lambda x: x + 1e12, "its offset of 1e\\+12 does not fit"), (lambda x: x @ (torch.eye(4) * -1e12), "its weight of 1e\\+12"),
        (lambda x: x.masked_fill(torch.eye(3, 4) > 0, 1e12).amin(-1), "its value of 1e\\+12"),
        (lambda x: (x + torch.eye(3, 4) * 1e6).softmax(-1).sum(-1), "softmax of a score of 1e\\+06"),
        (lambda x: x.masked_fill(torch.eye(3, 4) > 0, 1e6).softmax(1)[:, 0], "softmax of a score of 1e\\+06"),
    ],
)  # fmt: skip
def test_constants_beyond_what_fixed_precision_has_are_refused(program, told):
    with pytest.raises(UnsupportedLayerError, match=told):
        must_fit(lower(graph_of(Forward(program), input_shape=(3, 4))).graph, 1 << 16)


def test_bounds_that_no_value_reaches_are_none():
    lowered = lower(graph_of(Forward(lambda x: x.clamp(0, 1e20).clamp(-3e38, 3e38)), input_shape=(4,))).graph
    must_fit(lowered, 1 << 16)
    assert [node.attributes["high"] for node in lowered.nodes] == [None]


def test_extremes_of_two_and_over_axes():
    for program in (
        lambda x: torch.max(x, x * 2 - 1), lambda x: torch.min(x, 1 - x), lambda x: x.max(-1).values, lambda x: x.min(1, keepdim=True)[0], lambda x: x.amin((1, 2)),
        lambda x: x[:, 1], lambda x: -x[..., -1], lambda x: x.max(2)[0][:, 0],
    ):  # fmt: skip
        graph, x = graph_of(Forward(program), example=rows(2, 3, 4)), rows(5, 3, 4)
        assert torch.allclose(graph.run(x), program(x), atol=1e-6)


@pytest.mark.parametrize(
    "program, told",
    [
        (lambda x: x.max(1)[1].float(), "of a result that has no form"), (lambda x: x.max() + x, "max with this dim"), (lambda x: x[0] + x, "select with this dim"),
        (lambda x: x.transpose(0, 1), "transpose with this dims"),
        (lambda x: F.scaled_dot_product_attention(x, x, x, x[:, :, :3]), "its mask depends on the input"),
        (lambda x: F.scaled_dot_product_attention(x, x, x, torch.arange(len(x) * 9).view(-1, 3, 3) % 2 == 0), "attention with this attn_mask"),
        (lambda x: x.transpose(0, 1).reshape(3, -1), "rows along axis 1"), (lambda x: x.transpose(0, 1) + x[0], "select with this dim"),
        (lambda x: nn.functional.layer_norm(x.transpose(1, 0), x.shape[::2]), "normalized_shape"), (lambda x: x.permute(1, 2, 0).mean(-1), "mean with this dim"),
        (lambda x: nn.functional.linear(x.permute(1, 2, 0), torch.ones(2, len(x))), "linear with this dim"),
        (lambda x: x + torch.arange(len(x) * 12.0).view(-1, 3, 4), "with this constant"),
        (lambda x: x[:, 0, 0] @ torch.ones(len(x), 2), "matmul with this dim"), (lambda x: x[:, 0, 0] + torch.ones(1, 1), "add with this constant"),
        (lambda x: x @ x[0].t(), "select with this dim"), (lambda x: F.conv1d(x[0], torch.ones(2, 3, 2)), "select with this dim"),
    ],
)  # fmt: skip
def test_sequences_that_have_no_form(program, told):
    with pytest.raises(UnsupportedLayerError, match=told):
        graph_of(Forward(program), example=rows(2, 3, 4))


@pytest.mark.parametrize("name", ATTENTIONS)
def test_modules_of_attention(name):
    make, *shapes = ATTENTIONS[name]
    torch.manual_seed(1)
    module, inputs = trained(make()), [rows(5, *shape) for shape in shapes]
    fused = torch.backends.mha.get_fastpath_enabled()
    graph = graph_of(module, example=tuple(rows(2, *shape) for shape in shapes))
    assert torch.backends.mha.get_fastpath_enabled() == fused and not [m for m in module.modules() if "forward" in vars(m)]
    assert torch.allclose(graph.run(*inputs), module(*inputs), atol=1e-5)


def test_attention_among_rows_is_refused():
    for module, shape in ((nn.MultiheadAttention(8, 2, batch_first=True), (8,)), (nn.MultiheadAttention(8, 2), (5, 8))):
        with pytest.raises(UnsupportedLayerError, match="of rows has three axes|rows along axis 1"):
            graph_of(Of(lambda s, x: s.a(x, x, x)[0], a=module).eval(), input_shape=shape)
    with pytest.raises(UnsupportedLayerError, match="add_zero_attn"):
        graph_of(Of(lambda s, x: s.a(x, x, x)[0], a=nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True)).eval(), input_shape=(5, 8))


def test_layers_have_the_names_that_the_module_gives_them():
    graph = graph_of(trained(Residual()), input_shape=(3, 8, 8))
    assert {"stem", "norm", "deep", "head"} <= {node.name for node in graph.nodes}


def test_an_exported_program_with_an_embedding():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.head = nn.Embedding(11, 4), nn.Linear(12, 2)

        def forward(self, x):
            return self.head(self.words(x).flatten(1))

    words, x = Words().eval(), torch.tensor([[1, 10, 0], [3, 3, 3]])
    graph = graph_of(torch.export.export(words, (x,)))
    assert graph.inputs[0].numbers == 11 and torch.allclose(graph.run(x), words(x), atol=1e-6)
    one_hot = lower(graph).graph.run(F.one_hot(x, 11).float())
    assert torch.allclose(one_hot, words(x), atol=1e-5)
    assert torch.allclose(graph_of(words, example=x).run(x), words(x), atol=1e-6)


class Forward(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


@pytest.mark.parametrize(
    "module, shape, told",
    [
        (nn.Sequential(nn.Linear(4, 4), nn.Hardswish()), (4,), "layer '1': aten.hardswish.default has no form in a served model"),
        (nn.Sequential(nn.MaxPool2d(2, return_indices=True)), (1, 6, 6), "it gives 2 tensors"),
        (nn.Sequential(nn.GRU(4, 3)), (5, 4), "layer '0': gru with this batch_first"),
        (nn.Sequential(nn.AvgPool2d(3, 2, 1, ceil_mode=True)), (1, 6, 6), "layer '0': avg_pool2d with this ceil_mode"),
        (nn.Sequential(nn.ConvTranspose3d(1, 1, 2)), (1, 5, 5, 5), "layer '0': aten.conv_transpose3d"),
        (Forward(lambda x: x.mean(0)), (4,), "mean with this dim"),
        (Forward(lambda x: x.t()), (4,), "has no form"),
        (Forward(lambda x: (x, x)), (4,), "it gives 2 tensors"),
    ],
)
def test_what_has_no_form_is_named(module, shape, told):
    with pytest.raises(UnsupportedLayerError) as caught:
        graph_of(module.eval(), input_shape=shape)
    assert told in str(caught.value)


def test_what_running_a_module_once_cannot_tell_is_refused():
    with pytest.raises(UnsupportedLayerError, match="what it does next would depend on values"):
        graph_of(Forward(lambda x: x if x.sum() > 0 else -x), input_shape=(4,))

    def halved(x):
        y = x.clone()
        y[:, :2].mul_(0.5)  # through a view: the graph would not see it
        return y

    with pytest.raises(ValueError, match="off by"):
        graph_of(Forward(halved), input_shape=(4,))
    whole = graph_of(Forward(lambda x: F.relu_(x + 1).mul_(2)), input_shape=(4,))
    assert torch.equal(whole.run(rows(3, 4)), F.relu(rows(3, 4) + 1) * 2)


@pytest.mark.parametrize(
    "program", [lambda x: x.softmax(0), lambda x: x.log_softmax(-2), lambda x: F.layer_norm(x, x.shape), lambda x: x.amax(0, keepdim=True) + x]
)
def test_what_would_mix_the_rows_of_a_batch_is_refused(program):
    """A query's answer would depend on whose rows it ran together with."""
    with pytest.raises(UnsupportedLayerError, match="has no form in a served model"):
        graph_of(Forward(program), example=torch.randn(5, 4))


def test_what_is_no_model_or_would_train_is_refused():
    with pytest.raises(Misuse, match="give a torch module"):
        graph_of(42)
    with pytest.raises(Misuse, match="input_shape="):
        graph_of(nn.Linear(2, 2))
    with pytest.raises(Misuse, match=r"norm, drop would train: eval\(\)"):
        graph_of(Residual(), input_shape=(3, 8, 8))
    graph = cnn()
    assert graph_of(graph) is graph


def data(classes):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(200, 5)) * [1, 10, 0.1, 1, 3] + [0, 5, 1, -2, 0]
    return x, (x[:, 0] + x[:, 1] / 10 > 0).astype(int) + (x[:, 3] > 0 if classes == 3 else 0)


def estimators():
    from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
    from sklearn.svm import LinearSVC

    yield 2, LogisticRegression()
    yield 3, make_pipeline(StandardScaler(), LogisticRegression())
    yield 2, make_pipeline(MinMaxScaler(), RobustScaler(), LinearSVC())
    yield 3, make_pipeline(MaxAbsScaler(), SGDClassifier(random_state=0))
    yield 3, LinearRegression()
    yield 2, make_pipeline(StandardScaler(with_mean=False), Ridge())
    yield 3, make_pipeline(StandardScaler(), MLPClassifier((8, 6), max_iter=30, random_state=0))
    yield 2, make_pipeline(StandardScaler(), MLPClassifier((8,), activation="tanh", max_iter=30, random_state=0))
    yield 2, make_pipeline(StandardScaler(with_std=False), MLPRegressor(hidden_layer_sizes=(8,), max_iter=30, random_state=0))
    yield 2, StandardScaler()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("classes, estimator", list(estimators()), ids=lambda v: str(v).replace("\n", "")[:60])
def test_an_estimator_and_its_graph_give_the_same(classes, estimator):
    x, y = data(classes)
    estimator.fit(x, y)
    graph = graph_of(estimator)
    found = graph.run(torch.tensor(x[:20], dtype=torch.float32)).numpy()
    if hasattr(estimator, "predict_proba"):
        wanted = estimator.predict_proba(x[:20])
        wanted = wanted[:, 1:] if classes == 2 else wanted
    elif hasattr(estimator, "decision_function"):
        wanted = estimator.decision_function(x[:20]).reshape(20, -1)
    else:
        wanted = (estimator.predict if hasattr(estimator, "predict") else estimator.transform)(x[:20]).reshape(20, -1)
    assert np.abs(found - wanted).max() < 1e-3 * max(1, np.abs(wanted).max())
    if hasattr(estimator, "steps"):
        assert not [n for n in lower(graph).graph.nodes if n.operator == "affine"], "scalers are folded into the model"


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_estimators_without_a_form_are_named():
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, PolynomialFeatures

    x, y = data(2)
    with pytest.raises(UnsupportedLayerError, match="layer 'RandomForestClassifier': RandomForestClassifier has no form"):
        graph_of(RandomForestClassifier(2).fit(x, y))
    with pytest.raises(UnsupportedLayerError, match="layer 'polynomialfeatures': PolynomialFeatures in the middle"):
        graph_of(make_pipeline(PolynomialFeatures(), LogisticRegression(max_iter=2000)).fit(x / 10, y))
    with pytest.raises(UnsupportedLayerError, match="layer 'MinMaxScaler': MinMaxScaler with clip=True"):
        graph_of(MinMaxScaler(clip=True).fit(x))
    with pytest.raises(UnsupportedLayerError, match="it is not fitted"):
        graph_of(LogisticRegression())
