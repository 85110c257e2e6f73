"""Programs as people wrote them for PySyft 0.2, lesson by lesson: only the import is new, and the results are those of then.

    basic tools          send, get, pointers, operators, gradients, a worker's objects
    federated training   a toy, turn by turn; datasets that are split; optimizers by worker
    advanced execution   lifetimes, moves, pointers to pointers, tags and search, several workers
    aggregation          models that move to a third worker
    sandbox and plans    create_sandbox (with scikit-learn's diabetes data: its Boston houses are gone), func2plan, sy.Plan, state
"""
# ruff: noqa: B007, UP008 - these programs are left as they were written

import copy
import subprocess
import sys

import pytest
import torch
import torch as th
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

import syftlite as sy
from syftlite.remote import registry

NAMES = ("bob", "alice", "charlie", "secure_worker", "device_1", "device_2", "theo", "jason", "andy", "jon")


def close():
    """Free the ids that these programs use."""
    for name in NAMES:
        if name in registry.known:
            registry.known[name].close()


@pytest.fixture(autouse=True)
def _fresh():
    close()
    yield
    close()


@pytest.fixture
def hook():
    return sy.TorchHook(torch)


@pytest.fixture
def bob(hook):
    return sy.VirtualWorker(hook, id="bob")


@pytest.fixture
def alice(hook):
    return sy.VirtualWorker(hook, id="alice")


# -- part 1: the basic tools


def test_send_and_get(hook, bob):
    x = torch.tensor([1, 2, 3, 4, 5])
    assert bob._objects == {}
    x_ptr = x.send(bob)
    assert [v.tolist() for v in bob._objects.values()] == [[1, 2, 3, 4, 5]]
    assert x_ptr.location == bob and x_ptr.location.id == "bob" and bob == x_ptr.location
    assert x_ptr.id_at_location in bob._objects
    assert x_ptr.owner == sy.local_worker == hook.local_worker and x_ptr.owner.id == "me"
    assert repr(bob) == "<VirtualWorker id:bob #objects:1>" and repr(x_ptr).startswith("PointerTensor | me:")
    assert torch.equal(x_ptr.get(), x)
    assert bob._objects == {} and bob.objects_count() == 0


def test_tensor_arithmetic(bob):
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob)
    y = torch.tensor([1, 1, 1, 1, 1]).send(bob)
    z = x + y
    assert z.location is bob
    assert z.get().tolist() == [2, 3, 4, 5, 6]
    assert torch.add(x, y).get().tolist() == [2, 3, 4, 5, 6]
    assert (x - y).get().tolist() == [0, 1, 2, 3, 4] and (x == y).get().tolist() == [True] + [False] * 4
    x += y
    assert x.get().tolist() == [2, 3, 4, 5, 6]


def test_gradients_come_along(bob):
    x = torch.tensor([1, 2, 3, 4, 5.0], requires_grad=True).send(bob)
    y = torch.tensor([1, 1, 1, 1, 1.0], requires_grad=True).send(bob)
    z = (x + y).sum()
    z.backward()
    x = x.get()
    assert x.tolist() == [1, 2, 3, 4, 5] and x.grad.tolist() == [1, 1, 1, 1, 1]


def test_workers_know_each_other(hook, bob, alice):
    hook.local_worker.is_client_worker = False
    hook.local_worker.add_workers([bob, alice])
    bob.add_worker(alice)
    assert bob.get_worker("alice") is alice
    with pytest.raises(sy.errors.WorkerNotFoundException):
        bob.get_worker("zoe")


def test_tensors_of_two_workers_do_not_meet(bob, alice):
    with pytest.raises(sy.errors.TensorsNotCollocatedException):
        torch.ones(2).send(bob) + torch.ones(2).send(alice)
    with pytest.raises(sy.errors.PureFrameworkTensorFoundError):
        torch.ones(2).send(bob) + torch.ones(2)


# -- part 2: federated training


