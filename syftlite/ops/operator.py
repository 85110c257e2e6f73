"""Operator: a reviewed ATen overload, with all that either end needs to know of it, read once from its schema.

A value stands on the wire at its parameter's place in the schema, so no tag is needed: an int where the schema says Tensor is an object id.

    code  schema type        on the wire
    T     Tensor             id; a Python number: a float, or [int, bool or complex]; [dtype, value] for a local 0-dim tensor
    t     Tensor?            None or as T
    L     Tensor[]           [id, ...]
    l     Tensor?[]          [id or None, ...]
    i f b                    int, float (an int passes), bool; capital I F B: a list of them; None where the schema is optional
    s     Scalar             bool, int, float or complex; S: a list of them. A complex number is [real, imaginary], two floats
    d m   ScalarType, MemoryFormat     a number (ops/dtypes.py)
    w     str                one of WORDS
    -     Layout, Device, Generator, pin_memory, non_blocking: never on the wire
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, auto
from typing import Any, NamedTuple

import torch

from syftlite._torch import bare
from syftlite.ops.drawing import in_turn
from syftlite.ops.spec import Spec

WORDS = frozenset(
    {"none", "tanh", "floor", "trunc", "sum", "prod", "mean", "amax", "amin", "left", "right", "reduced", "complete", "r", "L", "U"}
)  # fmt: skip

_CODES = {
    "Tensor": "T",
    "Optional[Tensor]": "t",
    "List[Tensor]": "L",
    "List[Optional[Tensor]]": "l",
    "int": "i",
    "float": "f",
    "bool": "b",
    "List[int]": "I",
    "List[float]": "F",
    "List[bool]": "B",
    "number": "s",
    "List[number]": "S",
    "str": "w",
    "ScalarType": "d",
    "MemoryFormat": "m",
    "Layout": "-",
    "Device": "-",
    "Generator": "-",
}


class Kind(Enum):
    """What an operator is to cost rules and policy. `ops/cost.py` reads it."""

    POINTWISE = auto()
    REDUCE = auto()
    VIEW = auto()
    COPY = auto()
    MATMUL = auto()
    CONV = auto()
    POOL = auto()
    NORM = auto()
    INDEX = auto()
    SHAPE = auto()
    SORT = auto()
    FACTORY = auto()
    RANDOM = auto()
    LINALG = auto()
    FFT = auto()


class Parameter(NamedTuple):
    """One parameter of an operator: its wire code, whether None may stand for it, whether it is written to."""

    name: str
    code: str
    optional: bool
    written: bool


class Result(Enum):
    """What an operator gives back."""

    NOTHING = auto()  # mutates its operands
    ONE = auto()
    SEVERAL = auto()  # a fixed number, some possibly None
    LIST = auto()  # as many as the shapes say
    VALUE = auto()  # a Python number or bool: a release


class Operator:
    """A numbered, reviewed overload."""

    __slots__ = (
        "aliases",
        "bare",
        "codes",
        "dynamic",
        "finish",
        "func",
        "inplace",
        "inplace_view",
        "key",
        "keywords",
        "kind",
        "name",
        "number",
        "out_type",
        "parameters",
        "result",
        "seeded",
        "when",
        "writes",
    )

    def __init__(
        self, number: int, func: Any, kind: Kind, *, writes: tuple[int, ...] = (), when: int | None = None, alias: bool = False
    ) -> None:
        schema = func._schema
        self.number, self.func, self.kind = number, func, kind
        self.seeded = torch.Tag.nondeterministic_seeded in func.tags  # it draws from torch's generator
        self.bare = in_turn(bare(func)) if self.seeded else bare(func)
        self.name: str = str(func)
        self.key = id(func)  # overloads live for ever; hashing one takes a Python call, which every operator would pay
        self.parameters = tuple(_parameter(a) for a in schema.arguments)
        self.codes = tuple(p.code for p, a in zip(self.parameters, schema.arguments, strict=True) if not a.kwarg_only)
        self.keywords = {p.name: p for p in self.parameters}
        self.writes: frozenset[str] = frozenset(p.name for i, p in enumerate(self.parameters) if p.written or i in writes)
        self.when = when  # the position of a flag; while it is False nothing is written
        returns = schema.returns
        self.inplace = bool(returns) and returns[0].alias_info is not None and returns[0].alias_info.is_write
        self.inplace_view = torch.Tag.inplace_view in func.tags
        # Tensor aliases a Tensor operand: its label, and its storage, are shared with the first operand.
        self.aliases = alias or (not self.inplace and any(r.alias_info is not None for r in returns))
        self.dynamic = bool({torch.Tag.dynamic_output_shape, torch.Tag.data_dependent_output} & set(func.tags))
        self.result = _result(returns, self.inplace)
        # The type of a message's `outs` once checked: an id, a tuple of ids, nothing.
        self.out_type = {Result.ONE: int, Result.NOTHING: type(None)}.get(self.result, tuple)
        # What becomes of a raw result before anything is stored; None for nearly all.
        self.finish: Callable[[Any], Any] | None = None
        if "empty" in schema.name:
            self.finish = torch.Tensor.zero_  # what freed memory held is nobody's
        elif (self.result is Result.ONE and "reduction" in self.keywords) or schema.name in ("aten::im2col", "aten::col2im"):
            self.finish = trimmed
        elif kind is Kind.LINALG or kind is Kind.FFT:
            self.finish = in_rows

    def named(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The operands that are given, by parameter name, in the schema's order."""
        given = {p.name: value for p, value in zip(self.parameters, args, strict=False)} | dict(kwargs)
        return {p.name: given[p.name] for p in self.parameters if p.name in given}

    def wrote(self, args: Sequence[Any]) -> bool:
        """Whether a call with ``args`` writes to the operands of `writes`."""
        return self.when is None or len(args) <= self.when or args[self.when] is not False

    def __repr__(self) -> str:
        return f"<{self.name} #{self.number} {self.kind.name.lower()}>"


def trimmed(result: torch.Tensor) -> torch.Tensor:
    """``result`` in a storage of its own size: a mean loss would hold on to the elementwise one's."""
    return result if result.untyped_storage().nbytes() <= result.numel() * result.element_size() else result.clone()


def in_rows(results: Any) -> Any:
    """``results``, each in row-major order: libraries choose orders of their own, and a promise cannot tell which library will run. What is
    conjugated by a bit alone is computed: no message could tell of the bit."""
    if isinstance(results, tuple):
        return tuple(in_rows(result) for result in results)
    results = results.resolve_conj()
    spec = Spec.of(results)
    return results if spec is Spec.contiguous(spec.shape, spec.dtype) else results.clone(memory_format=torch.contiguous_format)


def _parameter(argument: Any) -> Parameter:
    kind = str(argument.real_type)
    optional = kind.startswith("Optional[")
    if kind == "Optional[Tensor]":
        code = "t"
    else:
        code = _CODES[kind.removeprefix("Optional[").removesuffix("]") if optional else kind]
    if argument.name in ("pin_memory", "non_blocking"):
        code = "-"
    info = argument.alias_info
    return Parameter(argument.name, code, optional, info is not None and info.is_write)


def _result(returns: list[Any], inplace: bool) -> Result:
    if not returns or inplace:
        return Result.NOTHING
    kinds = [str(r.real_type) for r in returns]
    if kinds == ["List[Tensor]"]:
        return Result.LIST
    if all(k == "Tensor" for k in kinds):
        return Result.ONE if len(kinds) == 1 else Result.SEVERAL
    return Result.VALUE
