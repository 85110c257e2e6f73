"""Rules for ATen's functions and norms, as torch_rules.py has them for others.

    sigmoid tanh gelu elu sqrt ...                functions
    abs pow square prelu                          made of products and relus
    layer_norm group_norm instance_norm rms_norm  by the data's own statistics
    linalg_vector_norm                            of powers 1 and 2
"""

from __future__ import annotations

from typing import Any

import torch

from syftlite.serving.torch_call import Call, Value, rule
from syftlite.serving.torch_rules import axes_of, batch_norm

MOST = 16
"""The highest power: of 4 and more it is beyond what fixed precision has."""


@rule("sigmoid", "tanh", "softplus", "exp", "selu", "silu", anywhere=True)
def _function(at: Call, x: Value, *rest: Any) -> Value:
    at.refuse(arguments=at.name == "softplus" and tuple(rest) not in ((), (1.0, 20.0), (1, 20)))
    return at.add(at.name, [x])


@rule("gelu", anywhere=True)
def _gelu(at: Call, x: Value, *, approximate: str = "none") -> Value:
    return at.add("gelu", [x], approximate=approximate == "tanh")


@rule("elu", anywhere=True)
def _elu(at: Call, x: Value, alpha: float = 1.0, *_: Any) -> Value:
    return at.add("elu", [x], alpha=float(alpha))


# -- products and relus


@rule("abs", anywhere=True)
def _abs(at: Call, x: Value) -> Value:
    return at.add("leaky_relu", [x], slope=-1.0)


@rule("square", anywhere=True)
def _square(at: Call, x: Value) -> Value:
    return at.add("multiply", [x, x])


@rule("pow", anywhere=True)
def _pow(at: Call, x: Value, exponent: Any) -> Value:
    at.refuse(base=not isinstance(x, Value), exponent=not isinstance(exponent, (int, float)))
    at.refuse(exponent=2 * exponent != int(2 * exponent) or not 0 < abs(exponent) <= MOST)
    if exponent in (1, 2):
        return _square(at, x) if exponent == 2 else x
    return at.add("power", [x], exponent=float(exponent))


ROOTS = {"sqrt": 0.5, "rsqrt": -0.5, "reciprocal": -1.0}


@rule(*ROOTS, anywhere=True)
def _root(at: Call, x: Value) -> Value:
    return at.add("power", [x], exponent=ROOTS[at.name])


@rule("prelu", "_prelu_kernel")
def _prelu(at: Call, x: Value, weight: Value) -> Value:
    w = at.weight(weight, "weight")
    assert w is not None
    return at.add("prelu", [x], {"slope": w.flatten()})


# -- norms


@rule("layer_norm", anywhere=True)
def _layer_norm(at: Call, x: Value, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Value:
    at.refuse(normalized_shape=len(shape) >= len(x.shape) - x.batch)
    weights = {"scale": at.weight(weight, "weight"), "shift": at.weight(bias, "bias")}
    return at.add("layer_norm", [x], weights, axes=len(shape), eps=eps)


@rule("group_norm")
def _group_norm(at: Call, x: Value, groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any) -> Value:
    weights = {"scale": at.weight(weight, "weight"), "shift": at.weight(bias, "bias")}
    return at.add("group_norm", [x], weights, groups=groups, eps=eps)


@rule("native_group_norm")
def _native(at: Call, x: Value, weight: Any, bias: Any, rows: int, channels: int, size: int, groups: int, eps: float) -> Value:
    return _group_norm(at, x, groups, weight, bias, eps)


@rule("instance_norm")
def _instance_norm(
    at: Call, x: Value, weight: Any, bias: Any, mean: Any, var: Any, own: bool, momentum: float, eps: float, *_: Any
) -> Value:  # fmt: skip
    if own:
        return _group_norm(at, x, x.shape[1], weight, bias, eps)
    return batch_norm(at, x, weight, bias, mean, var, False, momentum, eps)


@rule("rms_norm", "_fused_rms_norm", anywhere=True)
def _rms_norm(at: Call, x: Value, shape: Any, weight: Any = None, eps: float | None = None) -> Value:
    at.refuse(normalized_shape=len(shape) >= len(x.shape) - x.batch)
    eps = torch.finfo(torch.float32).eps if eps is None else eps
    return at.add("rms_norm", [x], {"scale": at.weight(weight, "weight")}, axes=len(shape), eps=eps)


@rule("linalg_vector_norm", anywhere=True)
def _norm(at: Call, x: Value, power: float = 2, dims: Any = None, keep: bool = False, **_: Any) -> Value:
    at.refuse(ord=power not in (1, 2))
    magnitudes = at.add("leaky_relu", [x], slope=-1.0) if power == 1 else _square(at, x)
    given = [dims] if isinstance(dims, int) else dims or range(len(x.shape))
    axes = axes_of(at, x, dims)
    at.batch -= 0 if keep else sum(d % len(x.shape) < x.batch for d in given)
    total = at.add("sum", [magnitudes], dims=axes, keep=keep)
    return total if power == 1 else at.add("power", [total], exponent=0.5)
