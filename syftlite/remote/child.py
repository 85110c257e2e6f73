"""A node as a child process. It reads its configuration from standard input and ends when that closes, so that it never outlives the
program that started it, however that ends.

    configuration   {"id", "tokens": {role: token}, or null: tokens where this user's clients find them, "port", "threads", "device",
                     "folder": where it keeps what must outlive it, or null,
                     "identity": its secret key in sums, or null, "aggregates_with": {name: public key}; keys in hexadecimal}
    answer          {"port": 4000}, or {"error": "why it cannot listen"}
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import torch

from syftlite._malloc import keep_warm
from syftlite.engine.session import Role
from syftlite.errors import ConfigurationError
from syftlite.remote.node import WebsocketServerWorker
from syftlite.secagg.identity import Identity
from syftlite.storage.users import Users


def main() -> None:
    """Serve until standard input closes."""
    keep_warm()
    configuration = json.loads(sys.stdin.readline())
    if configuration["threads"]:
        torch.set_num_threads(configuration["threads"])
    try:
        node = _node(configuration).start(wait=False)
    except ConfigurationError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        raise SystemExit(2) from None
    print(json.dumps({"port": node.port}), flush=True)
    sys.stdin.read()
    node.close()
    sys.stdout.flush()
    os._exit(0)  # a kernel may still run: its thread would make the interpreter's end an abort


def _node(configuration: dict[str, Any]) -> WebsocketServerWorker:
    given = {name: configuration[name] for name in ("id", "port", "device", "folder")}
    if configuration["identity"] is not None:
        given["identity"] = Identity(bytes.fromhex(configuration["identity"]))
        given["aggregates_with"] = {name: bytes.fromhex(key) for name, key in configuration["aggregates_with"].items()}
    if configuration["tokens"] is None:
        return WebsocketServerWorker(**given)
    tokens = Users()
    for role, token in configuration["tokens"].items():
        tokens.add(role, token, Role(role))
    return WebsocketServerWorker(tokens=tokens, announce=False, **given)


if __name__ == "__main__":
    main()
