"""The CNN on digits that two workers hold: it learns as plain torch does, on virtual workers and on nodes."""

import importlib
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("mnist_cnn")


def test_it_learns(example, capsys):
    results = example.main(["--epochs", "5"])
    printed = capsys.readouterr().out
    assert results[-1].accuracy > 0.9 and results[-1].loss < results[0].loss / 3
    assert "digits: <VirtualWorker id:bob" in printed and f"{results[-1].accuracy:.2%} of 360 right" in printed


def test_on_nodes_as_on_virtual_workers(example):
    options = ["--epochs", "1", "--first", "256", "--no-progress"]
    (there,), (here,) = example.main([*options, "--real"]), example.main(options)
    assert there.loss == pytest.approx(here.loss, rel=1e-4) and there.accuracy == pytest.approx(here.accuracy, abs=0.01)


@pytest.mark.parametrize("side", [8, 28])
def test_the_network_takes_both_sizes(example, side):
    assert example.network(side)(torch.zeros(2, 1, side, side)).shape == (2, 10)


def test_data_that_was_not_fetched(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        example.main(["--data", "mnist"])
    assert ended.value.code == 1
    assert "fetch it, once, with: python examples/data.py mnist" in capsys.readouterr().err
