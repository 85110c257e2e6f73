"""The rules of TensorFlow's functions, without TensorFlow: on a pointer each gives what it gives on the value, and refuses what it should."""

import sys

import pytest
import torch

import syftlite as sy
from syftlite.errors import ConfigurationError, DependencyError, PointerMisuseError
from syftlite.hooks.tensorflow_rules import ANY_PAIRS, NUMBERS, PAIRS, REALS, RULES, TRUTHS, dtype_of, name_of, number, pair

X = torch.tensor([[0.5, -1.5, 2.5], [3.0, 0.25, -0.75]])
CALLS = {
    "math.divide_no_nan": [lambda f, x: f(x, x - 0.5)],
    "math.atan2": [lambda f, x: f(x, x + 1)],
    "divide": [lambda f, x: f(x, 2.0), lambda f, x: f((x * 4).int(), 4), lambda f, x: f((x * 4).to(torch.int8), 4)],
    "math.truediv": [lambda f, x: f(1.0, x)],
    "nn.leaky_relu": [lambda f, x: f(features=x, alpha=0.5), lambda f, x: f((x * 4).int())],
    "nn.gelu": [lambda f, x: f(x), lambda f, x: f(x, approximate=True)],
    "nn.softmax": [lambda f, x: f(x), lambda f, x: f(x, axis=0)],
    "nn.log_softmax": [lambda f, x: f(x, None)],
    "nn.bias_add": [lambda f, x: f(x, x[0])],
    "clip_by_value": [lambda f, x: f(x, -1.0, 1)],
    "where": [lambda f, x: f(x > 0, x, 0.0)],
    "identity": [lambda f, x: f(x)],
    "stop_gradient": [lambda f, x: f(x)],
    "zeros_like": [lambda f, x: f(x, dtype=torch.int32)],
    "ones_like": [lambda f, x: f(x)],
    "cast": [lambda f, x: f(x, torch.int64)],
    "logical_not": [lambda f, x: f(x > 0)],
    "reduce_all": [lambda f, x: f(x > -9, axis=[0, 1]), lambda f, x: f(x > 0, 1, True)],
    "reduce_any": [lambda f, x: f(x > 2)],
    "norm": [lambda f, x: f(x), lambda f, x: f(x, ord=1, axis=1)],
    "matmul": [lambda f, x: f(x, x, transpose_b=True), lambda f, x: f(x, x, transpose_a=True)],
    "linalg.matvec": [lambda f, x: f(x, x[0])],
    "tensordot": [lambda f, x: f(x, x, [[1], [1]]), lambda f, x: f(x, x.mT, 1)],
    "einsum": [lambda f, x: f("ij,kj->ik", x, x)],
    "linalg.inv": [lambda f, x: f(x[:, :2])],
    "linalg.det": [lambda f, x: f(x[:, :2])],
    "linalg.trace": [lambda f, x: f(x)],
    "reshape": [lambda f, x: f(x, [-1]), lambda f, x: f(x, torch.tensor([3, 2]))],
    "transpose": [lambda f, x: f(x), lambda f, x: f(x, perm=[0, 1])],
    "expand_dims": [lambda f, x: f(x, -1)],
    "squeeze": [lambda f, x: f(x[None]), lambda f, x: f(x[None], axis=[0])],
    "concat": [lambda f, x: f([x, x], 1)],
    "stack": [lambda f, x: f([x, x], axis=2)],
    "unstack": [lambda f, x: f(x, axis=1)],
    "split": [lambda f, x: f(x, 3, 1), lambda f, x: f(x, [1, -1], axis=1)],
    "tile": [lambda f, x: f(x, [2, 1])],
    "repeat": [lambda f, x: f(x, 2), lambda f, x: f(x, 2, axis=0)],
    "broadcast_to": [lambda f, x: f(x, [4, 2, 3])],
    "pad": [lambda f, x: f(x, [[1, 0], [0, 2]], constant_values=7)],
    "slice": [lambda f, x: f(x, [0, 1], [-1, 2])],
    "reverse": [lambda f, x: f(x, [0])],
    "roll": [lambda f, x: f(x, 1, 0)],
    "gather": [lambda f, x: f(x, [1, 0]), lambda f, x: f(x, [[2], [0]], axis=1), lambda f, x: f(x, (x[0] > 0).long())],
    "one_hot": [lambda f, x: f(x.abs().int(), 4)],
    "shape": [lambda f, x: f(x)],
    "rank": [lambda f, x: f(x)],
    "size": [lambda f, x: f(x)],
    "argmax": [lambda f, x: f(x), lambda f, x: f(x, axis=1, output_type=torch.int32)],
    "argmin": [lambda f, x: f(x, 1)],
    "sort": [lambda f, x: f(x, direction="DESCENDING")],
    "argsort": [lambda f, x: f(x, axis=0)],
    "cumsum": [lambda f, x: f(x), lambda f, x: f((x * 4).int(), 1)],
    "math.cumprod": [lambda f, x: f(x, 1)],
} | {
    name: [lambda f, x: f(x), lambda f, x: f(x, axis=[0, 1], keepdims=True), lambda f, x: f(x, -1)]
    for name in ("reduce_sum", "reduce_mean", "reduce_max", "reduce_min", "reduce_prod", "math.reduce_std", "math.reduce_variance", "reduce_logsumexp")
}  # fmt: skip
CALLS |= {name: [lambda f, x: f(x)] for name in (*REALS, *NUMBERS)} | {"linalg.matmul": CALLS["matmul"]}
CALLS |= {name: [lambda f, x: f(x, x.flip(1)), lambda f, x: f(x, 2), lambda f, x: f(0.5, x)] for name in (*PAIRS, *ANY_PAIRS)}
CALLS |= {name: [lambda f, x: f(x > 0, x > 1)] for name in TRUTHS}


