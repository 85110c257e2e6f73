"""Data files as tensors; what is wrong with one is said by row and column."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from syftlite.errors import ConfigurationError
from syftlite.ops.dtypes import DTYPES
from syftlite.storage.tables import named_tables, read_tables


@pytest.fixture
def csv(tmp_path):
    def read(text, encoding="utf-8"):
        path = tmp_path / "data.csv"
        path.write_text(text, encoding=encoding)
        (table,) = read_tables(path)
        return table

    return read


@pytest.mark.parametrize(
    ("text", "values", "dtype", "columns"),
    [
        ("1,2\n3,4\n", [[1, 2], [3, 4]], torch.int64, ()),
        ("1,2\n3,4.5\n", [[1, 2], [3, 4.5]], torch.float32, ()),
        ("1,2.5\n3,4\n5,6", [[1, 2.5], [3, 4], [5, 6]], torch.float32, ()),
        ("age,dose\n1,2\n", [[1, 2]], torch.int64, ("age", "dose")),
        ('"age (years)", dose \n1, 2.5 \n', [[1, 2.5]], torch.float32, ("age (years)", "dose")),
        ("größe\n-1e-3\n", [[-1e-3]], torch.float32, ("größe",)),
        ("\n1\n\n2\n\n", [[1], [2]], torch.int64, ()),
        ("1\r\n2\r\n", [[1], [2]], torch.int64, ()),
        ("1.0,1e39\n", [[1.0, 1e39]], torch.float64, ()),
        ("9223372036854775807\n", [[2**63 - 1]], torch.int64, ()),
        ("1,9223372036854775808\n", [[1, 2.0**63]], torch.float32, ()),
    ],
)
def test_columns_of_numbers(csv, text, values, dtype, columns):
    table = csv(text)
    assert table.tensor.dtype is dtype and torch.equal(table.tensor, torch.tensor(values, dtype=dtype))
    assert table.columns == columns


def test_a_byte_order_mark_is_no_part_of_a_name(csv):
    assert csv("age\n1\n", encoding="utf-8-sig").columns == ("age",)


def test_missing_values_are_written_nan(csv):
    (value,), (other,) = csv("nan\n1\n").tensor.tolist()
    assert math.isnan(value) and other == 1
    assert csv("x\ninf\n").tensor.isinf().all()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n1,2\n3,x\n", r"data\.csv, row 3, column 2 \(b\): 'x' is no number"),
        ("1,2\n3,\n", r"row 2, column 2: it is empty; write nan"),
        ("1,2\n,4\n", r"row 2, column 1: it is empty"),
        ("1,2\n3\n", r"row 2: it has 1 columns, the first row has 2"),
        ("1,2\n\n3,4,5\n", r"row 3: it has 3 columns, the first row has 2"),
        ("id,2019\n1,2\n", r"row 1, column 1: 'id' is no number"),
        ("1_000\n", r"row 1, column 1: '1_000' is no number|column names and no rows"),
        ("1\n1_000\n", r"row 2, column 1: '1_000' is no number"),
        ("1.5\n1_000\n", r"row 2, column 1: '1_000' is no number"),
        ("1;2\n3;4\n", r"row 2, column 1 \(1;2\): '3;4' is no number"),
        ("", r"cannot read .*data\.csv: it is empty"),
        ("\n \n", r"it is empty"),
        ("a,b\n", r"column names and no rows"),
    ],
)
def test_what_is_wrong_is_said_by_row_and_column(csv, text, says):
    with pytest.raises(ConfigurationError, match=says):
        csv(text)


def test_bytes_that_are_no_text_are_an_error_that_names_the_file(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe1\x00")
    with pytest.raises(ConfigurationError, match=r"cannot read .*x\.csv"):
        read_tables(tmp_path / "x.csv")


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=3, max_size=3), min_size=1))
def test_whole_numbers_come_back_exactly(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("\n".join(",".join(map(str, row)) for row in rows))
    assert read_tables(path)[0].tensor.tolist() == rows


@given(st.lists(st.lists(st.floats(width=32) | st.integers(-1000, 1000), min_size=2, max_size=2), min_size=1))
def test_numbers_come_back_as_float32(tmp_path_factory, rows):
    rows = [[0.5, 0.5], *rows]
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    path.write_text("\n".join(",".join(map(repr, row)) for row in rows))
    assert torch.equal(read_tables(path)[0].tensor.nan_to_num(7), torch.tensor(rows, dtype=torch.float32).nan_to_num(7))


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "uint8", "int8", "int16", "int32", "int64", "bool", "complex64", ">f4"])
@pytest.mark.parametrize("shape", [(), (0,), (2, 3)], ids=str)
def test_numpy_arrays(tmp_path, dtype, shape):
    array = np.ones(shape, dtype)
    np.save(tmp_path / "x.npy", array)
    (table,) = read_tables(tmp_path / "x.npy")
    assert table.tensor.shape == shape and np.array_equal(table.tensor.numpy(), array)


def test_numpy_arrays_in_other_orders(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "x.npy", array)
    assert torch.equal(read_tables(tmp_path / "x.npy")[0].tensor, torch.arange(6.0, dtype=torch.float64).view(2, 3))


@pytest.mark.parametrize("dtype", ["O", "U3", "uint16", "M8[s]"])
def test_arrays_that_do_not_travel_are_refused_and_nothing_is_unpickled(tmp_path, dtype):
    np.save(tmp_path / "x.npy", np.zeros(2, dtype), allow_pickle=True)
    with pytest.raises(ConfigurationError, match=r"x\.npy"):
        read_tables(tmp_path / "x.npy")


def test_several_arrays_in_one_npy_are_refused(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.ones(2), b=np.ones(2))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    with pytest.raises(ConfigurationError, match="several arrays"):
        read_tables(tmp_path / "x.npy")


@pytest.mark.parametrize("dtype", [d for d in DTYPES if not d.is_complex], ids=str)
def test_safetensors_of_one_tensor(tmp_path, dtype):
    save_file({"t": torch.ones(2, 3).to(dtype)}, tmp_path / "x.safetensors")
    (table,) = read_tables(tmp_path / "x.safetensors")
    assert table.part == "" and torch.equal(table.tensor, torch.ones(2, 3).to(dtype))


@pytest.mark.parametrize("content", [b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0{}"])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors"])
def test_files_that_are_something_else_are_named(tmp_path, suffix, content):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=f"cannot read .*x\\{suffix}"):
        read_tables(path)


def test_other_files_are_refused(tmp_path):
    for name in ("x.pt", "x", "x.parquet"):
        with pytest.raises(ConfigurationError, match=r"ends in \.npy, \.csv, \.safetensors"):
            read_tables(tmp_path / name)
    with pytest.raises(ConfigurationError, match="No such file"):
        read_tables(tmp_path / "none.csv")


# -- names and tags


def test_a_dataset_is_called_as_its_file_and_found_by_that(tmp_path):
    path = tmp_path / "ICU stays (2024).csv"
    path.write_text("a,b\n1,2\n")
    (named,) = named_tables(path)
    assert (named.name, named.tags) == ("ICU-stays-2024", ("#ICU-stays-2024",))
    assert named.table.describe("stays") == "stays. columns: a, b" and named.table.describe("") == "columns: a, b"
    (named,) = named_tables(path, "icu", ["#a", "#b"])
    assert (named.name, named.tags) == ("icu", ("#a", "#b"))


def test_several_tensors_are_called_by_their_own_names_too(tmp_path):
    save_file({"X": torch.ones(2), "y/z": torch.zeros(2)}, tmp_path / "p.safetensors")
    assert [(n.name, n.tags) for n in named_tables(tmp_path / "p.safetensors")] == [
        ("p-X", ("#p-X", "#X")),
        ("p-y-z", ("#p-y-z", "#y/z")),
    ]
    assert [n.tags for n in named_tables(tmp_path / "p.safetensors", tags=["#p"])] == [("#p", "#X"), ("#p", "#y/z")]