def toy():
    """Four points, and whether the first coordinate is 1."""
    data = torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1.0]], requires_grad=True)
    target = torch.tensor([[0], [0], [1], [1.0]], requires_grad=True)
    return data, target


def test_federated_training_turn_by_turn(bob, alice):
    data, target = toy()
    model = nn.Linear(2, 1)
    data_bob, target_bob = data[0:2].send(bob), target[0:2].send(bob)
    data_alice, target_alice = data[2:].send(alice), target[2:].send(alice)
    datasets = [(data_bob, target_bob), (data_alice, target_alice)]
    opt = optim.SGD(params=model.parameters(), lr=0.1)
    history = []
    for iter in range(20):
        for data, target in datasets:
            model.send(data.location)
            opt.zero_grad()
            pred = model(data)
            loss = ((pred - target) ** 2).sum()
            loss.backward()
            opt.step()
            model.get()
            history.append(loss.get().item())
    assert sum(history[-2:]) < 0.05 * sum(history[:2])
    del data, target, data_bob, target_bob, data_alice, target_alice, datasets, pred, loss
    assert bob.objects_count() == alice.objects_count() == 0


def test_federated_dataset_with_an_optimizer_for_each_worker(bob, alice):
    data, target = toy()
    bobs = sy.BaseDataset(data[0:2], target[0:2]).send(bob)
    alices = sy.BaseDataset(data[2:], target[2:]).send(alice)
    fed_dataset = sy.FederatedDataset([bobs, alices])
    assert fed_dataset.workers == ["bob", "alice"] and len(fed_dataset) == 4
    train_loader = sy.FederatedDataLoader(fed_dataset, shuffle=True, batch_size=2)
    model = nn.Linear(2, 1)
    optims = sy.Optims(workers=["bob", "alice"], optim=optim.Adam(params=model.parameters(), lr=0.1))
    losses = []
    for epoch in range(40):
        for data, target in train_loader:
            model.send(data.location)
            opt = optims.get_optim(data.location.id)
            opt.zero_grad()
            loss = ((model(data) - target) ** 2).sum()
            loss.backward()
            opt.step()
            model.get()
            losses.append(loss.get().item())
    assert sum(losses[-2:]) < 0.1 * sum(losses[:2])


