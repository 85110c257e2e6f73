"""The documentation, executed: README.md, every Markdown file under docs/ and beside a program, and the docstrings' examples.

    ```python    run, each file's blocks in order in one namespace; what a statement shows is checked (the convention: `_markdown.py`).
                 A file's reader has an empty folder and, at ws://127.0.0.1:8777, a hospital whose owner decides on requests (`Hospital`)
    ```sh        parsed: `syftlite` commands by the real command, `make` targets, scripts, extras
    ```...       other languages are for reading
    links        lead to a file and a heading that exist
    tables       docs/security.md names code and tests that exist, docs/migrating.md names that exist, or do not yet
"""

from __future__ import annotations

import ast
import doctest
import gc
import importlib
import importlib.util
import inspect
import pkgutil
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from _markdown import Block, Document, run

import syftlite as sy
from syftlite.cli.app import cli
from syftlite.remote import registry

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    str(path.relative_to(ROOT)): Document(path)
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/**/*.md")])
}
LANGUAGES = {"python", "sh", "text", "toml", "json", "csv"}
every_document = pytest.mark.parametrize("name", DOCUMENTS)


# -- Python


class Hospital:
    """A data owner's node in a process of its own, made when a document first connects to it. It offers the reader's patients.csv, or
    one with three columns, as PRIVATE; its owner approves every request but those for "rows"."""

    PROGRAM = """
import select, sys
import syftlite as sy
node = sy.WebsocketServerWorker(id="hospital", port=0).start(wait=False)
node.load_file("patients.csv", "#patients", name="patients", private=True)
print(node.uri, flush=True)
while not select.select([sys.stdin], [], [], 0.05)[0]:
    for request in node.requests():
        if request.state == "pending" and "rows" in request.reason:
            node.deny(request, "rows stay here")
        elif request.state == "pending":
            node.approve(request)
node.close()
"""
    URI = "ws://127.0.0.1:8777"

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.uri = ""

    def start(self) -> None:
        """Start it, unless it runs."""
        if self.process is None:
            if not Path("patients.csv").exists():
                Path("patients.csv").write_text("age,dose,outcome\n" + "".join(f"{i}.5,{i % 3},{i % 2}\n" for i in range(20)))
            command = [sys.executable, "-c", self.PROGRAM]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self.process.stdout is not None
            self.uri = self.process.stdout.readline().strip()

    def stop(self) -> None:
        """End it."""
        if self.process is not None:
            self.process.communicate(timeout=30)


