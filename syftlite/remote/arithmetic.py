"""How shared ring elements are multiplied and compared: the face that FixedPrecisionTensor computes through (tensors/arithmetic.py).

An operand is shared or public; a public one times a shared one takes no message between the holders. ``f``: bits to divide the result
by, in the same kernel. ``low``: where the 32 bits lie that a comparison looks at, -1 for all (tensors/comparing.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from syftlite.errors import PlanError, TensorsNotCollocatedError
from syftlite.remote.custody import joined
from syftlite.remote.group import FixedShares, Group
from syftlite.remote.shared_functions import SharedFunctions

if TYPE_CHECKING:
    from syftlite.remote.sharing import AdditiveSharingTensor

Pair = tuple[int, int]


def apart(here: Group, there: Group) -> Exception:
    """The error for operands of two groups."""
    if here.records or there.records:
        return PlanError("a plan uses something shared that is neither among its inputs nor in its state: name it in func2plan(state=...)")
    alike = "share() both among the same workers, in one order, with one crypto_provider"
    return TensorsNotCollocatedError(f"one operand is shared in {here}, another in {there}: {alike}")


class SharedArithmetic(SharedFunctions):
    """Arithmetic of tensors shared in ``group``."""

    def __init__(self, group: Group, layer: type[AdditiveSharingTensor]) -> None:
        self.group, self.layer = group, layer

    def _run(self, name: str, /, *operands: Any, **static: Any) -> Any:
        given = [o if isinstance(o, FixedShares) else self._shared(o).shares for o in operands]
        custody = joined(operands)
        computed = self.group.compute(name, given, **static)
        results = [r._replace(custody=custody) if isinstance(r, FixedShares) else self.layer.of(r, self.group, custody) for r in computed]
        return results[0] if len(results) == 1 else tuple(results)

    def _shared(self, x: Any) -> AdditiveSharingTensor:
        if type(x) is torch.Tensor:
            return self.known(x)
        if not isinstance(x, self.layer):
            raise TypeError(f"a shared tensor is needed here, not {type(x).__name__}")
        if x._group is not self.group:
            raise apart(self.group, x._group)
        return x

    def known(self, value: torch.Tensor) -> AdditiveSharingTensor:
        """Shares of what is public, which need no secret."""
        return self.layer.known(value, self.group)

    def check(self, *operands: Any) -> None:
        """Raises where operands cannot meet, before a product of them waits."""
        for operand in operands:
            if isinstance(operand, self.layer):
                self._shared(operand)

    def _public(self, *operands: Any) -> bool:
        return not all(isinstance(o, self.layer) for o in operands)

    # -- products

    def truncate(self, x: Any, f: int) -> Any:
        """x / 2^f, rounded up with probability (x mod 2^f) / 2^f."""
        return self._run("truncate", x, f=f) if f else x

    def quotient(self, x: Any, divisor: int) -> Any:
        """x / divisor, which is no power of two."""
        return self._run("quotient", x, divisor=divisor)

    def mul(self, x: Any, y: Any, f: int) -> Any:
        """x * y / 2^f, broadcasting."""
        if self._public(x, y):
            return self.truncate(x * y, f)
        return self._run("square", x, f=f) if x is y else self._run("mul", x, y, f=f)

    def matmul(self, x: Any, y: Any, f: int) -> Any:
        """x @ y / 2^f."""
        return self.truncate(torch.matmul(x, y), f) if self._public(x, y) else self._run("matmul", x, y, f=f)

    @property
    def fixes(self) -> bool:
        """Whether weights are fixed now: not while a plan is recorded, which would fix them again in each call."""
        return not self.group.records

    def fix(self, weight: Any) -> Any:
        """``weight`` masked and opened once."""
        return self._run("fix_weight", weight)

    @property
    def epoch(self) -> int:
        """Of the group, which is joined."""
        return self.group.join()

    def fresh(self, made: Any) -> bool:
        """Whether ``made``, a fixed weight or a term, is still of use: not once the group was joined anew."""
        return bool(made.epoch == self.epoch)

    def linear(self, x: Any, weight: Any, f: int) -> Any:
        """x @ weight / 2^f."""
        return self._run("linear", x, weight, f=f)

    def conv2d_fixed(self, x: Any, weight: Any, f: int, **static: Any) -> Any:
        """A convolution with a fixed weight; ``pool`` sums its windows."""
        return self._run("conv2d_fixed", x, weight, f=f, **static)

    def conv2d(self, x: Any, w: Any, f: int, **static: Any) -> Any:
        """A convolution of two secrets."""
        return self._run("conv2d", x, w, f=f, **static)

    def conv2d_input_grad(self, g: Any, w: Any, f: int, **static: Any) -> Any:
        """Its gradient for the image."""
        return self._run("conv2d_input_grad", g, w, f=f, **static)

    def conv2d_weight_grad(self, x: Any, g: Any, f: int, **static: Any) -> Any:
        """Its gradient for the kernel."""
        return self._run("conv2d_weight_grad", x, g, f=f, **static)

    # -- comparisons

    def less(self, x: Any, y: Any, f: int = 0, invert: bool = False, low: int = -1) -> Any:
        """2^f where x < y, else 0; inverted where x >= y."""
        if self._public(x, y):
            return self._run("negative", x - y, f=f, invert=int(invert), low=low)
        return self._run("less", x, y, f=f, invert=int(invert), low=low)

    def zero(self, x: Any) -> Any:
        """1 where x = 0, else 0."""
        return self._run("equal_zero", x)

    def relu(self, x: Any, f: int, low: int = -1) -> Any:
        """max(x, 0) / 2^f."""
        return self._run("relu", x, f=f, low=low)

    def relu_and_mask(self, x: Any, f: int, low: int = -1) -> Any:
        """The same, and 1 where x >= 0."""
        return self._run("relu_and_mask", x, f=f, low=low)

    def max_pool2d(self, x: Any, kernel: Pair, stride: Pair, padding: Pair, f: int, relu: bool, low: int = -1) -> Any:
        """Maxima of windows, then relu, then / 2^f."""
        return self._run("max_pool2d", x, kernel=kernel, stride=stride, padding=padding, f=f, relu=int(relu), low=low)

    def max_pool2d_and_mask(self, x: Any, kernel: Pair, stride: Pair, padding: Pair, low: int = -1) -> Any:
        """Maxima of windows, and where in the window they were, one-hot."""
        return self._run("max_pool2d_and_mask", x, kernel=kernel, stride=stride, padding=padding, low=low)

    def max_pool2d_grad(self, g: Any, mask: Any, size: Pair, kernel: Pair, stride: Pair, padding: Pair) -> Any:
        """The gradient for the image."""
        return self._run("max_pool2d_grad", g, mask, size=size, kernel=kernel, stride=stride, padding=padding)

    def max(self, x: Any, dim: int, low: int = -1) -> Any:
        """Maxima over one axis."""
        return self._run("max", x, dim=dim, low=low)

    def max_and_mask(self, x: Any, dim: int, low: int = -1) -> Any:
        """(maxima, one-hot over the axis, index)."""
        return self._run("max_and_mask", x, dim=dim, low=low)


class ReplicatedArithmetic(SharedArithmetic):
    """Arithmetic of replicated shares: a product takes no masks of its factors, so a fixed weight is its shares."""

    fixes = True

    def fix(self, weight: Any) -> Any:
        """``weight`` itself."""
        return weight

    def fresh(self, made: Any) -> bool:
        """Shares last, whoever joined anew; a term that was made of them does not, for it may have failed."""
        return isinstance(made, self.layer) or super().fresh(made)
