"""Private prediction, 1 of 3: a model's owner trains a network on MNIST with Keras, in the open, and keeps its weights.

    python examples/data.py mnist                                  once
    python examples/private_prediction/create_model.py             20,000 pictures, once each: a minute, 96% right

Then serve.py shares the network among three workers, and client.py asks it what it sees.
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

WEIGHTS = data.folder("mnist").parent / "short-conv-mnist.weights.h5"


def network() -> keras.Sequential:
    """Pictures (28, 28, 1) in, ten scores out."""
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            Conv2D(16, 3),
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


def main(arguments: Sequence[str] | None = None) -> float:
    """Train, save, and return the share of the test pictures that it gets right."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where to keep them")
    parser.add_argument("--first", type=int, default=20_000, metavar="N", help="learn from the first N pictures")
    parser.add_argument("--epochs", type=int, default=1)
    chosen = parser.parse_args(arguments)
    try:
        images = data.load("mnist").first(chosen.first)
    except data.DataError as error:
        parser.exit(1, f"error: {error}\n")
    keras.utils.set_random_seed(0)
    model = network()
    # the last layer gives scores, not probabilities: told otherwise, the loss stays where it begins, at one right of ten
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
    train, test = (pictures.movedim(1, -1).numpy() for pictures in (images.train, images.test))  # Keras: channels last
    model.fit(train, images.train_labels.numpy(), batch_size=64, epochs=chosen.epochs, verbose=2 if sys.stdout.isatty() else 0)
    _, right = model.evaluate(test, images.test_labels.numpy(), batch_size=500, verbose=0)
    chosen.weights.parent.mkdir(parents=True, exist_ok=True)
    model.save_weights(chosen.weights)
    print(f"{right:.1%} of {len(test):,} pictures right; the weights are in {chosen.weights}")
    return float(right)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