@pytest.fixture
def reader(tmp_path, monkeypatch) -> Iterator[None]:
    """What a document's reader has: a folder, and a hospital at the default port (in truth at a free one)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    hospital, connect = Hospital(), sy.connect

    def connected(uri: str, *args: Any, **options: Any) -> sy.WebsocketClientWorker:
        if uri == Hospital.URI:
            hospital.start()
            uri = hospital.uri
        return connect(uri, *args, **options)

    monkeypatch.setattr(sy, "connect", connected)
    yield
    close_workers()
    hospital.stop()


def close_workers() -> None:
    """Free the ids that a document used."""
    for worker in list(registry.known.values()):
        if worker is not sy.local_worker:
            worker.close()
    gc.collect()


@pytest.mark.parametrize("name", [name for name, document in DOCUMENTS.items() if document.of("python")])
def test_python_does_what_it_shows(reader, name):
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for block in DOCUMENTS[name].of("python"):
            run(Path(name), block, namespace)
    finally:
        namespace.clear()


@every_document
def test_no_block_escapes(name):
    for block in DOCUMENTS[name].blocks:
        assert block.info in LANGUAGES, f"{name}:{block.line - 1}: a block is one of {sorted(LANGUAGES)}, not {block.info!r}"
        if block.info != "python":
            assert not re.search(r"^(import|from) \w+", block.text, re.M), f"{name}:{block.line}: Python, in a block that is not run"


MODULES = sorted(m.name for m in pkgutil.walk_packages(sy.__path__, "syftlite.") if not m.name.endswith("__main__"))


@pytest.mark.parametrize("name", [m for m in MODULES if ">>> " in (importlib.util.find_spec(m).loader.get_source(m) or "")])
def test_docstrings_do_what_they_show(reader, name):
    module = importlib.import_module(name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    tests = [test for test in doctest.DocTestFinder().find(module) if test.examples]
    assert tests, f"{name}: an example stands where doctest does not find it"
    for test in tests:
        assert not any(example.options.get(doctest.SKIP) for example in test.examples), f"{test.name}: run it, or write prose"
        report: list[str] = []
        runner.run(test, out=report.append)
        assert not report, "".join(report)


# -- shell


def commands(text: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the line in ``text``, words) of its simple commands, without variables, redirections and comments."""
    number = 0
    for line in re.split(r"(?<!\\)\n", text):
        lexer = shlex.shlex(line.replace("\\\n", " ").removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        file_follows = False
        for word in [*lexer, ";"]:
            if file_follows:
                file_follows = False
            elif re.fullmatch("[<>&]*[<>][<>&]*", word):
                file_follows = True
                words = words[:-1] if words and words[-1].isdigit() else words
            elif re.fullmatch("[;&|()]+", word):
                if words:
                    yield number, words
                words = []
            elif words or not re.match("[A-Z_]+=", word):
                words.append(word)
        number += 1 + line.count("\n")


def check_syftlite(words: list[str]) -> None:
    """Parse the arguments of ``syftlite``. Raises `click.ClickException`."""
    command: click.Command = cli
    context = click.Context(cli, info_name="syftlite")
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"there is no {context.command_path} {words[0]}")
        command, context = found, click.Context(found, info_name=words[0], parent=context)
        words = words[1:]
    try:
        command.parse_args(context, list(words))
    except click.exceptions.Exit:
        return  # --help, --version
    if isinstance(command, click.Group):
        raise click.UsageError(f"{context.command_path} needs a command")


def check_make(words: list[str]) -> None:
    targets = set(re.findall(r"^([a-z][\w-]*):", (ROOT / "Makefile").read_text(), re.M))
    for word in words:
        assert word in targets or "=" in word or word.startswith("-"), f"make has no target {word}; it has {sorted(targets)}"


def check_python(words: list[str]) -> None:
    if words[:1] == ["-m"]:
        assert importlib.util.find_spec(words[1]), f"there is no module {words[1]}"
    elif words and not words[0].startswith("-"):
        assert (ROOT / words[0]).is_file(), f"there is no file {words[0]}"


