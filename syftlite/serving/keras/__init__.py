"""Keras models as graphs, read without Keras: `from_keras`."""

from syftlite.serving.keras.importer import from_keras as from_keras
