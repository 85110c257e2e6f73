"""A plan in a file, or in bytes that are kept at a worker: what it sends and the values it starts from, and no code.

    offset   size        what
    0        8           b"syftplan"
    8        4           length h of the head, little endian, at most MAX_HEAD
    12       h           MessagePack: the fields of `_HEAD`
    12 + h   the rest    little-endian bytes of the tensors that the head describes, in its order: the state, then each program's constants

Operators stand in it by number, with a list of the names that the writer's table had for them: a reader whose table lacks one, or has
another one there, refuses it by name. Reading checks every field, makes tensors and lists, and runs nothing. An outline is the same without
the state's bytes: its reader has the tensors of the state already.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import torch

from syftlite.engine.plans import MAX_CODE
from syftlite.errors import OperatorNotReviewedError, PlanError, ProtocolError
from syftlite.ops.dtypes import DTYPES, NUMBER_OF
from syftlite.ops.ids import map_operands
from syftlite.ops.operator import WORDS
from syftlite.ops.spec import Spec
from syftlite.ops.table import TABLE, VERSION
from syftlite.wire.codec import buffer_of, size_of, tensor_of

MAGIC = b"syftplan"
FORMAT = 1
MAX_HEAD = 64 << 20
MAX_DEPTH = 32
_LENGTH = struct.Struct("<I")

Tree = Any
"""A nest of lists, tuples and dicts. In a file: [0, leaf], [1, list], [2, tuple] or [3, keys, values]."""


class StoredProgram(NamedTuple):
    """One recording. ``inputs``: the nest of its arguments, with a `Spec` for each tensor; ``outputs``: of its results, numbered from 0."""

    inputs: Tree
    state: tuple[Spec, ...]
    constants: tuple[torch.Tensor, ...]
    code: tuple[tuple[Any, ...], ...]
    results: tuple[int, ...]
    result_specs: tuple[Spec, ...]
    outputs: Tree


class StoredPlan(NamedTuple):
    """All that a file holds. ``state``: the values that the programs read and write, and whether each requires a gradient."""

    name: str
    state: tuple[torch.Tensor, ...]
    requires_grad: tuple[bool, ...]
    programs: tuple[StoredProgram, ...]


# -- writing


def save(path: str | os.PathLike[str], plan: StoredPlan) -> None:
    """Write ``plan`` to ``path``, whole or not at all."""
    parts = _parts(plan)
    target = Path(path)
    draft = target.with_name(target.name + ".new")
    try:
        with draft.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, target)
    finally:
        draft.unlink(missing_ok=True)


def dumps(plan: StoredPlan, *, outline: bool = False) -> bytes:
    """``plan`` as bytes. ``outline``: without the values of its state, which may then be anywhere."""
    return b"".join(_parts(plan, outline=outline))


def _parts(plan: StoredPlan, *, outline: bool = False) -> Iterator[bytes | memoryview]:
    head = _head(plan)  # before the first part: what cannot be stored leaves no draft behind
    tensors = [*(() if outline else plan.state), *(c for program in plan.programs for c in program.constants)]
    return chain((MAGIC + _LENGTH.pack(len(head)) + head,), map(buffer_of, tensors))


def _head(plan: StoredPlan) -> bytes:
    numbers = sorted({step[0] for program in plan.programs for step in program.code})
    head = {
        "format": FORMAT,
        "name": plan.name,
        "operators": [[n, operator.name] for n in numbers if (operator := TABLE[n]) is not None],
        "state": [[*_described(t), grad] for t, grad in zip(plan.state, plan.requires_grad, strict=True)],
        "programs": [_packed(program) for program in plan.programs],
    }
    body: bytes = msgpack.packb(head)
    if len(body) > MAX_HEAD:
        raise PlanError(f"plan {plan.name} takes {len(body)} bytes besides its tensors; a plan's file has at most {MAX_HEAD}")
    return body


def _packed(program: StoredProgram) -> dict[str, Any]:
    return {
        "inputs": _nested(program.inputs, _leaf),
        "state": [_spec(s) for s in program.state],
        "constants": [_described(c) for c in program.constants],
        "code": program.code,
        "results": program.results,
        "result_specs": [_spec(s) for s in program.result_specs],
        "outputs": _nested(program.outputs, lambda leaf: leaf),
    }


def _described(tensor: torch.Tensor) -> list[Any]:
    return [NUMBER_OF[tensor.dtype], list(tensor.shape)]


def _spec(spec: Spec) -> list[Any]:
    return [NUMBER_OF[spec.dtype], list(spec.shape), list(spec.stride), spec.offset]


def _leaf(leaf: Any) -> Any:
    if isinstance(leaf, Spec):
        return [_spec(leaf)]
    if leaf is not None and type(leaf) not in (bool, int, float, str):
        raise PlanError(f"an argument of type {type(leaf).__name__} cannot be stored: a plan's file knows tensors, numbers and texts")
    return leaf


def _nested(tree: Tree, leaf: Callable[[Any], Any]) -> list[Any]:
    if type(tree) in (list, tuple):
        return [1 if type(tree) is list else 2, [_nested(t, leaf) for t in tree]]
    if type(tree) is dict:
        if not all(type(key) in (str, int) for key in tree):
            raise PlanError("a plan's file knows dicts with keys that are texts or integers")
        return [3, list(tree), [_nested(t, leaf) for t in tree.values()]]
    if isinstance(tree, (list, tuple, dict)):
        raise PlanError(f"an argument of type {type(tree).__name__} cannot be stored: use a plain list, tuple or dict")
    return [0, leaf(tree)]


# -- reading


def load(path: str | os.PathLike[str]) -> StoredPlan:
    """The plan in ``path``. Raises `PlanError` if it is none, `OperatorNotReviewedError` for an operator that this version lacks."""
    return loads(Path(path).read_bytes(), str(path))


def loads(raw: bytes, source: str, state: Sequence[torch.Tensor] | None = None) -> StoredPlan:
    """The plan in ``raw``, which is from ``source``. ``state``: the tensors of its state, if ``raw`` is an outline. Raises as `load`."""
    try:
        return _read(raw, state)
    except (OperatorNotReviewedError, PlanError) as error:
        raise type(error)(f"{source}: {error}") from None
    except (ProtocolError, ValueError, RecursionError, OverflowError, msgpack.UnpackException) as error:
        raise PlanError(f"{source} is no plan's file, or a damaged one: {error}") from None


def _read(raw: bytes, given: Sequence[torch.Tensor] | None) -> StoredPlan:
    start = len(MAGIC) + _LENGTH.size
    _must(raw[: len(MAGIC)] == MAGIC and len(raw) >= start, "it does not begin as one")
    (length,) = _LENGTH.unpack_from(raw, len(MAGIC))
    _must(length <= min(MAX_HEAD, len(raw) - start), "its head is not all there")
    body = raw[start : start + length]
    whole = msgpack.Unpacker(None, max_buffer_size=max(length, 1))
    whole.feed(body)
    whole.skip()  # a nest of headers that announce more than there is takes 1,000 times its size to unpack
    head = msgpack.unpackb(body, use_list=False)
    _must(type(head) is dict and type(head.get("format")) is int, "it has no format")
    if head["format"] > FORMAT:
        raise PlanError(f"it is of format {head['format']}, this version reads up to {FORMAT}: update syftlite")
    _must(set(head) == {"format", "name", "operators", "state", "programs"} and type(head["name"]) is str, "its head has other fields")
    known = _operators(head["operators"])
    buffers = _Buffers(memoryview(raw)[start + length :])
    entries = _items(head["state"])
    _must(all(type(e) is tuple and len(e) == 3 and type(e[2]) is bool for e in entries), "its state is not described")
    if given is None:
        state = tuple(buffers.take(e[:2]) for e in entries)
    else:
        state = tuple(given)
        described = [[e[0], list(_items(e[1]))] for e in entries]
        _must([_described(t) for t in state] == described, "it is the outline of a plan with other state")
    programs = tuple(_program(p, state, known, buffers) for p in _items(head["programs"]))
    _must(not len(buffers.rest), "it has bytes after its end")
    smooth = [t.is_floating_point() or t.is_complex() for t in state]
    _must(all(s or not e[2] for s, e in zip(smooth, entries, strict=True)), "an integer has no gradient")
    return StoredPlan(head["name"], state, tuple(e[2] for e in entries), programs)


class _Buffers:
    """The tensors' bytes, taken in order."""

    def __init__(self, rest: memoryview) -> None:
        self.rest = rest

    def take(self, described: Any) -> torch.Tensor:
        """The next tensor."""
        _must(type(described) is tuple and len(described) == 2, "a tensor is not described")
        dtype, shape = described
        size = size_of(dtype, shape)
        _must(size <= len(self.rest), "its tensors are not all there")
        raw, self.rest = bytearray(self.rest[:size]), self.rest[size:]
        return tensor_of(dtype, shape, raw)


