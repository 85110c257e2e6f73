"""Tables for the examples: real ones, fetched as a package, verified, kept in the user's cache; nothing of them is in this repository.

    python examples/tables.py boston         506 quarters of Boston, 13 columns and the median price of their houses ($1000)
    python examples/tables.py pima           768 women, 8 columns and whether they have diabetes
    python examples/tables.py pima --from F  ... from the file F of the package, PimaIndiansDiabetes.rda

    table = load("boston")                   here: raises `DataError`, with what to type, if it was never fetched

    Debian's r-cran-mlbench --> an .rda file --> md5 --> $XDG_CACHE_HOME/syftlite/NAME/ --> parse_rda --> rows (n, columns), targets (n,)

An .rda file is R's own format (R Internals, section 1.8: serialization): gzip, bzip2 or xz of big-endian values, each with its type. What
is read here is data: numbers, texts, lists of them. Anything else, such as code, is refused.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import struct
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from data import DataError, cache, checked_md5, debian_content, fetching, keep, waiting

PACKAGE, FOLDER = "r-cran-mlbench", Path("usr/lib/R/site-library/mlbench/data")
TABLES = {
    "boston": ("BostonHousing.rda", "BostonHousing", "medv", "c47b4e6ddc106f9e2f0450d1b1fc23cb"),
    "pima": ("PimaIndiansDiabetes.rda", "PimaIndiansDiabetes", "diabetes", "faf2bcc583d54f91a923786c58658584"),
}
"""The package's file, the table in it, the column that is to be told from the others, the md5 of the file."""
LARGEST = 1 << 26
NULL, SYMBOL, PAIRS, TEXT, LOGICAL, INTEGER, REAL, TEXTS, LIST = 0, 1, 2, 9, 10, 13, 14, 16, 19
NOTHING, REFERENCE = 254, 255


class Table(NamedTuple):
    """Rows (n, columns), float32; targets (n,), float32, or int64 where they are classes; the columns' names."""

    rows: torch.Tensor
    targets: torch.Tensor
    columns: tuple[str, ...]


# -- R's format


