"""Operands that must fit one another, by their specs."""

from __future__ import annotations

from typing import Any

import torch

from syftlite._torch import aten
from syftlite.engine.bounds.rules import Shapes, need, on_shapes
from syftlite.ops.infer import infer
from syftlite.ops.spec import Spec
from syftlite.ops.table import BY_FUNC


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
    aten.replication_pad3d_backward.default: aten.replication_pad3d.default,
}


def _padding(forward: Any) -> Shapes:
    def check(grad_output: Any, self: Any, padding: Any) -> None:
        need("grad_output", grad_output, _forward(forward, self, padding))

    return check


for _backward, _func in _PADS.items():
    on_shapes(_backward)(_padding(_func))


@on_shapes(aten.reflection_pad3d_backward.default)
def _reflected_volume(grad_output: Any, self: Any, padding: Any) -> None:
    _padding(aten.reflection_pad3d.default)(grad_output, self, padding)
    if not grad_output.elements and self.elements:  # the kernel leaves what it returns unwritten
        raise RuntimeError(f"a padding of {list(self.shape)} by {list(padding)} that leaves nothing has no gradient")


def _pool(forward: Any) -> Shapes:
    def check(grad_output: Any, self: Any, indices: Any = None, **geometry: Any) -> None:
        shape = _forward(forward, self, *geometry.values())
        need("grad_output", grad_output, shape)
        need("indices", indices, shape)

    return check


on_shapes(aten.max_pool2d_with_indices_backward.default)(_pool(aten.max_pool2d_with_indices.default))
on_shapes(aten.max_pool3d_with_indices_backward.default)(_pool(aten.max_pool3d_with_indices.default))
on_shapes(aten.avg_pool2d_backward.default)(_pool(aten.avg_pool2d.default))
on_shapes(aten.avg_pool3d_backward.default)(_pool(aten.avg_pool3d.default))


@on_shapes(aten.adaptive_max_pool2d_backward.default)
def _adaptive_max(grad_output: Any, self: Any, indices: Any) -> None:
    need("grad_output", grad_output, _forward(aten.adaptive_max_pool2d.default, self, list(grad_output.shape[-2:])))
    need("indices", indices, grad_output.shape)


@on_shapes(aten.adaptive_max_pool3d_backward.default)
def _adaptive_max3(grad_output: Any, self: Any, indices: Any) -> None:
    need("grad_output", grad_output, _forward(aten.adaptive_max_pool3d.default, self, list(grad_output.shape[-3:])))
    need("indices", indices, grad_output.shape)


def _not_empty(self: Any) -> None:
    if 0 in self.shape[1:]:
        raise RuntimeError(f"a pool over {list(self.shape)} has no gradient: only the batch may be empty")


@on_shapes(aten._adaptive_avg_pool2d_backward.default)
def _adaptive_avg2(grad_output: Any, self: Any) -> None:
    _not_empty(self)
    need("grad_output", grad_output, _forward(aten._adaptive_avg_pool2d.default, self, list(grad_output.shape[-2:])))


@on_shapes(aten._adaptive_avg_pool3d_backward.default)
def _adaptive_avg3(grad_output: Any, self: Any) -> None:
    _not_empty(self)
    need("grad_output", grad_output, _forward(aten._adaptive_avg_pool3d.default, self, list(grad_output.shape[-3:])))


@on_shapes(aten._softmax_backward_data.default, aten._log_softmax_backward_data.default)
def _softmax(grad_output: Any, output: Any, dim: Any, input_dtype: Any) -> None:
    need("grad_output", grad_output, output.shape)
    if not input_dtype is grad_output.dtype is output.dtype:
        raise RuntimeError(f"softmax's gradient is {output.dtype}, as its output is: not {grad_output.dtype}, nor {input_dtype}")


@on_shapes(aten.nll_loss_backward.default, aten.nll_loss2d_backward.default)
def _nll(grad_output: Any, self: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any, total_weight: Any) -> None:
    classes = 0 if len(self.shape) == 1 else 1
    each = (*self.shape[:classes], *self.shape[classes + 1 :])
    need("target", target, each)
    need("weight", weight, (self.shape[classes],))
    need("total_weight", total_weight, ())
    need("grad_output", grad_output, each if reduction == 0 else ())


