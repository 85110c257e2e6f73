"""Checkpoints: a federation's whole state in one safetensors file, replaced as a whole, so that a crash leaves the last one."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from syftlite.errors import ConfigurationError, DependencyError


class Checkpoint(NamedTuple):
    """``values``: the model's tensors; ``state``: the strategy's, by name; ``training``: what clients keep from round to round, by client
    and name; ``random``: the generator's state; ``told``: plain values."""

    values: list[torch.Tensor]
    state: dict[str, list[torch.Tensor]]
    training: dict[str, list[torch.Tensor]]
    random: torch.Tensor
    told: dict[str, Any]


def store(path: Path, checkpoint: Checkpoint) -> None:
    """Put ``checkpoint`` on disk at ``path``: whole, or not at all."""
    tensors = {f"value.{i}": value for i, value in enumerate(checkpoint.values)}
    for kind, named in (("state", checkpoint.state), ("training", checkpoint.training)):
        tensors |= {f"{kind}.{name}.{i}": t for name, held in named.items() for i, t in enumerate(held)}
    tensors["random"] = checkpoint.random
    tensors = _apart(tensors)
    draft = path.with_name(path.name + ".new")
    _safetensors().save_file(tensors, draft, metadata={"syftlite": json.dumps(checkpoint.told)})
    with draft.open("rb") as file:
        os.fsync(file.fileno())
    draft.replace(path)


def load(path: Path) -> Checkpoint:
    """The checkpoint at ``path``. Raises `ConfigurationError`."""
    safe = importlib.import_module("safetensors") if _safetensors() else None
    try:
        with safe.safe_open(path, framework="pt") as file:  # type: ignore[union-attr]
            told = json.loads((file.metadata() or {})["syftlite"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        values = [tensors[f"value.{i}"] for i in range(sum(name.startswith("value.") for name in tensors))]
        return Checkpoint(values, _named("state.", tensors), _named("training.", tensors), tensors["random"], told)
    except (OSError, KeyError, ValueError, safe.SafetensorError) as error:  # type: ignore[union-attr]
        raise ConfigurationError(f"{path} is no checkpoint of a federation: {error}") from None


def _named(kind: str, tensors: dict[str, torch.Tensor]) -> dict[str, list[torch.Tensor]]:
    """Lists by name, which may have dots."""
    found: dict[str, list[torch.Tensor]] = {}
    for whole in sorted((n for n in tensors if n.startswith(kind)), key=lambda n: int(n.rsplit(".", 1)[1])):
        found.setdefault(whole.removeprefix(kind).rsplit(".", 1)[0], []).append(tensors[whole])
    return found


def _apart(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Each contiguous, and copies of those that share memory: the format has no views."""
    seen: set[int] = set()
    apart = {}
    for name, tensor in tensors.items():
        plain = tensor.detach().contiguous()
        place = plain.untyped_storage().data_ptr()
        apart[name] = plain.clone() if place in seen or plain.untyped_storage().nbytes() != plain.nbytes else plain
        seen.add(place)
    return apart


def _safetensors() -> Any:
    try:
        return importlib.import_module("safetensors.torch")
    except ImportError:
        raise DependencyError('checkpoints need safetensors: pip install "syftlite[cli]"') from None
