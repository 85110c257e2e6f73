"""FixedPrecisionTensor: real numbers as ring elements. It says float32; the value is `child` / scale, with scale = base ** precision.

    x.fix_precision()                  2**16: every float of magnitude 2**-16 ... 2**30 to within 2**-17
    x.fix_precision(base=10, precision_fractional=3)
    x.fix_precision().share(alice, bob, crypto_provider=carol)        the same, over shares

A product of two has the scale twice, and is divided by it when its value is needed. What waits to be done is kept, and done in the
cheapest order: a convolution waits for an average pool (which becomes part of it), a product for the division and the relu that follow
(one opening serves both), a relu for the max pool that shrinks what it must look at (waiting.py). Only the cost tells.
"""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any, ClassVar, NoReturn
from weakref import WeakValueDictionary

import torch

from syftlite._torch import make_wrapper, ready
from syftlite.errors import Misuse
from syftlite.ops.encoding import encode, fits, largest
from syftlite.tensors.arithmetic import PLAIN, arithmetic
from syftlite.tensors.requested import asked_for
from syftlite.tensors.waiting import Memory, Product, Value, Waiting, done
from syftlite.tensors.wrapper import WrapperTensor

BASE, PRECISION = 2, 16
DECIMALS = range(1, 7)  # digits that are decimal where no base is named: such as PySyft's programs have


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
        if isinstance(raw, Product) or waiting.compares:
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
        if self._value.truths:
            alias._value.note_truths()
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
        value = self._value
        if not value.waiting.nothing:
            value.waiting = Waiting(done(value.waiting, self.scale))
            _pending.pop(id(self), None)
        return value.waiting.raw

    @_child.setter
    def _child(self, child: torch.Tensor) -> None:
        self._waiting = Waiting(child)

    @property
    def settled(self) -> bool:
        """Whether nothing waits."""
        return self._value.waiting.nothing

    @property
    def divisor(self) -> int:
        """That of `linear`, which computes nothing to tell it."""
        waiting = self._waiting
        return 1 if waiting.compares else waiting.divisor

    @property
    def product(self) -> Product | None:
        """What is only a product so far, if it is."""
        waiting = self._waiting
        return waiting.raw if isinstance(waiting.raw, Product) and not waiting.compares else None

    def linear(self) -> tuple[Any, int]:
        """(ring tensor, the divisor that waits): what linear operators may be applied to."""
        waiting = self._waiting
        if waiting.compares:
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
        """This layer around the reconstructed ring elements, here. What was never shared, such as a gradient that no secret has part in, is
        here already: itself."""
        if type(self._child) is torch.Tensor:
            return self
        with asked_for(self._layered):
            found = self._layered(self._child.get(*args, **options))
        if isinstance(found, list):  # of several workers, each its own
            return found
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
        """This layer over a fresh sharing of the same value; gradients flow through."""
        fresh: FixedPrecisionTensor = _Refreshed.apply(self)  # type: ignore[no-untyped-call]
        return fresh

    def copy(self) -> torch.Tensor:
        """Another tensor of the same value."""
        return self.clone()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        twin = super().__deepcopy__(memo)
        known = self.__dict__.get("_deviation")  # of a running variance: fixed_norm.py
        if known is not None and known.writes == self._memory.writes:
            twin.__dict__["_deviation"] = known._replace(writes=twin._memory.writes)
        return twin

    def decrypt(self, **options: Any) -> Any:
        """The floats, here; of several workers, a list of each one's."""
        if self.is_secret:
            self._child.must_be_here()
        found = self.get(**options)
        return [each.float_precision() for each in found] if isinstance(found, list) else found.float_precision()

    def tolist(self) -> Any:
        """The numbers."""
        return self.float_precision().tolist()

    def numpy(self, *, force: bool = False) -> Any:
        """The numbers."""
        return self.detach().float_precision().numpy()  # type: ignore[attr-defined]

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else repr(self)

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        here = self._waiting.nothing
        child = repr(self._child).replace("\n", "\n    ") if here else "what it was made of: its value has not been asked for yet"
        extras = ", requires_grad=True" if self.requires_grad else ""
        return f"FixedPrecisionTensor | {self.base}**-{self.precision_fractional}{extras}\n    -> {child}"


class _Refreshed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: FixedPrecisionTensor) -> FixedPrecisionTensor:
        return x.of(x._child.refresh(), x.attributes())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0]


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
    tensor: torch.Tensor, base: int | None = None, precision_fractional: int | None = None, dtype: Any = None
) -> FixedPrecisionTensor:
    """``tensor`` (floats, here or behind a pointer) as ring elements of scale base ** precision_fractional: 2**16, or base**3 for another.
    Without a base, up to six digits are decimal, as PySyft's, and more are binary: 3 is 10**3, 20 is 2**20. Of shares, which are whole
    numbers, each holder's share times the scale.

    ``dtype``: accepted if it names the one ring there is, Z_2^64. Raises ValueError for values that products would not fit.
    """
    if dtype not in (None, torch.int64, torch.long, "long"):
        raise Misuse(f"ring elements are 64 bits (torch.long), not {dtype}")
    precision = (PRECISION if base in (None, BASE) else 3) if precision_fractional is None else precision_fractional
    base = (10 if precision in DECIMALS else BASE) if base is None else base
    if type(base) is not int or type(precision) is not int or not fits(base, precision):
        raise Misuse(f"base {base} and precision {precision}: whole numbers from 2 and 0, and base ** precision at most 2^30")
    scheme = {"base": base, "precision_fractional": precision}
    ready()
    plain = tensor.detach()
    if plain.is_complex():
        raise Misuse("complex numbers have no fixed precision: torch.view_as_real() gives their parts")
    if arithmetic(plain) is not PLAIN:
        return FixedPrecisionTensor.of(plain * base**precision, scheme)
    fixed = FixedPrecisionTensor.of(encode(plain, base, precision), scheme)
    if tensor.requires_grad:
        fixed.requires_grad_()
    return fixed


def _contiguous(shape: torch.Size) -> tuple[int, ...]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))
