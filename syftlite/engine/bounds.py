"""What torch's kernels leave to autograd and to its Python layer, checked before they run: a client may send any operands.

    SHAPES   operands that must fit one another, by their specs; asked once for each combination, with the price
    VALUES   indices, counts and scales, by value, at each run; may return bytes that the result will take beyond its price

Without them a kernel may read or write outside its tensors, or end the process: most were found by doing so. Messages tell no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from syftlite._torch import aten
from syftlite.ops.infer import infer
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC

MAX_RESULTS = 8192
"""More pieces than a message could name."""

Shapes = Callable[..., None]
Values = Callable[..., "int | None"]
SHAPES: dict[int, Shapes] = {}
VALUES: dict[int, Values] = {}


def _shapes(*funcs: Any) -> Callable[[Shapes], Shapes]:
    def register(check: Shapes) -> Shapes:
        for func in funcs:
            SHAPES[BY_FUNC[func].number] = check
        return check

    return register


def _values(*funcs: Any) -> Callable[[Values], Values]:
    def register(check: Values) -> Values:
        for func in funcs:
            VALUES[BY_FUNC[func].number] = check
        return check

    return register


def check_shapes(number: int, operands: Mapping[str, Any]) -> None:
    """Raise unless operator ``number`` may run on ``operands``, a `Spec` for each tensor, by parameter name."""
    check = SHAPES.get(number)
    if check is not None:
        _on_tensors(check, operands)


def check_values(number: int, operands: Mapping[str, Any]) -> int:
    """Raise unless operator ``number`` may run on these values, by parameter name. Returns the bytes to reserve for its result."""
    check = VALUES.get(number)
    return 0 if check is None else _on_tensors(check, operands) or 0


def _on_tensors(check: Callable[..., Any], operands: Mapping[str, Any]) -> Any:
    try:
        return check(**operands)
    except AttributeError:  # a number came where only a tensor has a shape and values
        raise TypeError("a number stands where the operator needs a tensor") from None


# -- shapes


def _need(name: str, given: Any, shape: Sequence[int]) -> None:
    """``given``, unless None, must be a tensor (or the spec of one) of ``shape``."""
    found = None if given is None else list(given.shape) if isinstance(given, (Spec, torch.Tensor)) else type(given).__name__
    if found is not None and found != list(shape):
        raise RuntimeError(f"{name} must have shape {list(shape)}, got {found}")


def _forward(func: Any, *operands: Any) -> torch.Size:
    """The shape of what ``func`` gives for these specs: what its gradient must have."""
    result = infer(BY_FUNC[func], operands, {})
    first = result[0] if type(result) is tuple else result
    assert isinstance(first, Spec)
    return first.shape


_PADS = {
    aten.reflection_pad1d_backward.default: aten.reflection_pad1d.default,
    aten.reflection_pad2d_backward.default: aten.reflection_pad2d.default,
    aten.replication_pad1d_backward.default: aten.replication_pad1d.default,
    aten.replication_pad2d_backward.default: aten.replication_pad2d.default,
}


def _padding(forward: Any) -> Shapes:
    def check(grad_output: Any, self: Any, padding: Any) -> None:
        _need("grad_output", grad_output, _forward(forward, self, padding))

    return check


for _backward, _func in _PADS.items():
    _shapes(_backward)(_padding(_func))


def _pool(forward: Any) -> Shapes:
    def check(grad_output: Any, self: Any, indices: Any = None, **geometry: Any) -> None:
        shape = _forward(forward, self, *geometry.values())
        _need("grad_output", grad_output, shape)
        _need("indices", indices, shape)

    return check


_shapes(aten.max_pool2d_with_indices_backward.default)(_pool(aten.max_pool2d_with_indices.default))
_shapes(aten.max_pool3d_with_indices_backward.default)(_pool(aten.max_pool3d_with_indices.default))
_shapes(aten.avg_pool2d_backward.default)(_pool(aten.avg_pool2d.default))
_shapes(aten.avg_pool3d_backward.default)(_pool(aten.avg_pool3d.default))


@_shapes(aten.adaptive_max_pool2d_backward.default)
def _adaptive_max(grad_output: Any, self: Any, indices: Any) -> None:
    _need("grad_output", grad_output, _forward(aten.adaptive_max_pool2d.default, self, list(grad_output.shape[-2:])))
    _need("indices", indices, grad_output.shape)


def _not_empty(self: Any) -> None:
    if 0 in self.shape[1:]:
        raise RuntimeError(f"a pool over {list(self.shape)} has no gradient: only the batch may be empty")


@_shapes(aten._adaptive_avg_pool2d_backward.default)
def _adaptive_avg2(grad_output: Any, self: Any) -> None:
    _not_empty(self)
    _need("grad_output", grad_output, _forward(aten._adaptive_avg_pool2d.default, self, list(grad_output.shape[-2:])))


@_shapes(aten._adaptive_avg_pool3d_backward.default)
def _adaptive_avg3(grad_output: Any, self: Any) -> None:
    _not_empty(self)
    _need("grad_output", grad_output, _forward(aten._adaptive_avg_pool3d.default, self, list(grad_output.shape[-3:])))


@_shapes(aten._softmax_backward_data.default, aten._log_softmax_backward_data.default)
def _softmax(grad_output: Any, output: Any, dim: Any, input_dtype: Any) -> None:
    _need("grad_output", grad_output, output.shape)
    if not input_dtype is grad_output.dtype is output.dtype:
        raise RuntimeError(f"softmax's gradient is {output.dtype}, as its output is: not {grad_output.dtype}, nor {input_dtype}")


@_shapes(aten.nll_loss_backward.default, aten.nll_loss2d_backward.default)
def _nll(grad_output: Any, self: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any, total_weight: Any) -> None:
    classes = 0 if len(self.shape) == 1 else 1
    each = (*self.shape[:classes], *self.shape[classes + 1 :])
    _need("target", target, each)
    _need("weight", weight, (self.shape[classes],))
    _need("total_weight", total_weight, ())
    _need("grad_output", grad_output, each if reduction == 0 else ())


@_shapes(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def _nll_forward(self: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any) -> None:
    _need("weight", weight, (self.shape[0 if len(self.shape) == 1 else 1],))


def _channels(spec: Spec) -> int:
    if len(spec.shape) < 2 or not spec.shape[1]:
        raise RuntimeError(f"batch norm needs an (n, c, ...) input with c > 0, got {list(spec.shape)}")
    return spec.shape[1]


@_shapes(aten.native_batch_norm.default)
def _batch_norm(input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: Any, momentum: Any, eps: Any) -> None:
    channels = _channels(input)
    for name, given in (("weight", weight), ("bias", bias), ("running_mean", running_mean), ("running_var", running_var)):
        _need(name, given, (channels,))
    if not training and (running_mean is None or running_var is None):
        raise RuntimeError("batch norm needs running_mean and running_var when it is not training")


@_shapes(aten.native_batch_norm_backward.default)
def _batch_norm_backward(
    grad_out: Any, input: Any, weight: Any, running_mean: Any, running_var: Any, save_mean: Any, save_invstd: Any, train: Any, eps: Any,
    output_mask: Any,
) -> None:  # fmt: skip
    channels = _channels(input)
    _need("grad_out", grad_out, input.shape)
    used, unused = ((save_mean, save_invstd), (running_mean, running_var)) if train else ((running_mean, running_var), ())
    if any(given is None for given in used) or (weight is None and output_mask[1]):
        raise RuntimeError("batch norm's backward needs the weight and statistics that its forward used")
    for given in (weight, *used, *unused):
        _need("weight and statistics", given, (channels,))


@_shapes(aten.native_layer_norm_backward.default)
def _layer_norm(grad_out: Any, input: Any, normalized_shape: Any, mean: Any, rstd: Any, weight: Any, bias: Any, output_mask: Any) -> None:
    outer = input.shape[: len(input.shape) - len(normalized_shape)]
    _need("grad_out", grad_out, input.shape)
    _need("weight", weight, normalized_shape)
    for given in (mean, rstd):
        _need("mean and rstd", given, (*outer, *[1] * len(normalized_shape)))


@_shapes(aten.native_group_norm.default)
def _group_norm(input: Any, weight: Any, bias: Any, N: Any, C: Any, HxW: Any, group: Any, eps: Any) -> None:
    if min(N, C, HxW) < 0 or group < 1 or C % group or input.elements != N * C * HxW or tuple(input.shape[:2]) != (N, C):
        raise RuntimeError(f"group norm of {list(input.shape)}: it does not have {N} x {C} x {HxW} elements in {group} groups")
    for given in (weight, bias):
        _need("weight and bias", given, (C,))


@_shapes(aten.native_group_norm_backward.default)
def _group_norm_backward(
    grad_out: Any, input: Any, mean: Any, rstd: Any, weight: Any, N: Any, C: Any, HxW: Any, group: Any, output_mask: Any
) -> None:  # fmt: skip
    _group_norm(input, weight, None, N, C, HxW, group, 0.0)
    _need("grad_out", grad_out, input.shape)
    for given in (mean, rstd):
        _need("mean and rstd", given, (N, group))


@_shapes(aten.convolution_backward.default)
def _convolution(grad_output: Any, input: Any, weight: Any, bias_sizes: Any, output_mask: Any, **geometry: Any) -> None:
    _need("grad_output", grad_output, _forward(aten.convolution.default, input, weight, None, *geometry.values()))
    if bias_sizes is not None and list(bias_sizes) != [grad_output.shape[1]]:
        raise RuntimeError(f"bias_sizes must be [{grad_output.shape[1]}], got {list(bias_sizes)}")


@_shapes(aten.unfold_backward.default)
def _unfold(grad_in: Any, input_sizes: Any, dim: Any, size: Any, step: Any) -> None:
    _need("grad_in", grad_in, _forward(aten.unfold.default, Spec.contiguous(input_sizes, grad_in.dtype), dim, size, step))


@_shapes(aten.embedding_dense_backward.default)
def _embedding(grad_output: Any, indices: Any, num_weights: Any, padding_idx: Any, scale_grad_by_freq: Any) -> None:
    _need("grad_output", grad_output, (*indices.shape, *grad_output.shape[-1:]))


@_shapes(aten.empty_strided.default, aten.new_empty_strided.default)
def _strided(size: Any, stride: Any, **_: Any) -> None:
    spec = Spec.make(torch.Size(size), tuple(stride), 0, torch.uint8)
    if spec.extent > max(spec.elements, 1):
        raise RuntimeError(f"strides {list(stride)} of {list(size)} leave gaps: nothing may lie between a tensor's elements")


@_shapes(aten._fft_r2c.default, aten._fft_c2r.default, aten._fft_c2c.default)
def _fft(self: Any, dim: Any, normalization: Any, last_dim_size: Any = None, onesided: Any = None, forward: Any = None) -> None:
    kinds = (torch.float32, torch.float64) if onesided is not None else (torch.complex64, torch.complex128)
    if self.dtype not in kinds:
        raise RuntimeError(f"this transform does not take {self.dtype}")
    if normalization not in (0, 1, 2):
        raise ValueError("normalization is 0 (none), 1 (by the root of n) or 2 (by n)")
    size = len(self.shape)
    if not dim or len(set(dim)) != len(dim) or not all(0 <= d < size for d in dim):  # counted from the end, torch leaves memory unwritten
        raise IndexError(f"dim {list(dim)} names no distinct dimensions of {list(self.shape)}")
    if not all(self.shape[d] for d in dim):
        raise RuntimeError(f"a transform of {list(self.shape)} over {list(dim)} has no data points")
    if last_dim_size is not None and (last_dim_size < 1 or self.shape[dim[-1]] != last_dim_size // 2 + 1):
        raise RuntimeError(f"half of a signal of {last_dim_size} points has {last_dim_size // 2 + 1}, got {self.shape[dim[-1]]}")


def _pivots(pivots: Any, factors: Any) -> None:
    if len(factors.shape) < 2 or pivots.dtype is not torch.int32:
        raise RuntimeError("factors are matrices, and pivots int32")
    _need("pivots", pivots, (*factors.shape[:-2], min(factors.shape[-2:])))


@_shapes(aten.linalg_lu_solve.default)
def _lu_solve(LU: Any, pivots: Any, B: Any, left: Any = True, adjoint: Any = False) -> None:
    _pivots(pivots, LU)


@_shapes(aten.lu_unpack.default)
def _lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: Any = True, unpack_pivots: Any = True) -> None:
    _pivots(LU_pivots, LU_data)


# -- values


def _within(name: str, index: torch.Tensor, low: int, high: int) -> None:
    """Each element of ``index`` must lie in [low, high)."""
    if not _lies_within(index, low, high):
        raise IndexError(f"{name} is out of bounds: it must be from {low} to {high - 1}")


def _lies_within(index: torch.Tensor, low: int, high: int) -> bool:
    if not index.numel():
        return True
    least, most = torch.aminmax(index)
    return bool(low <= least.item() and most.item() < high)


@_values(aten.nll_loss_backward.default, aten.nll_loss2d_backward.default)
def _target(
    grad_output: Any, self: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any, total_weight: Any
) -> None:
    _reduction(reduction)
    classes = self.shape[0 if self.dim() == 1 else 1]
    if _lies_within(target, 0, classes):
        return
    bad = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if bad.any().item():
        raise IndexError(f"target is out of bounds: it must be from 0 to {classes - 1}, or {ignore_index}")


def _reduction(reduction: int) -> None:
    if reduction not in (0, 1, 2):
        raise ValueError("reduction is 0 (none), 1 (mean) or 2 (sum)")


_STRICT = (aten.binary_cross_entropy.default, aten.binary_cross_entropy_backward.default)


@_values(*(o.func for o in BY_FUNC.values() if "reduction" in o.keywords and "nll" not in o.name and o.func not in _STRICT))
def _loss(reduction: Any = 1, **_: Any) -> None:
    _reduction(reduction)


@_values(*_STRICT)
def _entropy(self: Any, target: Any, weight: Any = None, reduction: Any = 1, grad_output: Any = None) -> None:
    _reduction(reduction)
    _need("target", target, self.shape)
    if grad_output is not None and grad_output.dim():
        _need("grad_output", grad_output, self.shape)


@_values(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def _nll_reduction(reduction: Any, **_: Any) -> None:
    _reduction(reduction)


@_values(aten.embedding_dense_backward.default)
def _rows(grad_output: Any, indices: Any, num_weights: Any, padding_idx: Any, scale_grad_by_freq: Any) -> None:
    _within("indices", indices, 0, num_weights)


@_values(aten.max_pool2d_with_indices_backward.default)
def _plane(self: Any, indices: Any, **_: Any) -> None:
    _within("indices", indices, -1, math.prod(self.shape[-2:]))


@_values(aten.adaptive_max_pool2d_backward.default)
def _adaptive_plane(self: Any, indices: Any, **_: Any) -> None:  # its kernel does not skip -1
    _within("indices", indices, 0, math.prod(self.shape[-2:]))


@_values(aten.max_pool3d_with_indices_backward.default)
def _volume(self: Any, indices: Any, **_: Any) -> None:
    _within("indices", indices, -1, math.prod(self.shape[-3:]))


def _scale(size: int, output: int, scale: float | None) -> None:
    if scale is not None and not (output * 0.999999 <= size * scale <= (output + 1) * 1.000001):
        raise RuntimeError(f"a scale must take {size} to {output}")


@_values(aten.upsample_nearest2d.default, aten.upsample_bilinear2d.default)
def _upsample(self: Any, output_size: Any, align_corners: Any = False, scales_h: Any = None, scales_w: Any = None) -> None:
    _scale(self.shape[-2], output_size[0], scales_h)
    _scale(self.shape[-1], output_size[1], scales_w)


@_values(aten.upsample_nearest2d_backward.default, aten.upsample_bilinear2d_backward.default)
def _upsample_backward(
    grad_output: Any, output_size: Any, input_size: Any, align_corners: Any = False, scales_h: Any = None, scales_w: Any = None
) -> None:
    _scale(input_size[-2], output_size[0], scales_h)
    _scale(input_size[-1], output_size[1], scales_w)


@_values(aten.searchsorted.Tensor)
def _sorter(sorted_sequence: Any, self: Any, sorter: Any = None, **_: Any) -> None:
    if sorter is not None:
        _within("sorter", sorter, 0, sorted_sequence.shape[-1])


@_values(aten.linalg_lu_solve.default)
def _solve_pivots(LU: Any, pivots: Any, B: Any, left: Any = True, adjoint: Any = False) -> None:
    _within("pivots", pivots, 1, LU.shape[-1] + 1)


@_values(aten.lu_unpack.default)
def _unpack_pivots(LU_data: Any, LU_pivots: Any, unpack_data: Any = True, unpack_pivots: Any = True) -> None:
    if unpack_pivots:
        _within("pivots", LU_pivots, 1, LU_data.shape[-2] + 1)


@_values(aten.smooth_l1_loss_backward.default)
def _floating(self: Any, **_: Any) -> None:
    if not self.dtype.is_floating_point:
        raise NotImplementedError("smooth_l1_loss has no gradient for integers")


@_values(aten.div.Tensor_mode, aten.div.Scalar_mode, aten.div_.Tensor_mode)
def _quotient(self: Any, other: Any, rounding_mode: Any = None) -> None:
    """The least integer divided by -1 stops the process: the machine's own division traps."""
    kind = torch.result_type(self, other) if rounding_mode == "trunc" else torch.float32
    if not kind.is_floating_point and kind is not torch.bool and _any(other, -1) and _any(self, torch.iinfo(kind).min):
        raise OverflowError(f"the least {kind} has no quotient by -1")


