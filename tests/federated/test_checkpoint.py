"""Files of a federation's state: names with dots, memory in common, and what they do not fit."""

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ConfigurationError
from syftlite.federated import FedAvg, Federation
from syftlite.federated.checkpoint import Checkpoint, load, store


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    held = torch.arange(6.0)
    state = {"layer.m": [held, held[:3]], "layer.v": [held.view(2, 3).T], "wide": [torch.ones(1).expand(4)]}
    store(tmp_path / "c", Checkpoint([held, held], state, {"bob.1/exp_avg": [held]}, torch.zeros(1, dtype=torch.uint8), {"a": 1}))
    found = load(tmp_path / "c")
    assert list(found.state) == ["layer.m", "layer.v", "wide"] and list(found.training) == ["bob.1/exp_avg"] and found.told == {"a": 1}
    for name, tensors in state.items():
        assert all(torch.equal(a, b) for a, b in zip(found.state[name], tensors, strict=True))
    assert all(torch.equal(value, held) for value in found.values)


class Wide(nn.Module):
    """With a buffer that is expanded."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.register_buffer("wide", torch.ones(1).expand(2))

    def forward(self, x):
        return self.layer(x) + self.wide


class Keeping(FedAvg):
    """Keeps one mean by two names."""

    def step(self, current, mean):
        self.state["last.mean"] = self.state["best"] = mean
        return mean


@pytest.fixture
def parts():
    worker = sy.VirtualWorker(id="kept")
    yield sy.BaseDataset(torch.randn(20, 2), torch.randint(0, 2, (20,))).federate([worker])
    worker.close()


def test_a_federation_goes_on_whatever_shares_memory(parts, tmp_path):
    make = lambda: Federation(parts, Wide, strategy=Keeping(), checkpoint=tmp_path / "run")  # noqa: E731
    first = make()
    first.fit(1)
    resumed = make().resume()
    assert torch.equal(first.model.layer.weight, resumed.model.layer.weight) and list(resumed.strategy.state) == ["best", "last.mean"]
    resumed.fit(1)


def test_what_does_not_fit_is_refused(parts, tmp_path):
    Federation(parts, Wide, checkpoint=tmp_path / "run").fit(1)
    with pytest.raises(ConfigurationError, match="other shapes or types"):
        Federation(parts, lambda: Wide().double()).resume(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="folder .*nowhere is not there"):
        Federation(parts, Wide, checkpoint=tmp_path / "nowhere" / "run")
