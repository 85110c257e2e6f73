"""`python -m syftlite` is the command `syftlite`."""

from syftlite.cli import main

main()
