"""`python -m syftlite.cli` is the command `syftlite`."""

from syftlite.cli import main

main()
