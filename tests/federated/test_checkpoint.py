"""Files of a federation's state: names with dots, memory in common, and what they do not fit."""

import pytest
import torch
from torch import nn

import syftlite as sy
from syftlite.errors import ConfigurationError
from syftlite.federated import FedAdam, FedAvg, Federation
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


class Counting(FedAvg):
    """With attributes that change, or are of no value."""

    def __init__(self, share=1.0, start=0, score=None):
        super().__init__()
        self.share, self.start, self.score, self.calls = share, start, score, lambda: 0

    def step(self, current, mean):
        self.start += 1
        return mean


def test_a_strategy_that_changes_as_it_goes_is_resumed(parts, tmp_path):
    make = lambda **given: Federation(parts, Wide, strategy=Counting(score=lambda: 0, **given), checkpoint=tmp_path / "run")  # noqa: E731
    make().fit(1)
    assert len(make().resume().fit(1)) == 2
    assert repr(make(share=0.5).strategy) == "Counting(share=0.5, start=0)"
    with pytest.raises(ConfigurationError, match=r"of Counting\(share=1.0, start=0\), not Counting\(share=0.5, start=0\)"):
        make(share=0.5).resume()


def test_a_state_is_of_what_was_trained(parts, tmp_path):
    def frozen():
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model[0].requires_grad_(False)
        return model

    whole = lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))  # noqa: E731
    for strategy in (FedAdam(), FedAvg()):
        Federation(parts, whole, strategy=strategy, checkpoint=tmp_path / "run").fit(1)
        resumed = Federation(parts, frozen, strategy=strategy, checkpoint=tmp_path / "run")
        if isinstance(strategy, FedAdam):
            with pytest.raises(ConfigurationError, match="which of the model's parameters are trained"):
                resumed.resume()
        else:
            assert len(resumed.resume().fit(1)) == 2


def test_a_file_to_save_to_is_named_once(parts, tmp_path):
    federation = Federation(parts, Wide, checkpoint=tmp_path / "run")
    federation.save()
    assert (tmp_path / "run").exists() and len(Federation(parts, Wide).resume(tmp_path / "run").history) == 0
    nowhere = Federation(parts, Wide)
    for call in (nowhere.save, nowhere.resume):
        with pytest.raises(ConfigurationError, match=rf"{call.__name__}\(path\), or Federation\(checkpoint=...\)"):
            call()
    with pytest.raises(ConfigurationError, match="make it first"):
        nowhere.save(tmp_path / "no" / "run")
    for call in (nowhere.save, lambda path: Federation(parts, Wide, checkpoint=path)):
        with pytest.raises(ConfigurationError, match="is a folder: name a file"):
            call(tmp_path)
