"""The sandbox: names, workers, data, and what happens without scikit-learn."""

import sys

import pytest
import torch

import syftlite as sy
from syftlite.errors import DependencyError
from syftlite.sandbox import DATASETS, WORKERS


@pytest.fixture
def names():
    names = {"torch": torch}
    yield names
    for worker in names.get("workers", []):
        worker.close()


def test_names_workers_and_data(names, capsys):
    sy.create_sandbox(names)
    printed = capsys.readouterr().out
    assert "bob" in printed and "iris" in printed and printed.endswith("Done!\n")
    assert isinstance(names["hook"], sy.TorchHook) and [w.id for w in names["workers"]] == list(WORKERS)
    assert names["theo"] is names["workers"][1]
    from sklearn.datasets import load_iris

    iris = load_iris()
    found = names["grid"].search("#iris", "#data")
    assert list(found) == list(WORKERS)
    rows = torch.cat([pointers[0].get_copy() for pointers in found.values()])
    assert torch.equal(rows, torch.tensor(iris["data"]).float())
    targets = torch.cat([pointers[0].get_copy() for pointers in names["grid"].search("#iris", "#target").values()])
    assert torch.equal(targets, torch.tensor(iris["target"]).float())
    assert "Iris" in found["bob"][0].description and {"iris", "plants"} <= found["bob"][0].tags
    for tags in DATASETS.values():
        for role in ("#data", "#target"):
            assert set(names["grid"].search(tags[-1], role)) == set(WORKERS)


def test_twice_is_once_and_quiet_is_quiet(names, capsys):
    sy.create_sandbox(names, verbose=False)
    before = names["bob"].objects_count()
    again = {}
    sy.create_sandbox(again, verbose=False)
    assert capsys.readouterr().out == "" and again["bob"] is names["bob"] and again["bob"].objects_count() == before == 2 * len(DATASETS)


def test_without_data(names, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    sy.make_hook(names)
    assert capsys.readouterr().out == "" and names["jon"].objects_count() == 0 and "grid" in names
    with pytest.raises(DependencyError, match=r"syftlite\[demo\].*download_data"):
        sy.create_sandbox({}, verbose=False)
