"""create_sandbox: a hook, six virtual workers and scikit-learn's datasets spread over them, for playing.

    bob, theo, jason, alice, andy, jon        workers; also as the list `workers`, and as `grid` to search them all
    #diabetes  #breast_cancer  #digits  #iris  #wine  #linnerud        each also with #data or #target
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from typing import Any

import torch

from syftlite.errors import DependencyError
from syftlite.federated.grid import PrivateGridNetwork
from syftlite.hooks.torch import TorchHook
from syftlite.remote.virtual import VirtualWorker
from syftlite.wire.fields import MAX_TEXT

WORKERS = ("bob", "theo", "jason", "alice", "andy", "jon")
DATASETS = {
    "diabetes": ("#diabetes",),
    "breast_cancer": ("#breast_cancer", "#breast_cancer_dataset"),
    "digits": ("#digits", "#digits_dataset"),
    "iris": ("#iris", "#iris_dataset"),
    "wine": ("#wine", "#wine_dataset"),
    "linnerud": ("#linnerud", "#linnerrud_dataset"),
}
"""scikit-learn's own, by the name of their loader, and their tags (with those of PySyft 0.2, misspelled as there)."""


def create_sandbox(gbs: MutableMapping[str, Any], verbose: bool = True, download_data: bool = True) -> None:
    """Fill ``gbs`` (pass ``globals()``) with ``hook``, the workers, ``workers`` and ``grid``. ``download_data``: load scikit-learn's
    datasets, which come with it, and give each worker a part of each. A worker that exists keeps what it has."""
    say = print if verbose else _silent
    sets = _scikit_learn() if download_data else None
    say("Setting up Sandbox...")
    say("\t- Hooking PyTorch")
    gbs["hook"] = hook = TorchHook(gbs.get("torch", gbs.get("th", torch)))
    say("\t- Creating Virtual Workers:")
    workers = []
    for name in WORKERS:
        say(f"\t\t- {name}")
        gbs[name] = VirtualWorker(hook, id=name)
        workers.append(gbs[name])
    gbs["workers"] = workers
    if sets is not None:
        say("\tLoading datasets from SciKit Learn and distributing them amongst workers...")
        for name, tags in DATASETS.items():
            say(f"\t\t- {name}")
            _spread(getattr(sets, f"load_{name}")(), tags, workers)
    gbs["grid"] = PrivateGridNetwork(*workers)
    say("Done!")


def make_hook(gbs: MutableMapping[str, Any]) -> None:
    """The sandbox without data, quietly."""
    create_sandbox(gbs, verbose=False, download_data=False)


def _silent(text: str) -> None:
    """Where the reports go that nobody asked for."""


def _scikit_learn() -> Any:
    try:
        import sklearn.datasets
    except ImportError:
        remedy = 'pip install "syftlite[demo]", or pass download_data=False'
        raise DependencyError(f"the sandbox's data come with scikit-learn: {remedy}") from None
    return sklearn.datasets


def _spread(bunch: Any, tags: Sequence[str], workers: Sequence[VirtualWorker]) -> None:
    """A part of the dataset ``bunch`` to each of ``workers``, for as long as they live."""
    title = next(line for line in bunch["DESCR"].splitlines() if line.strip() and not line.startswith("..")).lower().split()
    for key, role in (("data", "#data"), ("target", "#target")):
        whole = torch.as_tensor(bunch[key]).float()
        for part, worker in zip(whole.tensor_split(len(workers)), workers, strict=True):
            if not worker.search(tags[0], role):
                labelled = part.clone().tag(*tags, role, *title)  # type: ignore[attr-defined]
                worker.load_data([labelled.describe(bunch["DESCR"][:MAX_TEXT])])
