"""Losses that are run on all rows at once: the same norms and sums as mapped; whatever may treat rows together is left to the map."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from syftlite.dp import rowwise
from syftlite.dp.clipping import Clipper

N = 12


class Reshaping(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x):
        return self.last(torch.sigmoid(self.first(x.view(-1, 16))))


torch.manual_seed(0)
PICTURES, VECTORS, CLASSES = torch.randn(N, 1, 12, 12), torch.randn(N, 16), torch.randint(0, 5, (N,))
DENSE = nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 5))
CONVOLUTIONAL = nn.Sequential(
    nn.Conv2d(1, 3, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 3, stride=2), nn.LeakyReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 5, bias=False)
)  # fmt: skip
APART = {
    "dense": (DENSE, lambda m: lambda x, y: F.cross_entropy(m(x), y), (VECTORS, CLASSES)),
    "a module of loss": (DENSE, lambda m: lambda x, y: nn.CrossEntropyLoss()(m(x), y), (VECTORS, CLASSES)),
    "squares": (DENSE, lambda m: lambda x, y: F.mse_loss(m(x), y), (VECTORS, torch.randn(N, 5))),
    "squares of a number": (nn.Linear(16, 1), lambda m: lambda x, y: nn.MSELoss()(m(x), y), (VECTORS, torch.randn(N, 1))),
    "pictures": (CONVOLUTIONAL, lambda m: lambda x, y: F.cross_entropy(m(x), y), (PICTURES, CLASSES)),
    "rows of positions": (nn.Sequential(nn.Linear(4, 6), nn.Flatten(), nn.Linear(24, 5)), lambda m: lambda x, y: F.cross_entropy(m(x), y), (VECTORS.view(N, 4, 4), CLASSES)),
    "reshaped": (Reshaping(), lambda m: lambda x, y: F.cross_entropy(m(x), y), (VECTORS.view(N, 4, 4), CLASSES)),
    "one that is not counted": (DENSE, lambda m: lambda x, y: F.cross_entropy(m(x), y), (VECTORS, torch.where(torch.arange(N) == 3, -100, CLASSES))),
}


def both(module, loss, data):
    """(sums, norms), as it decides and mapped."""
    mine, mapped = Clipper(list(module.parameters())), Clipper(list(module.parameters()))
    mapped._mapped = True
    return mine, mine.sums(loss, data, 0.5), mapped.sums(loss, data, 0.5)


@pytest.mark.parametrize("case", APART)
def test_norms_and_sums_are_those_of_the_map(case):
    module, make, data = APART[case]
    clipper, (sums, norms), (want, expected) = both(module, make(module), data)
    assert not clipper._mapped, "it was not mapped"
    assert torch.allclose(norms, expected, rtol=1e-5, atol=1e-6)
    for one, other in zip(sums, want, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_row_of_any_other_batch_has_the_same_norm():
    """What sensitivity rests on: other rows do not matter."""
    for module, make, data in APART.values():
        clipper = Clipper(list(module.parameters()))
        _, norms = clipper.sums(make(module), data, 0.5)
        _, fewer = clipper.sums(make(module), [d[2:7] * 1 for d in data], 0.5)
        assert torch.allclose(norms[2:7], fewer, rtol=1e-5, atol=1e-6)


def on(change):
    """A loss whose rows meet in ``change``."""
    return lambda x, y: F.cross_entropy(DENSE(change(x)), y)


MIXED = {
    "the mean": on(lambda x: x - x.mean(0)),
    "another row": on(lambda x: x + x.roll(1, 0)),
    "the first row": on(lambda x: x - x[:1]),
    "over rows": on(lambda x: x.softmax(0)),
    "sorted": on(lambda x: x.sort(0).values),
    "turned": on(lambda x: x.flip(0)),
    "a product of rows": on(lambda x: x @ x.t() @ x),
    "normalised": on(lambda x: F.normalize(x, dim=0)),
    "rows made anew": on(lambda x: x.reshape(16, -1).t().reshape(-1, 16)),
    "flattened from the start": lambda x, y: F.mse_loss(x.flatten(0).view(-1, 16), x),
    "how many": lambda x, y: F.cross_entropy(DENSE(x) * len(x), y),
    "a shape": lambda x, y: F.cross_entropy(DENSE(x / x.shape[0]), y),
    "a value": lambda x, y: F.cross_entropy(DENSE(x), y) * float(x.sum()),
    "more than the loss": lambda x, y: F.cross_entropy(DENSE(x), y) + sum(p.square().sum() for p in DENSE.parameters()),
    "summed": lambda x, y: F.cross_entropy(DENSE(x), y, reduction="sum"),
    "weighted": lambda x, y: F.cross_entropy(DENSE(x), y, weight=torch.ones(5)),
    "smoothed": lambda x, y: F.cross_entropy(DENSE(x), y, label_smoothing=0.1),
    "a target of its own": lambda x, y: F.cross_entropy(DENSE(x), torch.zeros(len(y), dtype=torch.int64)),
    "a parameter otherwise": lambda x, y: F.cross_entropy(F.linear(DENSE[:4](x), DENSE[4].weight * 2, DENSE[4].bias), y),
    "a weight of rows": lambda x, y: F.mse_loss(F.linear(x, x), x @ x.t()),
    "drawn": lambda x, y: F.cross_entropy(DENSE(F.dropout(x)), y),
    "indices of a pool": lambda x, y: F.max_pool2d(x.view(-1, 1, 4, 4), 2, return_indices=True)[0],
    "in place": lambda x, y: F.cross_entropy(DENSE[4](F.relu(DENSE[0](x), inplace=True)), y),
    "caught": lambda x, y: F.cross_entropy(DENSE(caught(x)), y),
    "two losses": lambda x, y: F.cross_entropy(DENSE(x), y) + F.cross_entropy(DENSE(x), y),
    "no loss": lambda x, y: DENSE(x),
}


def caught(x):
    """What hides that it was told."""
    try:
        return x - x.mean(0)
    except Exception:
        return x


@pytest.mark.parametrize("case", MIXED)
def test_what_may_treat_rows_together_is_not_run_so(case):
    places = {id(p): k for k, p in enumerate(DENSE.parameters())}
    with pytest.raises(rowwise.Mixed):
        rowwise.run(MIXED[case], [VECTORS, CLASSES], places)


@pytest.mark.parametrize("case", ["the mean", "another row", "how many", "more than the loss", "a parameter otherwise", "weighted"])
def test_and_the_map_gives_each_row_what_it_has_alone(case):
    clipper = Clipper(list(DENSE.parameters()))
    _, norms = clipper.sums(MIXED[case], [VECTORS, CLASSES], 0.5)
    assert clipper._mapped
    for i in (0, 5):
        _, alone = clipper.sums(MIXED[case], [VECTORS[i : i + 1], CLASSES[i : i + 1]], 0.5)
        assert torch.allclose(norms[i], alone[0], rtol=1e-4, atol=1e-6)


def test_without_the_check_rows_would_meet(monkeypatch):
    """The planted flaw: a function that mixes rows among those that keep them apart."""
    monkeypatch.setattr(rowwise, "ELEMENTWISE", rowwise.ELEMENTWISE | {torch.Tensor.roll})
    loss = lambda x, y: F.cross_entropy(DENSE(x.roll(1, 0)), y)  # noqa: E731
    monkeypatch.setattr(rowwise, "_keeps_rows", lambda func, args, kwargs: func is torch.Tensor.roll)
    clipper = Clipper(list(DENSE.parameters()))
    _, norms = clipper.sums(loss, [VECTORS, CLASSES], 0.5)
    alone = [clipper.sums(loss, [VECTORS[i : i + 1], CLASSES[i : i + 1]], 0.5)[1][0] for i in range(N)]
    assert not clipper._mapped and not torch.allclose(norms, torch.stack(alone), rtol=0.1)
