"""Keras, where it is installed, on torch."""

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
