"""Clipped sums equal what a loop over examples gives, whatever the network is made of."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from syftlite.dp import layers
from syftlite.dp.clipping import MARGIN, Clipper
from syftlite.errors import ConfigurationError


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(20, 8, padding_idx=0)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm, self.out, self.scale = nn.LayerNorm(8), nn.Linear(8, 3), nn.Parameter(torch.ones(3))

    def forward(self, x):
        h = self.words(x)
        h = self.norm(h + self.attention(h, h, h)[0])
        return self.out(h.mean(1)) * self.scale


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.both = nn.Linear(6, 6)

    def forward(self, x):
        return self.both(torch.relu_(self.both(x)))


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.into, self.again, self.out = nn.Linear(4, 5), nn.Linear(5, 5, bias=False), nn.Linear(5, 3)

    def forward(self, x):
        h = x.new_zeros(len(x), 5)
        for t in range(x.shape[1]):
            h = torch.tanh(self.into(x[:, t]) + self.again(h))
        return self.out(h)


class Last(nn.Module):
    """What a recurrent layer gives last."""

    def __init__(self, layer, width):
        super().__init__()
        self.layer, self.out = layer, nn.Linear(width, 3)

    def forward(self, x):
        return self.out(self.layer(x)[0][:, -1])


class Held(nn.Module):
    """Uses its layers also where no gradient flows."""

    def __init__(self):
        super().__init__()
        self.both, self.out = nn.Linear(6, 6), nn.Linear(6, 3)

    def forward(self, x):
        with torch.no_grad():
            gate = self.both(x) * self.both.weight.sum()
        return self.out(self.both(x) * gate)


NETWORKS = {
    "held": (Held, (8, 6)),
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 7), nn.ReLU(inplace=True), nn.Linear(7, 3)), (8, 12)),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, 2, 1, groups=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 2, bias=False, dilation=1), nn.GroupNorm(1, 5),
            nn.Flatten(), nn.Linear(20, 3),
        ),
        (8, 2, 11, 11),
    ),
    "conv1d": (lambda: nn.Sequential(nn.Conv1d(2, 4, 3, 2, 1), nn.ReLU(), nn.Conv1d(4, 2, 3, padding="same"), nn.Flatten(), nn.Linear(10, 3)), (8, 2, 9)),
    "dilated": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, (3, 2), (2, 1), (1, 0), dilation=(1, 2), groups=2), nn.ReLU(), nn.Conv2d(4, 2, 3, dilation=2), nn.Flatten(), nn.Linear(8, 3)
        ),
        (8, 2, 11, 8),
    ),
    "several pictures": (lambda: nn.Sequential(nn.Flatten(0, 1), nn.Conv2d(2, 3, 3), nn.Tanh(), nn.Flatten(0), nn.Linear(36, 3), nn.Unflatten(0, (1, 3))), (8, 3, 2, 4, 4)),
    "conv3d": (lambda: nn.Sequential(nn.Conv3d(1, 2, 2), nn.Flatten(), nn.Linear(16, 3)), (8, 1, 3, 3, 3)),
    "sequence": (lambda: nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Flatten(), nn.Linear(30, 3)), (8, 6, 4)),
    "words": (Attention, (8, 5)),
    "tied": (Tied, (8, 6)),
    "recurrent": (Recurrent, (8, 3, 4)),
    "lstm": (lambda: Last(nn.LSTM(4, 5, 2, batch_first=True, bidirectional=True), 10), (8, 3, 4)),
    "gru": (lambda: Last(nn.GRU(4, 5, batch_first=True, bias=False), 5), (8, 3, 4)),
    "dropped": (lambda: Last(nn.GRU(4, 5, 2, batch_first=True, dropout=1.0), 5), (8, 3, 4)),
    "rnn": (lambda: Last(nn.RNN(4, 5, 2, batch_first=True, nonlinearity="relu"), 5), (8, 3, 4)),
    "transformer": (lambda: nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(12, 3)), (8, 3, 4)),
    "others": (
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.PReLU(3), nn.InstanceNorm2d(3, affine=True), nn.Flatten(), nn.RMSNorm(75), nn.Linear(75, 3)),
        (8, 2, 4, 4),
    ),
}  # fmt: skip


def network(name):
    make, shape = NETWORKS[name]
    model, x = make(), torch.randint(0, 20, shape) if name == "words" else torch.randn(shape)
    y = torch.randint(0, 3, (len(x),))
    return model, (lambda x, y: F.cross_entropy(model(x), y)), [x, y]


def one_by_one(model, loss, data, clip):
    parameters = list(model.parameters())
    sums, norms = [torch.zeros_like(p) for p in parameters], []
    for i in range(len(data[0])):
        grads = torch.autograd.grad(loss(*[d[i : i + 1] for d in data]), parameters)
        norms.append(float(torch.stack([g.square().sum() for g in grads]).sum().sqrt()))
        for total, grad in zip(sums, grads, strict=True):
            total += min(1.0, MARGIN * clip / norms[-1]) * grad
    return sums, torch.tensor(norms)


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch maps attention's kernel row by row
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("clip", [0.3, 1000.0])
def test_as_a_loop_over_examples(name, clip):
    model, loss, data = network(name)
    clipper = Clipper(list(model.parameters()))
    for _ in range(2):  # once to find out how parameters are used, once knowing
        sums, norms = clipper.sums(loss, data, clip)
        right, right_norms = one_by_one(model, loss, data, clip)
        torch.testing.assert_close(norms, right_norms, rtol=1e-4, atol=1e-5)
        for ours, theirs in zip(sums, right, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_long_sequences_by_inner_products(monkeypatch):
    monkeypatch.setattr(layers, "LARGEST", 0)
    test_as_a_loop_over_examples("sequence", 0.3)


@pytest.mark.parametrize(
    "options", [{}, {"reduction": "sum"}, {"ignore_index": 1}, {"label_smoothing": 0.1}, {"weight": torch.tensor([1.0, 2.0, 3.0])}], ids=str
)
def test_cross_entropy_of_a_row_is_torchs(options):
    model, _, (x, y) = network("mlp")
    sums, norms = Clipper(list(model.parameters())).sums(lambda x, y: F.cross_entropy(model(x), y, **options), [x, y], 0.3)
    kept = y != options.get("ignore_index", -100)
    right, right_norms = one_by_one(model, lambda x, y: F.cross_entropy(model(x), y, **options), [x[kept], y[kept]], 0.3)
    torch.testing.assert_close(norms[kept], right_norms, rtol=1e-4, atol=1e-5)
    assert not norms[~kept].any()
    for ours, theirs in zip(sums, right, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["mlp", "words", "recurrent"])
def test_no_example_counts_for_more_than_the_clip(name):
    model, loss, data = network(name)
    for i in range(3):
        sums, _ = Clipper(list(model.parameters())).sums(loss, [d[i : i + 1] for d in data], 0.01)
        assert math.sqrt(sum(float(s.double().square().sum()) for s in sums)) <= 0.01


def test_an_example_sees_itself_alone():
    """A loss that reaches for other rows gets none of them."""
    model, _, (x, y) = network("mlp")
    clipper = Clipper(list(model.parameters()))
    mixing = lambda x, y: F.cross_entropy(model(x - x.mean(0)), y)  # noqa: E731
    sums, _ = clipper.sums(mixing, [x, y], 1.0)
    other, _ = clipper.sums(mixing, [torch.cat([x[:7], 9 * x[7:]]), y], 1.0)
    for a, b in zip(sums, other, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_what_is_not_finite_counts_as_nothing(name, value):
    model, loss, (x, y) = network(name)
    spoilt = x.clone()
    spoilt[3] = value
    ours, _ = Clipper(list(model.parameters())).sums(loss, [spoilt, y], 1.0)
    keep = torch.arange(8) != 3
    right, _ = Clipper(list(model.parameters())).sums(loss, [x[keep], y[keep]], 1.0)
    for a, b in zip(ours, right, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_batch_norm_is_refused_with_what_to_use():
    model = nn.Sequential(nn.Linear(12, 7), nn.BatchNorm1d(7), nn.Linear(7, 3))
    _, _, data = network("mlp")
    with pytest.raises(ConfigurationError, match="GroupNorm"):
        Clipper(list(model.parameters())).sums(lambda x, y: F.cross_entropy(model(x), y), data, 1.0)


def test_a_packed_sequence_is_refused_with_what_to_do():
    layer, out = nn.GRU(4, 5), nn.Linear(5, 3)

    def loss(x, y):
        packed = nn.utils.rnn.PackedSequence(x[0], torch.ones(3, dtype=torch.int64))
        return F.cross_entropy(out(layer(packed)[1][-1]), y)

    data = [torch.randn(8, 3, 4), torch.randint(0, 3, (8,))]
    with pytest.raises(ConfigurationError, match="pad them"):
        Clipper([*layer.parameters(), *out.parameters()]).sums(loss, data, 1.0)


def test_a_loss_is_one_number():
    model, _, data = network("mlp")
    with pytest.raises(ConfigurationError, match="one number"):
        Clipper(list(model.parameters())).sums(lambda x, y: model(x), data, 1.0)
    with pytest.raises(ConfigurationError, match="no parameters"):
        Clipper([])


class Cell(nn.Module):
    """A step of an LSTM, as one kernel."""

    def __init__(self):
        super().__init__()
        self.cell = nn.LSTMCell(3, 2)

    def forward(self, x):
        return self.cell(x)[0]


@pytest.mark.parametrize(
    ("model", "rows", "match"),
    [(Cell(), torch.randn(6, 3), "nn.LSTMCell .*use nn.LSTM"), (nn.Embedding(9, 2, max_norm=1.0), torch.arange(6), r"Embedding\(max_norm=\)")],
)
def test_layers_that_no_map_knows_are_named(model, rows, match):
    with pytest.raises(ConfigurationError, match=match):
        Clipper(list(model.parameters())).sums(lambda x: model(x).sum(), [rows], 1.0)


def test_an_embedding_without_a_largest_norm_is_as_it_was():
    model = nn.Embedding(9, 2)
    Clipper(list(model.parameters())).sums(lambda x: model(x).sum(), [torch.arange(6)], 1.0)


class Temperature(nn.Module):
    """With a parameter that is one number, twice."""

    def __init__(self):
        super().__init__()
        self.out, self.scale, self.shift = nn.Linear(4, 3), nn.Parameter(torch.tensor(2.0)), nn.Parameter(torch.tensor(0.5))

    def forward(self, x):
        return self.out(x) * self.scale.exp() + self.shift * self.scale


@pytest.mark.parametrize("clip", [0.05, 1e6])
def test_a_parameter_of_no_axes_is_clipped_with_the_others(clip):
    torch.manual_seed(0)
    model, x, y = Temperature(), torch.randn(6, 4), torch.randint(0, 3, (6,))
    parameters = list(model.parameters())
    sums, norms = Clipper(parameters).sums(lambda x, y: F.cross_entropy(model(x), y), [x, y], clip)
    expected = [torch.zeros_like(p) for p in parameters]
    for i in range(6):
        grads = torch.autograd.grad(F.cross_entropy(model(x[i : i + 1]), y[i : i + 1]), parameters)
        norm = torch.cat([g.flatten() for g in grads]).norm()
        torch.testing.assert_close(norms[i], norm)
        for total, grad in zip(expected, grads, strict=True):
            total += grad * min(1.0, clip / norm)
    for mine, its in zip(sums, expected, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-6)
        assert mine.shape == its.shape


TRACKING = nn.Sequential(nn.Conv1d(1, 2, 1), nn.InstanceNorm1d(2, track_running_stats=True))


@pytest.mark.parametrize(
    ("loss", "match"),
    [
        (lambda m, x: {"loss": m(x).sum()}, "one number tensor, and it gave dict"),
        (lambda m, x: 1.0, "it gave float"),
        (lambda m, x: m(x).sum().item() * m(x).sum(), r"leave out .item\(\)"),
        (lambda m, x: m(x).sum() if x.sum() > 0 else m(x).mean(), r"torch.where\(...\) instead of if"),
        (lambda m, x: TRACKING(m(x)[:, None]).sum(), "track_running_stats=False"),
        (lambda m, x: F.embedding(x[:, :1].long() * 0, m.weight, sparse=True).sum(), "sparse=False"),
    ],
)
def test_a_loss_that_no_map_takes_is_told_with_what_to_do(loss, match):
    model = nn.Linear(3, 3)
    with pytest.raises(ConfigurationError, match=match):
        Clipper(list(model.parameters())).sums(lambda x: loss(model, x), [torch.randn(6, 3)], 1.0)


def test_a_sparse_embedding_that_is_not_trained_is_nobodys_business():
    words, model = nn.Embedding(9, 3, sparse=True).requires_grad_(False), nn.Linear(3, 1)
    Clipper(list(model.parameters())).sums(lambda x: model(words(x)).sum(), [torch.arange(6)], 1.0)
