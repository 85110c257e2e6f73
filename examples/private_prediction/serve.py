"""Private prediction, 2 of 3: the model's owner shares its network among three workers, and lets them answer.

    python examples/private_prediction/serve.py                    then, in another terminal: client.py

The workers are processes at localhost:4000, :4001 and :4002, which start here and end here. Two hold shares of the weights, and see neither
the weights nor what clients ask or get; the third deals correlated randomness, and sees shapes alone. For workers of other people, on other
machines: auto_managed=False, and their addresses.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path.append(str(Path(__file__).parents[1]))

import data
import keras
import torch
from keras.layers import Activation, AveragePooling2D, Conv2D, Dense, Flatten

import syftlite as sy

WEIGHTS = data.folder("mnist").parent / "short-conv-mnist.weights.h5"


def network() -> keras.Sequential:
    """The network of create_model.py, as it is served: one picture at a time."""
    return keras.Sequential(
        [
            Conv2D(16, 3, batch_input_shape=(1, 28, 28, 1)),
            AveragePooling2D(2),
            Activation("relu"),
            Conv2D(32, 3),
            AveragePooling2D(2),
            Activation("relu"),
            Conv2D(64, 3),
            AveragePooling2D(2),
            Activation("relu"),
            Flatten(),
            Dense(10, name="logit"),
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve, and return how many requests were answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="what create_model.py kept")
    parser.add_argument("--ports", type=int, nargs=3, default=[4000, 4001, 4002], help="of the workers")
    parser.add_argument("--requests", type=int, default=3, help="how many to answer; 0: until Ctrl-C")
    parser.add_argument("--unmanaged", action="store_true", help="say how to start the workers, instead of starting them")
    chosen = parser.parse_args(arguments)
    if not chosen.weights.exists():
        parser.exit(1, f"error: {chosen.weights} does not exist: run create_model.py first\n")

    hook = sy.KerasHook(keras)  # noqa: F841  (from here on, models can be shared)
    model = network()
    model.load_weights(chosen.weights)

    julia, greg, me = (sy.TFEWorker(host=f"localhost:{port}", auto_managed=not chosen.unmanaged) for port in chosen.ports)
    cluster = sy.TFECluster(julia, greg, me)
    cluster.start()
    try:
        model.share(cluster)
        print(f"shared: {cluster}", flush=True)
        return model.serve(num_requests=chosen.requests or None)
    finally:
        model.shutdown_workers()
        cluster.stop()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
