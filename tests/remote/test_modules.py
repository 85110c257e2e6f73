"""Modules, autograd and optimizers on pointers give what they give locally, and survive moves."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import syftlite as sy
from syftlite.errors import GetNotPermittedError, InvalidTensorForRemoteGet, Misuse, PointerMisuseError
from syftlite.remote import modules
from syftlite.transports.memory import MemoryTransport


def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 8), nn.Tanh(), nn.LayerNorm(8), nn.Linear(8, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3), nn.ELU(), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 3),
    )  # fmt: skip


DATA = {mlp: (16, 4), cnn: (6, 1, 12, 12)}


def train(model, data, target, optimizer, steps=5, loss_fn=F.cross_entropy):
    for _ in range(steps):
        optimizer.zero_grad()
        loss = loss_fn(model(data), target)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    return loss


def same(a, b):
    return all(torch.allclose(x, y, atol=1e-6) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("make", [mlp, cnn])
@pytest.mark.parametrize(
    "optim",
    [
        lambda p: torch.optim.SGD(p, lr=0.1),
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01),
        lambda p: torch.optim.Adam(p, lr=0.01, amsgrad=True),
        lambda p: torch.optim.AdamW(p, lr=0.01, foreach=True),
        lambda p: torch.optim.RMSprop(p, lr=0.01),
        lambda p: torch.optim.Adagrad(p, lr=0.01),
    ],
    ids=["sgd", "nesterov", "adam", "amsgrad", "adamw-foreach", "rmsprop", "adagrad"],
)
def test_training_there_is_training_here(bob, make, optim):
    here, data, target = make(), torch.randn(DATA[make]), torch.randint(0, 3, (DATA[make][0],))
    there = copy.deepcopy(here).send(bob)
    train(here, data, target, optim(here.parameters()))
    optimizer = optim(there.parameters())
    loss = train(there, data.send(bob), target.send(bob), optimizer)
    loss.get_copy()
    assert there.location is bob and there.get() is there and there.location is None
    assert same(here, there)
    del loss, optimizer
    assert bob._objects == {}


@pytest.mark.parametrize("layer", [lambda: nn.AvgPool1d(3, 2), lambda: nn.Linear(9, 3), lambda: nn.Conv1d(5, 4, 3, bias=False)])
def test_a_batch_of_no_rows_has_gradients(bob, layer):
    here = layer()
    there = copy.deepcopy(here).send(bob)
    data = torch.zeros(0, 5, 9).requires_grad_(), torch.zeros(0, 5, 9).send(bob).requires_grad_()
    for model, x in zip((here, there), data, strict=True):
        model(x).sum().backward()
    assert data[1].grad.get().shape == data[0].grad.shape
    assert all(torch.equal(q.grad, p.grad) for p, q in zip(here.parameters(), there.get().parameters(), strict=True))


LOSSES = {
    "mse": (F.mse_loss, torch.rand(16, 3)),
    "l1": (F.l1_loss, torch.rand(16, 3)),
    "smooth l1": (F.smooth_l1_loss, torch.rand(16, 3)),
    "huber": (F.huber_loss, torch.rand(16, 3)),
    "bce": (lambda a, b: F.binary_cross_entropy(a.sigmoid(), b), torch.rand(16, 3)),
    "bce with logits": (F.binary_cross_entropy_with_logits, torch.rand(16, 3)),
    "nll": (lambda a, b: F.nll_loss(a.log_softmax(1), b), torch.randint(0, 3, (16,))),
    "kl": (lambda a, b: F.kl_div(a.log_softmax(1), b, reduction="batchmean"), torch.rand(16, 3).softmax(1)),
    "by hand": (lambda a, b: ((a - b) ** 2).sum() / len(b), torch.rand(16, 3)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients(bob, name):
    loss_fn, target = LOSSES[name]
    here, data = mlp(), torch.randn(16, 4)
    there = copy.deepcopy(here).send(bob)
    loss_fn(here(data), target).backward()
    loss_fn(there(data.send(bob)), target.send(bob)).backward()
    for p, q in zip(here.parameters(), there.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad.get_copy(), atol=1e-6)


def test_parameters_and_buffers_stay_the_same_objects(bob):
    model = cnn()
    tied = nn.ModuleList([model, model[0]])
    objects = [id(t) for t in [*model.parameters(), *model.buffers()]]
    assert tied.send(bob) is tied and all(isinstance(t, sy.PointerTensor) for t in [*tied.parameters(), *tied.buffers()])
    assert all(isinstance(p, nn.Parameter) for p in tied.parameters())
    tied.get()
    assert objects == [id(t) for t in [*model.parameters(), *model.buffers()]]
    assert not any(isinstance(t, sy.PointerTensor) for t in [*model.parameters(), *model.buffers()])


def test_batch_norm_statistics_are_updated_there(bob):
    here, data = nn.BatchNorm1d(3), torch.randn(8, 3)
    there = copy.deepcopy(here).send(bob)
    here(data), there(data.send(bob))
    assert same(here, there.get())


def test_gradients_come_along(bob):
    x = torch.ones(3, requires_grad=True)
    pointer = x.send(bob)
    assert pointer.requires_grad and pointer.is_leaf
    (pointer * 2).sum().backward()
    back = pointer.get()
    assert back.requires_grad and torch.equal(back.grad, torch.full((3,), 2.0))
    model = nn.Linear(3, 1).send(bob)
    model(torch.ones(2, 3).send(bob)).sum().backward()
    assert torch.equal(model.get().bias.grad, torch.full((1,), 2.0))


def test_crossing_is_differentiable(bob, alice):
    here = nn.Linear(3, 4)
    there = nn.Linear(4, 2).send(bob)
    third = nn.Linear(2, 1).send(alice)
    data = torch.randn(5, 3)
    loss = third(there(here(data).send(bob)).move(alice)).sum().get()
    loss.backward()

    twin = nn.Sequential(copy.deepcopy(here), copy.deepcopy(there).get(), copy.deepcopy(third).get())
    twin.zero_grad()
    twin(data).sum().backward()
    assert torch.allclose(here.weight.grad, twin[0].weight.grad, atol=1e-6)
    assert torch.allclose(there.weight.grad.get_copy(), twin[1].weight.grad, atol=1e-6)
    assert torch.allclose(third.weight.grad.get_copy(), twin[2].weight.grad, atol=1e-6)


def test_a_leaf_can_ask_for_its_gradient_here(bob):
    x = torch.ones(3, requires_grad=True)
    (x.send(bob, requires_grad=True) * 3).sum().backward()
    assert torch.equal(x.grad, torch.full((3,), 3.0))


@pytest.mark.parametrize("optim", [torch.optim.SGD, torch.optim.Adam, torch.optim.Adagrad])
def test_one_optimizer_survives_two_moves(bob, alice, optim):
    options = {"momentum": 0.9} if optim is torch.optim.SGD else {}
    here, data, target = mlp(), torch.randn(16, 4), torch.randint(0, 3, (16,))
    there = copy.deepcopy(here)
    plain, moving = optim(here.parameters(), lr=0.05, **options), optim(there.parameters(), lr=0.05, **options)
    train(here, data, target, plain, steps=9)
    train(there.send(bob), data.send(bob), target.send(bob), moving, steps=3)
    train(there.move(alice), data.send(alice), target.send(alice), moving, steps=3)
    train(there.get(), data, target, moving, steps=3)
    assert same(here, there)


def test_modules_go_to_a_worker_with_to(bob):
    model = nn.Linear(2, 2)
    weight = model.weight
    assert model.to(bob) is model and model.weight is weight and model.location is bob
    assert model(torch.ones(1, 2).to(bob)).shape == (1, 2)


def test_state_dict_both_ways(bob):
    here, there = mlp(), mlp().send(bob)
    there.load_state_dict(here.state_dict())
    values = {k: v.get_copy() for k, v in there.state_dict().items()}
    assert all(torch.equal(values[k], v) for k, v in here.state_dict().items())


def test_dropout_runs_there(bob):
    layer, x = nn.Dropout(0.5), torch.ones(1000).send(bob)
    out = layer(x).get_copy()
    assert set(out.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(layer.eval()(x).get(), torch.ones(1000))


def test_embedding_trains(bob):
    here = nn.Embedding(5, 3)
    there = copy.deepcopy(here).send(bob)
    index = torch.tensor([[1, 2], [2, 4]])
    here(index).pow(2).sum().backward()
    there(index.send(bob)).pow(2).sum().backward()
    assert torch.equal(here.weight.grad, there.get().weight.grad)


def test_getting_what_is_here(bob):
    with pytest.raises(InvalidTensorForRemoteGet, match="here already"):
        nn.Linear(2, 2).get()


def test_a_graph_that_still_lives_is_named(bob):
    model = nn.Linear(2, 2).send(bob)
    out = model(torch.ones(1, 2).send(bob)) @ model.weight
    with pytest.raises(PointerMisuseError, match="still uses it"):
        model.get()
    del out
    model.get()


@pytest.mark.parametrize("change", ["send", "get", "fix_precision"])
def test_a_module_that_a_graph_needs_is_changed_whole_or_not_at_all(bob, change):
    model, x = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), torch.ones(1, 2)
    if change == "get":
        model, x = model.send(bob), x.send(bob)
    out = model(x)
    kinds, act = list(map(type, model.parameters())), partial(getattr(model, change), *[bob] * (change == "send"))
    with pytest.raises(PointerMisuseError, match="still uses it"):
        act()
    assert list(map(type, model.parameters())) == kinds
    out.sum().backward()
    del out
    act()
    assert all(type(p) not in kinds for p in model.parameters())


def test_a_refused_module_stays_usable(bob):
    bob.load(torch.randn(8, 4), "#rows", private=True)
    (rows,) = bob.search("#rows")
    model = nn.Linear(4, 1).send(bob)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(rows).pow(2).sum().backward()
    optimizer.step()
    with pytest.raises(GetNotPermittedError):
        model.get(user="somebody")
    assert model.location is bob
    model(rows).pow(2).sum().backward()
    assert model.get().location is None


def test_a_copy_has_values_of_its_own(bob):
    model = nn.Linear(2, 1)
    twin = model.copy().send(bob)
    other = twin.copy()
    with torch.no_grad():
        other.weight.add_(1)
    assert twin.location is bob is other.location and model.location is None
    assert torch.equal(twin.get().weight, model.weight) and torch.equal(other.get().weight, model.weight + 1)


def test_what_a_worker_here_was_sent_is_nobody_else_s(bob):
    """Memory that nothing else has is handed over; what somebody can still write to is copied."""
    model = nn.Linear(3, 2)
    other = nn.Linear(2, 1)
    memory = other.weight.untyped_storage()
    other.send(bob)
    memory.fill_(0)
    assert (other.get().weight != 0).any()
    seen, array = model.weight.detach(), torch.zeros(2).numpy()
    model.bias.data = torch.from_numpy(array)
    model.send(bob)
    seen.fill_(7)
    array[:] = 7
    model.get()
    assert not (model.weight == 7).any() and not (model.bias == 7).any()


@pytest.mark.parametrize("look", [lambda g: g, lambda g: g.detach()[0], lambda g: g.numpy(), lambda g: None], ids=["it", "view", "array", "none"])
def test_a_gradient_that_nobody_else_has_is_handed_over(bob, look):
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    memory, held = model.weight.grad.data_ptr(), look(model.weight.grad)
    model.send(bob)
    there = bob.engine.objects[model.weight.grad.id_at_location][0]
    assert (there.data_ptr() == memory) is (held is None and isinstance(bob.transport, MemoryTransport))
    model.weight.grad.zero_()
    assert held is None or (torch.as_tensor(held) == 1).all()


def test_parameters_of_any_kind_arrive_as_they_are(bob):
    whole = torch.tensor([1 + 2j, 3 - 1j])
    for value in (whole.conj(), torch.arange(6.0).view(2, 3).t(), torch.arange(6.0)[1:4], torch.zeros(0, 3), torch.tensor(2.0)):
        module = nn.ParameterList([nn.Parameter(value)]).send(bob)
        assert torch.equal((module[0] * 1).get_copy().detach(), value.resolve_conj())
        assert torch.equal(module.get()[0].detach(), value.resolve_conj())


@pytest.mark.parametrize("look", [lambda p: p.detach(), lambda p: p.detach()[0], lambda p: p * 1], ids=["alias", "view", "computed"])
def test_what_else_points_at_a_parameter_stays(bob, look):
    model = nn.Linear(3, 2)
    plain = look(model.weight.detach().clone())
    model.send(bob)
    model(torch.ones(1, 3).send(bob)).sum().backward()
    other, grad = look(model.weight), model.weight.grad
    weight = model.get().weight
    with torch.no_grad():
        weight.fill_(7)
    assert torch.equal(other.get_copy().detach(), plain) and torch.equal(grad.get_copy(), torch.ones(2, 3))


def test_training_to_and_fro_is_training_here(bob, alice):
    data, target = torch.randn(16, 4), torch.randint(0, 3, (16,))
    here = mlp()
    there = copy.deepcopy(here)
    plain, moving = (torch.optim.SGD(m.parameters(), lr=0.05, momentum=0.9) for m in (here, there))
    for step in range(6):
        worker = (alice, bob)[step % 2]
        train(here, data, target, plain, steps=1)
        train(there.send(worker), data.send(worker), target.send(worker), moving, steps=1)
        there.get()
        assert same(here, there) and torch.equal(here[0].weight.grad, there[0].weight.grad)
    assert alice.objects_count() == 0, "the worker has forgotten what went"


def test_to_send_a_model_to_where_it_is_changes_nothing(bob, alice):
    model = nn.Linear(3, 2).send(bob)
    loss = model(torch.ones(1, 3).send(bob)).sum()
    before = [p.id_at_location for p in model.parameters()]
    assert model.send(bob) is model and [p.id_at_location for p in model.parameters()] == before
    loss.backward()  # the graph still has the weights, which stayed what they were
    assert torch.equal(model.weight.grad.get_copy(), torch.ones(2, 3))
    assert model.send(alice).weight.location is alice and model.weight.grad.location is alice


def test_what_cannot_come_here_is_there_again(bob, monkeypatch):
    model = nn.Linear(3, 2)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    model.send(bob)
    real, done = modules.become, []

    def fails_the_second_time(target, value):
        done.append(target)
        if len(done) == 2:
            raise PointerMisuseError("still uses it")
        return real(target, value)

    monkeypatch.setattr(modules, "become", fails_the_second_time)
    with pytest.raises(PointerMisuseError, match="still uses it"):
        model.get()
    monkeypatch.undo()
    assert model.location is None and torch.equal(model.weight.detach(), before["weight"])
    assert model.bias.location is bob and torch.equal(model.bias.get_copy().detach(), before["bias"])


def pruned():
    return prune.l1_unstructured(prune.random_unstructured(nn.Linear(3, 2), "weight", 0.5), "bias", 1)


def weighted():
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(nn.Linear(3, 2))


def spectral():
    return nn.utils.spectral_norm(nn.Linear(3, 2))


@pytest.mark.parametrize("make", [pruned, weighted, spectral])
def test_what_hooks_make_of_parameters_is_made_anew_where_they_are(bob, alice, make):
    (here, there), x = [seeded(make) for _ in range(2)], torch.randn(5, 3)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5) for model in (here, there)]
    for worker in (bob, alice, bob):
        there.send(worker)
        for model, data, optimizer in zip((here, there), (x, x.send(worker)), optimizers, strict=True):
            optimizer.zero_grad()
            model(data).square().sum().backward()
            optimizer.step()
    there.get()
    here(x), there(x)
    assert torch.allclose(here.weight, there.weight, atol=1e-6) and type(there.weight) is torch.Tensor
    same(here, there)


@pytest.mark.parametrize("make", [pruned, weighted, spectral])
def test_what_hooks_make_is_no_setting_of_a_plan(bob, make):
    (here, there), x = [seeded(make) for _ in range(2)], torch.randn(5, 3)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in (here, there)]
    there.send(bob)

    def step(model, data, optimizer):
        optimizer.zero_grad()
        loss = model(data).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    plan, sent = sy.func2plan(state=(there, optimizers[1]))(lambda data: step(there, data, optimizers[1])), x.send(bob)
    for _ in range(4):
        assert torch.allclose(plan(sent).get(), step(here, x, optimizers[0]), atol=1e-6)
    assert len(plan._programs) == 1
    same(here, there.get())


def seeded(make):
    torch.manual_seed(5)
    return make()


def test_a_gradient_that_was_taken_by_itself_is_gone(bob, alice):
    x = torch.ones(2).send(bob).requires_grad_()
    (x * 3).sum().backward()
    assert torch.equal(x.grad.get(), torch.full((2,), 3.0))
    assert x.get().grad is None
    model = nn.Linear(2, 1).send(bob)
    for there in (alice, None):
        model(torch.ones(1, 2).send(model.location)).sum().backward()
        assert torch.equal(model.weight.grad.get(), torch.ones(1, 2))
        model.move(there) if there else model.get()
        assert model.weight.grad is None and model.bias.grad is not None
        model.zero_grad()


def test_what_a_program_has_set_on_parameters_stays(bob, alice):
    layer = nn.Linear(2, 2)
    layer.weight.decays, layer.bias.decays = True, False
    for change in [lambda: layer.send(bob), lambda: layer.move(alice), layer.get, layer.fix_precision, layer.float_precision]:
        change()
        assert (layer.weight.decays, layer.bias.decays) == (True, False)


@pytest.mark.parametrize("change", ["send_", "fix_precision_"])
def test_a_parameter_that_changes_by_itself_stays_one(bob, change):
    layer = nn.Linear(2, 2)
    layer.weight.grad, before = torch.ones(2, 2), layer.weight.detach().clone()
    back = {"send_": lambda: layer.weight.send_(bob).get_(), "fix_precision_": lambda: layer.weight.fix_precision_().float_precision_()}
    back[change]()
    assert isinstance(layer.weight, nn.Parameter)
    assert layer.weight.requires_grad
    assert torch.allclose(layer.weight, before, atol=1e-4)


def test_a_lazy_module_is_sent_once_it_has_weights(bob):
    model = nn.Sequential(nn.LazyLinear(3), nn.ReLU())
    with pytest.raises(Misuse, match="call it once here"):
        model.send(bob)
    model(torch.ones(2, 4))
    assert model.send(bob)(torch.ones(2, 4).send(bob)).shape == (2, 3)
