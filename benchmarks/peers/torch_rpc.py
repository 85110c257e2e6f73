"""torch RPC over tensorpipe: one worker process that holds the tensors by name, as RRefs do; calls are `rpc_async`, results stay there.

Measured the fastest way found: names, because RRefs as arguments cost twice as much (a message more for each reference count); its
default of sixteen worker threads, although calls then overtake each other; and no bound on the calls in flight.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
from typing import Any

from _serve import Command, serve

_store: dict[str, Any] = {}


def _put(name: str, value: Any) -> None:
    _store[name] = value


def _add(left: str, right: str, out: str) -> None:
    _store[out] = _store[left] + _store[right]


def _first(name: str) -> float:
    return float(_store[name][0])


def _join(name: str, rank: int, meeting: str) -> Any:
    import torch
    from torch.distributed import rpc

    torch.set_num_threads(1)
    options = rpc.TensorPipeRpcBackendOptions(init_method=f"file://{meeting}")
    rpc.init_rpc(name, rank=rank, world_size=2, rpc_backend_options=options)
    return rpc


def _hold(meeting: str) -> None:
    _join("holder", 1, meeting).shutdown()


def start() -> tuple[str, dict[str, Command]]:
    """Start the worker process and meet it."""
    import torch

    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    meeting = os.path.join(tempfile.mkdtemp(), "meeting")
    multiprocessing.get_context("spawn").Process(target=_hold, args=(meeting,), daemon=True).start()
    rpc = _join("caller", 0, meeting)
    rpc.rpc_sync("holder", _put, ("x", torch.zeros(10)))
    rpc.rpc_sync("holder", _put, ("y", torch.ones(10)))

    def pipelined(count: int) -> float:
        """z = x + y, ``count`` times, ended by a checked get."""
        rpc.rpc_sync("holder", _put, ("z", torch.zeros(10)))
        began = time.perf_counter()
        torch.futures.wait_all([rpc.rpc_async("holder", _add, ("x", "y", "z")) for _ in range(count)])
        last = rpc.rpc_sync("holder", _first, ("z",))
        seconds = time.perf_counter() - began
        assert last == 1.0, last
        return seconds

    return str(torch.__version__), {"pipelined": pipelined}


def stop() -> None:
    """End both processes."""
    from torch.distributed import rpc

    rpc.shutdown()


if __name__ == "__main__":
    serve(start, stop)
