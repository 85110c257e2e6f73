"""A provider's node: deals the correlated randomness with which others compute on shared values, and sees shapes alone.

    python workers/crypto_provider.py                      settings from crypto_provider.toml beside this file
    python workers/crypto_provider.py university.toml      from another one

    provider = sy.connect("wss://university.example:8778", token=...)
    x.fix_precision().share(alice, bob, crypto_provider=provider)

It needs no data and gets no values: what it deals depends on nobody's secrets. Whoever runs it must not work together with a holder of
shares, for the two could read the values: run it where none of the holders has a say. It is a node like any other and refuses nothing else.
"""

import sys
from pathlib import Path

import syftlite as sy

SETTINGS = Path(__file__).with_suffix(".toml")


def main() -> None:
    """Serve until Ctrl-C or SIGTERM."""
    try:
        node = sy.WebsocketServerWorker.from_config(sys.argv[1] if len(sys.argv) > 1 else SETTINGS)
        node.start(wait=False)
    except sy.errors.ConfigurationError as error:
        print(f"Error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    node.wait(ready=lambda: print(f"{node.id} provides at {node.uri}\nstop: Ctrl-C", flush=True))


if __name__ == "__main__":
    main()
