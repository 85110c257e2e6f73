"""The command `syftlite`: run a node, and be its owner.

    worker start                 run a node                             cli/worker.py
    user add | list | revoke | key    who may connect, as what          cli/user.py
    token new | list | revoke    ... with a token                       cli/user.py
    data add, data mock, ls      what it serves                         cli/data.py
    requests, inspect, approve, deny    what may leave                         cli/requests.py
    audit show | export | verify    what happened, and proof of it      cli/audit.py

Exit codes: 0 done, 1 refused or failed, 2 asked wrongly (a setting, an option).
"""

import sys


def main() -> None:
    """Run the command, or say what to install for it."""
    try:
        from syftlite.cli.app import cli
    except ModuleNotFoundError as missing:
        package = (missing.name or "").split(".")[0]
        if package not in ("click", "rich"):
            raise
        print(f'the command needs {package}: pip install "syftlite[cli]"', file=sys.stderr)
        raise SystemExit(1) from None
    cli(prog_name="syftlite")
