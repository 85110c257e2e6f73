"""Workers on Ray, where it is installed: as virtual workers, in actors. Without it, an error that says what to install."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ConnectionLostError, DependencyError
from syftlite.federated import Federation, split_iid
from syftlite.transports.ray import Host, RayTransport
from syftlite.wire import messages as m
from syftlite.wire.fields import MAX_ITEMS


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(DependencyError, match=r'pip install "syftlite\[ray\]"'):
        sy.RayWorker(id="nobody")


class NoRay:
    """Its calls are carried out at once, here."""

    class exceptions:
        GetTimeoutError = RayError = ZeroDivisionError

    @staticmethod
    def get(done, timeout):
        return done


def test_any_number_of_objects_is_forgotten_at_once(monkeypatch):
    monkeypatch.setattr("syftlite.transports.ray.ray", lambda: NoRay)
    monkeypatch.setattr("syftlite.transports.ray.keep_warm", lambda: None)
    host = Host(None)
    calls = {name: SimpleNamespace(remote=getattr(host, name)) for name in ("open", "exchange", "close")}
    transport = RayTransport("nobody", SimpleNamespace(**calls))
    numbers = [(transport.prefix << 32) + n for n in range(1, MAX_ITEMS + 3)]
    for number in numbers[-3:]:
        transport.put(number, torch.ones(1), (), "")
    transport.drops.extend(numbers)
    assert transport.ask(m.LIST, 0)[2] == 0


@pytest.fixture(scope="module")
def ray():
    module = pytest.importorskip("ray", reason='pip install "syftlite[ray]"')
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield module
    module.shutdown()


@pytest.fixture(scope="module")
def worker(ray):
    worker = sy.RayWorker(id="ray")
    yield worker
    worker.close()


def test_it_computes_as_here_and_its_errors_are_its_own(worker):
    x, y = torch.randn(40, 3), torch.randn(3, 2)
    assert torch.equal((x.send(worker) @ y.send(worker)).relu().get(), (x @ y).relu())
    big = torch.randn(3_000_000)
    assert torch.equal(big.send(worker).get(), big)
    wrong = torch.arange(3.0).send(worker)[torch.tensor([5]).send(worker)]
    with pytest.raises(IndexError, match=r"out of bounds[\s\S]*on ray, written at .*test_ray.py"):
        wrong.get()


def test_a_model_trains_there_and_nothing_stays(worker):
    x, y = torch.randn(30, 3), torch.randint(0, 2, (30,))
    here, there = nn.Linear(3, 2), nn.Linear(3, 2)
    there.load_state_dict(here.state_dict())
    before = worker.objects_count()
    there.send(worker)
    for model, data, target in ((here, x, y), (there, x.send(worker), y.send(worker))):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data), target).backward()
            optimizer.step()
    torch.testing.assert_close(there.get().weight, here.weight)
    del model, data, target, optimizer
    assert worker.objects_count() == before


@pytest.mark.parametrize("aggregation", ["plain", "secure"])
def test_a_federation_is_the_same_on_either_engine(ray, aggregation):
    x, y = torch.randn(90, 4), torch.randint(0, 2, (90,))
    models = []
    for engine in ("virtual", "ray"):
        torch.manual_seed(3)
        federation = Federation(split_iid(sy.BaseDataset(x, y), 5), lambda: nn.Linear(4, 2), engine=engine, aggregation=aggregation)
        assert [len(r.clients) for r in federation.fit(2)] == [5, 5]
        models.append(federation.model.weight.detach())
        for client, _, _ in federation.clients:
            client.close()
    torch.testing.assert_close(*models, atol=1e-4, rtol=0)


def test_an_actor_that_dies_is_a_lost_connection(ray):
    doomed = sy.RayWorker(id="doomed")
    x = torch.ones(2).send(doomed)
    ray.kill(doomed.transport.actor)
    with pytest.raises(ConnectionLostError, match="the actor of doomed is gone"):
        x.get()
    doomed.close()
