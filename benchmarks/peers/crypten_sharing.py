"""CrypTen: its parties, each a process with one torch thread, over gloo on loopback; what both inputs and weights encrypted cost.

    provider "TFP"    two processes; the first makes every correlation itself, in the clear (CrypTen's default)
    provider "TTP"    three: the correlations come from a third party

A network is an ordinary torch module that goes through CrypTen's own `from_pytorch` and `encrypt`. Two spots of that converter meet a
newer torch and are adjusted here: an import whose name is never used, and the exporter, which now wants to be told `dynamo=False`.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import multiprocessing
import os
import socket
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from _serve import Command, serve

TOLERANCE = 0.05
WRONG = 0.01
"""CrypTen decodes some values off by one, so of its results this part may be wrong."""
HOLDERS = 2
MODULE_GONE = "torch.onnx._internal.registration"


# -- a party


def _import() -> Any:
    """CrypTen, on a newer torch."""
    warnings.simplefilter("ignore")
    import torch

    if importlib.util.find_spec(MODULE_GONE) is None:
        stand_in = types.ModuleType(MODULE_GONE)
        stand_in.registry = None  # type: ignore[attr-defined]
        sys.modules[MODULE_GONE] = stand_in
    export = torch.onnx.export

    @functools.wraps(export)
    def exported(model: Any, inputs: Any, file: Any, **settings: Any) -> Any:
        settings.pop("operator_export_type", None)
        return export(model, (inputs,), file, dynamo=False, **settings)

    torch.onnx.export = exported  # type: ignore[assignment]
    import crypten

    return crypten


def _networks() -> dict[str, Callable[[], Any]]:
    from torch.nn import AvgPool2d, Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential

    def lenet() -> Any:
        first = (Conv2d(1, 16, 5), ReLU(), MaxPool2d(2), Conv2d(16, 16, 5), ReLU(), MaxPool2d(2))
        return Sequential(*first, Flatten(), Linear(256, 100), ReLU(), Linear(100, 10))

    def cnn() -> Any:
        blocks = [m for i, o in ((1, 16), (16, 32), (32, 64)) for m in (Conv2d(i, o, 3, padding=1), AvgPool2d(2), ReLU())]
        return Sequential(*blocks, Flatten(), Linear(576, 10))

    def mlp() -> Any:
        return Sequential(Flatten(), Linear(784, 128), ReLU(), Linear(128, 128), ReLU(), Linear(128, 10))

    def digits() -> Any:
        blocks = [m for i, o in ((1, 16), (16, 32), (32, 64)) for m in (Conv2d(i, o, 3), AvgPool2d(2), ReLU())]
        return Sequential(*blocks, Flatten(), Linear(64, 10))

    def network_b() -> Any:
        first = (Conv2d(1, 16, 5), MaxPool2d(2), ReLU(), Conv2d(16, 16, 5), MaxPool2d(2), ReLU())
        return Sequential(*first, Flatten(), Linear(256, 100), ReLU(), Linear(100, 10))

    def network_c() -> Any:
        first = (Conv2d(1, 20, 5), MaxPool2d(2), ReLU(), Conv2d(20, 50, 5), MaxPool2d(2), ReLU())
        return Sequential(*first, Flatten(), Linear(800, 500), ReLU(), Linear(500, 10))

    def network_d() -> Any:
        return Sequential(Conv2d(1, 5, 5, stride=2, padding=2), ReLU(), Flatten(), Linear(980, 100), ReLU(), Linear(100, 10))

    made = {"lenet": lenet, "cnn": cnn, "mlp": mlp, "digits": digits}
    return {**made, "net b": network_b, "net c": network_c, "net d": network_d}


class _Party:
    """One holder. The cases are kept, so that a second turn pays nothing that the first has paid."""

    def __init__(self, rank: int, crypten: Any) -> None:
        self.rank, self.crypten = rank, crypten
        self._cases: dict[tuple[str, int], tuple[Callable[[], Any], Any]] = {}

    def _case(self, name: str, size: int) -> tuple[Callable[[], Any], Any]:
        """(what is timed, what it should give)."""
        import torch

        torch.manual_seed(1)  # the parties agree on shapes; the values are the first one's
        encrypt = functools.partial(self.crypten.cryptensor, src=0)
        if name.startswith("train"):
            return self._step(name, size, encrypt)
        networks = _networks()
        if name in networks:
            plain, image = networks[name]().eval(), torch.rand(size, 1, 28, 28)
            model = self.crypten.nn.from_pytorch(plain, torch.rand(1, 1, 28, 28)).eval()
            model.encrypt(src=0)
            x = encrypt(image)
            return (lambda: model(x)), plain(image).detach()
        shape = (size, size) if name == "matmul" else (size,)
        left, right = torch.randn(shape), torch.randn(shape)
        x, y = encrypt(left), encrypt(right)
        above, rows = torch.rand(size) * 4 + 0.25, torch.randn(size // 10, 10) if name == "softmax" else left
        if name in ("exp", "reciprocal", "sigmoid", "softmax"):
            left = left.clamp(-1, 1)  # its e^x is off by x^2 / 512 of itself, which may not be more than the tolerance
            z = encrypt({"reciprocal": above, "softmax": rows}.get(name, left))
            functions: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
                "exp": (lambda: z.exp(), lambda: left.exp()),
                "reciprocal": (lambda: z.reciprocal(), lambda: above.reciprocal()),
                "sigmoid": (lambda: z.sigmoid(), lambda: left.sigmoid()),
                "softmax": (lambda: z.softmax(1), lambda: rows.softmax(1)),
            }
            return functions[name][0], functions[name][1]()
        elementwise: dict[str, tuple[Callable[[], Any], Any]] = {
            "mul": (lambda: x * y, left * right),
            "matmul": (lambda: x @ y, left @ right),
            "lt": (lambda: x < y, (left < right).float()),
            "relu": (lambda: x.relu(), left.relu()),
        }
        return elementwise[name]

    def _step(self, name: str, size: int, encrypt: Any) -> tuple[Callable[[], Any], Any]:
        """A training step of the dense network, by squared errors or cross entropy; what it should give is the first loss."""
        import torch

        plain, images = _networks()["mlp"](), torch.rand(size, 1, 28, 28)
        targets = torch.nn.functional.one_hot(torch.arange(size) % 10, 10).float()
        squares = name == "train mse"
        loss = (self.crypten.nn.MSELoss if squares else self.crypten.nn.CrossEntropyLoss)()
        model = self.crypten.nn.from_pytorch(plain, images[:1])
        model.encrypt(src=0)
        model.train()
        x, y = encrypt(images), encrypt(targets)
        out = plain(images).detach()
        expected = (torch.nn.functional.mse_loss if squares else torch.nn.functional.cross_entropy)(out, targets)

        def step() -> Any:
            with self.crypten.enable_grad():
                model.zero_grad()
                value = loss(model(x), y)
                value.backward()
                model.update_parameters(1e-6)  # so small that every step's loss is the first's
            return value

        return step, expected

    def _prepared(self, name: str, size: int) -> Callable[[], Any]:
        """The case, warmed up and seen to be right."""
        found = self._cases.get((name, size))
        if found is None:
            self._cases.clear()
            found = self._cases[name, size] = self._case(name, size)
            got = found[0]().get_plain_text()
            wrong = float(((got - found[1]).abs() > TOLERANCE).float().mean())
            if wrong > WRONG:
                raise RuntimeError(f"{name} {size}: {wrong:.1%} of CrypTen's results are wrong")
        return found[0]

    def time(self, case: str, size: int, repeats: int) -> float:
        """Median of seconds, from a barrier to a barrier."""
        run, barrier = self._prepared(case, size), self.crypten.comm.get().barrier
        taken = []
        for _ in range(repeats):
            barrier()
            began = time.perf_counter()
            run()
            barrier()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    def count(self, case: str, size: int, what: str) -> float:
        """Of one run, as CrypTen counts: "rounds", or "bytes" that a party sends and receives."""
        run, communicator = self._prepared(case, size), self.crypten.comm.get()
        with self.crypten.cfg.temp_override({"communicator.verbose": True}):
            communicator.reset_communication_stats()
            run()
            return float(communicator.get_communication_stats()[what])


def _join(rank: int, provider: str, port: int) -> Any:
    os.environ.update(RENDEZVOUS=f"tcp://127.0.0.1:{port}", WORLD_SIZE=str(HOLDERS), RANK=str(rank), DISTRIBUTED_BACKEND="gloo")
    os.environ.update(GLOO_SOCKET_IFNAME="lo", OMP_NUM_THREADS="1")
    crypten = _import()
    import torch

    torch.set_num_threads(1)
    crypten.cfg.mpc.provider = provider
    return crypten


def _hold(rank: int, provider: str, port: int, pipe: Connection) -> None:
    """A holder's process: answers until the pipe closes."""
    crypten = _join(rank, provider, port)
    crypten.init()
    party = _Party(rank, crypten)
    with crypten.no_grad():
        while True:
            try:
                method, arguments = pipe.recv()
            except EOFError:
                os._exit(0)
            try:
                pipe.send(getattr(party, method)(**arguments))
            except Exception as error:
                pipe.send(f"{type(error).__name__}: {error}")
                raise