class Reader:
    """Reads one value after another; one with attributes as {"values": ..., "names": ..., ...}."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.at, self.symbols = raw, 0, list[str]()

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count < 0 or self.at + count > len(self.raw):
            raise DataError("the .rda file is cut off or damaged: fetch it again")
        self.at += count
        return self.raw[self.at - count : self.at]

    def number(self) -> int:
        """The next integer."""
        return int(struct.unpack(">i", self.take(4))[0])

    def numbers(self, code: str, size: int) -> list[Any]:
        """The next vector of numbers."""
        count = self.number()
        return list(struct.unpack(f">{count}{code}", self.take(count * size))) if count else []

    def value(self) -> Any:
        """The next value."""
        flags = self.number()
        kind, has_attributes, has_tag = flags & 0xFF, bool(flags & 0x200), bool(flags & 0x400)
        if kind in (NOTHING, NULL):
            return None
        if kind == REFERENCE:
            return self.symbols[(flags >> 8) - 1]
        if kind == SYMBOL:
            self.symbols.append(self.value())
            return self.symbols[-1]
        if kind == PAIRS:
            return self.pairs(has_attributes, has_tag)
        if kind == TEXT:
            length = self.number()
            return None if length == -1 else self.take(length).decode()
        if kind in (INTEGER, LOGICAL):
            found: Any = self.numbers("i", 4)
        elif kind == REAL:
            found = self.numbers("d", 8)
        elif kind in (TEXTS, LIST):
            found = [self.value() for _ in range(self.number())]
        else:
            raise DataError(f"the .rda file has a value of R's type {kind}, which is no data: it is not the package's")
        return {"values": found, **self.attributes()} if has_attributes else found

    def attributes(self) -> dict[str, Any]:
        """The next value, which names what belongs to the one before."""
        found = self.value()
        if not isinstance(found, dict):
            raise DataError("the .rda file has a value whose attributes are none: it is damaged, fetch it again")
        return found

    def pairs(self, has_attributes: bool, has_tag: bool) -> dict[str, Any]:
        """A list of names and values."""
        found: dict[str, Any] = {}
        while True:
            if has_attributes:
                self.value()
            name = self.value() if has_tag else str(len(found))
            if not isinstance(name, str):
                raise DataError("the .rda file has a name that is no text: it is damaged, fetch it again")
            found[name] = self.value()
            flags = self.number()
            if flags & 0xFF in (NOTHING, NULL):
                return found
            if flags & 0xFF != PAIRS:
                raise DataError("the .rda file has a list that does not end: it is damaged, fetch it again")
            has_attributes, has_tag = bool(flags & 0x200), bool(flags & 0x400)


def parse_rda(raw: bytes) -> dict[str, Any]:
    """The tables in an .rda file: by name, {"values": columns, "names": theirs, ...}. Raises `DataError` for anything else."""
    opened = {b"\x1f\x8b": gzip.decompress, b"BZ": bz2.decompress, b"\xfd7": lzma.decompress}.get(raw[:2], lambda same: same)
    try:
        plain = opened(raw)
        if plain[:5] not in (b"RDX2\n", b"RDX3\n") or plain[5:7] != b"X\n" or len(plain) > LARGEST:
            raise DataError(f"not an .rda file: it begins with {plain[:7]!r}")
        reader = Reader(plain[7:])
        version = reader.number()
        reader.take(8)
        if version == 3:
            reader.take(reader.number())
        found = reader.value()
    except (OSError, EOFError, ValueError, IndexError, struct.error, lzma.LZMAError, RecursionError) as error:
        raise DataError(f"the .rda file is damaged ({error}): fetch it again") from error
    if not isinstance(found, dict):
        raise DataError("the .rda file holds no table")
    return found


def table_of(name: str, raw: bytes) -> Table:
    """Table ``name`` from its file's bytes."""
    _, variable, target, _ = TABLES[name]
    frame = parse_rda(raw).get(variable)
    if not isinstance(frame, dict) or target not in frame.get("names", ()):
        raise DataError(f"the file holds no {variable} with a column {target}")
    columns = {column: _column(values) for column, values in zip(frame["names"], frame["values"], strict=True)}
    targets = columns.pop(target)
    return Table(torch.stack([c.float() for c in columns.values()], 1), targets, tuple(columns))


def _column(values: Any) -> torch.Tensor:
    """A column: a factor's levels as classes from 0."""
    if isinstance(values, dict):
        return torch.tensor(values["values"], dtype=torch.int64) - 1
    return torch.tensor(values, dtype=torch.float32)


# -- the cache


def load(name: str) -> Table:
    """Table ``name`` from the cache, verified. Raises `DataError` if it was not fetched."""
    file = cache(name) / TABLES[name][0]
    if not file.is_file():
        raise DataError(f"{name} is not in {file.parent}: fetch it, once, with: python examples/tables.py {name}")
    remedy = f"delete it, and fetch it again with: python examples/tables.py {name}"
    return table_of(name, checked_md5(file.read_bytes(), TABLES[name][3], f"{file.name} in {file.parent}", remedy))


def fetch(name: str, given: Path | None = None) -> Path:
    """Bring table ``name`` into the cache, from the package or the file ``given``. Returns where it is. Raises `DataError`."""
    file, _, _, wanted = TABLES[name]
    with tempfile.TemporaryDirectory(prefix="syftlite-data-") as folder, waiting(f"getting {name} from {given or PACKAGE}", print):
        workspace = Path(folder)
        path = given or debian_content(PACKAGE, workspace) / FOLDER / file
        try:
            raw = path.read_bytes()
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}): bring the file yourself, with --from FILE") from None
        keep(cache(name), {file: checked_md5(raw, wanted, f"{file} from {given or PACKAGE}", "nothing was kept: bring the right one")})
    return cache(name) / file


def brought(name: str, given: Path | None) -> str:
    """`fetch` it, and tell what it is."""
    place = fetch(name, given)
    table = load(name)
    return f"{len(table.rows):,} rows of {len(table.columns)} columns ({', '.join(table.columns)}), in {place}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns its exit code."""
    return fetching(arguments, __doc__, TABLES, "FILE", brought)


if __name__ == "__main__":
    sys.exit(main())
