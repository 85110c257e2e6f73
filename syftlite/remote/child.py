"""The process of one node of a `LocalCluster`. Reads its configuration from standard input and ends when that closes, so that it never
outlives the program that started it, however that ends."""

from __future__ import annotations

import json
import os
import sys

import torch

from syftlite._malloc import keep_warm
from syftlite.engine.session import Role
from syftlite.remote.node import WebsocketServerWorker
from syftlite.storage.tokens import Tokens


def main() -> None:
    """Serve until standard input closes."""
    keep_warm()
    configuration = json.loads(sys.stdin.readline())
    if configuration["threads"]:
        torch.set_num_threads(configuration["threads"])
    tokens = Tokens()
    for role, token in configuration["tokens"].items():
        tokens.add(role, token, Role(role))
    node = WebsocketServerWorker(id=configuration["id"], port=0, tokens=tokens, announce=False, device=configuration["device"])
    node.start(wait=False)
    print(json.dumps({"port": node.port}), flush=True)
    sys.stdin.read()
    node.close()
    sys.stdout.flush()
    os._exit(0)  # a kernel may still run: its thread would make the interpreter's end an abort


if __name__ == "__main__":
    main()