def check_pip(words: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) = \[", project, re.M))
    for named in re.findall(r"\[([\w,]+)\]", " ".join(words)):
        assert set(named.split(",")) <= extras, f"there is no extra {named}; there are {sorted(extras)}"


CHECKS = {"syftlite": check_syftlite, "make": check_make, "python": check_python, "python3": check_python, "pip": check_pip}


def check_shell(text: str, where: str, line: int) -> None:
    """Raise `AssertionError`, naming ``where`` and the line, for a command of ``text`` that would not be accepted."""
    for number, words in commands(text):
        try:
            CHECKS.get(words[0], lambda words: None)(words[1:])
        except (click.ClickException, AssertionError) as error:
            text = error.format_message() if isinstance(error, click.ClickException) else str(error)
            raise AssertionError(f"{where}:{line + number}: {shlex.join(words)}: {text}") from None


@pytest.fixture
def no_files(monkeypatch):
    """The files that commands name need not exist."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


@every_document
def test_shell_commands_are_accepted(no_files, name):
    for block in DOCUMENTS[name].of("sh"):
        check_shell(block.text, name, block.line)


@every_document
def test_commands_in_sentences_exist(name):
    for line, text in DOCUMENTS[name].prose:
        for span in re.findall(r"`(syftlite [^`]*|make [^`]*)`", text):
            words = shlex.split(span)
            if words[0] == "make":
                check_make(words[1:2])
                continue
            command: click.Command = cli
            for word in words[1:]:
                if isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", word):
                    assert word in command.commands, f"{name}:{line}: {span}: there is no {word}; there are {sorted(command.commands)}"
                    command = command.commands[word]
                elif word.startswith("--"):
                    known = {option for param in command.params for option in param.opts} | {"--help", "--version"}
                    assert word.split("=")[0] in known, f"{name}:{line}: {span}: there is no {word}; there are {sorted(known)}"


# -- links


@every_document
def test_links_lead_somewhere(name):
    document = DOCUMENTS[name]
    for line, target in document.links():
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (document.path.parent / file).resolve() if file else document.path
        assert path.exists() and ROOT in path.parents, f"{name}:{line}: there is no {target}"
        if anchor:
            anchors = Document(path).anchors()
            assert anchor in anchors, f"{name}:{line}: {file or name} has no heading #{anchor}; it has {sorted(anchors)}"


def test_every_document_can_be_found():
    """By links, from README.md or from docs/index.md."""
    for start in ("README.md", "docs/index.md"):
        reached: set[Path] = set()
        ahead = [ROOT / start]
        while ahead:
            path = ahead.pop()
            if path.is_dir():
                ahead += path.glob("*.md")
            elif path.suffix == ".md" and path not in reached:
                reached.add(path)
                ahead += [(path.parent / target.partition("#")[0]).resolve() for _, target in Document(path).links() if ":" not in target]
        missed = {name for name in DOCUMENTS if name.startswith("docs/") and ROOT / name not in reached}
        assert not missed, f"no link leads from {start} to {sorted(missed)}"


# -- tables


def rows(name: str, *head: str) -> list[tuple[int, list[str]]]:
    """The rows of all tables of ``name`` with that ``head``."""
    found = [row for table in DOCUMENTS[name].tables() if tuple(table[0][1]) == head for row in table[1:]]
    assert found, f"{name} has no table | {' | '.join(head)} |"
    return found


def defined(path: Path) -> set[str]:
    """Names of the functions, classes and (as Class.name) methods in a Python file."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{inner.name}" for inner in node.body if isinstance(inner, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return names


def test_the_defences_are_where_the_table_says():
    for line, (threat, _, code, tests) in rows("docs/security.md", "threat", "defence", "code", "test"):
        for base, cell in ((ROOT / "syftlite", code), (ROOT / "tests", tests)):
            spans = re.findall(r"`([^`]+)`", cell)
            assert spans, f"docs/security.md:{line}: {threat}: an empty cell"
            for span in spans:
                file, _, name = span.partition("::")
                path = base / file.removeprefix("tests/")
                assert path.is_file(), f"docs/security.md:{line}: there is no {span}"
                assert not name or name in defined(path), f"docs/security.md:{line}: {file} has no {name}"
                assert name or base.name == "syftlite", f"docs/security.md:{line}: which test of {file}?"


ROOTS: dict[str, Any] = {
    "sy": sy,
    "errors": sy.errors,
    "client": sy.WebsocketClientWorker,
    "server": sy.WebsocketServerWorker,
    "plan": sy.Plan,
}


def exists(name: str, roots: dict[str, Any]) -> bool:
    """Whether ``name``, like "pointer.get" or "tensor.send(requires_grad=)", is part of this version."""
    path, _, parameters = name.partition("(")
    first, *rest = path.split(".")
    place = roots[first]
    for part in rest:
        annotated = inspect.isclass(place) and any(part in vars(base).get("__annotations__", ()) for base in place.__mro__)
        if not hasattr(place, part) and not annotated:
            return False
        place = getattr(place, part, None)
    accepted = inspect.signature(place.__init__ if inspect.isclass(place) else place).parameters if parameters else {}
    return all(parameter in accepted for parameter in re.findall(r"(\w+)=", parameters))


def test_migrating_tells_the_truth(reader):
    worker = sy.VirtualWorker(id="migrating")
    tensor, module = torch.ones(1), torch.nn.Linear(1, 1)
    roots = {**ROOTS, "worker": worker, "hook": sy.TorchHook(), "tensor": tensor, "pointer": tensor.send(worker), "module": module}
    table = rows("docs/migrating.md", "name", "status", "note")
    for line, (cell, status, note) in table:
        names = re.findall(r"`([^`]+)`", cell)
        assert names and status in ("same", "changed", "new", "not yet"), f"docs/migrating.md:{line}: {cell} is {status}"
        assert note or status != "changed", f"docs/migrating.md:{line}: what changed, and why?"
        for name in names:
            assert exists(name, roots) == (status != "not yet"), f"docs/migrating.md:{line}: {name} is not {status!r}"
    names = [name for _, (cell, *_) in table for name in re.findall(r"`([^`]+)`", cell)]
    assert len(names) == len(set(names)), f"named twice: {sorted(n for n in set(names) if names.count(n) > 1)}"


# -- and these tests can fail


def block(text: str) -> Block:
    return Block("python", 1, text)


@pytest.mark.parametrize(
    "text",
    [
        "print(1 + 1)  # -> 2",
        "x = 1\nprint(x)  # -> 1\nprint(x + 1)  # -> 2",
        "1 + 1  # -> 2",
        "for i in range(2):\n    print(i)\n# -> 0\n# -> 1",
        "[1,\n 2]  # -> [1, 2]",
        "int('x')  # raises ValueError: invalid literal ... 'x'",
        "int('x')\n# raises ValueError: invalid literal\n#   for int() with base 10: 'x'",
        "print('a 17 b')  # -> a ... b",
        "'no output is asked for'",
    ],
)
def test_a_true_document_passes(text):
    run(Path("true.md"), block(text), {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("print(1 + 1)  # -> 3", r"false.md:1: .*it shows\s+2\s+the document has\s+3"),
        ("x = 1\nprint(x)", "false.md:2: .*it shows"),
        ("x = 1  # -> 1", "false.md:1"),
        ("# -> 1\nx = 1", "false.md:1: no statement"),
        ("x = 1\nint('x')", "false.md:2: ValueError"),
        ("int('1')  # raises ValueError", "false.md:1: .*does not raise"),
        ("int('x')  # raises TypeError", "false.md:1: .*it raises ValueError"),
        ("int('x')  # raises ValueError: another text", "false.md:1: .*invalid literal"),
    ],
)
def test_a_false_document_fails(text, complaint):
    with pytest.raises(AssertionError, match=f"(?s){complaint}"):
        run(Path("false.md"), block(text), {})


@pytest.mark.parametrize(
    "line",
    [
        "syftlite wroker start",
        "syftlite worker start --prot 1",
        "syftlite worker start --port x",
        "syftlite token new",
        "syftlite token new alice --role king",
        "ls && syftlite approve",
        "syftlite token",
        "make tea",
        "python examples/none.py",
        'pip install "syftlite[none]"',
    ],
)
def test_a_false_command_fails(no_files, line):
    with pytest.raises(AssertionError, match=r"false\.md:2"):
        check_shell(f"make test\n{line}", "false.md", 1)


def test_shell_lines_are_taken_apart():
    text = 'A=1 syftlite ls > out 2>&1 | less  # a comment\n$ make test \\\n  lint && echo "a b"\n(ls) < ""'
    assert list(commands(text)) == [
        (0, ["syftlite", "ls"]),
        (0, ["less"]),
        (1, ["make", "test", "lint"]),
        (1, ["echo", "a b"]),
        (3, ["ls"]),
    ]
