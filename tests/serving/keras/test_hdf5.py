"""The reader of HDF5: it reads what h5py writes for Keras, names what it refuses, and comes to an end with any bytes."""

import io
import os
import random
import tracemalloc

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from syftlite.errors import ConfigurationError
from syftlite.serving.keras import hdf5
from syftlite.serving.keras.hdf5 import open_file

FUZZ = int(os.environ.get("SYFTLITE_FUZZ", 100_000)) // 50


def written(write, **options):
    """The bytes of a file that ``write(file)`` fills."""
    content = io.BytesIO()
    with h5py.File(content, "w", **options) as file:
        write(file)
    return content.getvalue()


names = st.text(st.characters(min_codepoint=33, max_codepoint=126, blacklist_characters="/."), min_size=1, max_size=12)
arrays = st.builds(
    lambda shape, dtype, seed: np.random.default_rng(seed).normal(0, 1, shape).astype(dtype),
    st.lists(st.integers(0, 5), max_size=4).map(tuple),
    st.sampled_from(["<f2", "<f4", "<f8", ">f4", ">f8"]),
    st.integers(0, 9),
)
trees = st.recursive(arrays, lambda inner: st.dictionaries(names, inner, max_size=12), max_leaves=25)


@given(
    tree=st.dictionaries(names, trees, max_size=25),
    texts=st.lists(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)))),
)
@settings(max_examples=60)
def test_it_reads_what_is_written(tree, texts):
    def write(place, tree):
        for name, value in tree.items():
            if isinstance(value, dict):
                write(place.create_group(name), value)
            else:
                place[name] = value

    def compare(place, tree):
        assert list(place) == sorted(tree)
        for name, value in tree.items():
            if isinstance(value, dict):
                compare(place / name, value)
            else:
                found = place.array(name)
                assert found.dtype == np.float32 and found.shape == value.shape
                assert np.array_equal(found, value.astype(np.float32))

    def fill(file):
        write(file, tree)
        file.attrs["texts"] = np.array(texts, dtype=h5py.string_dtype())
        file.attrs["one"] = "".join(texts)

    root = open_file(written(fill), "a file")
    compare(root, tree)
    assert root.texts("texts") == texts and root.text("one") == "".join(texts) and root.text("two") is None


def test_texts_of_old_files():
    """Of fixed length, and in the pieces that Keras makes of long lists."""

    def fill(file):
        file.attrs["short"] = np.array([b"dense", b"conv2d_1"])
        for i in range(3):
            file.attrs[f"long{i}"] = np.array([f"layer_{i}_{k}".encode() for k in range(2)])
        file.attrs["none"] = np.array([])

    root = open_file(written(fill), "a file")
    assert root.texts("short") == ["dense", "conv2d_1"] and root.texts("none") == [] and root.texts("other") is None
    assert root.texts("long") == ["layer_0_0", "layer_0_1", "layer_1_0", "layer_1_1", "layer_2_0", "layer_2_1"]


