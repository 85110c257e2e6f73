"""A model's owner: shares the Keras model of a file among holders, serves it, and prints one line for each request.

    python workers/model_server.py                      settings from model_server.toml beside this file
    python workers/model_server.py digits.toml          from another one

Clients: sy.connect_to_model("wss://alice.example:8777", "wss://bob.example:8777", name="digits", token=...)

The holders run the model among themselves: this program may end, and they go on. The file (.keras, .h5, .hdf5) is read without Keras.
For a model of torch or scikit-learn write a program of a few lines (docs/serving.md): their own files are pickles, which are not read.
"""

import sys
from pathlib import Path

import syftlite as sy
from syftlite.storage.node_config import toml_reader

SETTINGS = Path(__file__).with_suffix(".toml")


def read(path: Path) -> sy.ServedModel:
    """The model that the settings describe, served."""
    settings = toml_reader().loads(path.read_text(encoding="utf-8"))
    model = path.parent / settings["model"]
    places = (*settings["holders"], settings["provider"])
    *holders, provider = (sy.connect(uri, token=settings.get("token"), ca=settings.get("ca")) for uri in places)
    options = {key: settings[key] for key in ("name", "output", "batch", "num_requests", "clients") if key in settings}
    return sy.serve(str(model), *holders, crypto_provider=provider, **options)


def main() -> None:
    """Serve until num_requests, Ctrl-C or SIGTERM."""
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else SETTINGS
    try:
        served = read(path)
        print(f"{served}\nstop: Ctrl-C", flush=True)
        served.wait(told=lambda line: print(line, flush=True))
    except (KeyError, OSError, sy.errors.SyftliteError) as error:
        print(f"Error: {path.name}: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("the holders go on serving", flush=True)


if __name__ == "__main__":
    main()
