"""Data files as tensors.

    .npy            one array; no pickled objects
    .csv            numbers, with or without a first line of column names (none of them a number): a (rows, columns) tensor,
                    int64 if all are whole, else float32, or float64 if one is too large for that
    .safetensors    one tensor or several
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch

from syftlite.errors import ConfigurationError, DependencyError
from syftlite.ops.dtypes import NUMBER_OF

SUFFIXES = (".npy", ".csv", ".safetensors")


class Table(NamedTuple):
    """A tensor from a file. ``part`` is its name there, empty when the file holds one; ``columns`` are a CSV file's, if named."""

    tensor: torch.Tensor
    part: str = ""
    columns: tuple[str, ...] = ()

    def describe(self, description: str) -> str:
        """``description`` with the columns' names."""
        names = f"columns: {', '.join(self.columns)}" if self.columns else ""
        return ". ".join(filter(None, (description, names)))


def read_tables(path: Path) -> list[Table]:
    """The tensors in the file at ``path``. Raises `ConfigurationError`, saying where in the file."""
    readers = {".npy": _read_npy, ".csv": _read_csv, ".safetensors": _read_safetensors}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ConfigurationError(f"{path}: a data file ends in {', '.join(SUFFIXES)}")
    try:
        tables = reader(path)
    except (OSError, ValueError, EOFError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}") from None
    for table in tables:
        if table.tensor.dtype not in NUMBER_OF:
            raise ConfigurationError(f"{path}: {table.tensor.dtype} does not travel: convert it to one of {_dtypes()}")
    return tables


class Named(NamedTuple):
    """A table on its way to being a dataset."""

    name: str
    tags: tuple[str, ...]
    table: Table


def named_tables(path: Path, name: str = "", tags: Iterable[str] = ()) -> list[Named]:
    """The tensors in ``path`` as datasets: called ``name`` (else as the file), and found by ``tags`` (else by "#" and the name).

    Of several, each has its own name in the file as a suffix, and as a tag.
    """
    name, tags = name or _slug(path.stem), tuple(tags)
    named = []
    for table in read_tables(path):
        full = f"{name}-{_slug(table.part)}" if table.part else name
        extra = (f"#{table.part}",) if table.part else ()
        named.append(Named(full, (*tags, *extra) if tags else (f"#{full}", *extra), table))
    return named


def _slug(text: str) -> str:
    """``text`` with '-' for what a dataset's name may not have."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:48] or "data"


def _dtypes() -> str:
    return ", ".join(str(dtype).removeprefix("torch.") for dtype in NUMBER_OF)


def _read_npy(path: Path) -> list[Table]:
    values = numpy.load(path, allow_pickle=False)
    if not isinstance(values, numpy.ndarray):
        values.close()
        raise ValueError("it holds several arrays: save each with numpy.save")
    try:
        return [Table(torch.from_numpy(numpy.ascontiguousarray(values, values.dtype.newbyteorder("=")).reshape(values.shape)))]
    except TypeError:
        raise ConfigurationError(f"{path}: {values.dtype} does not travel: convert it to one of {_dtypes()}") from None


def _read_safetensors(path: Path) -> list[Table]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise DependencyError('.safetensors files need safetensors: pip install "syftlite[cli]"') from None
    try:
        tensors = load_file(path)
    except (SafetensorError, KeyError) as error:
        raise ValueError(error) from None
    if not tensors:
        raise ValueError("it holds no tensor")
    return [Table(tensor, name if len(tensors) > 1 else "") for name, tensor in sorted(tensors.items())]


# -- csv


class _Columns:
    """The numbers of a CSV file, row after row: whole ones until the first that is not."""

    def __init__(self) -> None:
        self.values: array[Any] = array("q")
        self.rows = 0

    def add(self, cells: list[str]) -> None:
        """Append a row. Raises ValueError for a cell that is no number."""
        self.rows += 1
        if self.values.typecode == "q":
            try:
                self.values.extend([_whole(cell) for cell in cells])
                return
            except (ValueError, OverflowError):
                del self.values[len(self.values) // len(cells) * len(cells) :]
                self.values = array("d", self.values)
        self.values.extend([_number(cell) for cell in cells])

    def tensor(self, width: int) -> torch.Tensor:
        """(rows, width) int64 or float32."""
        kind = torch.int64 if self.values.typecode == "q" else torch.float64
        exact = torch.frombuffer(self.values, dtype=kind).view(self.rows, width)
        single = exact.to(torch.float32)
        return single if kind is torch.float64 and torch.equal(single.isinf(), exact.isinf()) else exact.clone()


def _number(cell: str) -> float:
    if "_" in cell:  # Python reads 1_000 as a number; a data file does not mean it
        raise ValueError(cell)
    return float(cell)


def _whole(cell: str) -> int:
    if "_" in cell:
        raise ValueError(cell)
    return int(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True


def _read_csv(path: Path) -> list[Table]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = _rows(path, csv.reader(file))
        try:
            at, first = next(rows)
        except StopIteration:
            raise ValueError("it is empty") from None
        names = () if any(map(_is_number, first)) else tuple(cell.strip() for cell in first)
        columns = _Columns()
        for line, cells in rows if names else chain([(at, first)], rows):
            if len(cells) != len(first):
                raise ConfigurationError(f"{path}, row {line}: it has {len(cells)} columns, the first row has {len(first)}")
            try:
                columns.add(cells)
            except ValueError:
                raise _bad_cell(path, line, cells, names) from None
    if not columns.rows:
        raise ValueError("it has column names and no rows; names must not stand alone")
    return [Table(columns.tensor(len(first)), columns=names)]


def _rows(path: Path, reader: Any) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of the rows that are not blank."""
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise ConfigurationError(f"{path}, row {reader.line_num}: {error}") from None


def _bad_cell(path: Path, line: int, cells: list[str], names: tuple[str, ...]) -> ConfigurationError:
    column = next(number for number, cell in enumerate(cells) if not _is_number(cell))
    called = f" ({names[column]})" if names else ""
    what = f"{cells[column]!r} is no number" if cells[column].strip() else "it is empty; write nan for a missing value"
    return ConfigurationError(f"{path}, row {line}, column {column + 1}{called}: {what}")
