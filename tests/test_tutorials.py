"""The lessons make one course: numbered without a gap, each says who sees what and what was learned, and leads to the next."""

import re
from pathlib import Path

import pytest
from _markdown import Document

ROOT = Path(__file__).parent.parent
LESSONS = sorted((ROOT / "docs/tutorials").glob("*.md"))
every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def test_they_are_numbered():
    assert [int(path.name[:2]) for path in LESSONS] == list(range(1, 14))


@every_lesson
def test_it_has_its_parts(path):
    text = path.read_text()
    assert text.startswith(f"# {int(path.name[:2])}. ")
    for part in ("\n## Who saw what\n", "\n## What you learned\n"):
        assert text.count(part) == 1
    assert text.index("\n## Who saw what\n") < text.index("\n## What you learned\n")


@every_lesson
def test_it_leads_to_the_next(path):
    *_, last = path.read_text().rstrip().split("\n\n")
    position = LESSONS.index(path)
    if path == LESSONS[-1]:
        assert "(../index.md)" in last
    else:
        following = LESSONS[position + 1]
        title = following.read_text().partition("\n")[0].removeprefix("# ")
        assert last == f"Next: [{title}]({following.name})."


@every_lesson
def test_it_shows_what_it_does(path):
    blocks = Document(path).of("python")
    shown = sum(len(re.findall("# (?:->|raises)", block.text)) for block in blocks)
    assert len(blocks) >= 5 and shown >= 5


@every_lesson
def test_it_begins_alone(path):
    """A reader may open any lesson first: its first block imports what is used."""
    assert "import torch\n" in Document(path).of("python")[0].text


def test_the_index_lists_them():
    linked = {target for _, target in Document(ROOT / "docs/index.md").links()}
    assert {f"tutorials/{path.name}" for path in LESSONS} <= linked
