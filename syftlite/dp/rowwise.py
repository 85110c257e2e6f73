"""A loss of one row, run on all rows at once: where every function that it calls treats rows apart, none is mapped over them.

    data, whose rows are examples  --functions of ROWWISE alone-->  one loss a row

What is called here gives row i of its result from row i of its operands, and from parameters; so the i-th loss is the i-th row's, as it
would be by itself, and the map over rows (clipping.py), which costs more than small layers do, is not needed. Anything else is `Mixed`:
another function, another operand, a property that is looked at, a result that is no function's last. Then the map decides.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from syftlite.dp.layers import RULES, Use

LAYERS = frozenset({F.linear, torch.conv1d, torch.conv2d})
"""Of `RULES`, those whose operand of two dimensions or more has rows in its first."""
ELEMENTWISE = frozenset({
    torch.relu, Tensor.relu, F.relu, torch.tanh, Tensor.tanh, F.tanh, torch.sigmoid, Tensor.sigmoid, F.sigmoid,
    F.gelu, F.silu, F.elu, F.leaky_relu, F.softplus, F.hardtanh,
})  # fmt: skip
POOLS = {F.max_pool2d: 6, torch.max_pool2d: 6, F.avg_pool2d: 7}
"""Of (n, channels, height, width), with so many arguments at most: a seventh would have a maximum pool give its indices, too."""


class Mixed(Exception):
    """Something is called that may treat rows together."""


class Rows(TorchFunctionMode):
    """Notes the layers that rows pass through. Raises `Mixed`, and remembers it."""

    maps = False

    def __init__(self, places: dict[int, int], data: Sequence[Tensor]) -> None:
        super().__init__()
        self.places, self.count = places, data[0].shape[0]
        self.rows = {id(tensor): tensor for tensor in data}  # with the tensors, so that their ids stay their own
        self.uses: list[Use] = []
        self.losses: Tensor | None = None
        self.mixed = False

    def place(self, value: Any) -> int | None:
        """The place of ``value`` among the parameters."""
        return self.places.get(id(value))

    def turned(self, value: Any) -> None:
        """None: transposes of parameters are not looked for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.mixed or self.losses is not None or not args or id(args[0]) not in self.rows or not torch.is_grad_enabled():
            raise self._mixed()
        if func in LAYERS and args[0].dim() >= 2:
            return self._layer(func, args, kwargs)
        if func in LOSSES:
            self.losses = LOSSES[func](self, *args, **kwargs)
            return self.losses
        rest = (*args[1:], *kwargs.values())
        if func in ELEMENTWISE:
            apart = not any(isinstance(value, Tensor) or value is True for value in rest)  # True: in place
        elif func in POOLS:
            apart = args[0].dim() == 4 and len(args) <= POOLS[func] and not kwargs.get("return_indices")
        else:
            apart = _keeps_rows(func, args, kwargs)
        if not apart:
            raise self._mixed()
        return self._row(func(*args, **kwargs))

    def _layer(self, func: Any, args: Any, kwargs: Any) -> Tensor:
        applied = RULES[func](self, *args, **kwargs)
        if applied is None:
            raise self._mixed()
        use, x, out = applied
        self.uses.append(use)
        if func is F.linear:  # whose operands may have any number of axes
            use.x, use.out = x.detach(), out
            return self._row(out)
        use.x, use.out = x.detach().unsqueeze(1), out.unsqueeze(1)
        return self._row(use.out.squeeze(1))

    def _row(self, out: Tensor) -> Tensor:
        if out.shape[0] != self.count:
            raise self._mixed()
        self.rows[id(out)] = out
        return out

    def _mixed(self) -> Mixed:
        self.mixed = True
        return Mixed()

    def target(self, value: Any) -> Tensor:
        """``value``, which has a row for each."""
        if id(value) not in self.rows:
            raise self._mixed()
        found: Tensor = value
        return found


def _keeps_rows(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether it only shapes each row anew."""
    if kwargs:
        return False
    if func in (torch.flatten, Tensor.flatten):
        return args[1:] in ((1,), (1, -1))
    return func in (Tensor.view, Tensor.reshape) and len(args) > 2 and args[1] == -1 and all(type(a) is int and a > 0 for a in args[2:])


def _cross_entropy(rows: Rows, scores: Tensor, target: Any, **options: Any) -> Tensor:
    target = rows.target(target)
    if not _by_default(options) or scores.dim() != 2 or target.dim() != 1 or target.dtype != torch.int64:
        raise rows._mixed()
    return F.cross_entropy(scores, target, reduction="none")


def _by_default(options: dict[str, Any]) -> bool:
    return all(name in _DEFAULTS and type(value) is type(_DEFAULTS[name]) and value == _DEFAULTS[name] for name, value in options.items())


_DEFAULTS = {"weight": None, "size_average": None, "ignore_index": -100, "reduce": None, "reduction": "mean", "label_smoothing": 0.0}


def _mse_loss(rows: Rows, out: Tensor, target: Any, **options: Any) -> Tensor:
    target = rows.target(target)
    if not _by_default(options) or out.shape != target.shape:
        raise rows._mixed()
    squares = F.mse_loss(out, target, reduction="none")
    return squares.flatten(1).mean(1) if squares.dim() > 1 else squares


LOSSES: dict[Any, Callable[..., Tensor]] = {F.cross_entropy: _cross_entropy, F.mse_loss: _mse_loss}
"""The last function, of a row's result and its target, one number a row."""


def run(loss: Callable[..., Tensor], data: Sequence[Tensor], places: dict[int, int]) -> tuple[Tensor, list[Use]]:
    """(the loss of each row, the uses of parameters). Raises `Mixed` unless all that ``loss`` calls keeps rows apart."""
    rows = Rows(places, data)
    with torch.enable_grad(), rows:
        value = loss(*data)
    if rows.mixed or rows.losses is None or value is not rows.losses:
        raise Mixed
    return rows.losses, rows.uses
