"""Trains a model on what data owners hold, by rounds in which nobody, this program included, sees one owner's weights.

    python workers/aggregator.py [study.toml]         settings from aggregator.toml beside this file, or from another one

The owners' nodes add up masked weights (docs/federated.md): where their data is PRIVATE, each names the others' keys in its own settings.
An owner that is away is left out. Killed at any time, the program goes on from its checkpoint when it is started again. Change `network`.
"""

import sys
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import syftlite as sy
from syftlite.federated import Federation
from syftlite.storage.node_config import toml_reader


def network(settings: dict) -> nn.Module:
    """The model, here of dense layers: `layers` has their widths."""
    parts = [part for pair in pairwise(settings["layers"]) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def owners(settings: dict) -> list:
    """The owners that answer; whoever does not is named."""
    found = []
    for uri in settings["owners"]:
        try:
            found.append(sy.connect(uri, token=settings.get("token"), ca=settings.get("ca")))
        except sy.errors.ConnectionLostError as error:
            print(f"without {uri}: {error}", flush=True)
    return found


def main() -> None:
    """Do the rounds that are missing, and write the model."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".toml")
    try:
        settings = toml_reader().loads(path.read_text())
        options = {key: settings[key] for key in ("epochs", "batch_size", "minimum", "deadline", "aggregation") if key in settings}
        rate, file = settings.get("rate", 0.1), path.parent / settings["model"]
        federation = Federation(
            owners(settings), lambda: network(settings), data=tuple(settings["data"]), checkpoint=file,
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=rate), **{"aggregation": "secure", **options},
        )  # fmt: skip
        federation.resume()
        while len(federation.history) < settings["rounds"]:
            print(federation.fit(1, progress=False)[-1], flush=True)
    except (KeyError, OSError, sy.errors.SyftliteError) as error:
        print(f"Error: {path.name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{len(federation.history)} rounds are done: {file}", flush=True)


if __name__ == "__main__":
    main()