@on_shapes(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def _nll_forward(self: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any) -> None:
    need("weight", weight, (self.shape[0 if len(self.shape) == 1 else 1],))


def _channels(spec: Spec) -> int:
    if len(spec.shape) < 2 or not spec.shape[1]:
        raise RuntimeError(f"batch norm needs an (n, c, ...) input with c > 0, got {list(spec.shape)}")
    return spec.shape[1]


@on_shapes(aten.native_batch_norm.default)
def _batch_norm(input: Any, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: Any, momentum: Any, eps: Any) -> None:
    channels = _channels(input)
    for name, given in (("weight", weight), ("bias", bias), ("running_mean", running_mean), ("running_var", running_var)):
        need(name, given, (channels,))
    if not training and (running_mean is None or running_var is None):
        raise RuntimeError("batch norm needs running_mean and running_var when it is not training")


@on_shapes(aten.native_batch_norm_backward.default)
def _batch_norm_backward(
    grad_out: Any, input: Any, weight: Any, running_mean: Any, running_var: Any, save_mean: Any, save_invstd: Any, train: Any, eps: Any,
    output_mask: Any,
) -> None:  # fmt: skip
    channels = _channels(input)
    need("grad_out", grad_out, input.shape)
    used, unused = ((save_mean, save_invstd), (running_mean, running_var)) if train else ((running_mean, running_var), ())
    if any(given is None for given in used) or (weight is None and output_mask[1]):
        raise RuntimeError("batch norm's backward needs the weight and statistics that its forward used")
    for given in (weight, *used, *unused):
        need("weight and statistics", given, (channels,))


@on_shapes(aten.native_layer_norm_backward.default)
def _layer_norm(grad_out: Any, input: Any, normalized_shape: Any, mean: Any, rstd: Any, weight: Any, bias: Any, output_mask: Any) -> None:
    outer = input.shape[: len(input.shape) - len(normalized_shape)]
    need("grad_out", grad_out, input.shape)
    need("weight", weight, normalized_shape)
    for given in (mean, rstd):
        need("mean and rstd", given, (*outer, *[1] * len(normalized_shape)))


@on_shapes(aten.native_group_norm.default)
def _group_norm(input: Any, weight: Any, bias: Any, N: Any, C: Any, HxW: Any, group: Any, eps: Any) -> None:
    if min(N, C, HxW) < 0 or group < 1 or C % group or input.elements != N * C * HxW or tuple(input.shape[:2]) != (N, C):
        raise RuntimeError(f"group norm of {list(input.shape)}: it does not have {N} x {C} x {HxW} elements in {group} groups")
    for given in (weight, bias):
        need("weight and bias", given, (C,))


@on_shapes(aten.native_group_norm_backward.default)
def _group_norm_backward(
    grad_out: Any, input: Any, mean: Any, rstd: Any, weight: Any, N: Any, C: Any, HxW: Any, group: Any, output_mask: Any
) -> None:  # fmt: skip
    _group_norm(input, weight, None, N, C, HxW, group, 0.0)
    need("grad_out", grad_out, input.shape)
    for given in (mean, rstd):
        need("mean and rstd", given, (N, group))


@on_shapes(aten.convolution_backward.default)
def _convolution(grad_output: Any, input: Any, weight: Any, bias_sizes: Any, output_mask: Any, **geometry: Any) -> None:
    need("grad_output", grad_output, _forward(aten.convolution.default, input, weight, None, *geometry.values()))
    if list(bias_sizes or ()) == [0] and not output_mask[2]:
        return  # what autograd says of a convolution without bias
    if bias_sizes is not None and list(bias_sizes) != [grad_output.shape[1]]:
        raise RuntimeError(f"bias_sizes must be [{grad_output.shape[1]}], got {list(bias_sizes)}")


@on_shapes(aten.unfold_backward.default)
def _unfold(grad_in: Any, input_sizes: Any, dim: Any, size: Any, step: Any) -> None:
    need("grad_in", grad_in, _forward(aten.unfold.default, Spec.contiguous(input_sizes, grad_in.dtype), dim, size, step))


@on_shapes(aten.embedding_dense_backward.default)
def _embedding(grad_output: Any, indices: Any, num_weights: Any, padding_idx: Any, scale_grad_by_freq: Any) -> None:
    need("grad_output", grad_output, (*indices.shape, *grad_output.shape[-1:]))


@on_shapes(aten.empty_strided.default, aten.new_empty_strided.default)
def _strided(size: Any, stride: Any, **_: Any) -> None:
    spec = Spec.make([max(d, 1) for d in size], tuple(stride), 0, torch.uint8)  # an empty one has the strides of what holds one
    if spec.extent > spec.elements:
        raise RuntimeError(f"strides {list(stride)} of {list(size)} leave gaps: nothing may lie between a tensor's elements")


@on_shapes(aten._fft_r2c.default, aten._fft_c2r.default, aten._fft_c2c.default)
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
    need("pivots", pivots, (*factors.shape[:-2], min(factors.shape[-2:])))


@on_shapes(aten.linalg_lu_solve.default)
def _lu_solve(LU: Any, pivots: Any, B: Any, left: Any = True, adjoint: Any = False) -> None:
    _pivots(pivots, LU)


@on_shapes(aten.lu_unpack.default)
def _lu_unpack(LU_data: Any, LU_pivots: Any, unpack_data: Any = True, unpack_pivots: Any = True) -> None:
    _pivots(LU_pivots, LU_data)
