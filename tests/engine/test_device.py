"""A worker's device: what comes goes there, what leaves comes from there, factories land there, and the client sees none of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode
from torch.utils._pytree import tree_leaves, tree_map

import syftlite as sy
from syftlite.engine import device as devices
from syftlite.engine import engine as engines
from syftlite.engine.admission import Deferred
from syftlite.engine.device import Device, device_of, named, placed
from syftlite.engine.journal import NoDatasets, Parcels
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConfigurationError, QuotaExceededError
from syftlite.ops.table import BY_FUNC, TABLE
from syftlite.remote.node import WebsocketServerWorker
from syftlite.storage.node_config import NodeConfig
from syftlite.wire import messages as m

sys.path.append(str(Path(__file__).parents[1] / "ops"))

from samples import Local, samples

without_card = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")


class Card(Device):
    """A stand-in for a device: main memory, where every tensor that came by `arrive` or was made by a factory is known."""

    def __init__(self, name: str) -> None:
        self.torch = torch.device("cpu")
        self.came: list[torch.Tensor] = []
        self.went: list[torch.Tensor] = []

    def arrive(self, tensor: torch.Tensor) -> torch.Tensor:
        self.came.append(tensor.clone())
        return self.came[-1]

    def leave(self, tensor: torch.Tensor) -> torch.Tensor:
        self.went.append(tensor.clone())
        return self.went[-1]


@pytest.fixture(params=[False, True], ids=["memory", "serialize"])
def worker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> sy.VirtualWorker:
    """A worker with a `Card`."""
    monkeypatch.setattr(engines, "device_of", lambda name: None if name is None else Card(name))
    return sy.VirtualWorker(id=f"card-{tmp_path}", serialize=request.param, device="card")


def card(worker: sy.VirtualWorker) -> Card:
    """The stand-in of ``worker``."""
    assert isinstance(worker.engine.device, Card)
    return worker.engine.device


def test_what_is_sent_arrives_and_what_is_read_leaves(worker: sy.VirtualWorker) -> None:
    x = torch.arange(3.0).send(worker)
    assert [t.tolist() for t in card(worker).came] == [[0, 1, 2]]
    assert worker._objects[x.id_at_location] is card(worker).came[0]
    y = x * 2
    assert not card(worker).went, "results stay"
    assert torch.equal(y.get_copy(), torch.tensor([0.0, 2.0, 4.0])) and torch.equal(y.get(), torch.tensor([0.0, 2.0, 4.0]))
    assert [t.tolist() for t in card(worker).went] == [[0, 2, 4], [0, 2, 4]] and len(card(worker).came) == 1
    assert y.device.type == x.device.type == "cpu"


def test_datasets_and_what_other_workers_deliver_arrive(worker: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    worker.load(torch.ones(2), "#data")
    worker.store(torch.zeros(2), "#stored", name="stored")
    moved = torch.full((2,), 7.0).send(alice).move(worker)
    assert [t.tolist() for t in card(worker).came] == [[1, 1], [0, 0], [0, 0], [7, 7]], "an upload arrives, and so does its dataset"
    assert torch.equal((worker.search("#data")[0] + moved).get(), torch.full((2,), 8.0))


def test_what_goes_to_another_worker_or_to_disk_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = []

    class Links:
        def deliver(self, uri: str, ticket: str, parcels: Parcels) -> None:
            gone.extend(tensor for _, tensor in parcels)

    class Disk(NoDatasets):
        def save(self, name: str, tensor: torch.Tensor, tags: list[str], description: str, private: bool) -> None:
            gone.append(tensor)

    monkeypatch.setattr(engines, "device_of", lambda name: None if name is None else Card(name))
    engine = engines.Engine("ships", peers=Links(), datasets=Disk(), device="card")
    session = engine.open_session(Principal("me", Role.OWNER))
    number = (session.prefix << 32) + 1
    engine.handle(session, (m.PUT, number, torch.ones(2), (), ""))
    assert engine.handle(session, (m.SHIP, 1, ((number, 7),), "ws://elsewhere", "ticket")) == (m.DONE, 1)
    assert engine.handle(session, (m.STORE, 2, number, "kept", (), "", False)) == (m.DONE, 2)
    assert isinstance(engine.device, Card) and len(gone) == 2
    assert all(any(sent is left for left in engine.device.went) for sent in gone)
    ticket = engine.handle(session, (m.EXPECT, 3, ((number + 1, 8),)))[2]  # type: ignore[index]
    (expected,) = engine.arrivals.redeem(ticket) or ()
    engine.arrivals.deliver(expected, torch.zeros(2))
    engine.handle(session, (m.ARRIVED, number + 1))
    assert session.objects[number + 1][0] is engine.device.came[-1]


def test_factories_and_bare_numbers_are_made_there(worker: sy.VirtualWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def spy(operator: object, device: torch.device) -> object:
        made.append((operator.name, device))  # type: ignore[attr-defined]
        return placed(operator, device)  # type: ignore[arg-type]

    monkeypatch.setattr("syftlite.engine.executor.placed", spy)
    with worker:
        layer, noise, steps = nn.Linear(2, 1), torch.rand(2), torch.arange(3)
    assert {"aten.empty.memory_format", "aten.rand.default", "aten.arange.start_step"} & {name for name, _ in made}
    assert all(device == torch.device("cpu") for _, device in made) and layer.location is worker
    assert noise.shape == (2,) and torch.equal(steps.get(), torch.arange(3))


def test_plans_land_there_too(worker: sy.VirtualWorker) -> None:
    @sy.func2plan(args_shape=[(3,)])
    def f(x: torch.Tensor) -> torch.Tensor:
        return x + torch.ones_like(x)

    for _ in range(4):  # the first replays are checked step by step, later ones go straight
        assert torch.equal(f(torch.ones(3).send(worker)).get(), torch.full((3,), 2.0))


def test_training_gives_the_same_weights(worker: sy.VirtualWorker, alice: sy.VirtualWorker) -> None:
    x, y = torch.randn(8, 2), torch.randn(8, 1)
    weights = []
    for place in (worker, alice):
        torch.manual_seed(5)
        model = nn.Linear(2, 1).send(place)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (model(x.send(place)) - y.send(place)).pow(2).mean().backward()
            optimizer.step()
        weights.append(model.get().weight)
    assert torch.equal(*weights)


def test_a_private_value_is_released_from_there(worker: sy.VirtualWorker) -> None:
    worker.load(torch.ones(2), "#secret", private=True)
    (secret,) = worker.search("#secret")
    (secret + 1).request("the node keeps a copy of it, in main memory")
    assert len(card(worker).went) == 1
    assert (secret + 1).get().tolist() == [2.0, 2.0] and len(card(worker).went) == 2


def test_no_room_on_the_device_poisons_that_tensor_alone(worker: sy.VirtualWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Device("cpu")

    def no_room(self: torch.Tensor, device: object) -> torch.Tensor:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "to", no_room)
        patch.setattr(worker.engine, "device", full)
        lost = torch.ones(2).send(worker)
    kept = torch.ones(2).send(worker)
    with pytest.raises(QuotaExceededError, match="no room for 8 bytes"):
        lost.get()
    assert torch.equal(kept.get(), torch.ones(2))


def test_a_failed_move_off_the_device_fails_that_read_alone(worker: sy.VirtualWorker, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(2).send(worker)

    def broken(tensor: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("CUDA error")

    with monkeypatch.context() as patch:
        patch.setattr(card(worker), "leave", broken)
        with pytest.raises(RuntimeError, match="CUDA error"):
            x.get()
    assert torch.equal(x.get_copy(), torch.ones(2)), "a value that did not leave is still there"


# -- names


def test_main_memory_needs_no_moving() -> None:
    assert device_of(None) is None and device_of("cpu") is None
    worker = sy.VirtualWorker(id="device-cpu", device="cpu")
    assert worker.engine.device is None and torch.equal(torch.ones(2).send(worker).get(), torch.ones(2))
    assert Device("cpu").arrive(torch.ones(1)).device.type == "cpu"


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("gpu", "'gpu' is none that torch knows"),
        ("", "none that torch knows"),
        ("meta", "'meta' keeps no values"),
        (3, "a text such as"),
        pytest.param("cuda", "finds no CUDA device on this machine.*leave device out", marks=without_card),
        pytest.param("cuda:7", "finds no CUDA device", marks=without_card),
    ],
)
def test_a_device_that_cannot_be_is_refused_by_every_way_in(name: str, says: str) -> None:
    for make in (
        lambda: sy.VirtualWorker(id=f"no-device-{name}", device=name),
        lambda: WebsocketServerWorker(id=f"no-device-{name}", port=0, device=name, announce=False),
        lambda: sy.LocalCluster("a", device=name),
        lambda: named(name),
    ):
        with pytest.raises(ConfigurationError, match=says):
            make()
    with pytest.raises(sy.errors.WorkerNotFoundError):
        sy.local_worker.get_worker(f"no-device-{name}")


def test_a_device_that_torch_was_not_built_for_is_refused() -> None:
    if torch.backends.mps.is_available():
        pytest.skip("there is an MPS device")
    with pytest.raises(ConfigurationError, match="'mps' cannot be used") as caught:
        Device("mps")
    assert len(str(caught.value)) < 300


def test_only_factories_are_placed() -> None:
    there = torch.device("cpu")
    kinds = {o.name: placed(o, there) is not o.func for o in TABLE if o is not None}
    assert kinds["aten.zeros.default"] and kinds["aten.randn.default"] and kinds["aten.zeros_like.default"]
    assert not (kinds["aten.add.Tensor"] or kinds["aten._to_copy.default"] or kinds["aten.bernoulli.default"])


# -- from outside


def test_a_configuration_names_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(engines, "device_of", lambda name: None if name is None else Card(name))
    (tmp_path / "node.toml").write_text('id = "carded"\nport = 0\ndevice = "card"\n')
    assert NodeConfig.read(tmp_path / "node.toml").device == "card" and NodeConfig().device is None
    node = WebsocketServerWorker.from_config(tmp_path / "node.toml")
    try:
        assert isinstance(node.engine.device, Card)
    finally:
        node.close()


def test_a_cluster_of_nodes_on_a_device() -> None:
    with sy.LocalCluster("device-node", threads=1, device="cpu") as (worker,):
        assert torch.equal((torch.ones(2).send(worker) * 2).get(), torch.full((2,), 2.0))


def test_with_a_device_what_waits_for_it_leaves_the_event_loop(worker: sy.VirtualWorker) -> None:
    x = torch.ones(2).send(worker)
    session = worker.engine.sessions[worker.transport.prefix]
    session.quick = True
    try:
        for message in ((m.GET, 1, (x.id_at_location,), False, None), (m.PUT, worker.next_id(), torch.ones(1), (), "")):
            with pytest.raises(Deferred):
                worker.engine.handle(session, message)
    finally:
        session.quick = False
    assert devices.device_of(None) is None


# -- what operators do on a card, as far as this can be told without one: devices, shapes and dtypes, no values

@without_card
@pytest.mark.filterwarnings("ignore")  # of what torch's rules of shapes do themselves
def test_what_operators_make_of_operands_on_a_card_is_on_it() -> None:
    """A tensor of main memory that met one there, or a factory that did not ask for the device, would be an error or a result elsewhere."""
    cuda, ran = torch.device("cuda"), set()
    with FakeTensorMode(allow_non_fake_inputs=True):

        def there(value: Any) -> Any:
            if isinstance(value, Local):
                return value.tensor
            return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=cuda) if isinstance(value, torch.Tensor) else value

        for operator in filter(None, TABLE):
            for sample in samples(operator)[:4]:
                args, kwargs = tree_map(there, (tuple(sample.args), dict(sample.kwargs)), is_leaf=lambda v: isinstance(v, Local))
                try:
                    made = placed(operator, cuda)(*args, **kwargs)
                except (DynamicOutputShapeException, DataDependentOutputException):
                    assert operator.dynamic, "only what an answer is asked for depends on values"
                    continue
                except RuntimeError as error:
                    assert "not linked with support for cuda" in str(error), (operator, error)  # a few look at the driver, even so
                    continue
                assert all(t.device.type == "cuda" for t in tree_leaves(made) if isinstance(t, torch.Tensor)), operator
                ran.add(operator.name)
        factory = BY_FUNC[torch.ops.aten.ones.default]
        assert factory.func([2]).device.type == "cpu", "which is what would be found of one that was not placed"
    assert len(ran) > 0.95 * sum(operator is not None for operator in TABLE)
