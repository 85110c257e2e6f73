"""The trusted aggregator: the average learns, and is the only model that this program reads."""

import importlib
from pathlib import Path

import pytest
import torch

import syftlite as sy

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("trusted_aggregator")


def test_the_average_learns(example, capsys):
    history = example.main(["--rounds", "4"])
    assert history[-1] > 0.85 and history[-1] > history[0]
    assert capsys.readouterr().out.count("the average of 3 is right on") == 4


def test_no_owners_model_is_read(example, monkeypatch):
    """Every read goes by one function: with nodes it is asked only for what is at the secure one. (Virtual workers are in this process.)"""
    reads = []
    read = sy.remote.modules.read

    def watched(pointers, **options):
        reads.extend((pointer.location.id, tuple(pointer.shape)) for pointer in pointers)
        return read(pointers, **options)

    for place in (sy.remote.modules, sy.remote.transfer):
        monkeypatch.setattr(place, "read", watched)
    history = example.main(["--rounds", "2", "--owners", "2", "--real"])
    assert history[-1] > 0.7
    assert len(reads) == 2 * 4, "in each round one model of four parameters"
    assert {place for place, _ in reads} == {example.SECURE}


def test_one_round_is_the_weighted_mean(example):
    torch.manual_seed(0)
    with example.parties(2, real=False) as (owners, secure):
        model = example.network()
        sizes = (30, 10)
        rows = [sy.BaseDataset(torch.randn(n, 1, 8, 8), torch.randint(0, 10, (n,))).send(w) for n, w in zip(sizes, owners, strict=True)]
        locals_ = {name.location.id: example.learn_there(model, name, 2) for name in rows}
        copies = [local.copy().get() for local in locals_.values()]
        for local in locals_.values():
            local.move(secure)
        average = sy.federated.federated_avg(locals_, dict(zip(locals_, sizes, strict=True))).get()
    for parameter, first, second in zip(average.parameters(), copies[0].parameters(), copies[1].parameters(), strict=True):
        assert torch.allclose(parameter, 0.75 * first + 0.25 * second, atol=1e-6)

