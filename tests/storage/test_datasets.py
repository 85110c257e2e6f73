"""Datasets on disk: whole or not there, whatever happens."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import syftlite as sy
from syftlite.engine.engine import Engine
from syftlite.engine.session import Principal, Role
from syftlite.errors import ConfigurationError, IdNotUniqueError
from syftlite.ops.dtypes import DTYPES
from syftlite.storage.datasets import FileDatasets
from syftlite.storage.journal import records, verify
from syftlite.transports.memory import MemoryTransport


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "datasets"


def load(folder):
    return {dataset.name: dataset for dataset in FileDatasets(folder).load_all()}


def sample(dtype, shape):
    return (torch.rand(shape) * 100).to(dtype)


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_comes_back_as_it_was(folder, dtype, shape):
    tensor = sample(dtype, shape)
    FileDatasets(folder).save("x", tensor, [], "", False)
    back = load(folder)["x"].tensor
    assert back.dtype == dtype and back.shape == tensor.shape and torch.equal(back, tensor)


@pytest.mark.parametrize(
    "tensor",
    [torch.arange(12.0).view(3, 4).t(), torch.arange(12.0)[::3], torch.ones(3, dtype=torch.complex64).conj() * 1j, torch.ones(1).expand(4)],
    ids=["transposed", "strided", "conjugated", "expanded"],
)
def test_views_are_stored_as_what_they_show(folder, tensor):
    FileDatasets(folder).save("x", tensor.conj() if tensor.is_complex() else tensor, [], "", False)
    back = load(folder)["x"].tensor
    assert torch.equal(back, tensor.conj() if tensor.is_complex() else tensor) and back.is_contiguous()


def test_the_card_comes_back(folder):
    store = FileDatasets(folder)
    store.save("icu", torch.ones(2), ["#icu", "#großer", ""], "a\n'b' \"c\" \x00 é", True)
    store.save("open", torch.ones(2), [], "", False)
    icu, free = load(folder)["icu"], load(folder)["open"]
    assert (icu.tags, icu.description, icu.private) == (("#icu", "#großer", ""), "a\n'b' \"c\" \x00 é", True)
    assert (free.tags, free.description, free.private) == ((), "", False)


def test_they_are_their_users_alone(folder):
    FileDatasets(folder).save("x", torch.ones(2), [], "", True)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir() if path.is_file()} == {0o600}


@pytest.mark.parametrize("name", ["../x", "a/b", "/etc/x", "..", ".x", "", "a\0b", "x" * 101, "é", "a b", "a\n", "-x", "C:x"])
def test_a_name_leads_nowhere_else(tmp_path, folder, name):
    store = FileDatasets(folder)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigurationError, match="a dataset's name"):
        store.save(name, torch.ones(2), [], "", False)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("names", [("a", "a.json"), ("a", "a.safetensors"), ("a", "a.new"), ("a.json", "a.json.json")])
def test_names_that_look_like_files_do_not_collide(folder, names):
    store = FileDatasets(folder)
    for number, name in enumerate(names):
        store.save(name, torch.tensor(float(number)), [], "", False)
    assert {name: dataset.tensor.item() for name, dataset in load(folder).items()} == {name: float(n) for n, name in enumerate(names)}


def test_a_name_is_taken_once(folder):
    store = FileDatasets(folder)
    store.save("x", torch.ones(2), ["#first"], "", True)
    with pytest.raises(IdNotUniqueError, match="choose another name"):
        store.save("x", torch.zeros(2), ["#second"], "", False)
    (kept,) = load(folder).values()
    assert torch.equal(kept.tensor, torch.ones(2)) and kept.tags == ("#first",) and kept.private


def test_what_a_crash_left_is_removed_and_its_name_is_free(folder):
    FileDatasets(folder).save("whole", torch.ones(2), [], "", False)
    (folder / "half.safetensors").write_bytes(b"half a tensor")
    (folder / "drafts" / "x.safetensors").write_bytes(b"")
    (folder / "drafts" / ".tmpa8f3").write_bytes(b"")
    (folder / "card.json.123.new").write_text("{")
    store = FileDatasets(folder)
    assert [dataset.name for dataset in store.load_all()] == ["whole"]
    assert {path.name for path in folder.rglob("*")} == {"whole.safetensors", "whole.json", "drafts"}
    store.save("half", torch.zeros(2), [], "", True)
    assert load(folder)["half"].private


def test_a_failed_save_leaves_nothing_and_frees_the_name(folder, monkeypatch):
    store = FileDatasets(folder)

    def fail(descriptor):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="No space"):
            store.save("x", torch.ones(2), [], "", False)
    assert load(folder) == {}
    store.save("x", torch.ones(2), [], "", False)
    assert set(load(folder)) == {"x"}


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\xff"), id="flipped"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_a_tensor_that_is_not_what_was_stored_is_never_loaded(folder, damage):
    FileDatasets(folder).save("x", torch.ones(2), [], "", False)
    damage(folder / "x.safetensors")
    with pytest.raises(ConfigurationError, match=r"x\.(safetensors|json)"):
        load(folder)


@pytest.mark.parametrize(
    "change",
    [
        {"private": None},
        {"private": 0},
        {"name": "../x"},
        {"name": "y"},
        {"dtype": "object"},
        {"tags": [1]},
        {"bytes": True},
        {"digest": ""},
        {"extra": 1},
    ],
    ids=str,
)
def test_a_card_that_is_not_what_was_written_is_never_believed(folder, change):
    FileDatasets(folder).save("x", torch.ones(2), [], "", True)
    path = folder / "x.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ConfigurationError, match="x"):
        load(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_card_that_is_no_card_is_named(folder, text):
    FileDatasets(folder).save("x", torch.ones(2), [], "", True)
    (folder / "x.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"x\.json is no dataset's card"):
        load(folder)


def test_a_card_without_its_private_field_is_no_card(folder):
    FileDatasets(folder).save("x", torch.ones(2), [], "", True)
    path = folder / "x.json"
    card = json.loads(path.read_text())
    del card["private"]
    path.write_text(json.dumps(card))
    with pytest.raises(ConfigurationError, match="no dataset's card"):
        load(folder)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="names of descriptors come from /proc")
def test_each_file_is_on_disk_before_its_name_and_the_tensor_before_the_card(folder, monkeypatch):
    store, steps = FileDatasets(folder), []
    fsync, replace = os.fsync, os.replace

    def watched_fsync(descriptor):
        fsync(descriptor)
        steps.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.replace(str(os.getpid()), "PID")))

    def watched_replace(source, target):
        replace(source, target)
        steps.append(("name", Path(target).name))

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(os, "replace", watched_replace)
    store.save("x", torch.ones(2), [], "", False)
    assert steps == [
        ("sync", "x.safetensors"),
        ("name", "x.safetensors"),
        ("sync", "datasets"),
        ("sync", "x.json.PID.new"),
        ("name", "x.json"),
        ("sync", "datasets"),
    ]


# -- with the engine


def test_an_engine_serves_what_another_stored(folder):
    first = sy.VirtualWorker(id="stores", engine=Engine("stores", datasets=FileDatasets(folder)))
    first.store(torch.arange(3.0), "#rows", name="rows", description="three", private=True)
    first.store(torch.arange(4), "#open", name="open")
    second = sy.VirtualWorker(id="serves", engine=Engine("serves", datasets=FileDatasets(folder)))
    (rows,), (free,) = second.search("#rows"), second.search("#open")
    assert rows.description == "three" and torch.equal(free.get(user="alice"), torch.arange(4))
    with pytest.raises(sy.errors.GetNotPermittedError, match="PRIVATE"):
        (rows * 2).get(user="alice")
    with pytest.raises(IdNotUniqueError):
        second.store(torch.ones(1), name="rows")


def test_a_stored_datasets_unit_is_a_column_by_name_or_it_is_not_stored(folder):
    policies = {name: replace(sy.policy.dp(), unit=unit) for name, unit in (("visits", "patient"), ("stays", "patient"), ("wards", 3))}

    def engine():
        return Engine("units", datasets=FileDatasets(folder), policies=policies)

    rows = torch.stack([torch.ones(4), torch.arange(4.0) // 2], 1)
    bob = sy.VirtualWorker(id="stores units", engine=engine())
    bob.store(rows, "#visits", name="visits", description="of a year. columns: age, patient", private=True)
    for name, description in (("stays", "columns: patient"), ("stays", ""), ("wards", "columns: age, patient")):
        with pytest.raises(ConfigurationError, match="for its unit"):
            bob.store(rows, name=name, description=description, private=True)
    again = engine()
    assert list(again.names) == ["visits"]
    assert again.policies._frames["visits"].units.tolist() == [0, 0, 1, 1]


def test_a_failed_upload_is_not_stored(folder):
    bob = sy.VirtualWorker(id="small", engine=Engine("small", datasets=FileDatasets(folder), max_bytes=100))
    with pytest.raises(sy.errors.QuotaExceededError):
        bob.store(torch.ones(1000), name="large")
    assert load(folder) == {} and bob.listing() == []


def test_what_was_made_of_private_rows_is_stored_private(folder):
    bob = sy.VirtualWorker(id="derives", engine=Engine("derives", datasets=FileDatasets(folder)))
    bob.store(torch.ones(3), "#rows", name="rows", private=True)
    (rows,) = bob.search("#rows")
    derived = rows * 2
    bob.ask(sy.wire.messages.STORE, derived.id_at_location, "derived", [], "", False)
    assert load(folder)["derived"].private


# -- kill -9


CRASHES = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
from syftlite.storage.datasets import FileDatasets
from syftlite.storage.journal import FileJournal

base = Path(sys.argv[1])
random.seed(int(sys.argv[2]))

def write(folder, out, steps):
    # Store datasets and record each; tell of it only then. Dies by its own hand at disk operation number `steps`, if that is given.
    count = 0
    def counted(function):
        def run(*arguments, **options):
            nonlocal count
            count += 1
            if count == steps:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **options)
        return run
    for name in ("fsync", "replace", "open", "write"):
        setattr(os, name, counted(getattr(os, name)))
    journal, store = FileJournal(folder / "journal.jsonl"), FileDatasets(folder / "datasets")
    for n in range(10_000):
        store.save(f"d{n}", torch.full((50_000,), float(n)), [f"#{n}"], "", n % 2 == 0)
        journal.append("stored", {"dataset": f"d{n}"})
        out.write(b"%d " % n)
        out.flush()

for number in range(40):
    folder = base / str(number)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        write(folder, os.fdopen(writing, "wb"), number + 1 if number < 20 else None)
        os._exit(0)
    os.close(writing)
    told = b""
    if number >= 20:
        told = os.read(reading, 1)  # one dataset is stored
        time.sleep(random.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
    told += os.fdopen(reading, "rb").read()
    os.waitpid(child, 0)
    print(json.dumps([str(folder), len(told.split())]), flush=True)
"""


