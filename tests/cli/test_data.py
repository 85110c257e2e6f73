"""`syftlite data add` and `syftlite ls`."""

import itertools

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import syftlite as sy

_number = itertools.count()


@pytest.fixture
def scientist(hospital):
    worker = hospital.connect(hospital.token(f"scientist-{next(_number)}"))
    yield worker
    worker.close()


@pytest.fixture
def file(tmp_path):
    def made(name, content):
        path = tmp_path / name
        if isinstance(content, dict):
            save_file(content, path)
        elif isinstance(content, np.ndarray):
            np.save(path, content)
        else:
            path.write_text(content)
        return path

    return made


def test_a_csv_file_private(hospital, scientist, file):
    path = file("stays.csv", "age,dose\n50,2.5\n60,4\n")
    added = hospital.run("data", "add", path, "--tag", "#stays", "--tag", "#2024", "--private", "--description", "ICU")
    assert added.stdout == "hospital stored stays (2 x 2 float32, PRIVATE), found by #stays #2024\n"
    row = next(line for line in hospital.run("ls").stdout.splitlines() if "#stays" in line)
    for text in ("#stays #2024", "2 x 2", "float32", "PRIVATE", "ICU. columns: age, dose"):
        assert text in row
    (stays,) = scientist.search("#2024", "#stays")
    assert stays.description == "ICU. columns: age, dose" and stays.shape == (2, 2)
    for made in (stays, stays[0], stays[:1] * 1, stays.sum()):
        with pytest.raises(sy.errors.GetNotPermittedError, match="PRIVATE data of hospital"):
            made.get()


def test_an_npy_file_public_is_found_by_its_name(hospital, scientist, file):
    array = np.arange(5, dtype="int16")
    assert "(5 int16, public), found by #public-array" in hospital.run("data", "add", file("public array.npy", array)).stdout
    (found,) = scientist.search("#public-array")
    assert torch.equal(found.get(), torch.from_numpy(array))


def test_a_safetensors_file_of_two(hospital, scientist, file):
    path = file("both.safetensors", {"X": torch.rand(4, 3).bfloat16(), "y": torch.tensor(3.0)})
    added = hospital.run("data", "add", path, "--name", "trial", "--tag", "#trial", "--private")
    assert added.stdout.splitlines() == [
        "hospital stored trial-X (4 x 3 bfloat16, PRIVATE), found by #trial #X",
        "hospital stored trial-y (scalar float32, PRIVATE), found by #trial #y",
    ]
    assert [scientist.search("#trial", tag)[0].dtype for tag in ("#X", "#y")] == [torch.bfloat16, torch.float32]


def test_a_name_is_taken_once(hospital, file):
    path = file("once.csv", "1\n2\n")
    hospital.run("data", "add", path)
    assert "already has a dataset 'once'" in hospital.run("data", "add", path, code=1).stderr
    hospital.run("data", "add", path, "--name", "twice")


def test_a_bad_file_says_where_and_sends_nothing(hospital, file):
    path = file("bad.csv", "age,dose\n50,2.5\n60,many\n")
    assert "bad.csv, row 3, column 2 (dose): 'many' is no number" in hospital.run("data", "add", path, code=2).stderr
    assert "ends in .npy, .csv, .safetensors" in hospital.run("data", "add", file("x.txt", "1"), code=2).stderr
    assert "a dataset's name" in hospital.run("data", "add", file("c.csv", "1\n"), "--name", "../c", code=2).stderr
    assert "bad" not in hospital.run("ls").stdout


def test_only_the_owner_adds(hospital, file):
    token = hospital.token("adder")
    refused = hospital.run("data", "add", file("mine.csv", "1\n"), code=1, token=token)
    assert "only hospital's owner may store datasets, and this connection is adder, a scientist" in refused.stderr
    assert "mine" not in hospital.run("ls", token=token).stdout
    assert "unknown, revoked or expired" in hospital.run("ls", code=1, token="x" * 43).stderr


def test_progress_counts_the_bytes_of_a_large_upload(hospital, monkeypatch):
    monkeypatch.setenv("SYFTLITE_HOME", str(hospital.machine.home))
    owner = sy.WebsocketClientWorker(port=hospital.port, role="owner")
    sent = []
    tensor = torch.rand(1_000_000)
    owner.store(tensor, "#large", name="large", progress=sent.append)
    (large,) = owner.search("#large")
    assert torch.equal(large.get(), tensor)
    assert sent == sorted(set(sent)) and sent[-1] == 4_000_000 and len(sent) >= 4
    assert owner.listing()[-1].borrowed and all(item.borrowed for item in owner.listing())
    owner.close()


def test_a_node_that_is_not_there_is_said(machine):
    assert "is it running?" in machine.run("ls", "--node", "127.0.0.1:1", code=1).stderr
    refused = machine.run("ls", "--node", "127.0.0.1:1", code=1, token="x" * 43)
    assert "Is the node running, and the address right?" in refused.stderr
