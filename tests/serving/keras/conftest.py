"""Keras on torch, with warnings about itself put aside."""

import logging

import pytest

pytest.importorskip("keras", reason='pip install "syftlite[keras]"')
logging.getLogger("absl").setLevel(logging.ERROR)
