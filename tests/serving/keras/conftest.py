"""Keras on torch, with warnings about itself put aside."""

import logging
import os

import pytest

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("keras", reason='pip install "syftlite[keras]"')
QUIET = ["ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning", "ignore:Do not pass an `input_shape`"]


def pytest_collection_modifyitems(items):
    for item in items:
        for text in QUIET:
            item.add_marker(pytest.mark.filterwarnings(text))


logging.getLogger("absl").setLevel(logging.ERROR)
