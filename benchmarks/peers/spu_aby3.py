"""SPU: three processes of its ABY3 runtime (64 bits, 18 of them after the point, its defaults), linked by its own RPC over loopback.

A case is compiled and its operands are shared once, and three processes of their own run it: the seconds are those of the party that took
longest, the median of some runs after one that does not count. They use as many threads as they like.
"""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import time
from collections.abc import Callable
from typing import Any

from _serve import Command, serve

PARTIES = 3


class _Aby3:
    """Cases of one size, compiled and shared."""

    def __init__(self) -> None:
        import jax.numpy as jnp
        import numpy as np
        from spu import api, libspu
        from spu.utils import frontend

        self._np, self._api, self._spu, self._frontend = np, api, libspu, frontend
        self._config = _config(libspu)
        self._cases: dict[str, Callable[..., Any]] = {
            "mul": lambda x, y: x * y,
            "matmul": jnp.matmul,
            "lt": jnp.less,
            "relu": lambda x, y: jnp.maximum(x, 0),
        }
        self._made: dict[tuple[str, int], tuple[Any, Any, Any]] = {}

    def _case(self, case: str, size: int) -> tuple[Any, Any, Any]:
        """(the program, each party's shares of the operands, what it computes)"""
        if (case, size) not in self._made:
            rng = self._np.random.default_rng(1)
            given = [rng.standard_normal((size, size) if case == "matmul" else size).astype(self._np.float32) for _ in range(2)]
            function, secret = self._cases[case], self._spu.Visibility.VIS_SECRET
            kind, names = self._frontend.Kind.JAX, ["x", "y"]
            program, _ = self._frontend.compile(kind, function, given, {}, names, [secret] * 2, lambda outs: ["z"])
            shares = [self._api.Io(PARTIES, self._config).make_shares(x, secret) for x in given]
            self._made[case, size] = program, shares, self._np.asarray(function(*given))
        return self._made[case, size]

    def time(self, case: str, size: int, repeats: int = 1) -> float:
        """Median of seconds of ``case`` (mul, matmul, lt, relu) on ``size`` elements, or matrices of that side."""
        program, shares, expected = self._case(case, size)
        ports = [_free_port() for _ in range(PARTIES)]
        spawn, parties = multiprocessing.get_context("spawn"), []
        for rank in range(PARTIES):
            here, there = spawn.Pipe()
            mine = {name: share[rank] for name, share in zip(program.input_names, shares, strict=True)}
            given = rank, ports, program.SerializeToString(), mine, repeats
            party = spawn.Process(target=_party, args=(there, *given), daemon=True)
            party.start()
            parties.append((party, here))
        taken, results = zip(*[here.recv() for _, here in parties], strict=True)
        for party, _ in parties:
            party.join()
        found = self._api.Io(PARTIES, self._config).reconstruct(list(results))
        assert abs(found.astype(float) - expected.astype(float)).max() < 1e-2, (case, size)
        return statistics.median(max(turn) for turn in zip(*taken, strict=True))


def _party(answers: Any, rank: int, ports: list[int], code: bytes, shares: dict[str, Any], repeats: int) -> None:
    """What one party does; it answers seconds of each run but the first, and its share of the result."""
    from spu import api, libspu

    program, parties = libspu.Executable(), libspu.link.Desc()
    program.ParseFromString(code)
    for i, port in enumerate(ports):
        parties.add_party(f"p{i}", f"127.0.0.1:{port}")
    runtime = api.Runtime(libspu.link.create_brpc(parties, rank), _config(libspu))
    for name, share in shares.items():
        runtime.set_var(name, share)
    seconds = []
    for _ in range(repeats + 1):
        began = time.perf_counter()
        runtime.run(program)
        seconds.append(time.perf_counter() - began)
    answers.send((seconds[1:], runtime.get_var(program.output_names[0])))


def _config(libspu: Any) -> Any:
    return libspu.RuntimeConfig(protocol=libspu.ProtocolKind.ABY3, field=libspu.FieldType.FM64)


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def start() -> tuple[str, dict[str, Command]]:
    """Find it. Raises ImportError if it is not there."""
    import spu

    return str(spu.__version__), {"time": _Aby3().time}


if __name__ == "__main__":
    serve(start)
