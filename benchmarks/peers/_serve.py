"""How a peer's program talks to the benchmark: one JSON object a line, requests on standard input, answers on standard output.

    first, unasked     {"ready": version}  or  {"missing": the module that is not installed}
    {"do": name, ...}  {"value": the seconds that it took, or what a command that counts has counted}
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Command = Callable[..., float]
"""Does its work and returns the seconds that it took; or a count, if it says so."""


def serve(start: Callable[[], tuple[str, dict[str, Command]]], stop: Callable[[], None] = lambda: None) -> None:
    """Answer requests until standard input closes. ``start`` gives the peer's version and its commands; it may raise ImportError."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the peer prints is no answer

    def answer(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=answers, flush=True)

    try:
        version, commands = start()
    except ImportError as error:
        answer({"missing": error.name or str(error)})
        return
    answer({"ready": version})
    try:
        for line in sys.stdin:
            request = json.loads(line)
            answer({"value": commands[request.pop("do")](**request)})
    finally:
        stop()
