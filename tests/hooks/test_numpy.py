"""NumPy on arrays at a worker gives NumPy's own results, dtypes included."""

from pathlib import Path

import numpy as np
import pytest
import torch

import syftlite as sy
from syftlite.errors import LocalTensorMixedError, OperatorNotReviewedError, PointerMisuseError
from syftlite.hooks.numpy import METHODS
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
    "quantile": lambda m, a: m.quantile(a, 0.25, axis=1, keepdims=True),
    "percentile": lambda m, a: m.percentile(a, 30),
    "median": lambda m, a: m.median(a, axis=0),
    "cov": lambda m, a: m.cov(a),
    "unique": lambda m, a: m.unique(a),
    "count_nonzero": lambda m, a: m.count_nonzero(a, axis=0),
    "cumprod": lambda m, a: m.cumprod(a),
    "cumprod axis": lambda m, a: m.cumprod(a, axis=1),
    "diff": lambda m, a: m.diff(a, axis=0),
    "isclose": lambda m, a: m.isclose(a, a * 1),
    "allclose": lambda m, a: m.allclose(a, a + 1),
    "einsum": lambda m, a: m.einsum("ij,kj->ik", a, a),
    "outer": lambda m, a: m.outer(a, a[0]),
    "trace": lambda m, a: m.trace(a),
    "diagonal": lambda m, a: m.diagonal(a, 1),
    "tril": lambda m, a: m.tril(a) + m.triu(a, 1),
    "vstack": lambda m, a: m.vstack([a, a[0]]),
    "hstack": lambda m, a: m.hstack([a, a]),
    "tile": lambda m, a: m.tile(a, 2) + m.tile(a, (1, 2)),
    "repeat": lambda m, a: m.repeat(a, 2, axis=1),
    "repeat flat": lambda m, a: m.repeat(a, 2),
    "flip": lambda m, a: m.flip(a) + m.flip(a, axis=1),
    "roll": lambda m, a: m.roll(a, 1) + m.roll(a, 1, axis=1),
    "swapaxes": lambda m, a: m.swapaxes(a, 0, 1),
    "broadcast_to": lambda m, a: m.broadcast_to(a, (2, 2, 3)),
    "maximum of a number": lambda m, a: m.maximum(a, 2) + m.minimum(1, a),
    "logical_and with a number": lambda m, a: m.logical_and(a, True),
}
FLOATING = {
    "var": lambda m, a: m.var(a, axis=0, ddof=1),
    "std": lambda m, a: m.std(a),
    "clip": lambda m, a: m.clip(a, 0, 2),
    "dot": lambda m, a: m.dot(a, a.T),
    "norm": lambda m, a: m.linalg.norm(a),
    "round": lambda m, a: m.round(a / 7, 1) + m.around(a),
    "nan_to_num": lambda m, a: m.nan_to_num(a),
    "inv": lambda m, a: m.linalg.inv(m.dot(a, a.T)),
    "det": lambda m, a: m.linalg.det(m.dot(a, a.T)),
    "solve": lambda m, a: m.linalg.solve(m.dot(a, a.T), a),
    "maximum of a float": lambda m, a: m.maximum(a, 0.5),
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


@pytest.mark.parametrize("name", METHODS)
def test_methods(name, shared):
    arguments = {"clip": (0, 2), "diagonal": (1,), "repeat": (2,), "swapaxes": (0, 1), "round": (1,)}.get(name, ())
    p, a = sy.send(ARRAYS["float64"], shared), ARRAYS["float64"]
    if name == "dot":
        same(p.dot(p.T), a.dot(a.T))
        return
    same(getattr(p, name)(*arguments), getattr(a, name)(*arguments))


def test_bincount_counts_and_other_names_say_what_there_is(shared):
    counts = np.array([0, 2, 2, 5])
    same(np.bincount(sy.send(counts, shared), minlength=7), np.bincount(counts, minlength=7))
    with pytest.raises(AttributeError, match=r"no 'tobytes': get\(\) it"):
        sy.send(counts, shared).tobytes()


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
