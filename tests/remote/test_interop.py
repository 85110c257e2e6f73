"""What other libraries hold, sent: DLPack, NumPy, pandas."""

import subprocess
import sys

import numpy as np
import pytest
import torch

import syftlite as sy
from syftlite.remote.interop import as_tensor


class Foreign:
    """Another library's array: DLPack and nothing else."""

    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **options):
        return self.tensor.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_anything_with_dlpack_becomes_a_pointer(bob):
    given = Foreign(torch.arange(6.0).reshape(2, 3).t())
    for pointer in (sy.send(given, bob), sy.send(given, bob.id), bob.send(given)):
        assert isinstance(pointer, sy.PointerTensor) and torch.equal(pointer.get(), torch.arange(6.0).reshape(2, 3).t())


def test_what_is_sent_is_a_copy(bob):
    held = torch.zeros(2)
    array = np.zeros(2)
    pointers = [bob.send(Foreign(held)), sy.send(array, bob)]
    held.fill_(1), array.fill(1)
    assert all(not p.get().any() for p in pointers)


def test_dlpack_that_cannot_be_read_is_named(bob):
    class Broken(Foreign):
        def __dlpack__(self, **options):
            raise BufferError("not exportable")

    with pytest.raises(TypeError, match="Broken offers DLPack.*not exportable"):
        sy.send(Broken(torch.ones(1)), bob)


def test_workers_load_and_load_data_take_the_same(bob):
    bob.load(np.array([1, 2]), "#array")
    bob.load(Foreign(torch.ones(2)), "#foreign")
    assert bob.search("#array")[0].get().tolist() == [1, 2] and bob.search("#foreign")[0].get().tolist() == [1.0, 1.0]
    bob.load_data([np.zeros(3), Foreign(torch.ones(2)), torch.ones(1).tag("#t")])
    assert bob.search("#t")[0].get().tolist() == [1.0] and bob.objects_count() == 5
    assert bob.send([1.0, 2.0]).get().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("array", [np.arange(4)[::-1], np.asfortranarray(np.arange(6).reshape(2, 3)), np.array(3), np.float32(2.5)])
def test_arrays_of_any_layout(bob, array):
    assert np.array_equal(sy.send(array, bob).get(), array)
    frozen = np.arange(3)
    frozen.flags.writeable = False
    assert sy.send(frozen, bob).get().tolist() == [0, 1, 2]


@pytest.mark.parametrize("given", [np.array(["a"]), "text", np.array([object()]), np.array(["2020"], dtype="datetime64[D]")])
def test_what_is_not_numbers_is_refused(bob, given):
    with pytest.raises(TypeError, match="cannot be sent"):
        sy.send(given, bob)
    assert bob.objects_count() == 0


def test_a_tensor_is_itself():
    x = torch.ones(2).requires_grad_()
    assert as_tensor(x) is x


def test_pandas_is_not_imported():
    program = "import sys, numpy, syftlite as sy; sy.send(numpy.ones(2), sy.VirtualWorker('b')); assert 'pandas' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


# -- pandas


@pytest.fixture
def pd():
    return pytest.importorskip("pandas")


def test_a_frame_of_numbers_is_an_array_of_its_columns_common_dtype(bob, pd):
    frame = pd.DataFrame({"age": [30, 40], "dose": [0.5, float("nan")], "sick": [True, False]}, index=["ann", "ben"])
    pointer = sy.send(frame, bob)
    assert isinstance(pointer, sy.ArrayPointer) and pointer.dtype == np.float64
    assert np.array_equal(pointer.get(), [[30, 0.5, 1], [40, np.nan, 0]], equal_nan=True)
    assert sy.send(frame[["age", "sick"]], bob).get().dtype == np.int64 and sy.send(frame[["sick"]], bob).get().dtype == np.bool_
    assert np.array_equal(bob.send(frame["age"]).get(), [30, 40]) and np.array_equal(sy.send(frame["age"][::-1], bob).get(), [40, 30])
    bob.load(frame[["age"]], "#ages")
    assert bob.search("#ages")[0].get().tolist() == [[30], [40]]


def test_nullable_columns_without_missing_values(bob, pd):
    for dtype, wanted in (("Int64", np.int64), ("boolean", np.bool_), ("Float32", np.float32)):
        got = sy.send(pd.DataFrame({"x": pd.Series([1, 0], dtype=dtype)}), bob).get()
        assert got.dtype == wanted and got.ravel().tolist() == [1, 0]


def test_the_column_that_is_in_the_way_is_named(bob, pd):
    refused = {
        "column 'name' holds": pd.DataFrame({"age": [1], "name": ["ann"]}),
        "column 'kind' holds category": pd.DataFrame({"kind": pd.Categorical([1, 2])}),
        "column 3 holds object": pd.DataFrame({3: np.array([1, 2], dtype=object)}),
        "series 'when' holds datetime64": pd.Series(pd.to_datetime(["2020-01-01"]), name="when"),
        "column 'n' has missing values": pd.DataFrame({"n": pd.Series([1, None], dtype="Int64")}),
        "without columns": pd.DataFrame(),
    }
    for words, given in refused.items():
        for send in (lambda g: sy.send(g, bob), bob.send, bob.load):
            with pytest.raises(TypeError, match=words):
                send(given)
    assert bob.objects_count() == 0


def test_two_columns_of_one_name(bob, pd):
    frame = pd.DataFrame([[1, 2], [3, 4]], columns=["x", "x"])
    assert sy.send(frame, bob).get().tolist() == [[1, 2], [3, 4]]
