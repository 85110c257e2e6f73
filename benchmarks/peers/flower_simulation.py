"""Flower's simulation on Ray: clients that give back the weights that they got, and the same under SecAgg+.

A simulation runs in a thread of its own and waits there between rounds, so that a round can be measured beside one of ours. A client takes
one core, so that as many work at a time as there are cores, and clients' own evaluation is turned off. A SecAgg+ round is measured from
when its clients are chosen until their mean is there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from queue import Queue
from typing import Any

from _serve import Command, serve

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

Made = tuple[Any, Any, Any]
"""A client app, a server app's main, and what runs a round: given the grid and how many parameters, it gives the seconds."""


def start() -> tuple[str, dict[str, Command]]:
    """Flower's commands."""
    import flwr
    import ray  # noqa: F401  (what flwr[simulation] adds)

    logging.getLogger("flwr").setLevel(logging.ERROR)
    running: list[Simulation] = []

    def begin(clients: int, parameters: int, secure: bool = False) -> float:
        """Seconds until a simulation has done its first round; it goes on until `end`."""
        began = time.perf_counter()
        running.append(Simulation(clients, secure))
        running[-1].round(parameters)
        return time.perf_counter() - began

    def round(parameters: int) -> float:
        """Seconds of a round of the simulation that was begun last."""
        return running[-1].round(parameters)

    def end() -> float:
        """End it."""
        running.pop().end()
        return 0.0

    return flwr.__version__, {"begin": begin, "round": round, "end": end}


class Simulation:
    """``clients`` clients, which wait for rounds."""

    def __init__(self, clients: int, secure: bool) -> None:
        from flwr.simulation import run_simulation

        self._jobs: Queue[int | None] = Queue()
        self._told: Queue[float | BaseException] = Queue()
        client_app, server_app = (secure_apps if secure else plain_apps)(clients, self._jobs, self._told)
        quiet = {"logging_level": logging.ERROR, "log_to_driver": False}
        backend = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": quiet}

        def run() -> None:
            try:
                run_simulation(server_app, client_app, clients, backend_config=backend)  # type: ignore[arg-type]
            except BaseException as error:
                self._told.put(error)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def round(self, parameters: int) -> float:
        """Seconds of a round."""
        self._jobs.put(parameters)
        told = self._told.get()
        if isinstance(told, BaseException):
            raise told
        return told

    def end(self) -> None:
        """Wait until it has ended."""
        self._jobs.put(None)
        self._thread.join()


def plain_apps(clients: int, jobs: Queue[int | None], told: Queue[Any]) -> tuple[Any, Any]:
    """A federation by the current API."""
    import numpy
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg

    client, server = ClientApp(), ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        content = RecordDict({"arrays": message.content["arrays"], "metrics": MetricRecord({"num-examples": 2})})
        return Message(content=content, reply_to=message)

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        while (parameters := jobs.get()) is not None:
            strategy = FedAvg(fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients)
            given = ArrayRecord([numpy.ones(parameters, numpy.float32)])
            began = time.perf_counter()
            result = strategy.start(grid=grid, initial_arrays=given, num_rounds=1)
            seconds = time.perf_counter() - began
            (mean,) = result.arrays.to_numpy_ndarrays()
            told.put(seconds if abs(mean - 1).max() < 1e-3 else AssertionError("another mean"))

    return client, server


def secure_apps(clients: int, jobs: Queue[int | None], told: Queue[Any]) -> tuple[Any, Any]:
    """A federation under SecAgg+, which has the older API only."""
    import numpy
    from flwr.client import ClientApp, NumPyClient
    from flwr.client.mod import secaggplus_mod
    from flwr.common import Context, ndarrays_to_parameters, parameters_to_ndarrays
    from flwr.server import Grid, LegacyContext, ServerApp, ServerConfig
    from flwr.server.strategy import FedAvg
    from flwr.server.workflow import DefaultWorkflow, SecAggPlusWorkflow

    class Nothing(NumPyClient):
        def fit(self, parameters: Any, config: Any) -> Any:
            return parameters, 2, {}

    class Timed(FedAvg):
        began = seconds = 0.0
        mean: Any = None

        def configure_fit(self, *given: Any, **named: Any) -> Any:
            self.began = time.perf_counter()
            return super().configure_fit(*given, **named)

        def aggregate_fit(self, *given: Any, **named: Any) -> Any:
            result = super().aggregate_fit(*given, **named)
            self.seconds, self.mean = time.perf_counter() - self.began, result[0]
            return result

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        while (parameters := jobs.get()) is not None:
            given = ndarrays_to_parameters([numpy.ones(parameters, numpy.float32)])
            strategy = Timed(fraction_evaluate=0.0, min_fit_clients=clients, min_available_clients=clients, initial_parameters=given)
            legacy = LegacyContext(context=context, config=ServerConfig(num_rounds=1), strategy=strategy)
            DefaultWorkflow(fit_workflow=SecAggPlusWorkflow(num_shares=1.0, reconstruction_threshold=2 / 3))(grid, legacy)
            if strategy.mean is None:
                told.put(RuntimeError("SecAgg+ gave no mean"))
                continue
            (mean,) = parameters_to_ndarrays(strategy.mean)
            told.put(strategy.seconds if abs(mean - 1).max() < 1e-2 else AssertionError("another mean"))

    return ClientApp(client_fn=lambda context: Nothing().to_client(), mods=[secaggplus_mod]), server


if __name__ == "__main__":
    serve(start)
