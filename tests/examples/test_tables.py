"""Tables from R's files: built here byte by byte, read as they were written; what is no data, or damaged, is refused."""

import gzip
import hashlib
import importlib
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def tables(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(EXAMPLES)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return importlib.import_module("tables")


def whole(*numbers):
    return b"".join(struct.pack(">i", number) for number in numbers)


def text(value):
    return whole(9, len(value)) + value.encode()


def texts(*values):
    return whole(16, len(values)) + b"".join(map(text, values))


def reals(*values):
    return whole(14, len(values)) + struct.pack(f">{len(values)}d", *values)


def with_attributes(flags, body, **attributes):
    pairs = b"".join(whole(2 | 0x400, 1) + text(name) + value for name, value in attributes.items())
    return whole(flags | 0x200) + body + pairs + whole(254)


def frame(name):
    """A table ``name`` of two numbers and a factor, as R writes it."""
    factor = with_attributes(13, whole(3, 1, 2, 1), levels=texts("neg", "pos"))
    columns = whole(3) + reals(1.5, 2.5, 3.5) + whole(13, 3, 4, 5, 6) + factor
    table = with_attributes(19, columns, names=texts("a", "b", "diabetes"))
    return b"RDX2\nX\n" + whole(2, 0x30000, 0x20300) + whole(2 | 0x400, 1) + text(name) + table + whole(254)


def test_a_table_is_read_fetched_and_verified(tables, monkeypatch, tmp_path, capsys):
    raw = gzip.compress(frame("PimaIndiansDiabetes"))
    given = tmp_path / "given.rda"
    given.write_bytes(raw)
    assert tables.main(["pima", "--from", str(given)]) == 1
    assert "has the md5" in capsys.readouterr().err
    with pytest.raises(tables.DataError, match="fetch it, once, with: python examples/tables.py pima"):
        tables.load("pima")
    file, variable, target, _ = tables.TABLES["pima"]
    monkeypatch.setitem(tables.TABLES, "pima", (file, variable, target, hashlib.md5(raw).hexdigest()))
    assert tables.main(["pima", "--from", str(given)]) == 0
    rows, targets, columns = tables.load("pima")
    assert rows.tolist() == [[1.5, 4.0], [2.5, 5.0], [3.5, 6.0]] and targets.tolist() == [0, 1, 0] and columns == ("a", "b")
    assert targets.dtype is torch.int64


@given(st.integers(0, 400), st.integers(0, 255))
def test_what_is_damaged_is_refused_or_read(tables_module, at, byte):
    raw = bytearray(frame("PimaIndiansDiabetes"))
    raw[at % len(raw)] = byte
    try:
        tables_module.parse_rda(bytes(raw))
    except tables_module.DataError:
        pass


@pytest.fixture(scope="module")
def tables_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        yield importlib.import_module("tables")


def test_code_and_other_files_are_refused(tables):
    closure = b"RDX2\nX\n" + whole(2, 0, 0) + whole(2 | 0x400, 1) + text("f") + whole(3)
    with pytest.raises(tables.DataError, match="R's type 3, which is no data"):
        tables.parse_rda(closure)
    for raw in (b"", b"PK\x03\x04", b"\x1f\x8bnothing", frame("x")[:60]):
        with pytest.raises(tables.DataError, match=r"\.rda file"):
            tables.parse_rda(raw)
    with pytest.raises(tables.DataError, match="holds no BostonHousing"):
        tables.table_of("boston", frame("PimaIndiansDiabetes"))
