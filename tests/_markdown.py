"""Markdown as the documentation uses it: its blocks, headings and links, and running a Python block against the output that it shows.

    statement                     # -> text       what the statement prints or, if it prints nothing, the repr of its value
    statement                     # raises Name: text
    # -> another line             of the output, below the statement that has it
    #    more text                of the error, likewise
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

FENCE = re.compile(r"^(?P<indent> *)(?P<fence>```+|~~~+)(?P<info>.*)$")
HEADING = re.compile(r"^#{1,6} +(.*?) *#*$")
LINK = re.compile(r"!?\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+(?:\([^()]*\))?)\)")
SHOWN = re.compile(r"^# -> ?(.*)$")
RAISES = re.compile(r"^# raises (\w+)(?:: (.*))?$")
MORE = re.compile(r"^# {2,}(\S.*)$")


class Block(NamedTuple):
    """A fenced block: what follows its fence, the number of the line below the fence, its text."""

    info: str
    line: int
    text: str


class Document:
    """The Markdown file ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: list[Block] = []
        self.prose: list[tuple[int, str]] = []
        self._read(path.read_text(encoding="utf-8").splitlines())

    def _read(self, lines: list[str]) -> None:
        opened: tuple[str, int, int, str] | None = None
        body: list[str] = []
        for number, line in enumerate(lines, 1):
            found = FENCE.match(line)
            if opened is None:
                if found:
                    opened, body = (found["info"].strip(), number + 1, len(found["indent"]), found["fence"]), []
                else:
                    self.prose.append((number, line))
            elif found and not found["info"].strip() and found["fence"].startswith(opened[3]):
                self.blocks.append(Block(opened[0], opened[1], "\n".join(body)))
                opened = None
            else:
                body.append(line[opened[2] :] if not line[: opened[2]].strip() else line)
        if opened is not None:
            raise AssertionError(f"{self.path}:{opened[1] - 1}: this fence is never closed")

    def of(self, info: str) -> list[Block]:
        """The blocks with that information string."""
        return [block for block in self.blocks if block.info == info]

    def anchors(self) -> set[str]:
        """What a link's fragment may name: its headings, as GitHub names them."""
        found: list[str] = []
        for _, line in self.prose:
            if heading := HEADING.match(line):
                text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
                slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
                found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
        return set(found)

    def links(self) -> Iterator[tuple[int, str]]:
        """(line, target) of its links, code spans left out."""
        for number, line in self.prose:
            for target in LINK.findall(re.sub(r"`[^`]*`", "``", line)):
                yield number, target

    def tables(self) -> Iterator[list[tuple[int, list[str]]]]:
        """Its tables, as rows of (line, cells); the first row is the head, the ruler is left out."""
        rows: list[tuple[int, list[str]]] = []
        for number, line in [*self.prose, (0, "")]:
            if line.startswith("|"):
                cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1]]
                if not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
                    rows.append((number, cells))
            elif rows:
                yield rows
                rows = []


# -- running a block


class Shown(NamedTuple):
    """What the comments of one statement promise: output, or an error's name and text."""

    output: list[str]
    error: str | None
    text: list[str]


def run(path: Path, block: Block, namespace: dict[str, Any]) -> None:
    """Run ``block`` of the document ``path`` in ``namespace``. Raises `AssertionError`, naming the line, unless it does what it shows."""
    source = "\n" * (block.line - 1) + block.text + "\n"
    comments = {
        token.start[0]: token.string
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    body = ast.parse(source, str(path)).body
    starts = [min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))]) for node in body]
    for number in comments:
        if SHOWN.match(comments[number]) and number < min(starts, default=1 << 30):
            raise AssertionError(f"{path}:{number}: no statement stands above this output")
    for node, first, after in zip(body, starts, [*starts[1:], 1 << 30], strict=True):
        shown = _shown([comments[number] for number in sorted(comments) if first <= number < after])
        try:
            _run(path, node, namespace, shown)
        except Exception as error:
            raise AssertionError(f"{path}:{node.lineno}: {type(error).__name__}: {error}") from error


def _shown(comments: list[str]) -> Shown:
    output: list[str] = []
    error: str | None = None
    text: list[str] = []
    for comment in comments:
        if line := SHOWN.match(comment):
            output.append(line[1])
        elif name := RAISES.match(comment):
            error, text = name[1], [name[2] or ""]
        elif error is not None and (more := MORE.match(comment)):
            text.append(more[1])
    return Shown(output, error, text)


def _run(path: Path, node: ast.stmt, namespace: dict[str, Any], shown: Shown) -> None:
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            value = _value(path, node, namespace)
    except Exception as error:
        if shown.error is None:
            raise
        text = " ".join(str(error).split())
        wanted = " ".join(" ".join(shown.text).split())
        if type(error).__name__ != shown.error or not _like(wanted or "...", text):
            raise AssertionError(f"it raises {type(error).__name__}: {text}\nthe document has {shown.error}: {wanted}") from error
    else:
        if shown.error is not None:
            raise AssertionError(f"it does not raise {shown.error}")
        if shown.output and not printed.getvalue() and value is not None:
            printed.write(repr(value))
    actual = [line.rstrip() for line in printed.getvalue().rstrip("\n").split("\n")] if printed.getvalue() else []
    if not _like("\n".join(shown.output), "\n".join(actual)):
        raise AssertionError("it shows\n    " + "\n    ".join(actual) + "\nthe document has\n    " + "\n    ".join(shown.output))


def _value(path: Path, node: ast.stmt, namespace: dict[str, Any]) -> Any:
    if isinstance(node, ast.Expr):
        return eval(compile(ast.Expression(node.value), str(path), "eval"), namespace)  # noqa: S307 - that is what it is for
    exec(compile(ast.Module([node], []), str(path), "exec"), namespace)  # noqa: S102
    return None


def _like(pattern: str, text: str) -> bool:
    """Whether ``text`` is ``pattern``, in which ... stands for anything."""
    lines = "\n".join(line.rstrip() for line in pattern.split("\n"))
    return re.fullmatch(".*".join(map(re.escape, lines.split("..."))), text, re.DOTALL) is not None
