"""FixedPrecisionTensor: real numbers as ring elements. It says float32; the value is `child` / scale, with scale = base ** precision.

    x.fix_precision()                  2**16: every float of magnitude 2**-16 ... 2**30 to within 2**-17
    x.fix_precision(base=10, precision_fractional=3)
    x.fix_precision().share(alice, bob, crypto_provider=carol)        the same, over shares

A product of two has the scale twice, and is divided by it when its value is needed. What waits to be done is kept, and done in the
cheapest order: a convolution waits for an average pool (which becomes part of it), a product for the division and the relu that follow
(one opening serves both), a relu for the max pool that shrinks what it must look at. `Waiting` is the whole of it: only the cost tells.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar, NamedTuple, NoReturn
from weakref import WeakSet, WeakValueDictionary

import torch

from syftlite._torch import make_wrapper
from syftlite.errors import Misuse
from syftlite.tensors.arithmetic import PLAIN, arithmetic
from syftlite.tensors.comparing import current, lowest_bit
from syftlite.tensors.wrapper import WrapperTensor

BASE, PRECISION = 2, 16
WIDTH = (18, 20)
"""Bits, at least and at most, of the factor that stands for 1 / divisor where the divisor is no power of two: its relative error."""
HEADROOM = 62
"""A value times the scale twice stays below 2^62."""
REACH = 20
"""What waits to be divided may have a value of up to 2^20 (or as products have it, where that is less)."""


def widest(scale: int) -> int:
    """The bits of the largest divisor that may wait: value * scale * divisor stays below 2^62."""
    bits = (scale - 1).bit_length()
    return HEADROOM - bits - min(REACH, HEADROOM - 2 * bits)


def largest(scale: int) -> float:
    """Where values end whose product still fits: 2^62 / scale^2."""
    return float(2.0 ** (HEADROOM - 2 * math.log2(scale)))


class Product(NamedTuple):
    """A product that nobody has asked for yet. ``issue(f)`` computes it, divided by 2^f; ``pooled(kernel, stride)`` gives the product
    with its windows summed, if it can absorb that."""

    ring: Any
    issue: Callable[[int], torch.Tensor]
    shape: torch.Size
    pooled: Callable[[tuple[int, int], tuple[int, int]], Product | None] = lambda kernel, stride: None

    def with_term(self, combine: Callable[[Any, Any], Any], term: Any, divisor: int, shape: torch.Size) -> Product:
        """``combine``(this product, a sum's other term) before the division by ``divisor`` that waits; of ring elements that have been
        divided already, where the whole division is one with the product: then that is one computation and not two."""

        def issue(f: int) -> torch.Tensor:
            if 1 << f == divisor:
                whole: torch.Tensor = combine(self.issue(f), term)
                return whole
            raw = combine(self.issue(0), term * divisor)
            divided: torch.Tensor = self.ring.truncate(raw, f) if f else raw
            return divided

        return Product(self.ring, issue, shape)


class Waiting(NamedTuple):
    """The value is relu?(max-pooled?(raw)) / divisor, where raw is a ring tensor or a `Product`."""

    raw: Any
    divisor: int = 1
    relu: bool = False
    pool: tuple[tuple[int, int], tuple[int, int], tuple[int, int]] | None = None
    bound: float | None = None
    """Of what relu and pool compare (tensors/comparing.py)."""


def bounded(waiting: Waiting) -> Waiting:
    """``waiting``, about to be compared: within the bound of the block that this is written in. Of two bounds the wider holds for both."""
    here = current()
    if waiting.relu or waiting.pool is not None:
        here = None if here is None or waiting.bound is None else max(here, waiting.bound)
    return waiting._replace(bound=here)


class Memory:
    """What a tensor and its views have in common."""

    __slots__ = ("values", "writes")

    def __init__(self) -> None:
        self.writes = 0  # in place, by anyone
        self.values: WeakSet[Value] | None = None  # that lie in it; None: one, which never had a view


class Value:
    """What a tensor and all that detaches from it have in common: whoever needs what waits first does it for all."""

    __slots__ = ("__weakref__", "memory", "waiting")

    def __init__(self, waiting: Waiting) -> None:
        self.waiting, self.memory = waiting, Memory()

    def viewed_by(self, view: Value) -> None:
        """Note that both lie in one memory."""
        if self.memory.values is None:
            self.memory.values = WeakSet((self,))
        view.memory = self.memory
        self.memory.values.add(view)

    @property
    def alone(self) -> bool:
        """Whether no view of it is alive, nor what it is a view of."""
        return self.memory.values is None or all(value is self for value in self.memory.values)


class FixedPrecisionTensor(WrapperTensor):
    """Ring elements that stand for real numbers. Make one with ``tensor.fix_precision()``."""

    level: ClassVar[int] = 20
    remedy: ClassVar[str] = "docs/encrypted.md lists what it knows; decrypt() the value to compute in the open"
    base: int
    precision_fractional: int
    _value: Value

    @classmethod
    def of(cls, waiting: Waiting | torch.Tensor, scheme: dict[str, Any], shape: torch.Size | None = None) -> FixedPrecisionTensor:
        """The tensor of a ring tensor, or of what will be one."""
        if isinstance(waiting, torch.Tensor):
            waiting = Waiting(waiting)
        raw = waiting.raw
        size = raw.shape if shape is None else shape
        strides = _contiguous(size) if shape is not None or isinstance(raw, Product) else raw.stride()
        offset = 0 if isinstance(raw, Product) or shape is not None else raw.storage_offset()
        wrapper: FixedPrecisionTensor = make_wrapper(cls, size, strides, offset, None, torch.float32)
        wrapper.__dict__.update(scheme)
        wrapper._value = Value(waiting)
        if isinstance(raw, Product) or waiting.relu or waiting.pool is not None:
            wrapper.reads_later()
        return wrapper

    @classmethod
    def around(cls, child: torch.Tensor, **attributes: Any) -> Any:
        """The layer around a ring tensor."""
        return cls.of(child, attributes)

    def attributes(self) -> dict[str, Any]:
        """Base and precision."""
        return {"base": self.base, "precision_fractional": self.precision_fractional}

    @property
    def scale(self) -> int:
        """What a value is multiplied by to give a ring element."""
        return int(self.base**self.precision_fractional)

    # -- what waits

    @property
    def _memory(self) -> Memory:
        return self._value.memory

    @property
    def _waiting(self) -> Waiting:
        return self._value.waiting

    @_waiting.setter
    def _waiting(self, waiting: Waiting) -> None:
        self._value.waiting = waiting

    @property
    def child(self) -> torch.Tensor:
        """The ring tensor, everything done."""
        self.adopt()
        found: torch.Tensor = self._child
        return found

    def disown(self) -> None:
        """Everything done; see `WrapperTensor`."""
        super().disown()
        _pending.pop(id(self), None)

    def reads_later(self) -> None:
        """Note that what waits reads memory of another tensor: `settle` has it done before that is written to."""
        _pending[id(self)] = self

    def aliased_by(self, alias: FixedPrecisionTensor) -> FixedPrecisionTensor:
        """``alias``, noted as a view of this tensor."""
        self._value.viewed_by(alias._value)
        return alias

    def viewable(self) -> Any:
        """The ring tensor, everything done, in this tensor's own order of memory: a view of it is one of this tensor."""
        child = self._child
        if child.stride() != self.stride() and self._value.alone:
            self._waiting = Waiting(child.contiguous())
        return self._child

    @property
    def ring(self) -> Any:
        """The arithmetic of its ring elements."""
        raw = self._waiting.raw
        return raw.ring if isinstance(raw, Product) else arithmetic(raw)

    @property
    def is_secret(self) -> bool:
        """Whether its ring elements are shares."""
        return self.ring is not PLAIN

    @property
    def _child(self) -> Any:
        """The ring tensor, everything done."""
        waiting = self._waiting
        if waiting.divisor != 1 or waiting.relu or waiting.pool is not None or isinstance(waiting.raw, Product):
            self._waiting = Waiting(_done(waiting, self.scale))
            _pending.pop(id(self), None)
        return self._waiting.raw

    @_child.setter
    def _child(self, child: torch.Tensor) -> None:
        self._waiting = Waiting(child)

    @property
    def divisor(self) -> int:
        """That of `linear`, which computes nothing to tell it."""
        waiting = self._waiting
        return 1 if waiting.relu or waiting.pool is not None else waiting.divisor

    @property
    def product(self) -> Product | None:
        """What is only a product so far, if it is."""
        waiting = self._waiting
        return waiting.raw if isinstance(waiting.raw, Product) and not waiting.relu and waiting.pool is None else None

    def linear(self) -> tuple[Any, int]:
        """(ring tensor, the divisor that waits): what linear operators may be applied to."""
        waiting = self._waiting
        if waiting.relu or waiting.pool is not None:
            return self._child, 1
        if isinstance(waiting.raw, Product):
            self._waiting = waiting = waiting._replace(raw=waiting.raw.issue(0))
            _pending.pop(id(self), None)
        return waiting.raw, waiting.divisor

    # -- to and from floats

    def float_precision(self) -> torch.Tensor:
        """The floats, where the ring elements are: of a shared tensor, get() first. Warns of values that no product can have."""
        child = self._child
        if self.is_secret:
            raise Misuse("a shared value becomes floats once it is reconstructed: get() first, or decrypt() for both")
        floats: torch.Tensor = (child.double() / self.scale).float()
        if type(floats) is torch.Tensor and (beyond := int((floats.abs() >= largest(self.scale)).sum())):
            warnings.warn(
                f"{beyond:,} of {floats.numel():,} values are {largest(self.scale):g} or more in magnitude, which no product at scale "
                f"{self.base}**{self.precision_fractional} can be: if they are no sums, something overflowed on the way to them",
                stacklevel=2,
            )
        return floats.requires_grad_() if self.requires_grad and self.is_leaf else floats

    decode = float_prec = float_precision

    def fix_precision(self, **options: Any) -> FixedPrecisionTensor:
        """Itself."""
        return self

    fix_prec = fix_precision

    def share(self, *workers: Any, requires_grad: bool = False, **options: Any) -> FixedPrecisionTensor:
        """This layer over shares of the ring elements."""
        shared: FixedPrecisionTensor = self.of(self._child.share(*workers, **options), self.attributes())
        if requires_grad or (self.requires_grad and self.is_leaf):
            shared.requires_grad_()
        return shared

    def get(self, *args: Any, **options: Any) -> Any:
        """This layer around the reconstructed ring elements, here."""
        found = self.of(self._child.get(*args, **options), self.attributes())
        if self.requires_grad and self.is_leaf:
            found.requires_grad_()
            grad: Any = self.grad
            found.grad = grad.get() if isinstance(grad, FixedPrecisionTensor) and grad.is_secret else grad
        return found

    reconstruct = get

    def tag(self, *tags: str) -> FixedPrecisionTensor:
        """Label it where its value is; shares, with how they are to be read."""
        self._child.tag(*tags, **({"scheme": self.attributes()} if self.is_secret else {}))
        return self

    def refresh(self) -> FixedPrecisionTensor:
        """This layer over a fresh sharing of the same value."""
        return self.of(self._child.refresh(), self.attributes())

    def copy(self) -> torch.Tensor:
        """Another tensor of the same value."""
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = super().__deepcopy__(memo)
        known = self.__dict__.get("_deviation")  # of a running variance: fixed_norm.py
        if known is not None and known.writes == self._memory.writes:
            twin.__dict__["_deviation"] = known._replace(writes=twin._memory.writes)
        return twin

    def decrypt(self, **options: Any) -> torch.Tensor:
        """The floats, here."""
        if self.is_secret:
            self._child.must_be_here()
        floats: torch.Tensor = self.get(**options).float_precision()
        return floats

    def tolist(self) -> Any:
        """The numbers."""
        return self.float_precision().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The numbers."""
        return self.detach().float_precision().numpy()  # type: ignore[attr-defined]

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        waits = isinstance(self._waiting.raw, Product) or self._waiting.divisor != 1 or self._waiting.relu or self._waiting.pool is not None
        child = "what it was made of: its value has not been asked for yet" if waits else repr(self._child).replace("\n", "\n    ")
        extras = ", requires_grad=True" if self.requires_grad else ""
        return f"FixedPrecisionTensor | {self.base}**-{self.precision_fractional}{extras}\n    -> {child}"


_pending: WeakValueDictionary[int, FixedPrecisionTensor] = WeakValueDictionary()  # by id: tensors have an == of their own


def settle() -> None:
    """Do all that waits, before something is written in place: it may have been computed from what is written to. What cannot be done, such
    as what waits for a node that is gone, is an error for those who read it."""
    for tensor in list(_pending.values()):
        ring = tensor.ring
        try:
            tensor._child  # noqa: B018
        except RuntimeError as failed:
            error = failed.with_traceback(None)
            error.__cause__ = error.__context__ = None
            tensor._waiting = Waiting(Product(ring, partial(_fail, error), tensor.shape))
            _pending.pop(id(tensor), None)


def _fail(error: RuntimeError, f: int) -> NoReturn:
    raise error.with_traceback(None)  # the frames of an earlier reader, and all that they hold, are not kept for this one


def fix_precision(
    tensor: torch.Tensor, base: int = BASE, precision_fractional: int | None = None, dtype: Any = None
) -> FixedPrecisionTensor:
    """``tensor`` (floats, here or behind a pointer) as ring elements of scale base ** precision_fractional: 2**16, or base**3 for another.

    ``dtype``: accepted if it names the one ring there is, Z_2^64. Raises ValueError for values that products would not fit.
    """
    if dtype not in (None, torch.int64, torch.long, "long"):
        raise Misuse(f"ring elements are 64 bits (torch.long), not {dtype}")
    precision = (PRECISION if base == BASE else 3) if precision_fractional is None else precision_fractional
    if type(base) is not int or type(precision) is not int or not fits(base, precision):
        raise Misuse(f"base {base} and precision {precision}: whole numbers from 2 and 0, and base ** precision at most 2^30")
    scheme = {"base": base, "precision_fractional": precision}
    scale = base**precision
    plain = tensor.detach()
    if plain.is_complex():
        raise Misuse("complex numbers have no fixed precision: torch.view_as_real() gives their parts")
    if type(plain) is torch.Tensor:
        limit = largest(scale)
        worst = float(plain.abs().max()) if plain.numel() else 0.0
        if not worst < limit:
            raise ValueError(
                f"a value of magnitude {worst:g} does not fit: products of scale {base}**{precision} stay below {limit:g}. "
                "Use less precision, or smaller numbers"
            )
    fixed = FixedPrecisionTensor.of((plain.double() * scale).round().long(), scheme)
    if tensor.requires_grad:
        fixed.requires_grad_()
    return fixed


def fits(base: int, precision: int) -> bool:
    """Whether there is such a scale."""
    return base >= 2 and precision >= 0 and base**precision <= 1 << 30


def _contiguous(shape: torch.Size) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _done(waiting: Waiting, scale: int) -> torch.Tensor:
    """The ring tensor that ``waiting`` stands for."""
    raw, divisor, relu, pool, bound = waiting
    f = divisor.bit_length() - 1
    if divisor & (divisor - 1):  # no power of two: divide by 2^first, multiply by 2^f 2^first / divisor, divide by 2^f
        bits, most = divisor.bit_length(), widest(scale)
        width = min(WIDTH[1], max(WIDTH[0], most - bits))
        first = max(0, width + bits - most)
        f = width + bits - first
        raw = raw.issue(first) if isinstance(raw, Product) else arithmetic(raw).truncate(raw, first)
        raw = raw * round((1 << (f + first)) / divisor)
    elif isinstance(raw, Product):
        if not relu and pool is None:
            return raw.issue(f)
        raw = raw.issue(0)
    ring = arithmetic(raw)
    if pool is not None:
        pooled: torch.Tensor = ring.max_pool2d(raw, *pool, f, relu, lowest_bit(bound, scale << f, padded=any(pool[2])))
        return pooled
    done: torch.Tensor = ring.relu(raw, f, lowest_bit(bound, scale << f)) if relu else ring.truncate(raw, f)
    return done


__all__ = ["FixedPrecisionTensor", "Product", "Waiting", "bounded", "fix_precision", "settle", "widest"]
