"""Shell lines of the documentation, taken apart and checked without being run.

    syftlite ...     parsed by the real command: it and its options exist, arguments are of the right number and type
    make TARGET      is in the Makefile
    python FILE      exists, and so does the module of python -m
    pip install      names extras that exist
"""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click

from syftlite.cli.app import cli

ROOT = Path(__file__).parent.parent


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
