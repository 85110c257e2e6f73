"""What Keras saves, read without Keras: an architecture, and the arrays of each layer.

    NAME.keras             a zip of config.json and model.weights.h5                     Keras 3
    NAME.h5  NAME.hdf5     the attribute model_config, and a group model_weights         the old format, of all versions
    NAME.weights.h5        layers/dense_1/vars/0 ...: weights alone                      Keras 3, tf.keras from 2.13 on
    NAME.h5  NAME.hdf5     groups with weight_names: weights alone                       the old format
    NAME.json              what model.to_json() gives: an architecture alone

    read(path) -> Saved;  saved.weights_of(architecture) -> {layer's name: [arrays, in Keras' order]}

Formats are told by content, not by name. Sizes are bounded before anything is unpacked, and nothing is unpacked to disk, unpickled or run.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from syftlite.errors import ConfigurationError
from syftlite.serving.keras.architecture import MAX_BYTES, Architecture
from syftlite.serving.keras.hdf5 import MAGIC, Array, Group, open_file

MAX_FILE_BYTES = 4 << 30
"""Of a file, and of what is packed in one: 4 GiB."""
WEIGHTED = ("Dense", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "BatchNormalization", "LayerNormalization", "Embedding")
"""Classes that may have arrays: the old format goes by their order."""


class Saved(NamedTuple):
    """A file's content: ``architecture``, JSON or None; ``weights``, the group that holds them or None; ``backend``, if it says."""

    name: str
    architecture: str | None
    weights: Group | None
    backend: str | None = None

    def weights_of(self, model: Architecture) -> dict[str, list[Array]]:
        """The arrays of each layer of ``model`` that has some. Raises `ConfigurationError`."""
        if self.weights is None:
            raise ConfigurationError(f"{self.name} has no weights: pass weights=, a file that has them")
        if self.weights.texts("layer_names") is not None:
            return _old(self.weights, model)
        for folder in ("layers", "_layer_checkpoint_dependencies"):
            layers = self.weights / folder
            if layers is not None:
                return _new(layers, model)
        raise ConfigurationError(f"{self.name} is an HDF5 file without a Keras model's weights")


def read(path: str | Path) -> Saved:
    """What is in the file ``path``. Raises `ConfigurationError`."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigurationError(f"{path} has {path.stat().st_size:,} bytes, and {MAX_FILE_BYTES:,} are the most")
        raw = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}") from None
    return parse(raw, path.name)


def parse(raw: bytes, name: str) -> Saved:
    """What is in a file with content ``raw``, which errors call ``name``."""
    if raw[:8] == MAGIC:
        root = open_file(raw, name)
        weights = root / "model_weights"
        return Saved(name, root.text("model_config"), weights or root, root.text("backend") or (weights or root).text("backend"))
    if raw[:4] == b"PK\x03\x04":
        return _zip(raw, name)
    if raw[:1] == b"{":
        return Saved(name, _text(raw, name), None)
    kinds = ".keras, .weights.h5, .h5, .hdf5, or the .json of an architecture"
    raise ConfigurationError(f"{name} is not what Keras saves: {kinds}. Save the model as one of them")


def _text(raw: bytes, name: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name}: its architecture is not text") from None


def _zip(raw: bytes, name: str) -> Saved:
    try:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            config = _member(archive, "config.json", MAX_BYTES, name)
            weights = _member(archive, "model.weights.h5", min(MAX_FILE_BYTES, 1000 * len(raw)), name)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError) as error:
        if isinstance(error, ConfigurationError):
            raise
        raise ConfigurationError(f"{name} is a damaged zip file ({error}): save the model again") from None
    return Saved(name, _text(config, name), open_file(weights, name))


def _member(archive: zipfile.ZipFile, member: str, limit: int, name: str) -> bytes:
    try:
        entry = archive.getinfo(member)
    except KeyError:
        raise ConfigurationError(f"{name} has no {member}, so it is no Keras model") from None
    if entry.file_size > limit:
        raise ConfigurationError(f"{name}: its {member} has {entry.file_size:,} bytes, and {limit:,} are the most")
    with archive.open(entry) as content:
        raw = content.read(limit + 1)  # the header may lie: no more than this is unpacked
    if len(raw) > limit:
        raise ConfigurationError(f"{name}: its {member} has more than {limit:,} bytes")
    return raw


# -- which arrays are whose


def _snake(kind: str) -> str:
    """The name that Keras gives to layers of a class, and so to their groups: Conv2D -> conv2d."""
    name = re.sub(r"\W+", "", kind)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _new(layers: Group, model: Architecture) -> dict[str, list[Array]]:
    """Layers are called by their class and numbered, whatever their own names."""
    found: dict[str, list[Array]] = {}
    counted: Counter[str] = Counter()
    for layer in model.saved:
        base = _snake(layer.kind)
        group = layers / (base if not counted[base] else f"{base}_{counted[base]}")
        counted[base] += 1
        held = None if group is None else group / "vars"
        if held is not None:
            numbers = sorted(int(name) for name in held if name.isascii() and name.isdecimal() and len(name) < 6)
            found[layer.name] = [held.array(str(number)) for number in numbers]
    return found


def _old(weights: Group, model: Architecture) -> dict[str, list[Array]]:
    """Layers are called by their own names. Names that Keras made up differ between two makings of one model: then their order tells."""
    stored = {}
    for name in weights.texts("layer_names") or []:
        group = weights / name
        listed = None if group is None else group.texts("weight_names")
        if group is not None and listed:
            stored[name] = [group.array(path) for path in listed]
    wanted = [layer.name for layer in model.saved if layer.kind in WEIGHTED]
    if stored.keys() <= set(wanted):
        return stored
    if len(stored) != len(wanted):
        have, want = ", ".join(stored), ", ".join(wanted)
        raise weights.refusal(f"it has arrays of {len(stored)} layers ({have}), and the model has {len(wanted)} ({want})")
    return dict(zip(wanted, stored.values(), strict=True))
