"""Trains a model on what data owners hold, by rounds in which nobody, this program included, sees one owner's weights.

    python workers/aggregator.py [study.toml]         settings from aggregator.toml beside this file, or from another one

The owners' nodes add up masked weights (docs/federated.md): where their data is PRIVATE, each names the others' keys in its own settings.
An owner that is away is left out until it is back; with too few it waits. Killed at any time, the program goes on from its checkpoint when
it is started again. Change `network`.
"""

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

import syftlite as sy
from syftlite.federated import Federation, Roster
from syftlite.storage.node_config import toml_reader


def network(settings: dict) -> nn.Module:
    """The model, here of dense layers: `layers` has their widths."""
    parts = [part for pair in pairwise(settings["layers"]) for part in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*parts[:-1])


def study(settings: dict, file: Path, owners: Sequence) -> Federation:
    """The training, by those owners, from where ``file`` ends."""
    options = {key: settings[key] for key in ("epochs", "batch_size", "minimum", "deadline", "aggregation") if key in settings}
    return Federation(
        owners, lambda: network(settings), data=tuple(settings["data"]), checkpoint=file,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=settings.get("rate", 0.1)), **{"aggregation": "secure", **options},
    ).resume()  # fmt: skip


def main() -> None:
    """Do the rounds that are missing, and write the model."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".toml")
    try:
        settings = toml_reader().loads(path.read_text())
        file = path.parent / settings["model"]
        roster = Roster(settings["owners"], settings["data"], lambda said: print(said, flush=True),
                        token=settings.get("token"), ca=settings.get("ca"))  # fmt: skip
        least = max(settings.get("minimum", 1), 1 if settings.get("aggregation") == "plain" else 2)
        waits = {key: settings[key] for key in ("patience", "pause") if key in settings}
        for result in roster.rounds(lambda owners: study(settings, file, owners), settings["rounds"], least=least, **waits):
            print(result, flush=True)
    except (KeyError, OSError, sy.errors.SyftliteError) as error:
        print(f"Error: {path.name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    print(f"{len(roster.federation.history)} rounds are done: {file}", flush=True)


if __name__ == "__main__":
    main()