def test_killed_at_any_point_it_loses_nothing_that_it_told_of_and_keeps_nothing_half(tmp_path):
    seed = int.from_bytes(os.urandom(4), "big")
    done = subprocess.run([sys.executable, "-c", CRASHES, str(tmp_path), str(seed)], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rounds = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rounds) == 40
    for folder, told in rounds:
        folder = Path(folder)
        there = load(folder / "datasets")
        assert set(there) >= {f"d{n}" for n in range(told)}, (seed, folder.name)
        for name, dataset in there.items():
            n = int(name[1:])
            assert n <= told, (seed, folder.name)
            assert torch.equal(dataset.tensor, torch.full((50_000,), float(n))) and dataset.private is (n % 2 == 0), (seed, folder.name)
        files = {f"{name}{suffix}" for name in there for suffix in (".json", ".safetensors")}
        assert {str(path.relative_to(folder / "datasets")) for path in (folder / "datasets").rglob("*")} == {"drafts", *files}
        if (folder / "journal.jsonl").exists():
            verdict = verify(folder / "journal.jsonl")
            assert verdict.broken is None and verdict.right >= told, (seed, folder.name)
            assert [r["record"]["dataset"] for r in records(folder / "journal.jsonl")][:told] == [f"d{n}" for n in range(told)]
    assert any(told for _, told in rounds)


