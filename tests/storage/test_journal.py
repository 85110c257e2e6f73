"""The journal on disk: durable when told, chained, and honest about damage."""

import json
import os
import subprocess
import sys

import pytest

from syftlite.errors import ConfigurationError
from syftlite.storage.journal import FileJournal, _canonical, _chained, _to_sign, anchored, records, verify
from syftlite.storage.keys import key_of, public_of

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
    assert verify(path) == (6, bytes.fromhex(read[-1]["digest"]), 0, None, 0)


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
        assert verify(path) == (5, verify(path).digest, cut, None, 0)
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


# -- signed, and anchored elsewhere

NOTED = {"operators": {"mean": 100}, "principal": "carol", "session": 7, "sources": ["icu"]}


@pytest.fixture
def key(tmp_path):
    return key_of(tmp_path / "node" / "node.key")


@pytest.fixture
def anchor(tmp_path):
    return tmp_path / "elsewhere.anchor"


@pytest.fixture
def signed(path, key, anchor):
    journal = FileJournal(path, key=key, anchor=anchor)
    for n in range(3):
        for _ in range(3):
            journal.note("frame", NOTED)
        journal.append("released", {"principal": "carol", "releases": [f"r{n}"]})
    journal.close()
    return path.read_bytes().splitlines(keepends=True)


def check(path, key, anchor=None):
    return verify(path, public_of(key), anchor)


def test_frames_and_releases_are_one_chain_and_releases_are_signed(path, key, anchor, signed):
    verdict = check(path, key, anchor)
    assert verdict == (12, bytes.fromhex(json.loads(signed[-1])["digest"]), 0, None, 3)
    assert sorted(anchored(anchor, public_of(key))) == [3, 7, 11]
    assert anchor.stat().st_mode & 0o777 == 0o600


def test_a_note_is_with_the_kernel_at_once_and_on_disk_with_the_next_record(path, key, monkeypatch):
    synced = []
    journal = FileJournal(path, key=key)
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(path.read_bytes().count(b"\n")))
    journal.note("frame", NOTED)
    assert path.read_bytes().count(b"\n") == 1 and not synced
    journal.append("released", {})
    assert synced == [2]
    journal.close()


def test_without_a_release_every_thousandth_record_is_signed_and_synced(path, key, anchor):
    journal = FileJournal(path, key=key, anchor=anchor)
    for _ in range(2001):
        journal.note("frame", NOTED)
    journal.close()
    assert sorted(anchored(anchor, public_of(key))) == [999, 1999] and check(path, key, anchor).signed == 2


@pytest.mark.parametrize("keep", [11, 8, 7, 4, 1, 0])
def test_records_cut_off_the_end_show_by_the_anchor_alone(path, key, anchor, signed, keep):
    path.write_bytes(b"".join(signed[:keep]))
    assert check(path, key).broken is None, "a chain cannot show it"
    verdict = check(path, key, anchor)
    assert verdict.right == keep and f"the last {12 - keep} were cut off" in verdict.broken
    with pytest.raises(ConfigurationError, match="were cut off"):
        FileJournal(path, key=key, anchor=anchor)


def test_frames_after_the_last_release_are_all_that_may_go_unnoticed(path, key, anchor, signed):
    journal = FileJournal(path, key=key, anchor=anchor)
    journal.note("frame", NOTED)
    journal.close()
    path.write_bytes(b"".join(signed))
    assert check(path, key, anchor).broken is None


def rewritten(lines, change, signer=None):
    """The journal that who can write it, but has no key (or another), would make of ``lines``: a right chain."""
    digest, made = bytes(32), []
    for number, line in enumerate(change([json.loads(line) for line in lines])):
        row = {**{k: v for k, v in line.items() if k not in ("digest", "signature")}, "n": number}
        digest = _chained(digest, row)
        proof = {"digest": digest.hex()}
        if "signature" in line and signer is not None:
            proof["signature"] = signer.sign(_to_sign(number, digest)).hex()
        elif "signature" in line and signer is None:
            proof["signature"] = line["signature"]
        made.append(_canonical({**row, **proof}) + b"\n")
    return b"".join(made)


CHANGES = {
    "one less": lambda rows: rows[:3] + rows[4:],
    "another principal": lambda rows: [{**rows[0], "record": {"principal": "dave"}}, *rows[1:]],
    "swapped": lambda rows: [rows[1], rows[3], rows[2], *rows[4:], rows[0]],
    "no signatures": lambda rows: [{k: v for k, v in row.items() if n < 4 or k != "signature"} for n, row in enumerate(rows)],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("forged", [False, True], ids=["old signatures", "signed by another"])
def test_a_chain_written_anew_lacks_the_node_s_signatures(path, key, signed, change, forged, tmp_path):
    signer = key_of(tmp_path / "other.key") if forged else None
    path.write_bytes(rewritten(signed, CHANGES[change], signer))
    assert check(path, key).broken, change


def test_a_chain_with_no_signature_at_all_shows_by_the_anchor(path, key, anchor, signed):
    path.write_bytes(rewritten(signed, lambda rows: [{k: v for k, v in r.items() if k != "signature"} for r in rows[1:]]))
    assert check(path, key, anchor).broken and "written anew" in check(path, key, anchor).broken


def test_every_single_changed_byte_of_a_signed_journal_is_found(path, key, anchor, signed):
    whole = b"".join(signed)
    for offset in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        assert check(path, key, anchor).broken, offset


@pytest.mark.parametrize("text", ["{", "[]\n", '{"n":1}\n', '{"n":3,"digest":"00","signature":"00"}\n'])
def test_an_anchor_that_is_none_is_named(path, key, anchor, signed, text):
    anchor.write_text(anchor.read_text() + text + ("" if text.endswith("\n") else "\n"))
    with pytest.raises(ConfigurationError, match="no anchor of this node"):
        check(path, key, anchor)


def test_a_node_that_cannot_write_its_anchor_lets_nothing_go(path, key, tmp_path, monkeypatch):
    journal = FileJournal(path, key=key, anchor=tmp_path / "a")
    journal._anchor.close()
    for _ in range(2):
        with pytest.raises(OSError, match="start the node again"):
            journal.append("released", {})
    journal.close()
    with pytest.raises(ConfigurationError, match="cannot write"):
        FileJournal(tmp_path / "j2" / "journal.jsonl", key=key, anchor=tmp_path / "missing" / "anchor")


KILLED = """
import sys
from pathlib import Path
from syftlite.storage.journal import FileJournal
from syftlite.storage.keys import key_of
folder = Path(sys.argv[1])
journal = FileJournal(folder / "journal.jsonl", key=key_of(folder / "node.key"), anchor=folder / "anchor")
while True:
    for _ in range(5):
        journal.note("frame", {"principal": "carol"})
    journal.append("released", {"principal": "carol"})
    print(journal.count, flush=True)
"""


def test_kill_9_leaves_a_right_chain_with_all_that_was_told(tmp_path):
    for round_ in range(2):
        process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        told = [int(process.stdout.readline()) for _ in range(3 + 8 * round_)]
        process.kill()
        told += [int(line) for line in process.stdout.read().splitlines()]
        process.wait()
        process.stdout.close()
        verdict = verify(tmp_path / "journal.jsonl", public_of(key_of(tmp_path / "node.key")), tmp_path / "anchor")
        assert verdict.broken is None and verdict.right >= told[-1]
