"""Adam and AdamW on shared parameters: moments are shared; what only counts steps is public, at every holder, where a plan can update it.

    G  = g / unit                                      the unit is the layer's 1 / scale
    M <- M + (1 - b1) (2^8 G - M)                      V <- V + (1 - b2) (2^8 G^2 - V)                (Kingma & Ba 2015, algorithm 1)
    W  = 2^-8 V / (1 - b2^t), and 2^-24 of it where that is 2^29 or more: roots are right from 2^4 to 2^30
    p <- p - unit lr / (1 - b1^t) 2^-8 M / (sqrt(W) + eps / unit), or 2^-8 of M and of eps

V is of squares, in units of 2^-8 of the unit's square: with the layer's own precision nothing would be left of gradients below 2^-8. 1 - b
has 11 binary digits. b^t are doubles at each holder, made by single products, quotients and roundings, which IEEE 754 fixes, so all holders
multiply by the same whole numbers. Parameters take their steps in lockstep: in a plan their kernels share rounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from syftlite.errors import Misuse
from syftlite.remote.multi import MultiPointerTensor
from syftlite.remote.shared_ops import public
from syftlite.remote.sharing import AdditiveSharingTensor
from syftlite.tensors.fixed import FixedPrecisionTensor
from syftlite.tensors.waiting import Waiting

Fixed = FixedPrecisionTensor
Ring = AdditiveSharingTensor
EXTRA = 8
"""Bits of the moments below the unit, and below its square."""
DIGITS = 11
"""Binary digits of 1 - b."""
BELOW = 12
"""Bits after the point of the public 1 / (1 - b2^t)."""
LARGE = 1 << 29
"""W from which on another 16 bits are cut off."""
CUT = 16
STEP_BITS = 16
"""Of the public factor lr / unit / (1 - b1^t), at the first step, where it is largest."""
ROOT = 20
"""Bits after the point that the root computes with: of W it gives 2^30 W^(-1/2), or 2^10 W^(1/2)."""
AHEAD, QUOTIENT = 8, 18
"""Bits that M is moved ahead of its quotient, which should be large, and bits after that one's point."""


COARSE = (
    torch.optim.RMSprop, torch.optim.NAdam, torch.optim.RAdam, torch.optim.Adagrad, torch.optim.Adadelta, torch.optim.Adamax,
)  # fmt: skip
"""Optimizers that keep squares of gradients, or divide by their magnitude, and have no form of their own here."""


class Fraction(NamedTuple):
    """above / 2^bits."""

    above: int
    bits: int

    @classmethod
    def of(cls, x: float) -> Fraction:
        """0 < x <= 1 to `DIGITS` digits of its own."""
        bits = DIGITS - math.frexp(x)[1]
        return cls(round(x * 2.0**bits), bits)

    def __float__(self) -> float:
        return self.above / 2.0**self.bits


def _start(state: dict[str, Any], p: Fixed, group: Any, betas: Sequence[Fraction], amsgrad: bool) -> None:
    """The state of a parameter before its first step on shares; what steps in the open have left of it goes on."""
    unit, square = float(p.scale << EXTRA), float(p.scale**2 << EXTRA)
    count = float(state.get("step", 0))
    names = {"exp_avg": unit, "exp_avg_sq": square, **({"max_exp_avg_sq": square} if amsgrad else {})}
    for name, scale in names.items():
        before = state.get(name)
        value = torch.zeros(p.shape) if before is None else before.detach()
        state[name] = Ring.known((value.double() * scale).round().long(), group)
    for name, value in (("step", count), *((f"power{i}", (1 - float(beta)) ** count) for i, beta in enumerate(betas, 1))):
        state[name] = public(torch.tensor(value, dtype=torch.float64), group)


def _inverse(power: Tensor, times: float) -> Tensor:
    """times / (1 - power), a whole number at each holder."""
    return ((1 - power).reciprocal() * times).round().long()


def _times(x: Ring, factor: Tensor) -> Ring:
    """Each holder's share times what all of them know."""
    return type(x).around(x._child * factor, **x.attributes())


