"""KerasHook: Keras models that are shared, served and queried, under the names that users of Syft Keras know.

    hook = sy.KerasHook(keras)                              Keras 3 on any backend, or tf.keras
    model = keras.Sequential([... batch_input_shape=(1, 28, 28, 1) ...]); model.load_weights("mnist.weights.h5")
    model.share(cluster)                                    its weights, in shares, to the workers of a `TFECluster`
    model.serve(num_requests=3)                             answers so many queries of clients, telling a line of each
    model.stop(); model.shutdown_workers()

The hook adds these methods to Keras' model class, and gives layers back the argument ``batch_input_shape``, which Keras 3 dropped. It
changes nothing else, and may be made any number of times.
"""

from __future__ import annotations

import functools
import importlib
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import torch

from syftlite.errors import ConfigurationError, DependencyError, Misuse
from syftlite.hooks.tfe import TFECluster, TFEWorker
from syftlite.remote import methods, registry
from syftlite.remote.group import Group
from syftlite.remote.virtual import LocalWorker
from syftlite.serving.graph import Graph
from syftlite.serving.keras.importer import as_array, from_keras
from syftlite.serving.model import SCHEME, ServedModel

INSTALL = 'pip install "syftlite[keras]" installs Keras 3; it runs on torch with KERAS_BACKEND=torch in the environment'


class KerasHook:
    """Adds ``share``, ``serve``, ``stop`` and ``shutdown_workers`` to the models of ``keras``: the package, or TensorFlow's `tf.keras`.

    Raises `DependencyError`, which says what to install, if none is given and none is installed.
    """

    def __init__(self, keras: Any = None, local_worker: LocalWorker | None = None) -> None:
        if keras is None:
            try:
                keras = importlib.import_module("keras")
            except ImportError as error:
                raise DependencyError(f"Keras is not here ({error}): {INSTALL}") from None
        model = getattr(getattr(keras, "models", None), "Model", None)
        layer = getattr(getattr(keras, "layers", None), "Layer", None)
        if not isinstance(model, type) or not isinstance(layer, type):
            raise ConfigurationError(f"KerasHook(keras) takes the package keras, or tf.keras, not {keras!r}: {INSTALL}")
        methods.install()
        for method in (share, serve, stop, shutdown_workers):
            setattr(model, method.__name__, method)
        _accept_batch_input_shape(layer, keras)
        self.keras = keras

    @property
    def local_worker(self) -> LocalWorker:
        """The worker of this process, "me"."""
        return registry.local_worker()


def _accept_batch_input_shape(layer: Any, keras: Any) -> None:
    """Let layers take ``batch_input_shape=(batch, ...)`` as ``input_shape=(...)``, where they do not take it themselves."""
    try:
        keras.layers.ReLU(batch_input_shape=(1, 1))
        return
    except (TypeError, ValueError):
        pass
    original: Callable[..., None] = layer.__init__

    @functools.wraps(original)
    def init(self: Any, *, batch_input_shape: Any = None, **options: Any) -> None:
        if batch_input_shape is None:
            return original(self, **options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Do not pass an `input_shape`")
            return original(self, input_shape=tuple(batch_input_shape)[1:], **options)

    layer.__init__ = init


class _Shared:
    """What a model that was shared has: where, and (of `TFEWorker`s) in which cluster."""

    def __init__(self, served: ServedModel, cluster: TFECluster | None) -> None:
        self.served, self.cluster = served, cluster


_SHARED: weakref.WeakKeyDictionary[Any, _Shared] = weakref.WeakKeyDictionary()


def share(
    model: Any, *workers: Any, name: str = "model", output: str = "scores", batch: int = 16, clients: Sequence[str] | None = None
) -> Any:
    """Share the weights among ``workers``: a `TFECluster`, or three workers or more, of which the last deals. They are started if they were
    not. Returns the model, which stays as it is here.

    ``name``: what clients call it. ``output``: "scores", or "label" for the place of the greatest alone. ``batch``: rows that the workers
    run together at most. ``clients``: names of those who may query, as the workers know them; None: whoever may connect to them. Raises
    `UnsupportedLayerError`, which names layer and argument, for what has no form on shares.
    """
    graph = checked(model)
    cluster, places = _places(workers)
    *holders, provider = places
    served = ServedModel(graph, Group.of(tuple(holders), provider), name, output, batch, SCHEME, clients)
    if model in _SHARED:
        _SHARED[model].served.stop()
    _SHARED[model] = _Shared(served.share(), cluster)
    return model


def serve(model: Any, num_requests: int | None = None, say: Callable[[str], None] = print, wait: bool = True) -> int | ServedModel:
    """Answer ``num_requests`` queries of clients, None for until it is interrupted, and ``say`` a line for each. Returns how many it were.

    A query of more rows than run together counts as several. May be called again. Raises `SharingAbortedError` that names a worker which
    went away.

    Not to ``wait``: returns what is served as soon as clients may query, and its ``wait(say)`` does the rest."""
    served = _shared(model).served.serve(num_requests)
    if not wait:
        return served
    try:
        return served.wait(say)
    except KeyboardInterrupt:
        served.pause()
        say("interrupted: no more queries are taken")
        return served.served


def stop(model: Any) -> None:
    """End the serving: the workers forget the model, and go on."""
    _shared(model).served.stop()


def shutdown_workers(model: Any, say: Callable[[str], None] = print) -> None:
    """End the serving, and the workers that were started here; ``say`` how those end that were started elsewhere."""
    shared = _SHARED.pop(model, None)
    if shared is not None:
        shared.served.stop()
        if shared.cluster is not None:
            shared.cluster.stop(say)


def _shared(model: Any) -> _Shared:
    if model not in _SHARED:
        raise Misuse(f"the model {model.name!r} is not shared: model.share(cluster) first")
    return _SHARED[model]


def _places(workers: tuple[Any, ...]) -> tuple[TFECluster | None, tuple[Any, ...]]:
    """Where a model goes to, holders first, then the provider."""
    if len(workers) == 1 and isinstance(workers[0], TFECluster):
        return workers[0], workers[0].nodes
    if workers and all(isinstance(worker, TFEWorker) for worker in workers):
        cluster = TFECluster(*workers)
        return cluster, cluster.nodes
    if len(workers) < 3:
        raise ConfigurationError(
            f"a model is shared between two workers, and a third deals for them: name three or more, not {len(workers)}"
        )
    return None, workers


def checked(model: Any) -> Graph:
    """The graph of a Keras model, which gives what the model gives."""
    graph = from_keras(model)
    inputs = [x.numpy() for x in graph.example()]

    def original(*_: Any) -> Any:
        return as_array(model(inputs[0] if len(inputs) == 1 else inputs, training=False))

    graph.must_agree(original, *map(torch.from_numpy, inputs))
    return graph
