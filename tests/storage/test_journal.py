"""The journal on disk: durable when told, chained, and honest about damage."""

import json
import os

import pytest

from syftlite.errors import ConfigurationError
from syftlite.storage.journal import FileJournal, records, verify

FILED = {"what": ["float32[3]"], "reason": "größer\n\x1b[2J"}
EVENTS = [*(("filed", {**FILED, "release": f"r{n}"}) for n in range(5)), ("approved", {"by": "owner"})]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "node" / "journal.jsonl"


@pytest.fixture
def lines(path):
    journal = FileJournal(path, clock=iter(range(100)).__next__)
    for event, record in EVENTS:
        journal.append(event, record)
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def test_what_is_appended_can_be_read_back_in_order(path, lines):
    read = list(records(path))
    assert [(r["event"], r["record"]) for r in read] == EVENTS
    assert [r["n"] for r in read] == [r["at"] for r in read] == list(range(6))
    assert verify(path) == (6, bytes.fromhex(read[-1]["digest"]), 0, None)


def test_an_empty_journal_is_right(path):
    FileJournal(path).close()
    assert verify(path).right == 0 and verify(path).broken is None


def test_a_reopened_journal_continues_its_chain(path, lines):
    journal = FileJournal(path)
    assert journal.count == 6 and journal.torn == 0
    journal.append("more", {})
    journal.close()
    assert path.read_bytes().startswith(b"".join(lines))
    assert verify(path).right == 7


def test_it_and_its_folder_are_its_users_alone(path, lines):
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_every_single_changed_byte_is_found_where_it_is(path, lines):
    number = start = 0
    for number, line in enumerate(lines):
        for offset in range(len(line)):
            for bit in (1,) if offset % 8 else (1, 0x10):
                damaged = bytearray(b"".join(lines))
                damaged[start + offset] ^= bit
                path.write_bytes(damaged)
                verdict = verify(path)
                assert verdict.right == number, (number, offset, bit)
                assert verdict.broken or (verdict.torn and number == 5), (number, offset, bit)
        start += len(line)


@pytest.mark.parametrize(
    ("damage", "right"),
    [
        pytest.param(lambda lines: lines[1:], 0, id="first removed"),
        pytest.param(lambda lines: lines[:2] + lines[3:], 2, id="one removed"),
        pytest.param(lambda lines: [*lines[:2], lines[3], lines[2], *lines[4:]], 2, id="two swapped"),
        pytest.param(lambda lines: [*lines[:2], lines[1], *lines[2:]], 2, id="one repeated"),
        pytest.param(lambda lines: [*lines[:2], lines[2][:40] + b"\n", *lines[3:]], 2, id="one cut short"),
        pytest.param(lambda lines: [*lines[:2], bytes(100) + b"\n", *lines[3:]], 2, id="one zeroed"),
        pytest.param(lambda lines: [*lines[:2], b'{"n":2}\n', *lines[3:]], 2, id="one made up"),
        pytest.param(lambda lines: [*lines[:2], b"\n", *lines[2:]], 2, id="a line put in"),
        pytest.param(lambda lines: [*lines[:2], b"[" * 100_000 + b"\n", *lines[3:]], 2, id="nested"),
    ],
)
def test_damage_in_the_middle_is_found_and_not_repaired(path, lines, damage, right):
    damaged = b"".join(damage(lines))
    path.write_bytes(damaged)
    verdict = verify(path)
    assert verdict.right == right and verdict.broken
    with pytest.raises(ConfigurationError, match=f"record {right} is damaged"):
        FileJournal(path)
    assert path.read_bytes() == damaged


def test_a_forged_record_with_a_right_digest_of_its_own_breaks_the_next(path, lines):
    from syftlite.storage.journal import _canonical, _chained

    row = json.loads(lines[2])
    row.pop("digest")
    row["record"] = {"release": "another"}
    before = bytes.fromhex(json.loads(lines[1])["digest"])
    forged = _canonical({**row, "digest": _chained(before, row).hex()}) + b"\n"
    path.write_bytes(b"".join([*lines[:2], forged, *lines[3:]]))
    assert verify(path).right == 3 and verify(path).broken


def test_an_unfinished_last_line_is_cut_off_wherever_it_ends(path, lines, caplog):
    whole = b"".join(lines[:-1])
    for cut in range(1, len(lines[-1])):
        path.write_bytes(whole + lines[-1][:cut])
        assert verify(path) == (5, verify(path).digest, cut, None)
    journal = FileJournal(path)
    assert journal.torn == cut and f"{cut} bytes" in caplog.text
    assert path.read_bytes() == whole
    journal.append("next", {})
    journal.close()
    assert verify(path).right == 6 and verify(path).torn == 0


def test_zeros_after_a_power_cut_are_an_unfinished_line(path, lines):
    for tail in (bytes(512), lines[-1][:50] + bytes(100) + b"\n"):
        path.write_bytes(b"".join(lines) + tail)
        assert verify(path).torn == len(tail)
        journal = FileJournal(path)
        assert journal.torn == len(tail) and journal.count == 6
        journal.close()


def test_one_process_at_a_time(path, lines):
    first = FileJournal(path)
    with pytest.raises(ConfigurationError, match="another process"):
        FileJournal(path)
    first.close()
    FileJournal(path).close()


def test_append_returns_only_after_the_disk_has_it(path, monkeypatch):
    journal = FileJournal(path)
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_bytes()))
    journal.append("filed", {"release": "r"})
    assert len(synced) == 1 and b'"filed"' in synced[0]
    journal.close()


def test_after_the_disk_failed_nothing_more_is_recorded(path, monkeypatch):
    journal = FileJournal(path)
    journal.append("one", {})

    def fail(descriptor):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(OSError, match="start the node again"):
            journal.append("two", {})
    with pytest.raises(OSError, match="start the node again"):
        journal.append("three", {})
    journal.close()
    assert all(record["event"] != "three" for record in records(path))


def test_a_record_that_did_not_fit_leaves_no_trace(path):
    journal = FileJournal(path)
    journal.append("one", {})
    whole = path.read_bytes()

    class Full:
        """The journal's file on a disk with room for ten bytes."""

        def __init__(self, file):
            self.file = file

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            return self.file.write(data[:10])

    journal._file = Full(journal._file)
    with pytest.raises(OSError, match="make room"):
        journal.append("two", {})
    journal.close()
    assert path.read_bytes() == whole


def test_a_closed_journal_takes_nothing(path):
    journal = FileJournal(path)
    journal.close()
    with pytest.raises(OSError, match="closed"):
        journal.append("late", {})


def test_values_that_are_not_json_are_refused_before_anything_is_written(path):
    journal = FileJournal(path)
    for record in ({"x": float("nan")}, {"x": object()}):
        with pytest.raises((ValueError, TypeError)):
            journal.append("odd", record)
    journal.append("one", {})
    journal.close()
    assert verify(path).right == 1
