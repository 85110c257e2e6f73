"""Split learning: the halves learn as the whole would, and what crosses is the cut layer and nothing else."""

import importlib
from pathlib import Path

import pytest
import torch
from torch import nn

import syftlite as sy

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("split_learning")


def test_it_learns(example, capsys):
    outcome = example.main(["--epochs", "6"])
    assert outcome.accuracy > 0.9 and outcome.losses[-1] < outcome.losses[0] / 5
    assert outcome.forward == outcome.backward == 6 * 1437 * example.CUT
    assert f"{outcome.forward:,} numbers crossed to bob" in capsys.readouterr().out


def test_the_halves_learn_as_the_whole(example, bob, alice):
    torch.manual_seed(0)
    pictures, labels = torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    lower, upper = example.halves(64)
    whole = nn.Sequential(lower, upper)
    optimizer = torch.optim.Adam(whole.parameters(), lr=0.01)
    torch.manual_seed(0)
    torch.randn(32, 1, 8, 8), torch.randint(0, 10, (32,))
    split = example.Split(64, alice, bob)
    at_alice, at_bob = pictures.send(alice), labels.send(bob)
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(whole(pictures), labels).backward()
        optimizer.step()
        split.step(at_alice, at_bob)
    for mine, theirs in zip(whole.parameters(), [*split.lower.get().parameters(), *split.upper.get().parameters()], strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_each_half_stays_where_it_is(example, bob, alice):
    split = example.Split(64, alice, bob)
    split.step(torch.randn(4, 1, 8, 8).send(alice), torch.tensor([1, 2, 3, 4]).send(bob))
    assert split.lower.location is alice and split.upper.location is bob
    assert {tuple(v.shape) for v in bob._objects.values()}.isdisjoint({(4, 1, 8, 8), (64, 64)})


def test_on_nodes(example):
    outcome = example.main(["--epochs", "1", "--batch", "256", "--real"])
    assert outcome.forward == 1437 * example.CUT and outcome.losses[0] < 2.5
    assert not {"bob", "alice"} & set(sy.remote.registry.known)
