"""Indices, counts and scales, by value; inside a map over rows, of all rows."""

from __future__ import annotations

import math
from typing import Any

import torch

from syftlite._torch import aten, unmapped
from syftlite.engine.bounds.rules import need, on_map, on_values
from syftlite.ops.drawing import in_turn
from syftlite.ops.table import BY_FUNC

MAX_RESULTS = 8192
"""More pieces than a message could name."""


def _within(name: str, index: torch.Tensor, low: int, high: int) -> None:
    """Each element of ``index`` must lie in [low, high)."""
    if not _lies_within(index, low, high):
        raise IndexError(f"{name} is out of bounds: it must be from {low} to {high - 1}")


def _lies_within(index: torch.Tensor, low: int, high: int) -> bool:
    if not index.numel():
        return True
    least, most = torch.aminmax(unmapped(index))
    return bool(low <= least.item() and most.item() < high)


@on_values(aten.nll_loss_backward.default, aten.nll_loss2d_backward.default)
def _target(
    grad_output: Any, self: Any, target: Any, weight: Any, reduction: Any, ignore_index: Any, total_weight: Any
) -> None:
    _reduction(reduction)
    classes = self.shape[0 if self.dim() == 1 else 1]
    if _lies_within(target, 0, classes):
        return
    target = unmapped(target).long()  # a byte would take -100 for 156
    bad = ((target < 0) | (target >= classes)) & (target != ignore_index)
    if bad.any().item():
        raise IndexError(f"target is out of bounds: it must be from 0 to {classes - 1}, or {ignore_index}")


def _reduction(reduction: int) -> None:
    if reduction not in (0, 1, 2):
        raise ValueError("reduction is 0 (none), 1 (mean) or 2 (sum)")


_STRICT = (aten.binary_cross_entropy.default, aten.binary_cross_entropy_backward.default)


@on_values(*(o.func for o in BY_FUNC.values() if "reduction" in o.keywords and "nll" not in o.name and o.func not in _STRICT))
def _loss(reduction: Any = 1, **_: Any) -> None:
    _reduction(reduction)


@on_values(*_STRICT)
def _entropy(self: Any, target: Any, weight: Any = None, reduction: Any = 1, grad_output: Any = None) -> None:
    _reduction(reduction)
    need("target", target, self.shape)
    if grad_output is not None and grad_output.dim():
        need("grad_output", grad_output, self.shape)


@on_values(aten.nll_loss_forward.default, aten.nll_loss2d_forward.default)
def _nll_reduction(reduction: Any, **_: Any) -> None:
    _reduction(reduction)


@on_values(aten.embedding_dense_backward.default)
def _rows(grad_output: Any, indices: Any, num_weights: Any, padding_idx: Any, scale_grad_by_freq: Any) -> None:
    _within("indices", indices, 0, num_weights)


@on_map(aten.embedding.default)
def _words(weight: Any, indices: Any, **_: Any) -> None:
    _within("indices", indices, 0, weight.shape[0])


@on_values(aten.max_pool2d_with_indices_backward.default)
def _plane(self: Any, indices: Any, **_: Any) -> None:
    _within("indices", indices, -1, math.prod(self.shape[-2:]))


@on_values(aten.adaptive_max_pool2d_backward.default)
def _adaptive_plane(self: Any, indices: Any, **_: Any) -> None:  # its kernel does not skip -1
    _within("indices", indices, 0, math.prod(self.shape[-2:]))


@on_values(aten.adaptive_max_pool3d_backward.default)
def _adaptive_volume(self: Any, indices: Any, **_: Any) -> None:
    _within("indices", indices, 0, math.prod(self.shape[-3:]))


@on_values(aten.max_pool3d_with_indices_backward.default)
def _volume(self: Any, indices: Any, **_: Any) -> None:
    _within("indices", indices, -1, math.prod(self.shape[-3:]))