def _operators(listed: Any) -> frozenset[int]:
    for entry in _items(listed):
        _must(type(entry) is tuple and len(entry) == 2 and type(entry[0]) is int and type(entry[1]) is str, "its operators are not a list")
        number, name = entry
        operator = TABLE[number] if 0 < number < VERSION else None
        if operator is None or operator.name != name:
            lacking = f"{name[:200]} (number {number}) is not among this version's {VERSION - 1} reviewed operators"
            raise OperatorNotReviewedError(f"{lacking}: update syftlite, or save the plan with this version")
    return frozenset(number for number, _ in listed)


def _program(packed: Any, state: Sequence[torch.Tensor], known: frozenset[int], buffers: _Buffers) -> StoredProgram:
    _must(type(packed) is dict and set(packed) == set(StoredProgram._fields), "a program has other fields")
    inputs = _tree(packed["inputs"], _read_leaf)
    _must(type(inputs) is tuple, "a program's arguments are not a list")
    specs = tuple(_read_spec(s) for s in _items(packed["state"]))
    _must([(s.shape, s.dtype) for s in specs] == [(t.shape, t.dtype) for t in state], "a program is not for the state that it comes with")
    constants = tuple(buffers.take(c) for c in _items(packed["constants"]))
    arity = sum(isinstance(leaf, Spec) for leaf in leaves(inputs)) + len(state) + len(constants)
    code, results = _items(packed["code"]), _items(packed["results"])
    _check_code(arity, code, results, known)
    result_specs = tuple(_read_spec(s) for s in _items(packed["result_specs"]))
    outputs = _tree(packed["outputs"], lambda leaf: leaf)
    numbered = all(type(n) is int for n in leaves(outputs)) and leaves(outputs) == list(range(len(results)))
    _must(numbered and len(result_specs) == len(results), "a program's results are not described")
    return StoredProgram(inputs, specs, constants, code, results, result_specs, outputs)


