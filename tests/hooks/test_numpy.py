"""NumPy on arrays at a worker gives NumPy's own results, dtypes included."""

from pathlib import Path

import numpy as np
import pytest
import torch

import syftlite as sy
from syftlite.errors import LocalTensorMixedError, OperatorNotReviewedError, PointerMisuseError
from syftlite.hooks.numpy_rules import FUNCTIONS, UFUNCS

ARRAYS = {
    "float64": np.array([[0.5, -1.5, 2.0], [3.0, 0.25, -0.75]]),
    "float32": np.array([[0.5, 1.5, 2.0], [3.0, 0.25, 0.75]], dtype=np.float32),
    "int64": np.array([[1, -2, 3], [4, 5, -6]]),
    "int32": np.array([[1, 2, 3], [4, 5, 6]], dtype=np.int32),
    "bool": np.array([[True, False, True], [False, False, True]]),
}


def same(remote, local):
    local = np.asarray(local)
    got = remote.get()
    assert got.shape == local.shape and got.dtype == local.dtype, (got.dtype, local.dtype)
    np.testing.assert_allclose(got, local, rtol=1e-6)


def operands_of(ufunc, kind):
    a = ARRAYS[kind]
    b = a.T.copy() if ufunc is np.matmul else np.flip(a).copy()
    if kind == "int64" and ufunc is np.power:
        b = np.abs(b)
    return (a,) if ufunc.nin == 1 else (a, b)


def numpy_has(ufunc, kind):
    """Whether NumPy has the loop, and in a dtype that torch has a rule for: for bool it picks int8 and float16."""
    if kind == "bool" and ufunc in (np.matmul, np.absolute, np.floor, np.ceil, np.trunc):
        return False
    try:
        with np.errstate(all="ignore"):
            return ufunc(*operands_of(ufunc, kind)).dtype not in (np.int8, np.float16)
    except TypeError:
        return False


CASES = [(ufunc, kind) for ufunc in UFUNCS for kind in ARRAYS if numpy_has(ufunc, kind)]


@pytest.mark.filterwarnings("ignore:invalid value|divide by zero:RuntimeWarning")
@pytest.mark.parametrize("ufunc, kind", CASES, ids=lambda x: getattr(x, "__name__", x))
def test_ufuncs(ufunc, kind, shared):
    operands = operands_of(ufunc, kind)
    same(ufunc(*[sy.send(o, shared) for o in operands]), ufunc(*operands))


@pytest.fixture(scope="module")
def shared():
    return sy.VirtualWorker(id="numpy-bob", serialize=True)


CALLS = {
    "sum": lambda m, a: m.sum(a),
    "sum axis": lambda m, a: m.sum(a, axis=1),
    "sum axes keepdims": lambda m, a: m.sum(a, axis=(0, 1), keepdims=True),
    "mean": lambda m, a: m.mean(a, axis=0),
    "max": lambda m, a: m.max(a),
    "min axis": lambda m, a: m.min(a, axis=1),
    "prod": lambda m, a: m.prod(a),
    "all": lambda m, a: m.all(a, axis=0),
    "any": lambda m, a: m.any(a),
    "argmax": lambda m, a: m.argmax(a, axis=1),
    "argmin": lambda m, a: m.argmin(a),
    "cumsum": lambda m, a: m.cumsum(a),
    "cumsum axis": lambda m, a: m.cumsum(a, axis=1),
    "transpose": lambda m, a: m.transpose(a),
    "reshape": lambda m, a: m.reshape(a, (3, 2)),
    "ravel": lambda m, a: m.ravel(a),
    "expand": lambda m, a: m.squeeze(m.expand_dims(a, 0)),
    "concatenate": lambda m, a: m.concatenate([a, a], axis=1),
    "stack": lambda m, a: m.stack([a, a]),
    "where": lambda m, a: m.where(a > 1, a, a * 0),
    "sort": lambda m, a: m.sort(a),
    "argsort": lambda m, a: m.argsort(a),
    "zeros_like": lambda m, a: m.zeros_like(a),
    "ones_like": lambda m, a: m.ones_like(a),
    "copy": lambda m, a: m.copy(a),
}
FLOATING = {
    "var": lambda m, a: m.var(a, axis=0, ddof=1),
    "std": lambda m, a: m.std(a),
    "clip": lambda m, a: m.clip(a, 0, 2),
    "dot": lambda m, a: m.dot(a, a.T),
    "norm": lambda m, a: m.linalg.norm(a),
    "a program": lambda m, a: m.exp(-((a - m.mean(a)) ** 2) / 2).sum(axis=0),
}


@pytest.mark.parametrize("kind", ["float64", "float32", "int64"])
@pytest.mark.parametrize("name", CALLS)
def test_functions(name, kind, shared):
    same(CALLS[name](np, sy.send(ARRAYS[kind], shared)), CALLS[name](np, ARRAYS[kind]))


@pytest.mark.parametrize("kind", ["float64", "float32"])
@pytest.mark.parametrize("name", FLOATING)
def test_floating_functions(name, kind, shared):
    same(FLOATING[name](np, sy.send(ARRAYS[kind], shared)), FLOATING[name](np, ARRAYS[kind]))


def test_every_rule_is_tested():
    names = {f.__name__ for f in FUNCTIONS}
    text = Path(__file__).read_text()
    missing = {n for n in names if f"{n}" not in text}
    assert not missing - {"amax", "amin", "shape"}


def test_operators_indexing_and_writing(shared):
    a = ARRAYS["float64"].copy()
    p = sy.send(a, shared)
    same(2 * p + p / 3 - p**2 + abs(-p) % 2, 2 * a + a / 3 - a**2 + abs(-a) % 2)
    same(p[0, 1:], a[0, 1:])
    same(p[p > 0], a[a > 0])
    p[1] = 7.0
    a[1] = 7.0
    p += 1
    a += 1
    same(p.T, a.T)
    assert (p.shape, p.ndim, p.size, p.dtype, len(p), p.location) == ((2, 3), 2, 6, np.float64, 2, shared)
    assert float(p[0, 0]) == a[0, 0] and bool(p[0, 0] > 0) and int(p[1, 0]) == 8
    same(p.astype(np.int32), a.astype(np.int32))
    same(p.reshape(6), a.reshape(6))
    assert "ArrayPointer" in repr(p)


def test_numpy_scalars_and_numbers_keep_their_meaning(shared):
    p = sy.send(ARRAYS["float32"], shared)
    same(p * 2, ARRAYS["float32"] * 2)
    same(p * np.float64(2), ARRAYS["float32"] * np.float64(2))
    assert sy.send(3.5, shared).get() == 3.5
    assert isinstance(sy.send(torch.ones(2), shared), sy.PointerTensor)


def test_what_has_no_rule_is_named(shared):
    p = sy.send(ARRAYS["float64"], shared)
    with pytest.raises(OperatorNotReviewedError, match="np.fft|fft has no rule"):
        np.fft.fft(p)
    with pytest.raises(OperatorNotReviewedError, match=r"np\.add\.accumulate"):
        np.add.accumulate(p)
    with pytest.raises((PointerMisuseError, LocalTensorMixedError), match="send"):
        p + ARRAYS["float64"]
    with pytest.raises(PointerMisuseError, match=r"get\(\)"):
        np.asarray(p)
    with pytest.raises(TypeError, match="cannot be sent"):
        sy.send(np.array(["a"]), shared)
