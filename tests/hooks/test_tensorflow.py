"""TensorFlow's functions on pointers give TensorFlow's own results, dtypes and refusals included, where TensorFlow is installed.

What can be told without it is told by test_tensorflow_rules.py.
"""

import os

import numpy as np
import pytest
import torch

import syftlite as sy
from syftlite.errors import GetNotPermittedError, LocalTensorMixedError, PointerMisuseError
from syftlite.hooks.tensorflow_rules import ANY_PAIRS, NUMBERS, PAIRS, REALS, RULES, TRUTHS

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
tensorflow = pytest.importorskip("tensorflow", reason='pip install "syftlite[tensorflow]"')


@pytest.fixture(scope="module")
def tf():
    sy.TensorFlowHook(tensorflow), sy.TensorFlowHook(tensorflow)
    return tensorflow


@pytest.fixture(scope="module")
def worker():
    worker = sy.VirtualWorker(id="tensors", serialize=True)
    yield worker
    worker.close()


VALUES = {
    "float32": [[0.5, -1.5, 2.5], [3.0, 0.25, -0.75]],
    "float64": [[0.5, -1.5, 2.5], [3.0, 0.25, -0.75]],
    "int32": [[1, -2, 3], [4, 5, -6]],
    "int64": [[7, -2, 3], [-4, 5, 6]],
    "uint8": [[7, 2, 3], [4, 5, 6]],
    "bool": [[True, False, True], [False, False, True]],
    "complex64": [[1 + 2j, -2, 3j], [4, 5, -6]],
}


def outcome(compute):
    """What it gives, or that it is refused."""
    try:
        return compute()
    except Exception as error:
        return error


def arrays(value):
    if isinstance(value, (list, tuple)):
        return [part for each in value for part in arrays(each)]
    return [np.asarray((value.get() if isinstance(value, sy.TensorFlowPointer) else value).numpy())]


def same(remote, local, what):
    if isinstance(local, Exception):
        if "allowed values" in str(local):
            return  # TensorFlow has no kernel for that dtype, torch may have one
        assert isinstance(remote, Exception), f"{what}: TensorFlow refuses it ({local}), and a pointer gave {remote}"
        return
    assert not isinstance(remote, Exception), f"{what}: TensorFlow gives {local}, and a pointer {remote!r}"
    for mine, theirs in zip(arrays(remote), arrays(local), strict=True):
        assert mine.shape == theirs.shape and mine.dtype == theirs.dtype, (what, mine, theirs)
        np.testing.assert_allclose(mine, theirs, rtol=2e-6, atol=1e-6, err_msg=what)


def named(tf, name):
    for part in name.split("."):
        tf = getattr(tf, part)
    return tf


@pytest.mark.parametrize("dtype", VALUES)
@pytest.mark.parametrize("name", [*REALS, *NUMBERS, "logical_not"])
def test_functions_of_one_tensor(tf, worker, name, dtype):
    x = tf.constant(VALUES[dtype], dtype)
    if dtype == "complex64" and name not in ("exp", "square", "negative"):
        pytest.skip("of complex numbers, TensorFlow has what it has a kernel for")
    same(outcome(lambda: named(tf, name)(x.send(worker))), outcome(lambda: named(tf, name)(x)), f"tf.{name} of {dtype}")


@pytest.mark.parametrize("dtype", [d for d in VALUES if d != "complex64"])
@pytest.mark.parametrize("name", [*PAIRS, *ANY_PAIRS, *TRUTHS, "divide", "math.divide_no_nan", "nn.bias_add"])
def test_functions_of_two_tensors(tf, worker, name, dtype):
    x, y = (tf.constant(np.array(VALUES[dtype])[:, order], dtype) for order in ([0, 1, 2], [2, 0, 1]))
    if name == "nn.bias_add":
        y = y[0]
    if name == "pow" and dtype.startswith("int"):
        y = tf.abs(y)
    f = named(tf, name)
    same(outcome(lambda: f(x.send(worker), y.send(worker))), outcome(lambda: f(x, y)), f"tf.{name} of {dtype}")
    other = tf.cast(y, "float32" if dtype == "float64" else "float64")
    assert isinstance(outcome(lambda: f(x.send(worker), other.send(worker))), TypeError), "TensorFlow promotes nothing"


