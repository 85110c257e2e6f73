"""Grids by their specs, orders and chances by value."""

from __future__ import annotations

from typing import Any

import torch

from syftlite._torch import aten, unmapped
from syftlite.engine.bounds.rules import need, on_shapes, on_values
from syftlite.ops.drawing import in_turn
from syftlite.ops.infer import infer
from syftlite.ops.table import BY_FUNC

_GRIDS = (aten.grid_sampler_2d, aten.grid_sampler_3d)


@on_shapes(*(grid.default for grid in _GRIDS))
def _grid(input: Any, grid: Any, interpolation_mode: Any, padding_mode: Any, align_corners: Any) -> None:
    modes = 3 if len(input.shape) == 4 else 2
    if not (0 <= interpolation_mode < modes and 0 <= padding_mode < 3):
        raise ValueError(f"a grid's interpolation is from 0 to {modes - 1}, its padding from 0 to 2")
    if input.dtype is not grid.dtype:
        raise RuntimeError(f"a grid is of its input's dtype {input.dtype}, not {grid.dtype}")


@on_shapes(*(getattr(aten, grid._qualified_op_name.removeprefix("aten::") + "_backward").default for grid in _GRIDS))
def _grid_backward(grad_output: Any, input: Any, grid: Any, output_mask: Any, **modes: Any) -> None:
    _grid(input, grid, **modes)
    func = aten.grid_sampler_2d.default if len(input.shape) == 4 else aten.grid_sampler_3d.default
    need("grad_output", grad_output, infer(BY_FUNC[func], [input, grid, *modes.values()], {}).shape)  # type: ignore[union-attr]
    if grad_output.dtype is not input.dtype:
        raise RuntimeError(f"a gradient is of its input's dtype {input.dtype}, not {grad_output.dtype}")


# -- orders, and chances


@on_values(aten.mode.default, aten.unique_dim.default)
def _ordered(self: Any, **_: Any) -> None:
    """NaN has no place in an order: a sort by it may leave its memory."""
    if self.dtype.is_floating_point and bool(unmapped(self).isnan().any().item()):
        raise RuntimeError("NaN has no place in an order: replace it first")


@on_values(aten.multinomial.default)
def _weights(self: Any, num_samples: Any, replacement: Any = False) -> None:
    weights = unmapped(self)
    if not weights.dtype.is_floating_point:
        return  # refused
    fine = (weights >= 0) & weights.isfinite()
    if not bool(fine.all().item()) or not bool((weights.sum(-1) > 0).all().item()):
        in_turn(torch.multinomial)(torch.ones_like(weights), num_samples, replacement)  # as many random numbers as success takes
        raise RuntimeError("chances are finite, not negative, and some of each row positive")