POLICIES = [
    replace(sy.policy.approve(quorum=2), find=("carol",), rate="2/h", expires=4e9),
    sy.policy.aggregate_only(7) & replace(sy.policy.dp(epsilon=0.5), release=("role:scientist",)),
    sy.policy.Policy(),
]


@pytest.mark.parametrize("policy", POLICIES, ids=["approve", "both", "nothing"])
def test_what_is_made_of_a_dataset_stays_under_its_policy_when_the_node_starts_again(folder, policy):
    def derived(**settings):
        engine = Engine("node", datasets=FileDatasets(folder), **settings)
        return engine, engine.policies.of(["made"])["made"]

    engine = Engine("node", datasets=FileDatasets(folder))
    engine.load("icu", torch.randn(50, 2), ["#icu"], policy=policy)
    owner = sy.BaseWorker(f"keeper{id(policy)}", MemoryTransport(engine, Principal("owner", Role.OWNER)))
    owner.store(owner.search("#icu")[0] * 2, name="made")
    assert engine.policies.of(["made"])["made"] == policy
    again, kept = derived()
    assert kept == policy and again.vault.objects[again.names["made"]][1].label.private
    assert derived(policies={"made": sy.policy.approve()})[1] == sy.policy.approve(), "what the owner states of it by name holds"
    card = folder / "made.json"
    card.write_text(json.dumps({k: v for k, v in json.loads(card.read_text()).items() if k != "policy"}))
    assert derived()[1] == sy.policy.approve(), "older cards say nothing"
