"""A data owner's node: serves its data to whom it gave a token, runs their PyTorch programs on it, and lets nothing made of PRIVATE
data leave before the owner has said `syftlite approve ID`.

    python workers/data_owner.py                      settings from data_owner.toml beside this file
    python workers/data_owner.py hospital.toml        from another one

`syftlite worker start --config hospital.toml` does the same. Start from this file when data comes from elsewhere than files: see `load`.
"""

import sys
from pathlib import Path

import syftlite as sy

SETTINGS = Path(__file__).with_suffix(".toml")


def load(node: sy.WebsocketServerWorker) -> None:
    """Offer what the settings do not list: from a database, a sensor, a simulation. For example

    rows = torch.tensor(database.execute("select age, dose, outcome from patients").fetchall())
    node.load(rows, "#patients", name="patients", description="columns: age, dose, outcome", private=True)
    """


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    try:
        node = sy.WebsocketServerWorker.from_config(sys.argv[1] if len(sys.argv) > 1 else SETTINGS)
        load(node)
        node.start(wait=False)
    except sy.errors.ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    node.wait(ready=lambda: report(node))


def report(node: sy.WebsocketServerWorker) -> None:
    """Print where the node listens and what it serves."""
    print(f"{node.id} listens on {node.uri} and serves")
    for item in node.listing():
        print(f"  {' '.join(item.tags)}: {list(item.shape)} {item.dtype}{', PRIVATE' if item.private else ''}")
    print("stop: Ctrl-C", flush=True)


if __name__ == "__main__":
    main()