CALLS = """
    reshape(p, [3, 2]) | reshape(p, -1) | reshape(p, tf.constant([6])) | reshape(p, (tf.constant(2), -1)) | reshape(p, p.shape)
    matmul(p, p, transpose_b=True) | matmul(p, p, transpose_a=True) | linalg.matmul(p, tf.transpose(p)) | linalg.matvec(p, p[0])
    transpose(p) | transpose(p, [0, 1]) | transpose(p, perm=(1, 0)) | expand_dims(p, 0) | expand_dims(p, axis=-1)
    squeeze(p[:, None]) | squeeze(p[None], axis=0) | squeeze(p, axis=[0])
    concat([p, p], 0) | concat([p, p], axis=-1) | stack([p, p]) | stack([p, p], axis=1) | unstack(p) | unstack(p, axis=1)
    split(p, 3, axis=1) | split(p, [1, -1], 1) | split(p, 2) | split(p, 4, axis=1) | tile(p, [2, 1]) | repeat(p, 2) | repeat(p, 2, axis=1)
    broadcast_to(p, [4, 2, 3]) | pad(p, [[1, 0], [0, 2]]) | pad(p, [[1, 0], [0, 2]], constant_values=3) | slice(p, [0, 1], [-1, 2])
    reverse(p, [1]) | roll(p, 1, 0) | roll(p, shift=[1, -1], axis=[0, 1]) | gather(p, [1, 0, 1]) | gather(p, [[2], [0]], axis=1)
    gather(p, 1) | gather(p, tf.argmax(p, axis=0), axis=0) | shape(p) | rank(p) | size(p) | identity(p) | stop_gradient(p)
    zeros_like(p) | ones_like(p) | zeros_like(p, dtype=tf.int32) | cast(p, tf.int32) | cast(p, "float64") | cast(p, bool)
    reduce_sum(p) | reduce_sum(p, 1) | reduce_sum(p, axis=[0, 1], keepdims=True) | reduce_sum(p, axis=tf.constant(-1)) | reduce_sum(p, [])
    reduce_mean(p) | reduce_mean(p, axis=0) | reduce_max(p) | reduce_max(p, axis=-1, keepdims=True) | reduce_min(p, [0])
    reduce_prod(p) | reduce_prod(p, axis=(0, 1), keepdims=True) | reduce_any(p > 1) | reduce_all(p > -9, axis=0) | reduce_any(p)
    math.reduce_std(p) | math.reduce_variance(p, axis=0) | reduce_logsumexp(p, axis=1) | norm(p) | norm(cast(p, tf.float32), ord=1, axis=0)
    argmax(p) | argmax(p, axis=1) | argmin(p, axis=-1, output_type=tf.int32) | cumsum(p) | cumsum(p, axis=1) | math.cumprod(p, 1)
    sort(p) | sort(p, direction="DESCENDING") | sort(p, axis=0) | argsort(p) | argsort(p, axis=0, direction="DESCENDING")
    tensordot(p, p, axes=[[1], [1]]) | tensordot(p, tf.transpose(p), 1) | tensordot(p, p, 2) | einsum("ij,kj->ik", p, p)
    linalg.inv(p[:, :2]) | linalg.det(p[:, :2]) | linalg.trace(p) | where(p > 1, p, -p) | where(p > 1, p, 0)
    clip_by_value(p, -1, 2) | one_hot(cast(abs(p), tf.int32), 4) | nn.softmax(p) | nn.softmax(p, axis=0) | nn.log_softmax(p)
    nn.leaky_relu(p) | nn.leaky_relu(p, alpha=0.5) | nn.gelu(p) | nn.gelu(p, approximate=True) | math.truediv(p, p)
    maximum(p, 1) | math.atan2(p, p + 1) | pow(p, 2) | math.floormod(p, 2) | math.floordiv(7, p * p + 1)
"""
OPERATORS = """
    p + 1 | 1 - p | 2 * p | p / 2 | 2 / (p * p + 1) | p // 2 | p % 2 | p**2 | -p | abs(p) | p + p[0] | p[0] + p | p @ tf.transpose(p)
    p == p | p != 1 | p < 1 | p <= 1 | p > 1 | p >= 1 | (p > 1) & (p < 3) | (p > 1) | (p < -1) | (p > 1) ^ (p < 3) | ~(p > 1)
    p + 1.5 | p * True | p + tf.constant(2) | p[0] | p[:, 1:] | p[..., tf.newaxis] | p[-1, 0] | list(p) | p[tf.constant(1)]
"""


