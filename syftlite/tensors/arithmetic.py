"""How the ring elements below a FixedPrecisionTensor are multiplied and compared.

`arithmetic(x, y)` is that of the operand that has one of its own (shares: remote/arithmetic.py), or `PLAIN`: torch on int64, here or at a
worker. Both have the same methods. ``f``: bits to divide a result by;
``low``: where the bits lie that a comparison of shares looks at (tensors/comparing.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional as F
from torch.nn.grad import conv2d_input, conv2d_weight

from syftlite.tensors.plain_functions import PlainFunctions

Pair = tuple[int, int]


class Plain(PlainFunctions):
    """int64 tensors whose values somebody has, here or behind a pointer. Dividing rounds to the nearest, halves up."""

    def check(self, *operands: Any) -> None:
        """Raises where operands cannot meet, before a product of them waits."""

    def truncate(self, x: Any, f: int) -> Any:
        """x / 2^f."""
        return torch.div(x + (1 << (f - 1)), 1 << f, rounding_mode="floor") if f else x

    def quotient(self, x: Any, divisor: int) -> Any:
        """x / divisor."""
        return torch.div(x + divisor // 2, divisor, rounding_mode="floor")

    def mul(self, x: Any, y: Any, f: int) -> Any:
        """x * y / 2^f."""
        return self.truncate(x * y, f)

    def matmul(self, x: Any, y: Any, f: int) -> Any:
        """x @ y / 2^f."""
        return self.truncate(torch.matmul(x, y), f)

    def conv2d(self, x: Any, w: Any, f: int, *, stride: Pair, padding: Pair, dilation: Pair, groups: int) -> Any:
        """A convolution, exact up to sums of 2^53."""
        return self._rounded(F.conv2d(x.double(), w.double(), None, stride, padding, dilation, groups), f)

    def conv2d_input_grad(self, g: Any, w: Any, f: int, *, size: Pair, **how: Any) -> Any:
        """Its gradient for an image of ``size``."""
        shape = (g.shape[0], w.shape[1] * how["groups"], *size)
        return self._rounded(conv2d_input(shape, w.double(), g.double(), **how), f)

    def conv2d_weight_grad(self, x: Any, g: Any, f: int, *, size: Pair, **how: Any) -> Any:
        """Its gradient for a kernel of ``size``."""
        shape = (g.shape[1], x.shape[1] // how["groups"], *size)
        return self._rounded(conv2d_weight(x.double(), shape, g.double(), **how), f)

    def _rounded(self, x: Any, f: int) -> Any:
        return self.truncate(x.round().long(), f)

    def less(self, x: Any, y: Any, f: int = 0, invert: bool = False, low: int = -1) -> Any:
        """2^f where x < y, else 0; inverted where x >= y."""
        return (x >= y if invert else x < y).long() * (1 << f)

    def zero(self, x: Any) -> Any:
        """1 where x = 0, else 0."""
        return (x == 0).long()

    def relu(self, x: Any, f: int, low: int = -1) -> Any:
        """max(x, 0) / 2^f."""
        return self.truncate(x.clamp(min=0), f)

    def relu_and_mask(self, x: Any, f: int, low: int = -1) -> Any:
        """The same, and 1 where x >= 0."""
        return self.relu(x, f), (x >= 0).long()

    def max_pool2d(self, x: Any, kernel: Pair, stride: Pair, padding: Pair, f: int, relu: bool, low: int = -1) -> Any:
        """Maxima of windows, then relu, then / 2^f."""
        best = F.max_pool2d(x.double(), kernel, stride, padding).long()
        return self.relu(best, f) if relu else self.truncate(best, f)

    def max_pool2d_and_mask(self, x: Any, kernel: Pair, stride: Pair, padding: Pair, low: int = -1) -> Any:
        """Maxima of windows, and where in the window they were, one-hot."""
        n, c = x.shape[:2]
        padded = F.pad(x.double(), (padding[1], padding[1], padding[0], padding[0]), value=-torch.inf)
        windows = padded.unfold(2, kernel[0], stride[0]).unfold(3, kernel[1], stride[1]).reshape(n, c, -1, kernel[0] * kernel[1])
        best, place = windows.max(-1)
        out = ((x.shape[i + 2] + 2 * padding[i] - kernel[i]) // stride[i] + 1 for i in (0, 1))
        rows, columns = out
        mask = torch.nn.functional.one_hot(place, kernel[0] * kernel[1])
        return best.long().view(n, c, rows, columns), mask.view(n, c, rows, columns, -1)

    def max_pool2d_grad(self, g: Any, mask: Any, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        """The gradient for the image."""
        spread = (g.unsqueeze(-1) * mask).flatten(2, 3).transpose(2, 3).flatten(1, 2)
        return F.fold(spread.double(), size, kernel, 1, padding, stride).long()

    def max(self, x: Any, dim: int, low: int = -1) -> Any:
        """Maxima over one axis."""
        return x.amax(dim)

    def max_and_mask(self, x: Any, dim: int, low: int = -1) -> Any:
        """(maxima, one-hot over the axis, index)."""
        best, place = x.max(dim)
        mask = F.one_hot(place, x.shape[dim]).movedim(-1, dim)
        return best, mask, place


PLAIN = Plain()


def arithmetic(*operands: Any) -> Any:
    """The arithmetic of the first operand that has one of its own."""
    for operand in operands:
        own = getattr(operand, "arithmetic", None)
        if own is not None:
            return own
    return PLAIN