def _any(operand: Any, value: int) -> bool:
    return bool((operand == value).any().item()) if isinstance(operand, torch.Tensor) else operand == value


@_values(aten.bernoulli.default)
def _chances(self: Any, **_: Any) -> None:
    if not ((self >= 0) & (self <= 1)).all().item():
        torch.bernoulli(torch.zeros_like(self))  # takes as many random numbers as success would: the next ones must not tell
        raise RuntimeError("a chance is a number from 0 to 1")


@_values(aten.bincount.default)
def _bins(self: Any, weights: Any = None, minlength: Any = 0) -> int:
    most = int(self.max().item()) if self.numel() else 0
    return 8 * max(most + 1, int(minlength), 0)


@_values(aten.repeat_interleave.Tensor)
def _repeats(repeats: Any, output_size: Any = None) -> int:
    if not repeats.numel():
        return 0
    if int(repeats.min().item()) < 0:
        raise RuntimeError("repeats can not be negative")
    total = int(repeats.double().sum().item())  # a sum of int64 could wrap around
    if output_size is not None and output_size != total:
        raise RuntimeError("output_size is not the sum of repeats")
    return 8 * total


def _pieces(count: int) -> None:
    if count > MAX_RESULTS:
        raise RuntimeError(f"{count:,} results are more than {MAX_RESULTS:,}, which a message can name: index the tensor instead")


@_values(aten.unbind.int)
def _unbind(self: Any, dim: Any = 0) -> None:
    if self.dim():
        _pieces(self.shape[dim])


@_values(aten.split.Tensor, aten.unsafe_split.Tensor)
def _split(self: Any, split_size: Any, dim: Any = 0) -> None:
    if self.dim() and split_size > 0:
        _pieces(-(-self.shape[dim] // split_size))