def _provide(port: int) -> None:
    """The third party's process."""
    crypten = _join(HOLDERS, "TTP", port)
    crypten.mpc.provider.TTPServer()


# -- the program


class _Parties:
    """The processes of one provider."""

    def __init__(self, provider: str) -> None:
        context = multiprocessing.get_context("spawn")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._pipes = []
        if provider == "TTP":
            context.Process(target=_provide, args=(port,), daemon=True).start()
        for rank in range(HOLDERS):
            ours, theirs = context.Pipe()
            context.Process(target=_hold, args=(rank, provider, port, theirs), daemon=True).start()
            theirs.close()
            self._pipes.append(ours)

    def ask(self, method: str, **arguments: Any) -> float:
        """What the first party answers to what all are asked."""
        for pipe in self._pipes:
            pipe.send((method, arguments))
        answers = [pipe.recv() for pipe in self._pipes]
        for answer in answers:
            if isinstance(answer, str):
                raise RuntimeError(answer)
        return float(answers[0])


def start() -> tuple[str, dict[str, Command]]:
    """See that CrypTen is there; its processes start with the first request for their provider."""
    _import()
    providers: dict[str, _Parties] = {}

    def parties(provider: str) -> _Parties:
        if provider not in providers:
            providers[provider] = _Parties(provider)
        return providers[provider]

    def timed(case: str, size: int, repeats: int = 1, provider: str = "TFP") -> float:
        """Median of seconds of ``case`` (elementwise and functions, matmul, networks, "train mse", "train ce") of that size or batch."""
        return parties(provider).ask("time", case=case, size=size, repeats=repeats)

    def count(case: str, size: int, what: str) -> float:
        """Its "rounds", or the "bytes" that a party sends and receives."""
        return parties("TFP").ask("count", case=case, size=size, what=what)

    return importlib.metadata.version("crypten"), {"time": timed, "count": count}


if __name__ == "__main__":
    serve(start)
