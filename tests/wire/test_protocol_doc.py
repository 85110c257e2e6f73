"""docs/protocol.md says what the code does: numbers, names, fields, limits, and the example's very bytes."""

import inspect
import re
from pathlib import Path

import pytest
import torch

from syftlite import errors
from syftlite.engine.session import Role
from syftlite.ops.dtypes import DTYPES, MEMORY_FORMATS
from syftlite.ops.table import TABLE
from syftlite.transports import server_socket
from syftlite.wire import codec, connection
from syftlite.wire import messages as m
from syftlite.wire.connection import Connection, State
from syftlite.wire.fields import MAX_DIMS, MAX_ITEMS, MAX_TEXT

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")


def section(title):
    return re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)[1]


def rows(text):
    """The cells of every table row, but for headers and rules."""
    for line in text.splitlines():
        if line.startswith("|") and not re.fullmatch(r"[|\- ]+", line):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def kinds():
    return {int(row[0]): row for row in rows(section("Messages")) if row[0].isdigit()}


def test_every_kind_is_there_with_its_name_and_its_number_of_fields():
    forms = {**m.FROM_WORKER, **m.FROM_CLIENT}
    assert set(kinds()) == set(forms)
    for number, (_, name, fields, *_) in kinds().items():
        assert (name, len(fields.split(", "))) == (forms[number].name, len(forms[number].fields)), name


def test_fields_and_answers_are_those_of_the_modules_own_table():
    drawn = {}
    for line in inspect.getdoc(m).splitlines():
        found = re.match(r"\s+(\d+) ([A-Z]+) +([a-z_, ]+?)(?:  +(.*))?$", line + "  ")
        if found:
            answer = re.match(r"[A-Z]+", found[4] or "")
            drawn[int(found[1])] = (found[2], found[3], answer[0] if answer else "")
    assert set(drawn) == set(kinds())
    for number, row in kinds().items():
        answer = row[3] if number in m.FROM_CLIENT else ""
        assert (row[1], row[2], answer) == drawn[number]


def test_what_is_answered_is_what_the_engine_answers():
    answered = {number for number, row in kinds().items() if number in m.FROM_CLIENT and row[3]}
    assert answered == m.ANSWERED | {m.HELLO, m.AUTH}


def test_dtypes_and_memory_formats_have_these_numbers():
    cells = [cell for row in rows(section("Tensors")) for cell in row]
    told = {int(number): name for number, name in zip(cells[::2], cells[1::2], strict=True) if number.isdigit()}
    assert told == {number: str(dtype).removeprefix("torch.") for number, dtype in enumerate(DTYPES)}
    formats = re.search(r"\| `MemoryFormat` \| (.*?) \|", TEXT)[1]
    assert formats == ", ".join(f"{number} {str(f).removeprefix('torch.')}" for number, f in enumerate(MEMORY_FORMATS))


def test_every_error_has_this_code():
    cells = [cell for row in rows(section("Errors")) for cell in row]
    told = {int(code): name for code, name in zip(cells[::2], cells[1::2], strict=True) if code.isdigit()}
    assert told == {code: cls.__name__.lstrip("_") for code, cls in errors._CODES}


@pytest.mark.parametrize(
    ("row", "numbers"),
    [
        ("a frame, and a frame before WELCOME", (codec.MAX_FRAME, codec.BEFORE_AUTH)),
        ("a head", (codec.MAX_HEAD,)),
        ("a CHUNK", (codec.PIECE,)),
        ("streams open at once", (connection.MAX_STREAMS, MAX_ITEMS)),
        ("items of an array of ids, tags, results", (MAX_ITEMS,)),
        ("a text; the tags of one object together", (MAX_TEXT,)),
        ("dimensions", (MAX_DIMS,)),
    ],
)
def test_limits_are_these(row, numbers):
    (told,) = [cells[1] for cells in rows(section("Limits")) if cells[0] == row]
    assert [int(n.replace(",", "")) for n in re.findall(r"[\d,]+", told)] == list(numbers)


def test_numbers_in_the_prose_are_these():
    assert f"takes frames of one message and {codec.BEFORE_AUTH:,} bytes" in TEXT
    assert f"{codec.INLINE >> 10} KiB so" in TEXT and f"1 to {codec.PIECE:,}" in TEXT
    assert f"pings every {server_socket.PING_SECONDS:g} s" in TEXT and f"within {server_socket.HANDSHAKE_SECONDS:g} s" in TEXT
    assert f"Version {m.PROTOCOLS[0]}" in TEXT
    for role in Role:
        assert f"`{role.value}`" in TEXT
    for name, number in re.findall(r"`(aten\.\S+)`\s+is\s+(\d+)", section("Operators")):
        assert TABLE[int(number)].name == name
    for error in (errors.ObjectNotFoundError, errors.GetNotPermittedError, errors.AuthenticationError, errors.ProtocolVersionError):
        assert f"ERROR {errors.code_of(error())}" in TEXT


def test_the_example_is_these_very_bytes():
    lines = re.search(r"```text\n(.*?)```", section("Frames"), re.S)[1].splitlines()
    frame = bytes.fromhex("".join(re.match(r"((?:[0-9a-f]{2} )+) ", line)[1] for line in lines))
    worker = Connection(worker=True, reserve=lambda nbytes: None)
    worker.state, worker.session, worker.received, worker.sent = State.OPEN, 5, 7, 3
    put, get = worker.receive(frame)
    number = 5 * 2**32 + 1
    assert (put[0], put[1], *put[3:]) == (m.PUT, number, ("#x",), "") and put[2].dtype is torch.float32 and put[2].tolist() == [1.0, 2.0]
    assert get == (m.GET, 1, (number,), True, None)
    assert worker.received == 9 and worker.acknowledged == 3
    client = Connection(worker=False)
    client.state, client.session, client.sent, client.received = State.OPEN, 5, 7, 3
    ours = b"".join(b"".join(f) for f in client.frames([(m.PUT, number, torch.tensor([1.0, 2.0]), ["#x"], "")]))
    assert frame.startswith(b"\x2a") and ours[4:] == frame[4:9] + b"\x91" + frame[10:31] + b"\x00\x00\x80\x3f\x00\x00\x00\x40"
