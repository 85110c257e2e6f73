"""One call of a Keras layer while it becomes nodes of a graph: its arguments, its arrays, and the values that it takes and gives.

    @layer("LeakyReLU")
    def leaky_relu(at, x, *, negative_slope: Real = 0.3):          an entry of the table: arguments by name, with Keras' defaults
        return at.add("leaky_relu", x, slope=negative_slope)

An argument of a layer that its entry does not take is an `UnsupportedLayerError` that names both, unless it is None or False, or
concerns training alone (`TRAINING`).

Images. Keras' are channels last, (N, H, W, C), unless told otherwise; the graph's are (N, C, H, W). A `Value` is either as Keras has it, or
(``image``) has its channels moved in front. They move before the first layer that needs it, and back before one that goes by position.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeAlias

import numpy as np
import torch
from torch import Tensor

from syftlite.errors import ConfigurationError, UnsupportedLayerError
from syftlite.serving.graph import Builder
from syftlite.serving.keras.architecture import Layer
from syftlite.serving.keras.hdf5 import Array

LAST, FIRST = "channels_last", "channels_first"

MAX_ELEMENTS = 1 << 28
"""Of any value, for a batch of one: 268 million."""
TRAINING = {"name", "trainable", "dynamic", "autocast", "seed", "rate", "noise_shape", "stddev", "momentum", "synchronized", "fused"}
TRAINING |= {"adjustment", "renorm_momentum", "renorm_clipping", "virtual_batch_size", "sparse", "ragged", "optional", "input_length"}
TRAINING |= {"activity_regularizer", "batch_input_shape", "batch_shape", "input_shape", "input_dtype"}
"""Arguments that change nothing once a model is trained, and the ways to tell a shape."""
TRAINING_ENDS = ("_initializer", "_regularizer", "_constraint")
FLOATS = {"float16", "bfloat16", "float32", "float64", "mixed_float16", "mixed_bfloat16"}


@dataclass(frozen=True)
class Value:
    """The node ``name``. ``held``: the shape of its value for a batch of one. ``image``: Keras has its channels last, the node has them
    second."""

    name: str
    held: tuple[int, ...]
    image: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """As Keras has it, without the batch."""
        return self.held[2:] + self.held[1:2] if self.image else self.held[1:]

    def axis(self, axis: int) -> int:
        """Which of the node's axes is Keras' ``axis``."""
        rank = len(self.held)
        axis = axis + rank if axis < 0 else axis
        if not 0 < axis < rank:
            raise ValueError(f"is {axis}, and it is from 1 to {rank - 1}")
        return {1: 2, 2: 3, 3: 1}[axis] if self.image else axis


# -- arguments, by annotation


class Kind(NamedTuple):
    """``told``: what a value has to be; ``of``: makes one of what JSON has, or raises ValueError."""

    told: str
    of: Callable[[Any], Any]


def _whole(value: Any) -> int:
    if type(value) is not int or not -(1 << 31) < value < 1 << 31:
        raise ValueError
    return value


def _size(value: Any) -> int:
    if _whole(value) < 1:
        raise ValueError
    return int(value)


def _real(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError
    return value


def _pair(value: Any) -> tuple[int, int]:
    first, second = value if isinstance(value, (list, tuple)) else (value, value)
    return _size(first), _size(second)


def _axes(value: Any) -> tuple[int, ...]:
    return tuple(_whole(item) for item in (value if isinstance(value, (list, tuple)) else [value]))


def _sides(value: Any) -> tuple[int, int, int, int]:
    rows, columns = value if isinstance(value, (list, tuple)) else (value, value)
    (top, bottom), (left, right) = (side if isinstance(side, (list, tuple)) else (side, side) for side in (rows, columns))
    sides = _whole(top), _whole(bottom), _whole(left), _whole(right)
    if min(sides) < 0:
        raise ValueError
    return sides


def _word(value: Any) -> str:
    if isinstance(value, Mapping):  # how Keras writes a function: {"class_name": "function", "config": "relu"}
        value = value.get("config") if value.get("class_name") == "function" else value.get("class_name")
    if not isinstance(value, str):
        raise ValueError
    return value


KINDS = {
    "int": Kind("a whole number", _whole),
    "Size": Kind("a whole number from 1", _size),
    "Real": Kind("a number", _real),
    "bool": Kind("True or False", _flag),
    "Pair": Kind("one or two whole numbers from 1", _pair),
    "Axes": Kind("one or more whole numbers", _axes),
    "Sides": Kind("one, two or twice two whole numbers from 0", _sides),
    "str": Kind("a name", _word),
}
Size: TypeAlias = int
Real: TypeAlias = float
Pair: TypeAlias = tuple[int, int]
Axes: TypeAlias = tuple[int, ...]
Sides: TypeAlias = tuple[int, int, int, int]

Entry = Callable[..., Value]
LAYERS: dict[str, tuple[Entry, Mapping[str, inspect.Parameter]]] = {}
"""Class in Keras -> its entry, and the arguments that this takes."""


def layer(*kinds: str) -> Callable[[Entry], Entry]:
    """Enter a function for layers of these classes: the call, the values, and keyword-only arguments."""

    def enter(function: Entry) -> Entry:
        taken = {p.name: p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
        assert all(str(p.annotation).split(" | ")[0] in KINDS for p in taken.values())
        for kind in kinds:
            LAYERS[kind] = (function, taken)
        return function

    return enter


class Call:
    """One call of ``layer``, whose ``arrays`` are in Keras' order, in a graph that is being built. ``backend``: its Keras', if known."""

    def __init__(self, layer: Layer, arrays: Sequence[Array], build: Builder, backend: str | None) -> None:
        self.layer, self._arrays, self._build, self.backend = layer, list(arrays), build, backend
        self.label = f"layer {layer.name!r} ({layer.kind})"
        self._named = False

    def refuse(self, argument: str, why: str) -> NoReturn:
        """Raise: ``argument`` cannot be what it is."""
        raise UnsupportedLayerError(self.layer.name, f"{self.layer.kind}'s {argument} {why}")

    def import_(self, values: Sequence[Value]) -> Value:
        """What this call gives. Raises `UnsupportedLayerError`, `ConfigurationError`."""
        layer = self.layer
        if layer.kind not in LAYERS:
            raise UnsupportedLayerError(layer.name, f"there is no form here for {layer.kind}; there is for {', '.join(sorted(LAYERS))}")
        entry, taken = LAYERS[layer.kind]
        out = self._run(entry, values, self._arguments(taken))
        if self._arrays:
            raise ConfigurationError(f"{self.label} has {len(self._arrays)} arrays more than its arguments ask for")
        return out

    def _run(self, entry: Entry, values: Sequence[Value], arguments: Mapping[str, Any]) -> Value:
        try:
            inspect.signature(entry).bind(self, *values, **arguments)
        except TypeError:
            raise ConfigurationError(f"{self.label} is given {len(values)} inputs") from None
        try:
            return entry(self, *values, **arguments)
        except (UnsupportedLayerError, ConfigurationError):
            raise
        except (RuntimeError, ValueError, IndexError, TypeError) as error:
            shapes = ", ".join(str(list(v.shape)) for v in values)
            raise ConfigurationError(f"{self.label} does not fit its input {shapes}: {error}") from None

    def _arguments(self, taken: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
        given = dict(self.layer.arguments)
        _check_dtype(self, given.pop("dtype", None))
        found = {}
        for name, parameter in taken.items():
            value = given.pop(name, None)
            if value is None:
                if parameter.default is parameter.empty:
                    self.refuse(name, "is missing")
                continue
            kind = KINDS[str(parameter.annotation).split(" | ")[0]]
            try:
                found[name] = kind.of(value)
            except (ValueError, TypeError):
                self.refuse(name, f"is {str(value)[:60]!r}, and {kind.told} is served")
        for name, value in given.items():
            if name not in TRAINING and not name.endswith(TRAINING_ENDS) and value not in (None, False):
                self.refuse(name, f"is {str(value)[:60]!r}, which has no form here")
        return found

    # -- for the entries

    def array(self, role: str, *shape: int) -> Tensor:
        """The next array, which Keras calls ``role`` and has this shape."""
        if not self._arrays:
            raise ConfigurationError(f"{self.label} has no {role} in the weights")
        found = self._arrays.pop(0)
        if found.shape != shape:
            raise ConfigurationError(f"{self.label}: its {role} has shape {list(found.shape)}, and the model asks for {list(shape)}")
        if not np.isfinite(found).all():
            raise ConfigurationError(f"{self.label}: its {role} is not finite")
        return torch.from_numpy(np.array(found, dtype=np.float32))

    def add(
        self,
        operator: str,
        *values: Value,
        weights: Mapping[str, Tensor | None] | None = None,
        image: bool | None = None,
        before: bool = False,
        **attributes: Any,
    ) -> Value:
        """Apply ``operator``. The result has channels in front where the first value has, unless ``image`` says otherwise. The first node
        has the layer's name, but for those that come ``before`` it."""
        first, self._named = not before and not self._named, self._named or not before
        name = self.layer.name if first else f"{self.layer.name}.{operator}"
        name = self._build.add(operator, name, [v.name for v in values], weights, **attributes)
        node = self._build.nodes[-1]
        entry, numbers = node.entry, operator == "embedding"
        with torch.no_grad(), torch.device("meta"):  # shapes alone: nothing is computed
            shapes = [torch.empty(v.held, dtype=torch.int64 if numbers else torch.float32) for v in values]
            given = {role: self._build.weights[of].to("meta") for role, of in node.weights.items()}
            held = entry.function(*shapes, **given, **entry.checked(name, attributes)).shape
        if held.numel() > MAX_ELEMENTS:
            raise ConfigurationError(f"{self.label} gives {list(held)}, more than {MAX_ELEMENTS:,} elements a row")
        return Value(name, tuple(held), values[0].image if image is None else image)

    def plain(self, x: Value) -> Value:
        """``x`` with its axes as Keras has them."""
        return self.add("permute", x, order=(0, 2, 3, 1), image=False, before=True) if x.image else x

    def images(self, x: Value, data_format: str) -> Value:
        """``x`` as (N, C, H, W)."""
        if data_format not in (LAST, FIRST):
            self.refuse("data_format", f"is {data_format!r}, and {LAST} and {FIRST} are served")
        if len(x.held) != 4:
            raise ConfigurationError(f"{self.label} takes images, not {list(x.shape)}")
        if data_format == FIRST:
            return self.plain(x)
        return x if x.image else self.add("permute", x, order=(0, 3, 1, 2), image=True, before=True)

    def axis(self, x: Value, axis: int) -> int:
        """Which of the node's axes is Keras' ``axis``, an argument of this layer."""
        try:
            return x.axis(axis)
        except ValueError as error:
            self.refuse("axis", str(error))


def _check_dtype(call: Call, dtype: Any) -> None:
    """Policies of floats change rounding alone; quantized ones change the layer."""
    if isinstance(dtype, Mapping):
        plain, config = dtype.get("class_name") in ("DTypePolicy", "Policy", "PolicyV1"), dtype.get("config")
        dtype = str(config.get("name") if plain and isinstance(config, Mapping) else dtype)[:60]
    if dtype is not None and dtype not in FLOATS and call.layer.kind not in ("InputLayer", "Embedding"):
        call.refuse("dtype", f"is {dtype!r}, and floats are served")
