"""The functions of arithmetic.py on shares: each one kernel of mpc/function_kernels.py. ``f``: bits after the point."""

from __future__ import annotations

from typing import Any

from syftlite.tensors.plain_functions import CURVES, ROOTS


class SharedFunctions:
    """Functions of shared tensors that stand for real numbers."""

    def _run(self, name: str, /, *operands: Any, **static: Any) -> Any:
        raise NotImplementedError

    def exp(self, x: Any, f: int) -> Any:
        """e^x: -109 <= x <= 10."""
        return self._run("exp", x, f=f)

    def curve(self, x: Any, f: int, name: str, slope: bool) -> tuple[Any, ...]:
        """(one of `CURVES`, and its derivative if ``slope``)."""
        return _several(self._run("curve", x, f=f, which=CURVES[name][0], slope=int(slope)))

    def roots(self, x: Any, f: int, names: tuple[str, ...], signed: bool = False) -> tuple[Any, ...]:
        """Those of `ROOTS`, in their order."""
        return _several(self._run("roots", x, f=f, what=sum(1 << i for i, name in enumerate(ROOTS) if name in names), signed=int(signed)))

    def divide(self, x: Any, y: Any, f: int, signed: bool = True) -> Any:
        """x / y."""
        return self._run("divide", x, y, f=f, signed=int(signed))

    def softmax(self, x: Any, f: int, dim: int, soft: bool, log: bool) -> tuple[Any, ...]:
        """(softmax, its logarithm): those that are wanted."""
        return _several(self._run("softmax", x, f=f, dim=dim, what=int(soft) + 2 * int(log)))

    def one_hot(self, x: Any, count: int) -> Any:
        """(..., count): 1 where x = 0, 1, ..."""
        return self._run("one_hot", x, count=count)

    def sort(self, x: Any, dim: int, low: int = -1) -> tuple[Any, Any, Any]:
        """(ascending, places before, permutation (..., n, n) of the axis put last)."""
        ordered, places, moved = self._run("sort", x, dim=dim, low=low)
        return ordered, places, moved


def _several(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)