def _moments(g: Ring, state: dict[str, Any], betas: Sequence[Fraction], amsgrad: bool) -> Iterator[None]:
    """One gradient more in the moments."""
    arithmetic = g.arithmetic
    m, v = state["exp_avg"], state["exp_avg_sq"]
    half = g * (1 << EXTRA // 2)
    moved, square = arithmetic.truncate((g * (1 << EXTRA) - m) * betas[0].above, betas[0].bits), arithmetic.mul(half, half, 0)
    yield  # what is written to is read first, by both kernels
    m += moved
    v += arithmetic.truncate((square - v) * betas[1].above, betas[1].bits)
    yield
    if amsgrad:
        state["max_exp_avg_sq"] += arithmetic.relu(v - state["max_exp_avg_sq"], 0)
        yield


def _update(p: Fixed, grad: Fixed, state: dict[str, Any], options: dict[str, Any]) -> Iterator[Any]:
    """None after each kernel that the next one waits for, then what is subtracted from ``p``, but for decoupled weight decay."""
    arithmetic = (p if p.is_secret else grad)._child.arithmetic
    group = arithmetic.group
    betas = [Fraction.of(1 - float(beta)) for beta in options["betas"]]
    if not isinstance(state.get("step"), MultiPointerTensor):
        _start(state, p, group, betas, options["amsgrad"])
    state["step"].add_(1)
    powers = [state[f"power{i}"].mul_(1 - float(beta)) for i, beta in enumerate(betas, 1)]
    g: Any = grad._child if grad.is_secret else Ring.known(grad._child, group)
    yield from _moments(-g if options["maximize"] else g, state, betas, options["amsgrad"])
    m, v = state["exp_avg"], state["max_exp_avg_sq" if options["amsgrad"] else "exp_avg_sq"]
    raw, f = _times(v, _inverse(powers[1], 2.0**BELOW)), BELOW + EXTRA
    large = arithmetic.less(raw - (LARGE << f), 0, invert=True)
    small, cut, less = (arithmetic.truncate(x, bits) for x, bits in ((raw, f), (raw, f + CUT), (m, CUT // 2)))
    yield
    w, m = (x + arithmetic.mul(large, y - x, 0) for x, y in ((small, cut), (m, less)))
    yield
    eps = options["eps"] * p.scale  # in units; of less than half of one it is none
    (root,) = arithmetic.roots(w, ROOT, ("sqrt" if eps > 0.5 else "rsqrt",))
    yield
    if eps > 0.5:
        added, bits = round(eps * 2 ** (ROOT // 2)), EXTRA + AHEAD + QUOTIENT - ROOT // 2
        ratio = arithmetic.divide(m * (1 << AHEAD), root + added - large * (added - (added >> CUT // 2)), QUOTIENT, signed=False)
    else:
        ratio, bits = arithmetic.mul(m, root, 0), EXTRA + 3 * ROOT // 2
    yield
    first = float(betas[0])
    rate = float(options["lr"]) * p.scale
    more = STEP_BITS - math.frexp(rate / first)[1]
    moved = arithmetic.truncate(_times(ratio, _inverse(powers[0], rate * 2.0**more)), bits + more)
    yield Fixed.of(Waiting(moved), p.attributes())


def _secret(p: Any) -> bool:
    """Whether its step is one on shares."""
    return isinstance(p, Fixed) and isinstance(p.grad, Fixed) and (p.is_secret or p.grad.is_secret)


def _shared(optimizer: torch.optim.Optimizer) -> Iterator[tuple[dict[str, Any], Any]]:
    """Its (options, parameter) that are to be stepped on shares. Raises `Misuse` for an optimizer that would lose small gradients."""
    if isinstance(optimizer, COARSE) and any(_secret(p) for options in optimizer.param_groups for p in options["params"]):
        raise Misuse(
            f"{type(optimizer).__name__} divides by what it keeps of gradients, and at the precision of shares that is zero of small ones: "
            "use torch.optim.Adam or AdamW, whose second moments have 40 bits here, or SGD"
        )
    if isinstance(optimizer, torch.optim.Adam):
        for options in optimizer.param_groups:
            yield from ((options, p) for p in options["params"] if _secret(p))


def _decayed(p: Any, grad: Any, options: dict[str, Any]) -> Any:
    """The gradient, with weight decay that is not decoupled."""
    decay = 0 if options["decoupled_weight_decay"] else options["weight_decay"]
    return grad + p * decay if decay else grad


def _lockstep(updates: Sequence[Iterator[Any]]) -> list[Any]:
    """The last that each yields, all of them going on in turns."""
    found: list[Any] = [None] * len(updates)
    while any(moved is None for moved in found):
        found = [next(update, done) for update, done in zip(updates, found, strict=True)]
    return found


def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
    """Before a step: make that of shared parameters, and put their gradients away, so that torch's own step leaves them out."""
    changed: tuple[Any, Any] | None = None
    closure = args[1] if len(args) > 1 else kwargs.get("closure")
    if closure is not None and any(isinstance(p, Fixed) for options in optimizer.param_groups for p in options["params"]):
        with torch.enable_grad():
            loss = closure()
        changed = (args[0], lambda: loss), {}
    with torch.no_grad():
        away = [(p, p.grad, options) for options, p in _shared(optimizer)]
        updates = [_update(p, _decayed(p, grad, options), optimizer.state[p], options) for p, grad, options in away]
        for (p, _, options), moved in zip(away, _lockstep(updates), strict=True):
            decay = options["weight_decay"] if options["decoupled_weight_decay"] else 0
            p.sub_(moved + p * (float(options["lr"]) * decay) if decay else moved)
            p.grad = None
    optimizer.__dict__["_away"] = away
    return changed


def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """After it: give them their gradients back."""
    for p, grad, _ in optimizer.__dict__.pop("_away", ()):
        p.grad = grad


__all__ = ["after", "before"]