REFUSED = {
    "an array packed": (lambda f: f.create_dataset("x", data=np.ones(100, "f4"), compression="gzip"), "the array is packed"),
    "... in pieces": (lambda f: f.create_dataset("x", data=np.ones(100, "f4"), chunks=(10,)), "the array is in pieces"),
    "... in other files": (lambda f: f.create_dataset("x", (4,), "f4", external=[("/etc/passwd", 0, 16)]), "kept in another file"),
    "whole numbers": (lambda f: f.create_dataset("x", data=np.ones(3, "i4")), "it is no array of float16"),
    "text": (lambda f: f.create_dataset("x", data="text"), "it is no array of float16"),
    "a group": (lambda f: f.create_group("x"), "there is no array 'x'"),
    "nothing": (lambda f: None, "there is no array 'x'"),
    "a link out": (lambda f: f.__setitem__("x", h5py.ExternalLink("/etc/passwd", "/")), "it has links out of the file"),
    "a name beyond ASCII": (lambda f: f.create_group("übung"), "names beyond ASCII"),
    "a link on": (lambda f: f.__setitem__("x", h5py.SoftLink("/y")), "'x' is a link"),
    "virtual": (lambda f: f.create_virtual_dataset("x", h5py.VirtualLayout((4,), "f4")), "array"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_leads_elsewhere_is_refused(case):
    write, text = REFUSED[case]
    with pytest.raises(ConfigurationError, match=f"a file: .*{text}"):
        open_file(written(write), "a file").array("x")


def test_other_forms_of_hdf5_are_named():
    with pytest.raises(ConfigurationError, match=r"superblock [23].*Save the model again with Keras itself"):
        open_file(written(lambda f: None, libver="latest"), "a file")
    with pytest.raises(ConfigurationError, match="it is no HDF5 file"):
        open_file(b"something else", "a file")


def test_a_hard_link_in_a_circle_is_followed_only_as_far_as_asked():
    def fill(file):
        file.create_group("a")["a"] = file["/"]

    root = open_file(written(fill), "a file")
    assert list(root / "a" / "a" / "a") == ["a"]


def test_arrays_that_share_bytes_are_counted():
    """A small file cannot ask for much memory by naming one array often."""

    def fill(file):
        file["x0"] = np.ones(5000, "f4")
        for i in range(1, 200):
            file[f"x{i}"] = file["x0"]

    root = open_file(written(fill), "a file")
    with pytest.raises(ConfigurationError, match="its arrays or texts share bytes"):
        for name in root:
            root.array(name)


def test_nodes_in_a_circle_end():
    raw = bytearray(written(lambda f: [f.create_group(f"g{i}") for i in range(40)]))
    nodes = [i for i in range(len(raw)) if raw[i : i + 4] == b"TREE"]
    for node in nodes:  # every node says that it is above others, and leads to itself
        raw[node + 5] = 1
        for child in range(node + 32, node + 32 + 16 * int.from_bytes(raw[node + 6 : node + 8], "little"), 16):
            raw[child : child + 8] = node.to_bytes(8, "little")
    with pytest.raises(ConfigurationError, match="parts that lead in circles"):
        list(open_file(bytes(raw), "a file"))


def walk(group, depth=0):
    """Read all there is, as the importer would."""
    if depth > 6:
        return
    for name in ("layer_names", "weight_names"):
        group.texts(name)
    group.text("model_config")
    for name in group:
        below = group / name
        if below._only(hdf5.LAYOUT):
            group.array(name)
        else:
            walk(below, depth + 1)


def sample(file):
    file.attrs["model_config"] = '{"class_name": "Sequential"}'
    file.attrs["layer_names"] = ["dense", "conv2d"]
    for name in ("dense", "conv2d"):
        group = file.create_group(name)
        group.attrs["weight_names"] = np.array([f"{name}/kernel".encode()])
        group[f"{name}/kernel"] = np.ones((3, 4), "f4")


def test_changed_bytes_are_read_or_refused():
    """Whatever changed, the end comes, and soon: no other error, and never much more memory than the file has bytes."""
    base, rng, refused = written(sample), random.Random(7), 0
    tracemalloc.start()
    for _ in range(FUZZ):
        raw = bytearray(base)
        for _ in range(rng.choice([1, 1, 2, 4])):
            place, kind = rng.randrange(len(raw)), rng.random()
            if kind < 0.5:
                raw[place] = rng.randrange(256)
            elif kind < 0.9:
                raw[place : place + 8] = rng.choice([b"\xff" * 8, rng.randrange(len(base)).to_bytes(8, "little"), rng.randbytes(8)])
            else:
                del raw[place:]
            if not raw:
                break
        try:
            walk(open_file(bytes(raw), "a file"))
        except ConfigurationError:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert FUZZ / 10 < refused < FUZZ and peak < 32 << 20
