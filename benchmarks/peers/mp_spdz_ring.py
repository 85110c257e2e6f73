"""MP-SPDZ: three processes of its replicated ring (64 bits, semi-honest), where `MP_SPDZ_HOME` names a directory in which
`replicated-ring-party.x` has been built.

Measured the fastest way found: compiled with `-O` (whole vectors in a round), with local share conversion (`-Z 3`), probabilistic
truncation, and batches of the vector's size; the first run, which warms up, does not count. Its numbers have 31 bits, of ours 64 are
compared. Its links are TLS, whose keys are made in a directory of this run's own. Its parties listen while they run, a few seconds.
"""

from __future__ import annotations

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from _serve import Command, serve

PARTIES = 3
PROGRAM = """
program.use_trunc_pr = True
size, case, repeats = int(program.args[1]), program.args[2], int(program.args[3])
x, y, z = sfix.Array(size), sfix.Array(size), sfix.Array(size)
x.assign_all(-1.5)
y.assign_all(2.25)
a, b = x.get_vector(), y.get_vector()
for turn in range(1, repeats + 2):
    break_point()
    start_timer(turn)
    z.assign_vector(a * b if case == "mul" else (a > 0).if_else(a, sfix(0)) if turn % 2 else (b > 0).if_else(b, sfix(0)))
    break_point()
    stop_timer(turn)
print_ln("result %s", z[0].reveal())
"""
MATRICES = """
program.use_trunc_pr = True
size, repeats = int(program.args[1]), int(program.args[3])
x, y, z = sfix.Matrix(size, size), sfix.Matrix(size, size), sfix.Matrix(size, size)
x.assign_all(-1.5)
y.assign_all(2.25 / size)
for turn in range(1, repeats + 2):
    break_point()
    start_timer(turn)
    z.assign(x * y)
    break_point()
    stop_timer(turn)
print_ln("result %s", z[0][0].reveal())
"""


class _Ring:
    """Programs compiled and run in a directory of their own."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._directory = tempfile.TemporaryDirectory()
        self._work = Path(self._directory.name)
        (self._work / "Programs" / "Source").mkdir(parents=True)
        (self._work / "Programs" / "Source" / "ring.mpc").write_text(PROGRAM)
        (self._work / "Programs" / "Source" / "matrices.mpc").write_text(MATRICES)
        self._do("bash", str(home / "Scripts" / "setup-ssl.sh"), str(PARTIES))
        self._compiled: set[str] = set()

    def _do(self, *command: str) -> None:
        done = subprocess.run(command, cwd=self._work, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{command[0]} {command[1]} ended with {done.returncode}: {done.stderr[-300:]}")

    def time(self, case: str, size: int, repeats: int = 1) -> float:
        """Median of seconds of ``case`` (mul, relu) on ``size`` elements, or of the product of two matrices of that side (matmul)."""
        source = "matrices" if case == "matmul" else "ring"
        program = f"{source}-{size}-{case}-{repeats}"
        if program not in self._compiled:
            arguments = ("-O", "-R", "64", "-Z", "3", source, str(size), case, str(repeats))
            self._do(sys.executable, str(self._home / "compile.py"), *arguments)
            self._compiled.add(program)
        said = self._run(program, size)
        expected = 0 if case == "relu" and repeats % 2 == 0 else 2.25 if case == "relu" else -3.375
        (result,) = re.findall(r"^result (\S+)", said, re.MULTILINE)
        assert abs(float(result) - expected) < (size * 1e-4 if case == "matmul" else 1e-3), (result, expected)
        taken = {int(turn): float(seconds) for turn, seconds in re.findall(r"^Time(\d+) = (\S+) seconds", said, re.MULTILINE)}
        return statistics.median(taken[turn] for turn in range(2, repeats + 2))

    def _run(self, program: str, size: int) -> str:
        """What the first party prints."""
        with tempfile.TemporaryFile("w+") as said, ExitStack() as started:
            port = _free_ports(PARTIES)
            parties = []
            for party in range(PARTIES):
                command = [str(self._home / "replicated-ring-party.x"), "-p", str(party), "-pn", str(port), "-h", "localhost"]
                output = said if party == 0 else subprocess.DEVNULL
                command += ["-b", str(size), program]
                parties.append(subprocess.Popen(command, cwd=self._work, stdout=output, stderr=subprocess.STDOUT, text=True))
                started.callback(parties[-1].kill)
            while None in (codes := [party.poll() for party in parties]) and not any(codes):
                time.sleep(0.05)
            said.seek(0)
            if any(codes):  # those that are left wait for who has gone
                raise RuntimeError(f"MP-SPDZ's parties ended with {codes}: {said.read()}")
            return said.read()


def _free_ports(count: int) -> int:
    """The first of ``count`` free ports in a row, one for each party."""
    while True:
        with ExitStack() as bound, suppress(OSError, OverflowError):
            first = 0
            for place in range(count):
                taken = bound.enter_context(socket.socket())
                taken.bind(("127.0.0.1", first + place if first else 0))
                first = first or taken.getsockname()[1]
            return first


def start() -> tuple[str, dict[str, Command]]:
    """Find it. Raises ImportError if it is not there."""
    home = Path(os.environ.get("MP_SPDZ_HOME", ""))
    if not (home / "replicated-ring-party.x").is_file():
        raise ImportError("MP-SPDZ (MP_SPDZ_HOME)", name="MP-SPDZ (MP_SPDZ_HOME)")
    found = re.search(r"^## (\S+)", (home / "CHANGELOG.md").read_text(), re.MULTILINE)
    return found[1] if found else "unknown", {"time": _Ring(home).time}


if __name__ == "__main__":
    serve(start)
