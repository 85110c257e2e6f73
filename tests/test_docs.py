"""The documentation, executed: README.md, every Markdown file under docs/ and beside a program, and the docstrings' examples.

    ```python    run, each file's blocks in order in one namespace. A file's reader has an empty folder and, at ws://127.0.0.1:8777, a
                 hospital whose owner decides on requests (`Hospital`). What a statement shows is checked:

                     print(x)        # -> 3                     the line that it prints; nothing is printed that is not shown
                     x + 1           # -> 4                     ... or the repr of its value
                     int("x")        # raises ValueError: ...   the error's name and text
                     # -> 5                                     below a statement: the next line of its output
                     #    and so on                             below `# raises`: the text goes on

                 In each, ... stands for anything.
    ```sh        parsed, not run (`_shell.py`); other languages are for reading
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
import socket
import subprocess
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from _markdown import Block, Document, run
from _shell import check_make, check_shell, commands
from cli.machine import as_another_process
from test_architecture import LAYERS, LEVEL

import syftlite as sy
from syftlite.cli.app import cli
from syftlite.hooks import tfe
from syftlite.remote import registry

ROOT = Path(__file__).parent.parent
DOCUMENTS = {
    str(path.relative_to(ROOT)): Document(path)
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("[!.]*/README.md"), *ROOT.glob("docs/**/*.md")])
}
LANGUAGES = {"python", "sh", "text", "toml", "json", "csv"}
every_document = pytest.mark.parametrize("name", DOCUMENTS)


# -- Python


class Hospital:
    """A data owner's process. It runs a node for one document at a time, when that first connects, and offers the reader's patients.csv, or
    one with three columns, as PRIVATE. The owner approves every request but those for "rows"."""

    URI = "ws://127.0.0.1:8777"
    PROGRAM = """
import os, select, sys
import torch
import syftlite as sy
torch.set_num_threads(1)
for line in iter(sys.stdin.readline, ""):
    os.chdir(line.strip())
    os.environ["SYFTLITE_HOME"] = line.strip() + "/home"
    node = sy.WebsocketServerWorker(id="hospital", port=0).start(wait=False)
    node.load_file("patients.csv", "#patients", name="patients", private=True)
    print(node.uri, flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        for request in node.requests():
            if request.state == "pending" and "rows" in request.reason:
                node.deny(request, "rows stay here")
            elif request.state == "pending":
                node.approve(request)
    sys.stdin.readline()
    node.close()
    print("closed", flush=True)
"""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None
        self.uri = ""

    def _say(self, line: str) -> str:
        if self.process is None:
            command = [sys.executable, "-c", self.PROGRAM]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None and self.process.stdout is not None
        print(line, file=self.process.stdin, flush=True)
        return self.process.stdout.readline().strip()

    def open(self) -> str:
        """Where its node listens; started if it is not running. Its data is what is in the reader's folder."""
        if not self.uri:
            if not Path("patients.csv").exists():
                Path("patients.csv").write_text("age,dose,outcome\n" + "".join(f"{i}.5,{i % 3},{i % 2}\n" for i in range(20)))
            self.uri = self._say(str(Path.cwd()))
            assert self.uri, "the hospital did not start: its messages are above"
        return self.uri

    def close(self) -> None:
        """End its node."""
        if self.uri:
            self.uri = ""
            assert self._say("") == "closed"


@pytest.fixture(scope="module")
def hospital() -> Iterator[Hospital]:
    hospital = Hospital()
    yield hospital
    if hospital.process is not None:
        hospital.process.communicate(timeout=30)


@pytest.fixture
def reader(tmp_path, monkeypatch, hospital) -> Iterator[None]:
    """What a document's reader has: a folder, and a hospital at the default port. It and `TFEWorker`s are in truth at free ports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SYFTLITE_HOME", str(tmp_path / "home"))
    connect = sy.connect

    def connected(uri: str, *args: Any, **options: Any) -> sy.WebsocketClientWorker:
        return connect(hospital.open() if uri == Hospital.URI else uri, *args, **options)

    monkeypatch.setattr(sy, "connect", connected)
    address, ports = tfe._address, dict[str, int]()

    def moved(host: str) -> tuple[str, str]:
        """Where a `TFEWorker` of the text is in truth: at a free port, always the same."""
        uri, id = address(host)
        place, _, port = uri.rpartition(":")
        return f"{place}:{ports.setdefault(port, free_port())}", id

    monkeypatch.setattr(tfe, "_address", moved)
    with as_another_process():  # a document begins with no worker but the local one
        registry.add(sy.local_worker)
        yield
        for worker in list(registry.known.values()):
            if worker is not sy.local_worker:
                worker.close()
        gc.collect()
    hospital.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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


@pytest.mark.parametrize("name", [m for m in MODULES if ">>> " in Path(importlib.util.find_spec(m).origin).read_text()])
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


@pytest.fixture
def no_files(monkeypatch):
    """The files that commands name need not exist."""
    monkeypatch.setattr(click.Path, "convert", lambda self, value, param, ctx: value)


@every_document
def test_shell_commands_are_accepted(no_files, name):
    for block in DOCUMENTS[name].of("sh"):
        check_shell(block.text, name, block.line)
    for line, text in DOCUMENTS[name].prose:
        if re.match(r" {4,}(syftlite|make|python|pip) ", text):
            check_shell(text.strip(), name, line)


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
            elif path.suffix == ".md" and path.exists() and path not in reached:
                reached.add(path)
                ahead += [(path.parent / target.partition("#")[0]).resolve() for _, target in Document(path).links() if ":" not in target]
        missed = {name for name in DOCUMENTS if name.startswith("docs/") and ROOT / name not in reached}
        assert not missed, f"no link leads from {start} to {sorted(missed)}"


# -- tables


def test_the_readme_lists_the_layers():
    tree = re.findall(r"^ {4}(.*)", (ROOT / "README.md").read_text().partition("bottom up")[2], re.M)
    listed = [set(takewhile(LEVEL.__contains__, line.replace("/", "").split())) for line in tree]
    assert listed == [names for names in LAYERS if "__init__" not in names]


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
