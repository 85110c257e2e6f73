"""Private prediction, 3 of 3: a client asks what is on its pictures. Nobody else sees them, or the answers.

    python examples/private_prediction/client.py                   while serve.py runs: 7, 2, 1

It needs no Keras, and gets no model: it sends each of the two workers that hold one a share of each picture, and adds up their answers.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import data
import torch

import syftlite as sy


def main(arguments: Sequence[str] | None = None) -> list[int]:
    """Ask, and return what the network sees."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ports", type=int, nargs=3, default=[4000, 4001, 4002], help="of the workers, in serve.py's order")
    parser.add_argument("--first", type=int, default=3, metavar="N", help="ask for the first N test pictures")
    chosen = parser.parse_args(arguments)
    try:
        images = data.load("mnist").first(None, chosen.first)
    except data.DataError as error:
        parser.exit(1, f"error: {error}\n")

    cluster = sy.TFECluster(*(sy.TFEWorker(host=f"localhost:{port}") for port in chosen.ports))
    client = sy.TFEWorker()
    client.connect_to_model((1, 28, 28, 1), (1, 10), cluster)
    seen = []
    for picture, label in zip(images.test, images.test_labels, strict=True):
        scores = client.query_model(picture.view(1, 28, 28, 1).numpy())
        seen.append(int(scores.argmax()))
        print(f"it sees a {seen[-1]}; it is a {label}")
    return seen


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