def _check_code(arity: int, code: Sequence[Any], results: Sequence[Any], known: frozenset[int]) -> None:
    """What the engine will check, and that operands are there when they are named: before anything is sent."""
    _must(len(code) <= MAX_CODE, "a program is too long")
    for step in code:
        _must(type(step) is tuple and len(step) == 4 and type(step[1]) is tuple and type(step[0]) is int, "a message has another form")
        _must(step[0] in known, "a message has an operator that the file does not list")
        _must(_plain(step[1]) and _plain(step[3]), "an operand has another form")
        _must(step[2] is None or (type(step[2]) is dict and all(type(k) is str and _plain(v) for k, v in step[2].items())), "a keyword has")
    made, highest = set(range(1, arity + 1)), arity
    for step in code:
        operator = TABLE[step[0]]
        assert operator is not None
        _must(len(step[1]) <= len(operator.codes), "a message has too many operands")
        map_operands(operator, step[1], step[2], lambda number: _must(number in made, "an operand is used before it is made"))
        outs = (step[3],) if type(step[3]) is int else step[3] or ()
        _must(type(outs) is tuple and type(step[3]) in (operator.out_type, tuple), "a message's results have another form")
        for out in outs:
            if out is not None:
                _must(type(out) is int and out == highest + 1, "a program's results are not numbered one by one")
                made.add(out)
                highest = out
    _must(all(type(r) is int and r in made for r in results), "a result is never made")


def _plain(value: Any, depth: int = 0) -> bool:
    """Whether ``value`` can be an operand: a number, a word, nothing, or a short list of such."""
    if type(value) is tuple:
        return depth < 3 and all(_plain(v, depth + 1) for v in value)
    return value is None or type(value) in (bool, int, float) or (type(value) is str and value in WORDS)


def _read_spec(packed: Any) -> Spec:
    _must(type(packed) is tuple and len(packed) == 4, "a spec has another form")
    dtype, shape, stride, offset = packed
    size_of(dtype, shape)
    right = type(stride) is tuple and len(stride) == len(shape) and all(type(n) is int and 0 <= n < 1 << 62 for n in (*stride, offset))
    _must(right, "a spec's strides are not sizes")
    spec = Spec.make(shape, stride, offset, DTYPES[dtype])
    _must((spec.offset + spec.extent) * spec.dtype.itemsize < 1 << 62, "a spec is of no size that a machine could hold")
    return spec


def _read_leaf(packed: Any) -> Any:
    if type(packed) is tuple:
        _must(len(packed) == 1, "an argument has another form")
        return _read_spec(packed[0])
    _must(packed is None or type(packed) in (bool, int, float, str), "an argument has another form")
    return packed


def _tree(packed: Any, leaf: Callable[[Any], Any], depth: int = 0) -> Tree:
    _must(type(packed) is tuple and len(packed) in (2, 3) and depth < MAX_DEPTH, "its arguments or results are not a nest")
    kind = packed[0]
    if kind == 0 and len(packed) == 2:
        return leaf(packed[1])
    parts = [_tree(p, leaf, depth + 1) for p in _items(packed[-1])]
    if len(packed) == 2:
        _must(type(kind) is int and kind in (1, 2), "a nest is of no known kind")
        return parts if kind == 1 else tuple(parts)
    keys = _items(packed[1])
    right = kind == 3 and all(type(k) in (str, int) for k in keys) and len(keys) == len(parts) == len(set(keys))
    _must(right, "a dict has no proper keys")
    return dict(zip(keys, parts, strict=True))


def leaves(tree: Tree) -> list[Any]:
    """The leaves of ``tree``, in order."""
    if type(tree) in (list, tuple, dict):
        parts: Iterable[Any] = tree.values() if type(tree) is dict else tree
        return [leaf for part in parts for leaf in leaves(part)]
    return [tree]


def _items(value: Any) -> tuple[Any, ...]:
    _must(type(value) is tuple, "a list is missing")
    return value  # type: ignore[no-any-return]


def _must(condition: bool, otherwise: str) -> int:
    if not condition:
        raise PlanError(f"it is no plan's file, or a damaged one: {otherwise}")
    return 0