def calls(text):
    return [call.strip() for line in text.strip().splitlines() for call in line.split(" | ")]


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64", "float64"])
@pytest.mark.parametrize("call", [*(f"tf.{c}" for c in calls(CALLS)), *calls(OPERATORS)])
def test_calls(tf, worker, call, dtype):
    x = tf.constant(VALUES[dtype], dtype)

    def evaluate(p):
        return outcome(lambda: eval(call, {"tf": tf, "cast": tf.cast, "p": p}))  # noqa: S307  the calls above

    same(evaluate(x.send(worker)), evaluate(x), f"{call} of {dtype}")


def test_every_rule_is_called(tf):
    tables = {*REALS, *NUMBERS, *PAIRS, *ANY_PAIRS, *TRUTHS, "logical_not", "divide", "math.divide_no_nan", "nn.bias_add"}
    assert {name for name in RULES if name not in tables and f" {name}(" not in f" {CALLS}"} == set()


def test_what_it_says_of_itself(tf, worker):
    x = tf.constant([[1.0, 2.0]]).send("tensors")
    assert (x.location, x.shape, x.dtype, x.ndim, len(x)) == (worker, tf.TensorShape([1, 2]), tf.float32, 2, 1)
    assert "me -> tensors:" in repr(x) and "shape=(1, 2), dtype=float32" in repr(x)
    assert tf.Variable([3, 4]).send(worker).get().numpy().tolist() == [3, 4]
    half = tf.constant([1.5, 2.0], tf.bfloat16).send(worker)
    assert half.dtype is tf.bfloat16 and (half + 1).get().numpy().tolist() == [2.5, 3.0]
    assert torch.equal(torch.relu(x.tensor).get(), torch.tensor([[1.0, 2.0]])), "torch's functions take what it stands on"
    assert tf.reduce_all(x.get_copy() == x.get())


def test_what_needs_the_value_is_told(tf, worker):
    p = tf.ones([2, 2]).send(worker)
    for call in (p.numpy, lambda: bool(p), lambda: np.asarray(p), lambda: tf.convert_to_tensor(p), lambda: tf.linalg.svd(p)):
        with pytest.raises(PointerMisuseError, match=r"get\(\) it"):
            call()
    for call in (lambda: p + tf.ones([2, 2]), lambda: tf.ones([2, 2]) + p, lambda: tf.matmul(tf.ones([2, 2]), p), lambda: np.ones(2, "float32") * p):
        with pytest.raises((PointerMisuseError, LocalTensorMixedError), match=r"send\(\)"):
            call()
    with pytest.raises(PointerMisuseError, match="local values met a pointer"):
        tf.add(p, [1.0, 2.0])
    with pytest.raises(TypeError, match="honours no exclusive=True"):
        tf.cumsum(p, exclusive=True)
    with pytest.raises(TypeError):
        tf.constant(["no", "numbers"]).send(worker)
    with pytest.raises(Exception, match="PointerMisuseError: .* outside of tf.function"):
        tf.function(lambda x: x.send(worker) and x)(tf.ones(2))
    assert tf.add(tf.ones(2), 1).numpy().tolist() == [2, 2], "TensorFlow itself is as it was"


def test_private_data_stays(tf, worker):
    worker.load(torch.ones(2), "#rows", private=True)
    (p,) = map(sy.TensorFlowPointer, worker.search("#rows"))
    with pytest.raises(GetNotPermittedError):
        (p * 2).get(user="somebody")


def test_on_a_real_node(tf, three_nodes):
    x = tf.constant([[1.0, 2.0], [3.0, 4.0]])
    p = x.send(three_nodes[0])
    assert tf.reduce_all(tf.matmul(tf.transpose(p), p).get() == tf.matmul(tf.transpose(x), x))
