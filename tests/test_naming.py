"""What a plan's function reads besides its arguments is looked at before each replay, wherever it finds it."""

import functools
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import syftlite as sy

RATE = 1.0
config = ModuleType("config")
config.RATE = 1.0


class Scaled:
    def __init__(self, factor):
        self.factor, self.inner = factor, SimpleNamespace(factor=factor)

    def times(self, x):
        return x * self.factor

    def deeply(self, x):
        return x * self.inner.factor

    __call__ = times


def by_rate(x):
    return x * RATE


class Settings:
    factor = 1.0


class Slotted(Settings):
    __slots__ = ("own",)

    def times(self, x):
        return by_rate(x)

    @property
    def rate(self):
        return RATE


class Layer(nn.Module):
    factor = 1.0

    def forward(self, x):
        return self.twice(x)

    def twice(self, x):
        return x * RATE * self.factor


class Named(sy.Plan):
    factor = 1.0

    def forward(self, x):
        return self.twice(x)

    twice = Layer.twice


def cases():
    """(a function, what makes it ten times as large)."""
    listed, named, known, space = [1.0], {"a": (1.0, 2.0)}, {1}, SimpleNamespace(w=1.0)
    method, deep, call, layer = Scaled(1.0), Scaled(1.0), Scaled(1.0), nn.Linear(1, 1)
    layer.factor = 1.0
    slotted, layers = Slotted(), nn.Sequential(Layer())
    slotted.own = 1.0

    def with_default(x, w=[1.0]):  # noqa: B006
        return x * w[0]

    def inside(x):
        return sum(x * w for w in listed)

    partial = functools.partial(lambda w, x: x * w[0], [1.0])
    return {
        "a list": (lambda x: x * listed[0], lambda: listed.__setitem__(0, 10.0)),
        "a comprehension": (inside, lambda: listed.__setitem__(0, 10.0)),
        "a dict": (lambda x: x * named["a"][0], lambda: named.update(a=(10.0,))),
        "a set": (lambda x: x * sum(known), lambda: known.add(9)),
        "an object": (lambda x: x * space.w, lambda: setattr(space, "w", 10.0)),
        "its own object": (method.times, lambda: setattr(method, "factor", 10.0)),
        "an object's object": (deep.deeply, lambda: setattr(deep.inner, "factor", 10.0)),
        "a call of an object": (lambda x: call(x), lambda: setattr(call, "factor", 10.0)),
        "a helper": (lambda x: by_rate(x), lambda: globals().update(RATE=10.0)),
        "a helper inside": (lambda x: sum(by_rate(y) for y in (x, 0)), lambda: globals().update(RATE=10.0)),
        "a default": (with_default, lambda: with_default.__defaults__[0].__setitem__(0, 10.0)),
        "a partial's": (partial, lambda: partial.args[0].__setitem__(0, 10.0)),
        "a layer's": (lambda x: x * layer.factor, lambda: setattr(layer, "factor", 10.0)),
        "a class's": (lambda x: x * Settings.factor, lambda: setattr(Settings, "factor", 10.0)),
        "an object's class's": (lambda x: x * slotted.factor, lambda: setattr(Settings, "factor", 10.0)),
        "a slot": (lambda x: x * slotted.own, lambda: setattr(slotted, "own", 10.0)),
        "a method's": (lambda x: slotted.times(x), lambda: globals().update(RATE=10.0)),
        "a property's": (lambda x: x * slotted.rate, lambda: globals().update(RATE=10.0)),
        "a layer's method's": (lambda x: layers(x), lambda: globals().update(RATE=10.0)),
        "a layer's class's": (lambda x: layers(x), lambda: setattr(Layer, "factor", 10.0)),
        "a module's": (lambda x: x * config.RATE, lambda: setattr(config, "RATE", 10.0)),
        "a plan's method's": (Named(), lambda: globals().update(RATE=10.0)),
        "a plan's class's": (Named(), lambda: setattr(Named, "factor", 10.0)),
    }


@pytest.fixture(autouse=True)
def rate(monkeypatch):
    monkeypatch.setitem(globals(), "RATE", 1.0)
    monkeypatch.setattr(config, "RATE", 1.0)
    for kind in (Settings, Layer, Named):
        monkeypatch.setattr(kind, "factor", 1.0)


@pytest.mark.parametrize("case", cases())
def test_what_a_function_reads_is_heeded(bob, case):
    function, change = cases()[case]
    plan, x = function if isinstance(function, sy.Plan) else sy.Plan(function), torch.ones(3).send(bob)
    assert torch.equal(plan(x).get(), torch.ones(3))
    change()
    assert torch.equal(plan(x).get(), torch.full((3,), 10.0)) and torch.equal(plan(x).get(), torch.full((3,), 10.0))


def test_what_is_named_later_is_heeded(bob):
    plan, x = sy.Plan(lambda x: x * LATER), torch.ones(3).send(bob)  # noqa: F821
    for factor in (1.0, 10.0):
        globals()["LATER"] = factor
        assert torch.equal(plan(x).get(), torch.full((3,), factor))


def test_what_a_function_writes_itself_makes_no_program_anew(bob):
    calls, seen, keeper = [0], [], SimpleNamespace(count=0)

    def counted(x):
        calls[0] += 1
        keeper.count += 1
        seen.append(x * 2)
        return seen[-1]

    plan, x = sy.Plan(counted), torch.ones(3).send(bob)
    for _ in range(5):
        assert torch.equal(plan(x).get(), torch.full((3,), 2.0))
    assert len(plan._programs) == 1 and calls[0] <= 2


def test_a_private_step_follows_its_loss(bob):
    """Losses of one code: the next one's numbers, its object's, the model's mode, and what is frozen meanwhile."""
    torch.manual_seed(0)
    rows, classes = torch.randn(20, 5), torch.randint(0, 3, (20,))
    base, model = nn.Sequential(nn.Linear(5, 4), nn.Dropout(0.9)), nn.Linear(4, 3)
    base.eval()
    here = [p.detach().clone().requires_grad_() for p in model.parameters()]
    F.cross_entropy(F.linear(base(rows), *here), classes).backward()
    base.send(bob), model.send(bob)
    x, y = rows.send(bob), classes.send(bob)
    optimizer = sy.dp.DPOptimizer(torch.optim.SGD(model.parameters(), lr=0.0), l2_norm_clip=1e3, noise_multiplier=1e-6)

    def moved(loss):
        optimizer.step(loss, x, y)
        return [p.grad.get_copy() for p in model.parameters() if p.requires_grad]

    class Weighted:
        def __init__(self, weight):
            self.weight = weight

        def loss(self, x, y):
            return self.weight * F.cross_entropy(model(base(x)), y)

    for weight in (1.0, 10.0, 3.0):
        for loss in (Weighted(weight).loss, lambda x, y: weight * F.cross_entropy(model(base(x)), y)):  # noqa: B023
            for got, parameter in zip(moved(loss), here, strict=True):
                torch.testing.assert_close(got, weight * parameter.grad, atol=1e-2, rtol=0)
    base.train()
    dropped = moved(lambda x, y: F.cross_entropy(model(base(x)), y))[0]
    assert (dropped - here[0].grad).abs().max() > 0.05
    base.eval()
    model.weight.requires_grad_(False)
    (bias,) = moved(lambda x, y: F.cross_entropy(model(base(x)), y))
    torch.testing.assert_close(bias, here[1].grad, atol=1e-2, rtol=0)
