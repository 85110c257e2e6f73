"""The command's groups, and how an error ends it."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

import syftlite
from syftlite.cli.audit import audit
from syftlite.cli.common import errors, lines
from syftlite.cli.data import data, ls
from syftlite.cli.policy import policy
from syftlite.cli.requests import approve, deny, inspect, requests
from syftlite.cli.user import token, user
from syftlite.cli.worker import worker
from syftlite.errors import ConfigurationError, SyftliteError


class Command(click.Group):
    """Ends on an error of syftlite's own with its text, not with a trace."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a subcommand."""
        try:
            return super().invoke(ctx)
        except SyftliteError as error:
            errors().print(Text.assemble(("Error: ", "bold red"), lines(str(error))), soft_wrap=True)
            ctx.exit(2 if isinstance(error, ConfigurationError) else 1)


@click.group(cls=Command, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(syftlite.__version__, prog_name="syftlite")
def cli() -> None:
    """Run a node that serves your data to PyTorch programs elsewhere, and decide what may leave it."""


for command in (worker, user, token, data, ls, requests, inspect, approve, deny, audit, policy):
    cli.add_command(command)
