"""What a Keras model is made of, from the JSON that Keras 2, tf.keras and Keras 3 write: layers, and what each call of one is given.

    Sequential    {"class_name": "Sequential", "config": {"layers": [...]}}        each layer takes what the one before gives
    Functional    {"class_name": "Functional", "config": {"layers": [... "inbound_nodes"], "input_layers", "output_layers"}}
                  (Keras 2 says "Model" too)

    parse(text, name) -> Architecture(layers, inputs, output)

Nothing here makes an object of a name from the file: class names are looked up in the table of `layers`, and what is not there is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from syftlite.errors import ConfigurationError, UnsupportedLayerError

MAX_BYTES = 64 << 20
MAX_LAYERS = 10_000

Place = tuple[str, int]
"""A layer's name, and which of its calls: 0 unless it is used more than once."""


class Layer(NamedTuple):
    """One layer: its class in Keras, its arguments, and for each of its calls the places whose values it takes."""

    name: str
    kind: str
    arguments: Mapping[str, Any]
    calls: tuple[tuple[Place, ...], ...]


class Architecture(NamedTuple):
    """A model's layers in the order of its file; ``inputs`` are those that stand for its inputs."""

    layers: tuple[Layer, ...]
    inputs: tuple[str, ...]
    output: Place

    @property
    def saved(self) -> tuple[Layer, ...]:
        """The layers as Keras counts them when it saves weights."""
        return tuple(layer for layer in self.layers if layer.kind != "InputLayer")


class Form:
    """Reads a JSON document that errors call ``name``."""

    def __init__(self, name: str) -> None:
        self.name = name

    def refusal(self, what: str) -> ConfigurationError:
        """An error about the document."""
        return ConfigurationError(f"{self.name}: {what}")

    def document(self, text: str) -> Mapping[str, Any]:
        """The document. Its size and depth are bounded."""
        if len(text) > MAX_BYTES:
            raise self.refusal(f"its architecture has {len(text):,} characters, and {MAX_BYTES:,} are the most")
        try:
            return self.mapping(json.loads(text), "its architecture")
        except RecursionError:
            raise self.refusal("its architecture is nested too deeply") from None
        except ValueError as error:
            raise self.refusal(f"its architecture is no JSON ({error})") from None

    def mapping(self, value: Any, what: str) -> Mapping[str, Any]:
        """``value``, if it is an object."""
        if not isinstance(value, dict):
            raise self.refusal(f"{what} is no JSON object")
        return value

    def items(self, value: Any, what: str) -> Sequence[Any]:
        """``value``, if it is a list of at most `MAX_LAYERS`."""
        if not isinstance(value, list) or len(value) > MAX_LAYERS:
            raise self.refusal(f"{what} is no list of at most {MAX_LAYERS:,}")
        return value

    def text(self, value: Any, what: str) -> str:
        """``value``, if it is a name."""
        if not isinstance(value, str) or not 0 < len(value) <= 1000:
            raise self.refusal(f"{what} is no name")
        return value

    def number(self, value: Any, what: str) -> int:
        """``value``, if it is a number of a call."""
        if type(value) is not int or not 0 <= value < MAX_LAYERS:
            raise self.refusal(f"{what} is no whole number below {MAX_LAYERS:,}")
        return value


def parse(text: str, name: str, input_shape: Sequence[int] | None = None) -> Architecture:
    """The model that ``text`` describes. ``input_shape`` (without the batch) where a Sequential does not tell its own.

    Raises `ConfigurationError`, `UnsupportedLayerError`."""
    form = Form(name)
    top = form.document(text)
    kind, config = top.get("class_name"), form.mapping(top.get("config"), "the model's config")
    try:
        if kind == "Sequential":
            return _sequential(form, config, input_shape)
        if kind in ("Functional", "Model"):
            return _functional(form, config)
    except RecursionError:
        raise form.refusal("its architecture is nested too deeply") from None
    model = str(config.get("name", "model"))
    raise UnsupportedLayerError(model, f"{kind!r} is neither a Sequential nor a functional model, which are served")


def _named(form: Form, entry: Mapping[str, Any]) -> tuple[str, str, Mapping[str, Any]]:
    config = form.mapping(entry.get("config"), "a layer's config")
    kind = form.text(entry.get("class_name"), "a layer's class")
    return form.text(config.get("name", entry.get("name")), f"the name of a {kind}"), kind, config