def test_each_gives_on_a_pointer_what_it_gives_on_the_value(bob):
    assert set(CALLS) == set(RULES)
    for name, calls in CALLS.items():
        for call in calls:
            remote, local = call(RULES[name], X.send(bob)), call(RULES[name], X)
            for mine, theirs in zip(*(r if isinstance(r, list) else [r] for r in (remote, local)), strict=True):
                mine = mine.get() if isinstance(mine, sy.PointerTensor) else torch.as_tensor(mine)
                torch.testing.assert_close(mine, torch.as_tensor(theirs), equal_nan=True, msg=lambda told, name=name: f"{name}: {told}")


def test_whole_numbers_stay_what_tensorflow_makes_of_them():
    whole = torch.tensor([[1, 2], [4, 4]], dtype=torch.int32)
    for name in ("reduce_sum", "reduce_mean", "reduce_prod", "cumsum", "math.cumprod", "linalg.trace", "square", "round"):
        assert RULES[name](whole).dtype == torch.int32, name
    assert RULES["reduce_mean"](whole).item() == 2 and RULES["reduce_mean"](-whole).item() == -2
    assert RULES["divide"](whole, 2).dtype == torch.float64 and RULES["divide"](whole.to(torch.int16), 2).dtype == torch.float32


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        (lambda: pair(X, X.double(), "add"), TypeError, "tf.add takes two tensors of one dtype, not float(32|64) and float(32|64): tf.cast one"),
        (lambda: number(1.5, torch.int32), TypeError, r"1.5 is no int32: tf.cast"),
        (lambda: number(2, torch.bool), TypeError, "2 is no bool"),
        (lambda: number([1.0], torch.float32), PointerMisuseError, r"send\(\) them"),
        (lambda: RULES["sqrt"](X.int()), TypeError, "tf.sqrt takes floats, not int32: tf.cast it first"),
        (lambda: RULES["abs"](X > 0), TypeError, "takes numbers, not tf.bool"),
        (lambda: RULES["reduce_any"](X), TypeError, "tf.reduce_any takes tf.bool, not float32"),
        (lambda: RULES["matmul"](X, X[0]), TypeError, "takes matrices"),
        (lambda: RULES["split"](X, 2, 1), ValueError, "3 elements do not divide into 2"),
        (lambda: RULES["squeeze"](X, axis=0), ValueError, "not every axis"),
        (lambda: RULES["concat"]([X, X.double()], 0), TypeError, "one dtype, not float32, float64"),
        (lambda: RULES["where"](X > 0), TypeError, "give both"),
        (lambda: RULES["pad"](X, [[0, 0], [0, 0]], mode="REFLECT"), TypeError, "CONSTANT"),
        (lambda: dtype_of("string"), TypeError, "tf.string has no counterpart"),
    ],
)
def test_what_tensorflow_refuses_is_refused(call, error, told):
    with pytest.raises(error, match=told):
        call()
    assert dtype_of(name_of(torch.bfloat16)) is torch.bfloat16


def test_without_tensorflow_the_hook_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(DependencyError, match=r'pip install "syftlite\[tensorflow\]"'):
        sy.TensorFlowHook()
    with pytest.raises(ConfigurationError, match="takes the package tensorflow"):
        sy.TensorFlowHook(torch)