class Pictures(torch.utils.data.Dataset):
    """A dataset as torchvision's are: rows of (image, number), and nothing about workers."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.randint(0, 3, (60,), generator=generator)
        self.images = 0.1 * torch.randn(60, 1, 8, 8, generator=generator)
        for image, label in zip(self.images, self.labels):
            image[0, :, 2 * label : 2 * label + 2] += 1

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return self.images[index], int(self.labels[index])


class CNN(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, 1)
        self.fc1 = nn.Linear(4 * 3 * 3, 10)
        self.fc2 = nn.Linear(10, 3)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.max_pool2d(x, 2, 2)
        x = x.view(-1, 4 * 3 * 3)
        x = F.relu(self.fc1(x))
        x = self.fc2(x)
        return F.log_softmax(x, dim=1)


def test_federated_learning_with_a_cnn(hook, bob, alice):
    federated_train_loader = sy.FederatedDataLoader(Pictures().federate((bob, alice)), batch_size=10, shuffle=True)
    test_loader = torch.utils.data.DataLoader(Pictures(), batch_size=20)
    assert len(federated_train_loader) == 6
    model = CNN()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(6):
        model.train()
        for batch_idx, (data, target) in enumerate(federated_train_loader):
            model.send(data.location)
            optimizer.zero_grad()
            output = model(data)
            loss = F.nll_loss(output, target)
            loss.backward()
            optimizer.step()
            model.get()
        assert loss.get().item() > 0
    model.eval()
    correct = 0
    with torch.no_grad():
        for data, target in test_loader:
            pred = model(data).argmax(1, keepdim=True)
            correct += pred.eq(target.view_as(pred)).sum().item()
    assert correct >= 57


def test_predictions_are_counted_at_the_worker(bob):
    output = torch.tensor([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]]).send(bob)
    target = torch.tensor([1, 0, 0]).send(bob)
    pred = output.argmax(1, keepdim=True)
    assert pred.eq(target.view_as(pred)).sum().get() == 2


# -- part 3: advanced remote execution


def test_lifetimes(bob):
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob)
    assert x.garbage_collection and len(bob._objects) == 1
    del x
    assert bob._objects == {}
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob)
    x = "asdf"
    assert bob._objects == {}, x
    for i in range(100):
        x = torch.tensor([1, 2, 3, 4, 5]).send(bob)
    assert len(bob._objects) == 1
    bob.clear_objects()
    assert bob._objects == {}


def test_move(bob, alice):
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob)
    x = x.move(alice)
    assert bob._objects == {} and len(alice._objects) == 1
    assert x.location is alice and (x + x).get().tolist() == [2, 4, 6, 8, 10]


def test_pointers_to_pointers(bob, alice):
    x = torch.tensor([1, 2, 3, 4, 5])
    x_ptr = x.send(bob)
    pointer_to_x_ptr = x_ptr.send(alice)
    assert len(bob._objects) == len(alice._objects) == 1 and pointer_to_x_ptr.location is alice
    doubled = pointer_to_x_ptr + pointer_to_x_ptr
    assert len(bob._objects) == 2
    x_ptr = pointer_to_x_ptr.get()
    assert x_ptr.location is bob and len(alice._objects) == 1, "her pointer to the sum"
    assert torch.equal(x_ptr.get(), x)
    assert doubled.get().get().tolist() == [2, 4, 6, 8, 10]
    assert bob._objects == alice._objects == {}


def test_the_chain_goes_with_its_first_link(bob, alice):
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob).send(alice)
    assert len(bob._objects) == len(alice._objects) == 1
    del x
    assert bob._objects == alice._objects == {}


def test_remote_get(bob, alice):
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob).send(alice)
    x.remote_get()
    assert bob._objects == {} and [v.tolist() for v in alice._objects.values()] == [[1, 2, 3, 4, 5]]
    assert x.get().tolist() == [1, 2, 3, 4, 5]


def test_tags_and_search(bob, alice):
    x = torch.tensor([1, 2, 3, 4, 5]).tag("#fun", "#boston", "#housing").describe("The input datapoints to the boston housing dataset.")
    y = torch.tensor([1, 2, 3, 4, 5]).tag("#fun", "#boston", "#housing")
    z = torch.tensor([1, 2, 3, 4, 5]).tag("#fun", "#mnist")
    assert x.tags == {"#fun", "#boston", "#housing"} and x.description.startswith("The input datapoints")
    x = x.send(bob)
    y = y.send(bob)
    z = z.send(bob)
    assert len(bob.search(["#fun"])) == 3 and len(bob.search("#boston", "#housing")) == 2 and bob.search("#cats") == []
    assert bob.search(["#boston", "#housing"])[0].location is bob
    grid = sy.PrivateGridNetwork(bob, alice)
    assert {name: len(found) for name, found in grid.search("#fun").items()} == {"bob": 3}


def test_several_workers(bob, alice):
    x = torch.tensor([1, 2, 3, 4, 5]).send(bob, alice)
    y = torch.tensor([1, 1, 1, 1, 1]).send(bob, alice)
    z = x + y
    assert set(z.child) == {"bob", "alice"}
    assert [v.tolist() for v in z.get()] == [[2, 3, 4, 5, 6]] * 2
    assert x.get(sum_results=True).tolist() == [2, 4, 6, 8, 10]
    both = sy.combine_pointers(torch.tensor([1, 2]).send(bob), torch.tensor([3, 4]).send(alice))
    assert both.get(sum_results=True).tolist() == [4, 6]


# -- part 4: a trusted aggregator


def test_averaging_at_a_secure_worker(hook, bob, alice):
    secure_worker = sy.VirtualWorker(hook, id="secure_worker")
    bob.add_workers([alice, secure_worker])
    alice.add_workers([bob, secure_worker])
    secure_worker.add_workers([alice, bob])
    data, target = toy()
    bobs_data, bobs_target = data[0:2].send(bob), target[0:2].send(bob)
    alices_data, alices_target = data[2:].send(alice), target[2:].send(alice)
    model = nn.Linear(2, 1)
    before = ((model(data) - target) ** 2).sum().item()
    for a_iter in range(10):
        bobs_model = model.copy().send(bob)
        alices_model = model.copy().send(alice)
        bobs_opt = optim.SGD(params=bobs_model.parameters(), lr=0.1)
        alices_opt = optim.SGD(params=alices_model.parameters(), lr=0.1)
        for wi in range(10):
            bobs_opt.zero_grad()
            bobs_loss = ((bobs_model(bobs_data) - bobs_target) ** 2).sum()
            bobs_loss.backward()
            bobs_opt.step()
            alices_opt.zero_grad()
            alices_loss = ((alices_model(alices_data) - alices_target) ** 2).sum()
            alices_loss.backward()
            alices_opt.step()
        alices_model.move(secure_worker)
        bobs_model.move(secure_worker)
        with torch.no_grad():
            model.weight.set_(((alices_model.weight.data + bobs_model.weight.data) / 2).get())
            model.bias.set_(((alices_model.bias.data + bobs_model.bias.data) / 2).get())
    assert ((model(data) - target) ** 2).sum().item() < before / 3
    assert alices_model.location is bobs_model.location is secure_worker


# -- part 5: the sandbox


def test_sandbox():
    names = {"torch": torch}
    sy.create_sandbox(names, verbose=False)
    assert len(names["workers"]) == 6 and repr(names["bob"]).startswith("<VirtualWorker id:bob #objects:")
    grid = sy.PrivateGridNetwork(*names["workers"])
    data, target = grid.search("#diabetes", "#data"), grid.search("#diabetes", "#target")
    assert sum(len(p) for pointers in data.values() for p in pointers) == 442
    assert set(data) == set(target) == {"bob", "theo", "jason", "alice", "andy", "jon"}
    n_samples = [data[worker][0].shape[0] for worker in data]
    assert min(n_samples) > 70 and max(n_samples) < 80


# -- part 8: plans


def test_a_function_as_a_plan(hook):
    device_1 = sy.VirtualWorker(hook, id="device_1", data=(th.tensor([-1.0, 2.0]).tag("input_data"),))
    device_2 = sy.VirtualWorker(hook, id="device_2", data=(th.tensor([-3.0, 4.0, 5.0]).tag("input_data"),))

    @sy.func2plan()
    def plan_double_abs(x):
        x = x + x
        x = th.abs(x)
        return x

    assert not plan_double_abs.is_built
    plan_double_abs.build(th.tensor([1.0, -2.0]))
    assert plan_double_abs.is_built and plan_double_abs(th.tensor([-1.0])).tolist() == [2.0]
    plan_double_abs.send(device_1, device_2)
    for device, result in ((device_1, [2.0, 4.0]), (device_2, [6.0, 8.0, 10.0])):
        pointer_to_data = device.search("input_data")[0]
        pointer_to_result = plan_double_abs(pointer_to_data)
        assert pointer_to_result.location is device and pointer_to_result.get().tolist() == result


def test_args_shape(bob):
    @sy.func2plan(args_shape=[(-1, 1)])
    def plan_double_abs(x):
        x = x + x
        x = th.abs(x)
        return x

    assert plan_double_abs.is_built
    pointer_plan = plan_double_abs.send(bob)
    assert pointer_plan(th.tensor([[1.0], [-2.0]]).send(bob)).get().tolist() == [[2.0], [4.0]]
    assert pointer_plan(th.tensor([-1, 2, 3]).send(bob)).get().tolist() == [2, 4, 6]


def test_state_of_a_function(bob):
    @sy.func2plan(args_shape=[(1,)], state=(th.tensor([1.0]),))
    def plan_add_bias(x, state):
        (bias,) = state.read()
        x = x + bias
        return x

    assert plan_add_bias(th.tensor([1.0])).tolist() == [2.0]
    assert plan_add_bias(th.tensor([4.0]).send(bob)).get().tolist() == [5.0]
    plan_add_bias.state[0].add_(10)
    assert plan_add_bias(th.tensor([1.0])).tolist() == [12.0]


def test_a_network_as_a_plan(hook):
    device_1 = sy.VirtualWorker(hook, id="device_1")
    device_2 = sy.VirtualWorker(hook, id="device_2")

    class Net(sy.Plan):
        def __init__(self):
            super(Net, self).__init__()
            self.fc1 = nn.Linear(2, 3)
            self.fc2 = nn.Linear(3, 2)

        def forward(self, x):
            x = F.relu(self.fc1(x))
            x = self.fc2(x)
            return F.log_softmax(x, dim=0)

    net = Net()
    data = th.tensor([1.0, 2.0])
    net.build(data)
    here = net(data)
    for device in (device_1, device_2):
        net.send(device)
        assert torch.allclose(net(data.send(device)).get(), here)
        net.get()
    assert len(net.parameters()) == 4


def test_a_plan_is_fetched(hook):
    device_1 = sy.VirtualWorker(hook, id="device_1")
    device_2 = sy.VirtualWorker(hook, id="device_2")

    @sy.func2plan(args_shape=[(1,)], state=(th.tensor([3.0]),))
    def plan_mult_3(x, state):
        (factor,) = state.read()
        return x * factor

    pointer_plan = plan_mult_3.send(device_1)
    fetched_plan = device_1.fetch_plan(pointer_plan.id_at_location)
    assert fetched_plan(th.tensor([2.0]).send(device_1)).get().tolist() == [6.0]
    assert fetched_plan.is_built and fetched_plan(th.tensor([4.0])).tolist() == [12.0]
    own = device_1.fetch_plan(pointer_plan.id_at_location, copy=True)
    assert own(th.tensor([2.0]).send(device_2)).get().tolist() == [6.0]


# -- what many programs did besides


def test_tensors_that_begin_at_a_worker(bob):
    x = bob.remote.torch.zeros(3)
    assert x.location is bob and (x + 1).get().tolist() == [1, 1, 1]


SERVER = """
import sys, torch
import syftlite as sy
hook = sy.TorchHook(torch)
server = sy.WebsocketServerWorker(id="charlie", host="localhost", port=0, hook=hook, verbose=False)
server.start(wait=False)
print(server.uri, flush=True)
sys.stdin.read()
server.close()
"""


@pytest.fixture
def port(tmp_path, monkeypatch):
    """Where charlie listens, in a process of its own."""
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    with subprocess.Popen([sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield int(process.stdout.readline().rpartition(":")[2])
        process.stdin.close()


def test_websocket_workers(hook, port):
    kwargs_websocket = {"host": "localhost", "port": port, "hook": hook, "verbose": False}
    remote = sy.WebsocketClientWorker(id="charlie", **kwargs_websocket)
    data, target = toy()
    model = nn.Linear(2, 1)
    opt = optim.SGD(params=model.parameters(), lr=0.1)
    x_ptr, y_ptr = data.tag("#toy").send(remote), target.send(remote)
    history = []
    for epoch in range(20):
        model.send(remote)
        opt.zero_grad()
        loss = ((model(x_ptr) - y_ptr) ** 2).sum()
        loss.backward()
        opt.step()
        model.get()
        history.append(loss.get().item())
    assert history[-1] < 0.1 * history[0] and len(remote.search("#toy")) == 1
    del x_ptr, y_ptr, loss
    remote.objects_count_remote()  # what Python let go of is told behind the next message
    assert remote.objects_count_remote() == 0
    remote.close()


def test_inline_send_and_factories(hook, bob):
    x = th.tensor([[1.0, 2], [3, 4]]).send(bob)
    assert x.mm(x.t()).get().tolist() == [[5, 11], [11, 25]]
    assert x.sum().item() == 10 and x.max().get() == 4 and x.mean(0).get().tolist() == [2, 3]
    assert x[0].get().tolist() == [1, 2] and x.view(-1).shape == torch.Size([4])
    assert x.copy().get().tolist() == x.get().tolist()
    y = th.ones(2)
    y.send_(bob)
    assert y.location is bob
    y.get_()
    assert y.tolist() == [1, 1]


def test_a_model_keeps_its_place(bob):
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.send(bob) is model and model.location is bob
    assert len(bob._objects) == len(weights)
    assert model.get() is model and bob._objects == {}
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


# -- split neural networks


class SplitNN:
    """As the lesson had it: inputs of each part are detached where they cross, and gradients are carried back by hand."""

    def __init__(self, models, optimizers):
        self.models = models
        self.optimizers = optimizers

    def forward(self, x):
        a = []
        remote_inputs = []
        a.append(self.models[0](x))
        for i in range(1, len(self.models)):
            if a[-1].location == self.models[i].location:
                remote_inputs.append(a[-1].detach().requires_grad_())
            else:
                remote_inputs.append(a[-1].detach().move(self.models[i].location).requires_grad_())
            a.append(self.models[i](remote_inputs[-1]))
        self.a = a
        self.remote_inputs = remote_inputs
        return a[-1]

    def backward(self):
        a = self.a
        remote_inputs = self.remote_inputs
        for i in range(len(remote_inputs) - 1, -1, -1):
            if remote_inputs[i].location == a[i].location:
                grad = remote_inputs[i].grad.copy()
            else:
                grad = remote_inputs[i].grad.copy().move(a[i].location)
            a[i].backward(grad)

    def zero_grads(self):
        for opt in self.optimizers:
            opt.zero_grad()

    def step(self):
        for opt in self.optimizers:
            opt.step()


def test_split_neural_network(bob, alice):
    th.manual_seed(0)
    models = [
        nn.Sequential(nn.Linear(4, 5), nn.ReLU()),
        nn.Sequential(nn.Linear(5, 4), nn.Sigmoid()),
        nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(dim=1)),
    ]
    whole = copy.deepcopy(nn.Sequential(*models))
    data, target = th.randn(6, 4), th.tensor([0, 1, 2, 0, 1, 2])
    optimizers = [optim.SGD(model.parameters(), lr=0.3) for model in models]
    for model, location in zip(models, [alice, bob, bob]):
        model.send(location)
    splitNN = SplitNN(models, optimizers)
    x, y = data.send(models[0].location), target.send(models[-1].location)
    reference = optim.SGD(whole.parameters(), lr=0.3)
    for i in range(5):
        splitNN.zero_grads()
        pred = splitNN.forward(x)
        loss = nn.NLLLoss()(pred, y)
        loss.backward()
        splitNN.backward()
        splitNN.step()
        reference.zero_grad()
        expected = nn.NLLLoss()(whole(data), target)
        expected.backward()
        reference.step()
        assert th.allclose(loss.get(), expected, atol=1e-5)


def test_what_is_moved_goes_unless_something_else_needs_it(bob, alice):
    x = th.tensor([1.0, 2.0]).send(bob)
    moved = x.move(alice)
    assert len(bob._objects) == 0 and list(alice._objects) == [moved.id_at_location]
    w = th.tensor([1.0, -2.0], requires_grad=True).send(bob)
    a = w.sigmoid()
    b = a.detach().move(alice)
    assert th.allclose(b.get(), th.tensor([1.0, -2.0]).sigmoid())
    a.sum().backward()
    s = th.tensor([1.0, -2.0]).sigmoid()
    assert th.allclose(w.grad.get(), s * (1 - s))