def _sequential(form: Form, config: Mapping[str, Any], given: Sequence[int] | None) -> Architecture:
    found: list[Layer] = []
    before: tuple[Place, ...] = ()
    for entry in form.items(config.get("layers"), "the model's layers"):
        name, kind, arguments = _named(form, form.mapping(entry, "a layer"))
        if not found and kind != "InputLayer":
            shape = given if given is not None else _first_shape(arguments, config)
            if shape is None:
                raise form.refusal("it does not tell the shape of its input: pass input_shape=, without the batch")
            found.append(Layer("input", "InputLayer", {"batch_shape": [None, *shape]}, ((),)))
            before = (("input", 0),)
        found.append(Layer(name, kind, arguments, (before,)))
        before = ((name, 0),)
    if len({layer.name for layer in found}) != len(found) or not found:
        raise form.refusal("its layers have no names of their own")
    return Architecture(tuple(found), (found[0].name,), before[0])


def _first_shape(arguments: Mapping[str, Any], config: Mapping[str, Any]) -> Sequence[int] | None:
    for shape in (arguments.get("batch_input_shape"), arguments.get("batch_shape"), config.get("build_input_shape")):
        if isinstance(shape, list) and shape:
            return shape[1:]
    shape = arguments.get("input_shape")
    return shape if isinstance(shape, list) else None


def _functional(form: Form, config: Mapping[str, Any]) -> Architecture:
    found = []
    for item in form.items(config.get("layers"), "the model's layers"):
        entry = form.mapping(item, "a layer")
        name, kind, arguments = _named(form, entry)
        name = form.text(entry.get("name", name), f"the name of a {kind}")
        nodes = form.items(entry.get("inbound_nodes", []), f"the inputs of {name!r}")
        calls = tuple(tuple(_places(form, node, name)) for node in nodes)
        found.append(Layer(name, kind, arguments, calls or ((),)))
    if len({layer.name for layer in found}) != len(found):
        raise form.refusal("two of its layers have one name")
    inputs, outputs = (_ends(form, config.get(key)) for key in ("input_layers", "output_layers"))
    if len(outputs) != 1:
        raise UnsupportedLayerError(
            str(config.get("name", "model")), f"it has {len(outputs)} outputs: one is served. Make a model of each, or concatenate them"
        )
    return Architecture(tuple(found), tuple(name for name, _ in inputs), outputs[0])


def _ends(form: Form, value: Any) -> list[Place]:
    """Inputs or outputs: [["name", 0, 0], ...], or of one alone ["name", 0, 0]."""
    ends = form.items(value, "the model's inputs or outputs")
    if ends and isinstance(ends[0], str):
        ends = [ends]
    return [_place(form, end, "the model's inputs or outputs") for end in ends]


def _place(form: Form, value: Any, what: str) -> Place:
    parts = form.items(value, what)
    if len(parts) < 3 or parts[2] != 0:
        raise form.refusal(f"{what}: one of them is no layer's only output")
    return form.text(parts[0], what), form.number(parts[1], what)


def _places(form: Form, node: Any, layer: str) -> Iterator[Place]:
    """What one call takes, in order: of Keras 3 {"args": [...], "kwargs": {...}}, of Keras 2 [["name", 0, 0, {...}], ...]."""
    what = f"the inputs of {layer!r}"
    if isinstance(node, dict):
        yield from _tensors(form, node.get("args", []), what)
        options = form.mapping(node.get("kwargs", {}), what)
    else:
        options = {}
        for part in form.items(node, what):
            yield _place(form, part, what)
            parts = form.items(part, what)
            options = {**options, **(form.mapping(parts[3], what) if len(parts) > 3 else {})}
    for option, value in options.items():
        if option not in ("training", "mask") or value not in (None, False):
            raise UnsupportedLayerError(layer, f"it is called with {option}={value!r}, which has no form here")


def _tensors(form: Form, value: Any, what: str) -> Iterator[Place]:
    if isinstance(value, list):
        for item in form.items(value, what):
            yield from _tensors(form, item, what)
    elif isinstance(value, dict) and value.get("class_name") == "__keras_tensor__":
        yield _place(form, form.mapping(value.get("config"), what).get("keras_history"), what)
    elif value is not None:
        raise form.refusal(f"{what} are not all outputs of layers: {str(value)[:40]!r}")
