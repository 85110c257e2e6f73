"""An owner's datasets on disk. Two files each, so that what is there is whole:

    NAME.safetensors    the tensor: written, synced, renamed into place; only then
    NAME.json           its card, likewise: {name, dtype, bytes, digest, tags, description, private, policy}

A dataset exists when its card does. A tensor without a card, a draft (`*.new`, and all in `drafts/`), is what a crash left of a dataset
that nobody was told of: it is removed when the folder is opened.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch

from syftlite.engine.journal import Dataset
from syftlite.errors import ConfigurationError, DependencyError, IdNotUniqueError
from syftlite.ops.dtypes import DTYPES
from syftlite.storage.home import file_name, private_folder, sync_folder, write_private

BLOCK = 1 << 20
_DTYPE_OF = {str(dtype).removeprefix("torch."): dtype for dtype in DTYPES}
_FIELDS: dict[str, type] = {
    "name": str, "dtype": str, "bytes": int, "digest": str, "tags": list, "description": str, "private": bool, "policy": str,
}  # fmt: skip


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ImportError:
        raise DependencyError('datasets on disk need safetensors: pip install "syftlite[cli]"') from None
    return safetensors.torch


def _storable(tensor: torch.Tensor) -> torch.Tensor:
    """``tensor`` as the file format knows it: plain, contiguous, complex numbers as pairs."""
    plain = tensor.detach().cpu().resolve_conj().resolve_neg()
    return (torch.view_as_real(plain) if plain.is_complex() else plain).contiguous()


def _digest(path: Path) -> str:
    digest = blake2b(digest_size=32)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


class FileDatasets:
    """The datasets in ``folder``, for one process at a time (the node's journal sees to that)."""

    def __init__(self, folder: Path) -> None:
        self.folder = private_folder(folder)
        self._lock = threading.Lock()
        self._drafts = private_folder(folder / "drafts")  # safetensors makes files of its own beside what it writes
        for path in (*self._drafts.iterdir(), *folder.glob("*.new"), *folder.glob("*.safetensors")):
            if path.suffix != ".safetensors" or path.parent == self._drafts or not path.with_suffix(".json").exists():
                path.unlink()

    def save(self, name: str, tensor: torch.Tensor, tags: list[str], description: str, private: bool, policy: str = "") -> None:
        """Store the dataset; when this returns it survives kill -9 and a power cut. Raises `IdNotUniqueError` if ``name`` is taken."""
        file_name(name, "a dataset's name")
        with self._lock:
            if self._card(name).exists():
                raise IdNotUniqueError(f"a dataset {name!r} is stored already: choose another name")
            path = self._tensor(name)
            draft = self._drafts / path.name
            try:
                self._write(draft, tensor)
                card = {
                    "name": name,
                    "dtype": str(tensor.dtype).removeprefix("torch."),
                    "bytes": draft.stat().st_size,
                    "digest": _digest(draft),
                    "tags": list(tags),
                    "description": description,
                    "private": private,
                    "policy": policy,
                }
                os.replace(draft, path)
            finally:
                draft.unlink(missing_ok=True)
            sync_folder(self.folder)
            write_private(self._card(name), json.dumps(card, indent=1))

    def _write(self, path: Path, tensor: torch.Tensor) -> None:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # private before the first byte is in it
        _safetensors().save_file({"tensor": _storable(tensor)}, path)
        with path.open("rb+") as file:
            os.fsync(file.fileno())

    def load_all(self) -> Iterator[Dataset]:
        """All datasets, by name. Raises `ConfigurationError`, naming the file, for one that is not as it was stored."""
        for path in sorted(self.folder.glob("*.json")):
            yield self._load(path)

    def _load(self, path: Path) -> Dataset:
        card = _read_card(path)
        file, dtype = self._tensor(card["name"]), _DTYPE_OF[card["dtype"]]
        try:
            whole = file.stat().st_size == card["bytes"] and _digest(file) == card["digest"]
        except OSError as error:
            raise ConfigurationError(f"{path} describes a dataset that cannot be read: {error}. Restore it, or remove both files") from None
        if not whole:
            raise ConfigurationError(f"{file} is not what was stored: restore it, or remove it and {path.name}")
        tensor: torch.Tensor = _safetensors().load_file(file)["tensor"]
        if dtype.is_complex:
            tensor = torch.view_as_complex(tensor)
        return Dataset(card["name"], tensor, tuple(card["tags"]), card["description"], card["private"], card["policy"])

    def _tensor(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _card(self, name: str) -> Path:
        return self.folder / f"{name}.json"


def _read_card(path: Path) -> dict[str, Any]:
    try:
        card = json.loads(path.read_text())
        if type(card) is dict:
            card.setdefault("policy", "")  # older ones have none
        right = (
            type(card) is dict
            and set(card) == set(_FIELDS)
            and all(type(card[key]) is kind for key, kind in _FIELDS.items())
            and all(type(tag) is str for tag in card["tags"])
            and card["name"] == path.stem
            and card["dtype"] in _DTYPE_OF
        )
    except (OSError, ValueError):
        right = False
    if not right:
        raise ConfigurationError(f"{path} is no dataset's card: restore it, or remove it and the tensor beside it")
    return card  # type: ignore[no-any-return]