def _scale(size: int, output: int, scale: float | None) -> None:
    if scale is not None and not (output * 0.999999 <= size * scale <= (output + 1) * 1.000001):
        raise RuntimeError(f"a scale must take {size} to {output}")


_UPSAMPLED = [o.func for o in BY_FUNC.values() if "upsample" in o.name]


@on_values(*(func for func in _UPSAMPLED if "backward" not in str(func)))
def _upsample(self: Any, output_size: Any, align_corners: Any = False, **scales: Any) -> None:
    _scales(self.shape, output_size, scales)


@on_values(*(func for func in _UPSAMPLED if "backward" in str(func)))
def _upsample_backward(grad_output: Any, output_size: Any, input_size: Any, align_corners: Any = False, **scales: Any) -> None:
    _scales(input_size, output_size, scales)


def _scales(input_size: Any, output_size: Any, scales: dict[str, Any]) -> None:
    names = ("scales",) if len(output_size) == 1 else ("scales_d", "scales_h", "scales_w")[-len(output_size) :]
    for size, output, name in zip(input_size[-len(output_size) :], output_size, names, strict=True):
        _scale(size, output, scales.get(name))


@on_values(aten.searchsorted.Tensor)
def _sorter(sorted_sequence: Any, self: Any, sorter: Any = None, **_: Any) -> None:
    if sorter is not None:
        _within("sorter", sorter, 0, sorted_sequence.shape[-1])


@on_values(aten.linalg_lu_solve.default)
def _solve_pivots(LU: Any, pivots: Any, B: Any, left: Any = True, adjoint: Any = False) -> None:
    _within("pivots", pivots, 1, LU.shape[-1] + 1)


@on_values(aten.lu_unpack.default)
def _unpack_pivots(LU_data: Any, LU_pivots: Any, unpack_data: Any = True, unpack_pivots: Any = True) -> None:
    if unpack_pivots:
        _within("pivots", LU_pivots, 1, LU_data.shape[-2] + 1)


@on_values(aten.smooth_l1_loss_backward.default)
def _floating(self: Any, **_: Any) -> None:
    if not self.dtype.is_floating_point:
        raise NotImplementedError("smooth_l1_loss has no gradient for integers")


@on_values(aten.div.Tensor_mode, aten.div.Scalar_mode, aten.div_.Tensor_mode)
def _quotient(self: Any, other: Any, rounding_mode: Any = None) -> None:
    """The least integer divided by -1 stops the process: the machine's own division traps."""
    kind = torch.result_type(self, other) if rounding_mode == "trunc" else torch.float32
    if not kind.is_floating_point and kind is not torch.bool and _any(other, -1) and _any(self, torch.iinfo(kind).min):
        raise OverflowError(f"the least {kind} has no quotient by -1")


def _any(operand: Any, value: int) -> bool:
    return bool((unmapped(operand) == value).any().item()) if isinstance(operand, torch.Tensor) else operand == value


@on_values(aten.bernoulli.default)
def _chances(self: Any, **_: Any) -> None:
    chances = unmapped(self)
    if not ((chances >= 0) & (chances <= 1)).all().item():
        in_turn(torch.bernoulli)(torch.zeros_like(chances))  # takes as many random numbers as success would: the next ones must not tell
        raise RuntimeError("a chance is a number from 0 to 1")


@on_values(aten.bincount.default)
def _bins(self: Any, weights: Any = None, minlength: Any = 0) -> int:
    most = int(self.max().item()) if self.numel() else 0
    return 8 * max(most + 1, int(minlength), 0)


@on_values(aten.repeat_interleave.Tensor)
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


@on_values(aten.unbind.int)
def _unbind(self: Any, dim: Any = 0) -> None:
    if self.dim():
        _pieces(self.shape[dim])


@on_values(aten.split.Tensor, aten.unsafe_split.Tensor)
def _split(self: Any, split_size: Any, dim: Any = 0) -> None:
    if self.dim() and split_size > 0:
        _pieces(-(-self.shape[dim] // split_size))
